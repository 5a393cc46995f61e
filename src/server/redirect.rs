//! The plaintext listener beside TLS: it sends people to https and does
//! nothing else. It knows no session and forwards nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::base::refusal::Refusal;
use crate::proxy::Worker;
use crate::proxy::record::Record;
use crate::proxy::request_id;
use crate::upstream::request::REQUEST_ID;
use crate::wire::client::ConnInfo;
use crate::wire::framing;
use crate::wire::proxy_status::{self, PROXY_STATUS};
use crate::wire::target::{HostName, Target};

/// What a request gets: GET and HEAD 308 to the same host and target with
/// https, at this port; anything else 403, since what it carries has been sent
/// in the clear already. A host or target that is not valid gets 400. It is
/// counted, and noted in the access log.
pub fn answer<B>(
    worker: &Arc<Worker>,
    conn: &ConnInfo,
    request: Request<B>,
    found: Option<Refusal>,
    port: u16,
) -> Response<Bytes> {
    let state = worker.state.load_full();
    let (head, _) = request.into_parts();
    let id = request_id::of(conn, &state, &head.headers);
    let mut record = Record::begin(worker, &state, &head, id.clone());
    let result = match found {
        Some(refusal) => Err(refusal),
        None => place(&head, port, &mut record.host),
    };
    finish(record, conn, result, id)
}

/// What a head gets that could not be parsed.
pub fn unparsed(worker: &Arc<Worker>, conn: &ConnInfo, refusal: Refusal) -> Response<Bytes> {
    let state = worker.state.load_full();
    let id = request_id::of(conn, &state, &HeaderMap::new());
    let record = Record::unparsed(worker, &state, id.clone());
    finish(record, conn, Err(refusal), id)
}

fn finish(
    mut record: Record,
    conn: &ConnInfo,
    result: Result<HeaderValue, Refusal>,
    id: HeaderValue,
) -> Response<Bytes> {
    let reason = result.as_ref().err().copied();
    let mut response = response(result);
    response.headers_mut().insert(REQUEST_ID, id);
    record.client = Some(conn.peer.ip());
    record.answered(&response, reason);
    response
}

/// Where to. Also says for which host it was.
fn place(head: &Parts, port: u16, host: &mut Option<HostName>) -> Result<HeaderValue, Refusal> {
    framing::check_request_framing(&head.headers, head.version)?;
    let target = Target::parse(&head.method, &head.uri, &head.headers, head.version)?;
    *host = Some(target.host_name());
    if target.host().is_empty() {
        return Err(Refusal::BadHost);
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Refusal::HttpsRequired);
    }
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let place = format!("https://{}{port}{}", target.host(), target.path_and_query());
    HeaderValue::from_str(&place).map_err(|_| Refusal::BadRequestTarget)
}

fn response(result: Result<HeaderValue, Refusal>) -> Response<Bytes> {
    match result {
        Ok(place) => redirect(place),
        Err(refusal) => refuse(refusal),
    }
}

fn redirect(place: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, place);
    response
}

fn refuse(refusal: Refusal) -> Response<Bytes> {
    let body = serde_json::json!({ "error": refusal.message(), "reason": refusal.label() });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status::value(refusal));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str, host: Option<&str>, port: u16) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        response(place(&head, port, &mut None))
    }

    fn location(response: &Response<Bytes>) -> Option<&str> {
        response.headers().get(LOCATION)?.to_str().ok()
    }

    #[test]
    fn reading_is_sent_to_https() {
        let response = ask("GET", "/a/b?c=%20d", Some("App.example.com:8080"), 443);
        assert_eq!(response.status(), 308);
        assert_eq!(
            location(&response),
            Some("https://app.example.com/a/b?c=%20d")
        );
        let response = ask("HEAD", "/", Some("[::1]"), 8443);
        assert_eq!(location(&response), Some("https://[::1]:8443/"));
    }

    #[test]
    fn the_rest_is_refused() {
        for (method, target, host, status) in [
            ("POST", "/", Some("a.example"), 403),
            ("OPTIONS", "/", Some("a.example"), 403),
            ("GET", "/", None, 400),
            ("GET", "/", Some("a b"), 400),
            ("GET", "/", Some("a/b"), 400),
            ("GET", "/", Some("user@a"), 400),
        ] {
            let response = ask(method, target, host, 443);
            assert_eq!(response.status(), status, "{method} {target} {host:?}");
            assert_eq!(location(&response), None);
            assert!(response.headers().contains_key(PROXY_STATUS));
        }
    }
}
