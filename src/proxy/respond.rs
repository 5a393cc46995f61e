//! Responses that Cloakroom gives itself: refusals, redirects, pages, JSON.
//!
//! Nothing that a client sent stands in their heads, and every one has
//! `Cache-Control: no-store`.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::state::State;
use crate::base::refusal::{Failure, Refusal};
use crate::login::page::{MessagePage, PageError};
use crate::login::return_to::MAX_TARGET;
use crate::wire::body::Body;
use crate::wire::negotiate::{self, Navigation};
use crate::wire::present::{Field, Present};
use crate::wire::proxy_status::{self, PROXY_STATUS};

/// Seconds after which a client may try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// In which form a client gets a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON, with the refusal's status.
    Json,
    /// A page, with the refusal's status.
    Page,
    /// `grpc-status` in a trailers-only response.
    Grpc,
}

impl Form {
    /// What the client of a request can use.
    pub fn of(headers: &HeaderMap) -> Self {
        if is_grpc(headers) {
            Self::Grpc
        } else if negotiate::navigates(headers) {
            Self::Page
        } else {
            Self::Json
        }
    }
}

/// What a request says of the form in which it is refused. Hardly any is: it is read
/// when it has to be.
#[derive(Debug)]
pub struct Wish {
    /// Of gRPC, whatever else it says.
    grpc: Option<Form>,
    page: Navigation,
    /// A page is no answer here.
    never_page: bool,
}

impl Wish {
    /// Of a request with this head, in which these fields stand.
    pub fn of(method: &Method, headers: &HeaderMap, present: Present) -> Self {
        let grpc = present.has(Field::ContentType) && is_grpc(headers);
        let form = match *method {
            // In its 200 a client would see a tunnel.
            Method::CONNECT => Form::Json,
            _ => Form::Grpc,
        };
        Self {
            grpc: grpc.then_some(form),
            page: Navigation::of(headers, present),
            never_page: false,
        }
    }

    /// JSON takes the place of a page.
    pub fn no_page(&mut self) {
        self.never_page = true;
    }

    /// What the client can use.
    pub fn form(&self) -> Form {
        match self.grpc {
            Some(form) => form,
            None if !self.never_page && self.page.is_one() => Form::Page,
            None => Form::Json,
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a request that is not forwarded.
pub fn refusal(state: &State, refusal: Refusal, form: Form, id: &HeaderValue) -> Response<Body> {
    let mut response = match form {
        Form::Json => json(refusal.status(), &refusal_body(refusal)),
        Form::Page => refusal_page(state, refusal, id),
        Form::Grpc => grpc(refusal),
    };
    mark(&mut response, refusal);
    let headers = response.headers_mut();
    if refusal.is_temporary() {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if ends_connection(refusal) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether what follows on the connection cannot be told from what came before.
pub fn ends_connection(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::BadFraming | Refusal::BadHost)
}

/// Says in `Proxy-Status` why this is not the application's answer.
pub fn mark(response: &mut Response<Body>, refusal: Refusal) {
    response
        .headers_mut()
        .insert(PROXY_STATUS, proxy_status::value(refusal));
}

/// The JSON of a refusal.
pub fn refusal_body(refusal: Refusal) -> Value {
    json!({ "error": refusal.message(), "reason": refusal.label() })
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &Value) -> Response<Body> {
    own(status, Some((JSON, Bytes::from(body.to_string()))))
}

/// An HTML answer. Without the page its status still says enough.
pub fn page(state: &State, status: StatusCode, html: Result<String, PageError>) -> Response<Body> {
    let html = html.unwrap_or_else(|error| {
        tracing::error!(%error, "a built-in page cannot be made");
        String::new()
    });
    let mut response = own(status, Some((HTML, Bytes::from(html))));
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, state.pages.csp().clone());
    response
}

/// 204, with nothing to say.
pub fn no_content() -> Response<Body> {
    own(StatusCode::NO_CONTENT, None)
}

/// 303 to a place on our own origin, or one that the operator listed. A place
/// that cannot stand in a header is `/`.
pub fn see_other(place: &str) -> Response<Body> {
    let mut response = own(StatusCode::SEE_OTHER, None);
    let place = HeaderValue::from_str(place).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, place);
    response
}

/// 303 to the login page, with the way back and the reason.
pub fn to_login(state: &State, back: &str, reason: Refusal) -> Response<Body> {
    let mut place = format!("{}/login", state.endpoints);
    // A longer one would not be followed afterwards.
    if back.len() <= MAX_TARGET {
        place.push_str("?rd=");
        place.extend(form_urlencoded::byte_serialize(back.as_bytes()));
    }
    let mut response = see_other(&place);
    mark(&mut response, reason);
    response
}

/// 405, with the methods that are allowed.
pub fn method_not_allowed(
    state: &State,
    allow: &'static str,
    form: Form,
    id: &HeaderValue,
) -> Response<Body> {
    let mut response = refusal(state, Refusal::MethodNotAllowed, form, id);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Adds a `Set-Cookie` as the first one.
pub fn set_cookie_first(headers: &mut HeaderMap, cookie: HeaderValue) {
    let others: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.insert(SET_COOKIE, cookie);
    for other in others {
        headers.append(SET_COOKIE, other);
    }
}

/// Logs why a request was refused, as loudly as its reason deserves.
pub fn log(failure: &Failure, id: &HeaderValue) {
    use crate::base::refusal::Level;
    let request_id = id.to_str().unwrap_or_default();
    let reason = failure.refusal.label();
    let cause = failure.cause.as_deref().unwrap_or_default();
    match failure.refusal.level() {
        Level::Info => tracing::debug!(request_id, reason, cause, "refused"),
        Level::Warn => tracing::warn!(request_id, reason, cause, "refused"),
        Level::Error => tracing::error!(request_id, reason, cause, "refused"),
    }
}

fn own(status: StatusCode, content: Option<(HeaderValue, Bytes)>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: browsers would then post forms with `Origin: null`.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    if let Some((kind, body)) = content {
        headers.insert(CONTENT_TYPE, kind);
        *response.body_mut() = Body::Full(body);
    }
    response
}

fn refusal_page(state: &State, refusal: Refusal, id: &HeaderValue) -> Response<Body> {
    let login = format!("{}/login", state.endpoints);
    let link = (refusal.status() == StatusCode::UNAUTHORIZED && state.login_page)
        .then_some(("Sign in", login.as_str()));
    let html = state.pages.message(&MessagePage {
        heading: refusal.status().canonical_reason().unwrap_or("Error"),
        text: refusal.message(),
        reason: refusal.label(),
        request_id: id.to_str().unwrap_or_default(),
        link,
    });
    page(state, refusal.status(), html)
}

/// gRPC's own codes: its clients look at nothing else.
fn grpc(refusal: Refusal) -> Response<Body> {
    let code = match refusal.status() {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND => "12",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => "8",
        StatusCode::GATEWAY_TIMEOUT => "4",
        status if status.is_server_error() => "14",
        _ => "13",
    };
    let mut response = own(StatusCode::OK, None);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(refusal.label()));
    response
}
