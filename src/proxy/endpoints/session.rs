//! `GET /auth/session`: who is signed in, and for how long.

use http::header::SET_COOKIE;
use http::{Response, StatusCode};
use serde_json::json;

use super::user_json;
use crate::base::clock::Timestamp;
use crate::base::refusal::Failure;
use crate::proxy::exchange::Exchange;
use crate::proxy::respond::{self, Form};
use crate::session::Lookup;
use crate::wire::body::Body;

/// 200 with user and remaining seconds, or 401 with the reason. Asking does
/// not slide the idle timeout: a page that asks every minute would otherwise
/// never sign anybody out.
pub async fn show(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let session = match exchange.lookup(false).await? {
        Lookup::Live(session) => session,
        Lookup::Dead(reason) => {
            exchange.record.reason = Some(reason);
            let id = exchange.record.request_id.clone();
            return Ok(respond::refusal(&exchange.state, reason, Form::Json, &id));
        }
        Lookup::NotNeeded => {
            let cause = "the session was not looked up";
            return Err(Failure::new(
                crate::base::refusal::Refusal::InternalError,
                cause,
            ));
        }
    };
    let rules = &exchange.state.sessions;
    let settings = &rules.settings;
    let now = exchange.worker.sessions.now();
    // Sessions of an application may have no end but that of disuse, or none at all.
    let absolute = session.absolute_end(settings);
    let idle = session.idle_end(settings);
    let idle = idle.into_iter().chain(absolute).min();
    let left = |end: Option<Timestamp>| end.map(|end| end.since(now).as_secs());
    let mut response = respond::json(
        StatusCode::OK,
        &json!({
            "authenticated": true,
            "user": user_json(session.fields(), rules),
            "expires_in": left(absolute),
            "idle_expires_in": left(idle),
        }),
    );
    if let Some(cookie) = exchange.renewed_cookie(&session).await {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}
