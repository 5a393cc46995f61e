//! `GET /auth/login`, the page, and `POST /auth/login`, signing in.

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::user_json;
use crate::base::metrics::LoginResult;
use crate::base::refusal::{Failure, Refusal};
use crate::base::secret::Secret;
use crate::login::page::{LoginPage, MismatchPage};
use crate::login::return_to::return_to;
use crate::login::{CredentialVerifier, Credentials, LoginError, Outcome};
use crate::proxy::exchange::Exchange;
use crate::proxy::respond;
use crate::session::Lookup;
use crate::session::sessions::{Created, Origin};
use crate::wire::body::{Body, collect_limited};
use crate::wire::cookie;

/// The largest login request. Passwords are long at most, not large.
const BODY_BYTES: u64 = 64 * 1024;

/// After so many sign-ins without the cookie coming back, it is the
/// installation that is at fault, and one more try will not help.
const MAX_ROUNDS: u32 = 3;

/// What the client sent, and how it wants its answer.
struct Attempt {
    username: String,
    password: Secret,
    /// Where to afterwards, as asked for.
    rd: Option<String>,
    /// How often this browser came back without the cookie; `None` where the
    /// form is not our own page's.
    round: Option<u32>,
    /// A form gets a redirect or the page again, JSON gets JSON.
    is_form: bool,
}

#[derive(Deserialize)]
struct JsonAttempt {
    username: String,
    password: String,
}

/// The page, or the way back for those who are signed in.
pub async fn page(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let query = exchange.target.query().unwrap_or_default();
    let mut asked = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "rd" => asked.0 = Some(value.into_owned()),
            "round" => asked.1 = value.parse::<u32>().ok(),
            _ => {}
        }
    }
    let (rd, round) = (asked.0, asked.1.unwrap_or(0));
    match exchange.lookup(false).await {
        Ok(Lookup::Live(_)) => {
            return Ok(respond::see_other(&place_after(exchange, rd.as_deref())));
        }
        Ok(_) => {}
        // Signing in makes a new session, so a damaged one is no obstacle.
        Err(failure) if failure.refusal == Refusal::SessionUnreadable => {}
        Err(failure) => return Err(failure),
    }
    if round >= MAX_ROUNDS {
        exchange.record.reason = Some(Refusal::CookieNotKept);
        return Ok(mismatch(exchange, Refusal::CookieNotKept));
    }
    Ok(show_page(
        exchange,
        StatusCode::OK,
        rd.as_deref(),
        "",
        None,
        round,
    ))
}

/// Checks the credentials and creates the session.
pub async fn sign_in(exchange: &mut Exchange, body: Incoming) -> Result<Response<Body>, Failure> {
    let attempt = read(exchange, body).await?;
    if !cookie_would_be_kept(exchange) {
        exchange.record.reason = Some(Refusal::InsecureConnection);
        return Ok(if attempt.is_form {
            mismatch(exchange, Refusal::InsecureConnection)
        } else {
            mismatch_json(exchange)
        });
    }
    let metrics = exchange.worker.metrics.clone();
    match check(exchange, &attempt).await {
        Ok(Some(created)) => {
            metrics.login(LoginResult::Success);
            exchange.record.session = Some(created.handle.clone());
            succeed(exchange, &attempt, &created)
        }
        Ok(None) => {
            metrics.login(LoginResult::Rejected);
            exchange.record.reason = Some(Refusal::InvalidCredentials);
            reject(exchange, &attempt)
        }
        Err(failure) => {
            metrics.login(match failure.refusal {
                Refusal::LoginBusy => LoginResult::Busy,
                _ => LoginResult::Failed,
            });
            Err(failure)
        }
    }
}

/// `None`: the credentials are wrong.
async fn check(exchange: &mut Exchange, attempt: &Attempt) -> Result<Option<Created>, Failure> {
    let (worker, rules) = (&exchange.worker, &exchange.state.sessions);
    let began = worker.sessions.begin_login().await?;
    let credentials = Credentials {
        username: attempt.username.clone(),
        password: attempt.password.clone(),
    };
    let verified = worker.logins.verify(credentials, exchange.client.ip).await;
    let identity = match verified {
        Ok(Outcome::Accepted(identity)) => identity,
        Ok(Outcome::Rejected) => return Ok(None),
        Err(error @ LoginError::Busy) => return Err(Failure::new(Refusal::LoginBusy, error)),
        Err(error) => return Err(Failure::new(Refusal::LoginUnavailable, error)),
    };
    exchange.record.user = Some(identity.user.clone());
    let origin = Origin {
        address: exchange.client.ip.to_string(),
        user_agent: text(&exchange.head.headers, USER_AGENT.as_str()),
        secure: exchange.is_secure(),
    };
    let headers = &exchange.head.headers;
    worker
        .sessions
        .create(rules, began, identity, origin, headers)
        .await
        .map(Some)
}

fn succeed(
    exchange: &Exchange,
    attempt: &Attempt,
    created: &Created,
) -> Result<Response<Body>, Failure> {
    let rules = &exchange.state.sessions;
    let mut response = if attempt.is_form {
        let place = place_after(exchange, attempt.rd.as_deref());
        match attempt.round {
            // By way of the login page, which sees whether the cookie came
            // back before it sends the browser on.
            Some(round) => {
                let back: String = form_urlencoded::byte_serialize(place.as_bytes()).collect();
                let round = round.saturating_add(1);
                let prefix = &exchange.state.endpoints;
                respond::see_other(&format!("{prefix}/login?rd={back}&round={round}"))
            }
            None => respond::see_other(&place),
        }
    } else {
        let user = user_json(created.data.fields(), rules);
        respond::json(StatusCode::OK, &json!({ "user": user }))
    };
    let value = cookie::encode(&created.cookie);
    let secure = rules.cookie.is_secure(exchange.is_secure());
    let cookie = rules
        .cookie
        .set(&value, created.at, created.cookie_end, secure)?;
    respond::set_cookie_first(response.headers_mut(), cookie);
    Ok(response)
}

fn reject(exchange: &Exchange, attempt: &Attempt) -> Result<Response<Body>, Failure> {
    let refusal = Refusal::InvalidCredentials;
    let mut response = if attempt.is_form && exchange.state.login_page {
        let round = attempt.round.unwrap_or(0);
        show_page(
            exchange,
            refusal.status(),
            attempt.rd.as_deref(),
            &attempt.username,
            Some("User name or password is wrong."),
            round,
        )
    } else {
        respond::json(refusal.status(), &respond::refusal_body(refusal))
    };
    respond::mark(&mut response, refusal);
    Ok(response)
}

async fn read(exchange: &Exchange, body: Incoming) -> Result<Attempt, Failure> {
    let kind = text(&exchange.head.headers, CONTENT_TYPE.as_str()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_form = match kind {
        "application/x-www-form-urlencoded" => true,
        "application/json" => false,
        _ => return Err(Refusal::UnsupportedMediaType.into()),
    };
    let bytes = collect_limited(body, BODY_BYTES, exchange.state.body_idle_timeout).await?;
    if !is_form {
        let attempt: JsonAttempt = serde_json::from_slice(&bytes).map_err(|error| {
            // The parser's own text may quote the password.
            let at = format_args!("line {} column {}", error.line(), error.column());
            Failure::new(
                Refusal::BadRequestBody,
                format_args!("JSON of a login, {at}"),
            )
        })?;
        return Ok(Attempt {
            username: attempt.username,
            password: Secret::new(attempt.password),
            rd: None,
            round: None,
            is_form,
        });
    }
    let (mut username, mut password, mut rd, mut round) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(&bytes) {
        match &*name {
            "username" => username = Some(value.into_owned()),
            "password" => password = Some(Secret::new(value.into_owned())),
            "rd" => rd = Some(value.into_owned()),
            "round" => round = value.parse::<u32>().ok(),
            _ => {}
        }
    }
    match (username, password) {
        (Some(username), Some(password)) => Ok(Attempt {
            username,
            password,
            rd,
            round,
            is_form,
        }),
        _ => Err(Failure::new(
            Refusal::BadRequestBody,
            "a login without username or password",
        )),
    }
}

/// Where a browser goes once it is signed in: where it asked to, if that is
/// ours, else where the operator said.
fn place_after(exchange: &Exchange, rd: Option<&str>) -> String {
    rd.filter(|rd| !rd.is_empty())
        .and_then(|rd| {
            let text = exchange.own_origin().map(|own| own.to_string());
            let authority = text.as_deref().and_then(|text| text.split_once("://"));
            let (scheme, host) = authority.unzip();
            return_to(
                rd,
                host,
                scheme.unwrap_or("http"),
                &exchange.state.redirect_hosts,
            )
        })
        .unwrap_or_else(|| exchange.state.after_login.clone())
}

fn show_page(
    exchange: &Exchange,
    status: StatusCode,
    rd: Option<&str>,
    username: &str,
    error: Option<&str>,
    round: u32,
) -> Response<Body> {
    let html = exchange.state.pages.login(&LoginPage {
        rd: rd.unwrap_or_default(),
        username,
        error,
        round,
        action: &format!("{}/login", exchange.state.endpoints),
    });
    respond::page(&exchange.state, status, html)
}

/// Whether the browser would take the cookie that a login sets: not if it needs
/// `Secure` and the connection is not secure as the browser sees it.
fn cookie_would_be_kept(exchange: &Exchange) -> bool {
    !exchange.state.sessions.cookie.needs_secure() || exchange.is_secure()
}

/// What was seen, as (what, finding). The page says what to make of it.
fn findings(exchange: &Exchange) -> Vec<(String, String)> {
    let cookie = &exchange.state.sessions.cookie;
    let scheme = exchange.client.scheme.as_str();
    let secure = match cookie.is_secure(exchange.is_secure()) {
        true => "the cookie is sent with Secure",
        false => "the cookie is sent without Secure",
    };
    let host = exchange.target.host();
    let domain = match &cookie.domain {
        Some(domain) => format!("session.cookie.domain is {domain}, and this page is on {host}"),
        None => format!("the cookie belongs to {host} alone"),
    };
    let now = exchange.worker.sessions.now().system();
    [
        ("Scheme", format!("this request arrived as {scheme}")),
        ("Secure", secure.to_owned()),
        ("Domain", domain),
        (
            "SameSite",
            format!("session.cookie.same_site is {:?}", cookie.same_site),
        ),
        (
            "Path",
            format!("the browser sends the cookie below {} alone", cookie.path),
        ),
        (
            "Clock",
            format!("here it is {}", httpdate::fmt_http_date(now)),
        ),
    ]
    .map(|(what, finding)| (what.to_owned(), finding))
    .into()
}

fn mismatch(exchange: &Exchange, refusal: Refusal) -> Response<Body> {
    let html = exchange.state.pages.mismatch(&MismatchPage {
        findings: &findings(exchange),
        reason: refusal.label(),
        request_id: exchange.record.request_id.to_str().unwrap_or_default(),
        link: Some(("Try again", &format!("{}/login", exchange.state.endpoints))),
    });
    let mut response = respond::page(&exchange.state, refusal.status(), html);
    respond::mark(&mut response, refusal);
    response
}

fn mismatch_json(exchange: &Exchange) -> Response<Body> {
    let refusal = Refusal::InsecureConnection;
    let findings: serde_json::Map<String, serde_json::Value> = findings(exchange)
        .into_iter()
        .map(|(what, finding)| (what.to_ascii_lowercase(), finding.into()))
        .collect();
    let mut body = respond::refusal_body(refusal);
    if let Some(body) = body.as_object_mut() {
        body.insert("findings".to_owned(), findings.into());
        body.insert(
            "fix".to_owned(),
            "Serve it over https: server.public_url, trust.proxies, or session.cookie.secure"
                .into(),
        );
    }
    let mut response = respond::json(refusal.status(), &body);
    respond::mark(&mut response, refusal);
    response
}

/// A field's text, empty where it is missing or not text.
fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map(HeaderValue::as_bytes)
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default()
}
