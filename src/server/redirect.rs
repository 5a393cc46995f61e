//! The plaintext listener beside TLS: it sends people to https and does
//! nothing else. It knows no session and forwards nothing.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::base::metrics::Metrics;
use crate::base::refusal::Refusal;
use crate::wire::hop;
use crate::wire::proxy_status::{self, PROXY_STATUS};
use crate::wire::target::Target;

/// What a request gets: GET and HEAD 308 to the same host and target with
/// https, at this port; anything else 403, since what it carries has been sent
/// in the clear already. A host or target that is not valid gets 400.
pub fn answer<B>(
    request: &Request<B>,
    found: Option<Refusal>,
    port: u16,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let response = match found.map_or_else(|| place(request, port), Err) {
        Ok(place) => redirect(place),
        Err(refusal) => {
            metrics.refused(refusal);
            refuse(refusal)
        }
    };
    tracing::debug!(
        method = %request.method(),
        path = request.uri().path(),
        status = response.status().as_u16(),
        "a request over plain http"
    );
    response
}

fn place<B>(request: &Request<B>, port: u16) -> Result<HeaderValue, Refusal> {
    hop::check_request_framing(request.headers(), request.version())?;
    let (method, version) = (request.method(), request.version());
    let target = Target::parse(method, request.uri(), request.headers(), version)?;
    if target.host().is_empty() {
        return Err(Refusal::BadHost);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refusal::HttpsRequired);
    }
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let place = format!("https://{}{port}{}", target.host(), target.path_and_query());
    HeaderValue::from_str(&place).map_err(|_| Refusal::BadRequestTarget)
}

fn redirect(place: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, place);
    response
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": refusal.message(), "reason": refusal.label() });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
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

    fn ask(method: &str, target: &str, host: Option<&str>, port: u16) -> Response<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        answer(&request.body(()).unwrap(), None, port, &Metrics::new())
    }

    fn location(response: &Response<Full<Bytes>>) -> Option<&str> {
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
