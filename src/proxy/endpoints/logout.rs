//! `POST /auth/logout` and `POST /auth/logout-all`.
//!
//! The record is deleted first. Only when the store has said so does the
//! browser lose its cookie: a sign-out that did not happen must not look like
//! one that did.

use http::header::{CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, Response};

use crate::base::refusal::Failure;
use crate::proxy::exchange::Exchange;
use crate::proxy::respond;
use crate::session::Lookup;
use crate::wire::body::Body;
use crate::wire::negotiate;

/// Ends this session.
pub async fn one(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let (sessions, rules) = (&exchange.worker.sessions, &exchange.state.sessions);
    sessions.end(rules, &exchange.head.headers).await?;
    answer(exchange)
}

/// Ends all sessions of this user.
pub async fn all(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let lookup = exchange.lookup(false).await?;
    let (sessions, rules) = (&exchange.worker.sessions, &exchange.state.sessions);
    match lookup {
        Lookup::Live(session) => {
            sessions
                .end_all(rules, &session, &exchange.head.headers)
                .await?;
        }
        // Nobody to sign out everywhere; what the cookies name is ended still.
        Lookup::Dead(_) | Lookup::NotNeeded => {
            sessions.end(rules, &exchange.head.headers).await?;
        }
    }
    answer(exchange)
}

/// 303 for a form, 204 for a script; the cookie is expired where there was one.
fn answer(exchange: &Exchange) -> Result<Response<Body>, Failure> {
    let headers = &exchange.head.headers;
    let mut response = if is_form(headers) {
        respond::see_other(&exchange.state.after_logout)
    } else {
        respond::no_content()
    };
    let cookie = &exchange.state.sessions.cookie;
    if cookie.values(headers).next().is_some() {
        let secure = cookie.is_secure(exchange.is_secure());
        response
            .headers_mut()
            .insert(SET_COOKIE, cookie.clear(secure)?);
    }
    Ok(response)
}

/// Whether a form asks, and wants a page for an answer.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    if headers.contains_key("sec-fetch-mode") {
        return negotiate::navigates(headers);
    }
    let form = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/x-www-form-urlencoded")
            || kind.starts_with(b"multipart/form-data")
    });
    // axios calls a POST without a body a form, but says that it reads JSON.
    (form && !negotiate::prefers_json(headers)) || negotiate::prefers_html(headers)
}
