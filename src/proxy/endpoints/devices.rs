//! `GET /auth/sessions`, the user's sessions, and ending them one by one:
//! `DELETE /auth/sessions/{handle}`, and for forms, which know no DELETE,
//! `POST /auth/sessions/{handle}/revoke` and `POST /auth/sessions/revoke-others`.
//!
//! A session is named by its handle, as in the log; it leads to no token.

use http::header::SET_COOKIE;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{agent, logout, user_json};
use crate::base::clock::Timestamp;
use crate::base::refusal::{Failure, Refusal};
use crate::login::page::{DeviceEntry, DevicesPage};
use crate::proxy::exchange::Exchange;
use crate::proxy::respond::{self, Form};
use crate::session::{Device, Lookup, Session};
use crate::wire::body::Body;
use crate::wire::negotiate;

/// The user's sessions, as JSON or as a page. Asking does not slide the idle
/// timeout, as with `GET /auth/session`.
pub async fn list(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let session = match asker(exchange).await? {
        Ok(session) => session,
        Err(reason) => {
            let headers = &exchange.head.headers;
            let page = Form::of(headers) == Form::Page;
            if page && exchange.state.login_page {
                let back = exchange.target.path_and_query();
                return Ok(respond::to_login(&exchange.state, back, reason));
            }
            return Ok(refuse(exchange, reason));
        }
    };
    let rules = &exchange.state.sessions;
    let sessions = &exchange.worker.sessions;
    let devices = sessions.devices(rules, session.owner()).await?;
    let mut response = if negotiate::prefers_html(&exchange.head.headers) {
        page(exchange, &session, &devices)
    } else {
        let listed: Vec<Value> = devices
            .iter()
            .map(|device| entry(exchange, &session, device))
            .collect();
        respond::json(StatusCode::OK, &json!({ "sessions": listed }))
    };
    if let Some(cookie) = exchange.renewed_cookie(&session).await {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Ends one of the user's own sessions. One of somebody else's is as unknown
/// as one that never was.
pub async fn revoke(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let session = match asker(exchange).await? {
        Ok(session) => session,
        Err(reason) => return Ok(refuse(exchange, reason)),
    };
    let path = exchange.target.path();
    let path = path.strip_suffix("/revoke").unwrap_or(path);
    let handle = path.rsplit('/').next().unwrap_or_default();
    let (sessions, rules) = (&exchange.worker.sessions, &exchange.state.sessions);
    if !sessions.revoke(rules, session.owner(), handle).await? {
        return Ok(refuse(exchange, Refusal::NoSuchSession));
    }
    Ok(done(exchange))
}

/// Ends all of the user's sessions but the one that asks.
pub async fn revoke_others(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let session = match asker(exchange).await? {
        Ok(session) => session,
        Err(reason) => return Ok(refuse(exchange, reason)),
    };
    let (sessions, rules) = (&exchange.worker.sessions, &exchange.state.sessions);
    sessions
        .revoke_others(rules, session.owner(), session.key())
        .await?;
    Ok(done(exchange))
}

/// The session that asks, or why there is none.
async fn asker(exchange: &mut Exchange) -> Result<Result<Session, Refusal>, Failure> {
    match exchange.lookup(false).await? {
        Lookup::Live(session) => Ok(Ok(session)),
        Lookup::Dead(reason) => Ok(Err(reason)),
        Lookup::NotNeeded => Err(Failure::new(
            Refusal::InternalError,
            "the session was not looked up",
        )),
    }
}

fn refuse(exchange: &mut Exchange, reason: Refusal) -> Response<Body> {
    exchange.record.reason = Some(reason);
    let form = match Form::of(&exchange.head.headers) {
        Form::Page => Form::Page,
        Form::Json | Form::Grpc => Form::Json,
    };
    respond::refusal(&exchange.state, reason, form, &exchange.record.request_id)
}

/// Back to the page for a form, 204 for a script. No cookie is cleared, even
/// where it is the asking session that was ended: only a logout does that.
fn done(exchange: &Exchange) -> Response<Body> {
    let posted = exchange.head.method == Method::POST;
    if posted && logout::is_form(&exchange.head.headers) {
        return respond::see_other(&format!("{}/sessions", exchange.state.endpoints));
    }
    respond::no_content()
}

fn entry(exchange: &Exchange, own: &Session, device: &Device) -> Value {
    let rules = &exchange.state.sessions;
    let now = exchange.worker.sessions.now();
    // Nobody knows when an application made its sessions, and they may have no end.
    let created = Some(device.head.created).filter(|created| *created > 0);
    let left = |end: Timestamp| (end != Timestamp(u64::MAX)).then(|| end.since(now).as_secs());
    json!({
        "handle": *device.handle,
        "current": *device.key == *own.key(),
        "created": created.map(|created| machine(Timestamp(created))),
        "last_seen": machine(device.seen),
        "address": device.head.address,
        "user_agent": device.head.user_agent,
        "expires_in": left(device.absolute_end(rules)),
        "idle_expires_in": left(device.idle_end(rules)),
    })
}

fn page(exchange: &Exchange, own: &Session, devices: &[Device]) -> Response<Body> {
    let now = exchange.worker.sessions.now();
    let both = |moment: Timestamp| (words(moment, now), machine(moment));
    let entries: Vec<DeviceEntry> = devices
        .iter()
        .map(|device| DeviceEntry {
            handle: device.handle.to_string(),
            name: agent::describe(&device.head.user_agent),
            user_agent: device.head.user_agent.clone(),
            address: device.head.address.clone(),
            created: both(Timestamp(device.head.created)),
            seen: both(device.seen),
            current: *device.key == *own.key(),
        })
        .collect();
    let user = user_json(own.fields(), &exchange.state.sessions);
    let name = ["email", "name", "id"].into_iter();
    let name = name.filter_map(|field| user.get(field)?.as_str()).next();
    let html = exchange.state.pages.devices(&DevicesPage {
        user: name.unwrap_or(own.user()),
        devices: &entries,
        prefix: &exchange.state.endpoints,
    });
    respond::page(&exchange.state, StatusCode::OK, html)
}

/// RFC 3339, to the second.
fn machine(moment: Timestamp) -> String {
    let seconds = i64::try_from(moment.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}

/// How long ago, as people say it. Where the reader's clock and time zone are
/// is not known here.
fn words(moment: Timestamp, now: Timestamp) -> String {
    let minutes = now.since(moment).as_secs() / 60;
    let (count, unit) = match minutes {
        0 => return "just now".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_as_people_say_them() {
        let now = Timestamp(1_800_000_000_000);
        let ago = |seconds: u64| words(Timestamp(now.0 - seconds * 1000), now);
        for (seconds, said) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (3599, "59 minutes ago"),
            (3600, "1 hour ago"),
            (86_399, "23 hours ago"),
            (86_400, "1 day ago"),
            (6 * 86_400, "6 days ago"),
        ] {
            assert_eq!(ago(seconds), said);
        }
        // Another replica's clock may be ahead.
        assert_eq!(words(Timestamp(now.0 + 5000), now), "just now");
        assert_eq!(machine(now), "2027-01-15T08:00:00Z");
        assert_eq!(machine(Timestamp(u64::MAX)), "");
    }
}
