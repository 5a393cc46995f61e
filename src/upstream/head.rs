//! The last touches to a request's head, which depend on the address and on
//! the version of HTTP that is spoken there.

use http::Version;
use http::header::{AUTHORIZATION, CONNECTION, HOST, WWW_AUTHENTICATE};
use http::uri::{Authority, Parts, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};

use hyper::ext::Protocol;

use super::settings::{Scheme, UpstreamAddress};
use crate::base::refusal::{Failure, Refusal};
use crate::wire::body::Body;
use crate::wire::upgrade::{Handshake, WEBSOCKET};

/// What requests to one address have in common.
#[derive(Clone, Debug)]
pub struct Dress {
    /// The address as `Host`; `None` where it cannot be one.
    host: Option<HeaderValue>,
    scheme: UriScheme,
}

impl Dress {
    /// Of this address.
    pub fn new(address: &UpstreamAddress) -> Self {
        Self {
            host: HeaderValue::from_str(&address.authority()).ok(),
            scheme: match address.scheme {
                Scheme::Https => UriScheme::HTTPS,
                Scheme::Http | Scheme::H2c => UriScheme::HTTP,
            },
        }
    }

    /// The address as `Host`.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadHost`] where it cannot be one.
    pub fn host(&self) -> Result<&HeaderValue, Refusal> {
        self.host.as_ref().ok_or(Refusal::BadHost)
    }

    /// Makes the head fit. `own_host`: the application gets the address as
    /// `Host`. `handshake`: the head is to ask for a WebSocket.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadHost`] where there is none that HTTP/2 can carry.
    pub fn put_on(
        &self,
        request: &mut Request<Body>,
        is_http2: bool,
        own_host: bool,
        handshake: Option<&Handshake>,
    ) -> Result<(), Failure> {
        if own_host {
            let host = self.host()?.clone();
            request.headers_mut().insert(HOST, host);
        }
        if is_http2 {
            self.make_http2(request)?;
        }
        match handshake {
            None => {}
            Some(_) if is_http2 => make_connect(request),
            Some(handshake) => {
                *request.method_mut() = Method::GET;
                handshake.write_upgrade(request.headers_mut());
            }
        }
        Ok(())
    }

    /// `Host` becomes `:authority` (RFC 9113 section 8.3.1), and nothing
    /// speaks of the connection (section 8.2.2); `TE: trailers` may stay.
    fn make_http2(&self, request: &mut Request<Body>) -> Result<(), Failure> {
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        let host = headers.remove(HOST).ok_or(Refusal::BadHost)?;
        let authority =
            Authority::try_from(host.as_bytes()).map_err(|e| Failure::new(Refusal::BadHost, e))?;
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(path_and_query(request.uri()));
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|e| Failure::new(Refusal::InternalError, e))?;
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }
}

/// The extended CONNECT that a WebSocket handshake is over HTTP/2 (RFC 8441
/// section 5).
fn make_connect(request: &mut Request<Body>) {
    *request.method_mut() = Method::CONNECT;
    Handshake::remove_upgrade(request.headers_mut());
    let protocol = Protocol::from_static(WEBSOCKET);
    request.extensions_mut().insert(protocol);
}

fn path_and_query(uri: &Uri) -> PathAndQuery {
    match uri.path_and_query() {
        Some(target) => target.clone(),
        None => PathAndQuery::from_static("/"),
    }
}

/// Whether a request may be sent twice: without a body, and with a method that
/// means the same however often it is sent (RFC 9110 section 9.2.2). CONNECT is
/// a WebSocket handshake, made of a GET.
pub fn may_be_repeated(request: &Request<Body>) -> bool {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET
            | Method::HEAD
            | Method::OPTIONS
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
    );
    is_idempotent && matches!(request.body(), Body::Empty)
}

/// Whether a request proves who sends it by a scheme that holds for the whole
/// connection, whoever uses it next (RFC 4559 section 6).
pub fn is_bound_to_connection(headers: &HeaderMap) -> bool {
    has_bound_scheme(headers, &AUTHORIZATION)
}

/// Whether a response begins such a proof.
pub fn asks_for_bound<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && has_bound_scheme(response.headers(), &WWW_AUTHENTICATE)
}

fn has_bound_scheme(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| matches!(byte, b',' | b' ' | b'\t'))
            .any(|word| {
                word.eq_ignore_ascii_case(b"ntlm") || word.eq_ignore_ascii_case(b"negotiate")
            })
    })
}

#[cfg(test)]
mod tests {
    use http::header::TE;

    use super::*;

    fn request(method: &str, target: &str) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "app.example.com:81")
            .header(TE, "trailers")
            .header(CONNECTION, "te")
            .body(Body::Empty)
            .unwrap()
    }

    #[test]
    fn a_head_can_change_its_version() {
        let address = UpstreamAddress::tcp(Scheme::Https, "app", 8443);
        let dress = Dress::new(&address);
        for target in ["/a?b", "*", "/%2F//..;x?"] {
            let mut request = request("OPTIONS", target);
            dress.put_on(&mut request, true, false, None).unwrap();
            assert_eq!(request.version(), Version::HTTP_2);
            let uri = request.uri();
            assert_eq!(uri.scheme_str(), Some("https"));
            assert_eq!(uri.authority().unwrap(), "app.example.com:81");
            assert_eq!(uri.path_and_query().unwrap(), target);
            assert_eq!(request.headers().len(), 1);
            assert_eq!(request.headers()[TE], "trailers");

            let mut request = self::request("OPTIONS", target);
            dress.put_on(&mut request, true, true, None).unwrap();
            assert_eq!(request.uri().authority().unwrap(), "app:8443");

            let mut request = self::request("OPTIONS", target);
            dress.put_on(&mut request, false, true, None).unwrap();
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(request.uri(), target);
            assert_eq!(request.headers()[HOST], "app:8443");
            assert_eq!(request.headers()[CONNECTION], "te");
        }
    }

    #[test]
    fn a_handshake_can_change_its_version() {
        let dress = Dress::new(&UpstreamAddress::tcp(Scheme::H2c, "app", 80));
        let (mut head, ()) = request("CONNECT", "/a?b").map(drop).into_parts();
        head.version = Version::HTTP_2;
        let handshake = Handshake::take(&mut head, Some(WEBSOCKET)).unwrap();
        let key = head.headers["sec-websocket-key"].clone();
        head.version = Version::HTTP_11;
        {
            let mut request = Request::from_parts(head.clone(), Body::Empty);
            dress
                .put_on(&mut request, false, false, Some(&handshake))
                .unwrap();
            assert_eq!(request.method(), Method::GET);
            assert_eq!(request.uri(), "/a?b");
            assert_eq!(request.headers()["upgrade"], "websocket");
            assert_eq!(request.headers()[CONNECTION], "upgrade");
            assert_eq!(request.headers()["sec-websocket-key"], key);
            assert_eq!(request.headers().len(), 4);
        }
        {
            let mut request = Request::from_parts(head, Body::Empty);
            dress
                .put_on(&mut request, true, false, Some(&handshake))
                .unwrap();
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.uri(), "http://app.example.com:81/a?b");
            assert!(request.headers().is_empty());
            let protocol = request.extensions().get::<Protocol>().unwrap();
            assert_eq!(protocol.as_str(), "websocket");
        }
    }

    #[test]
    fn only_idempotent_requests_without_body_are_repeated() {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            assert!(may_be_repeated(&request(method, "/a")), "{method}");
        }
        for method in ["POST", "PATCH", "LINK"] {
            assert!(!may_be_repeated(&request(method, "/a")), "{method}");
        }
        let with_body = request("PUT", "/").map(|_| Body::from(bytes::Bytes::from("x")));
        assert!(!may_be_repeated(&with_body));
    }

    #[test]
    fn schemes_of_connections_are_found() {
        let response = |status: u16, value: &str| {
            let response = Response::builder().status(status);
            response.header(WWW_AUTHENTICATE, value).body(()).unwrap()
        };
        for value in [
            "NTLM",
            "negotiate",
            "Basic realm=\"a\", Negotiate",
            "NTLM TlRM",
        ] {
            assert!(asks_for_bound(&response(401, value)), "{value}");
            assert!(!asks_for_bound(&response(200, value)), "{value}");
        }
        assert!(!asks_for_bound(&response(401, "Bearer realm=\"ntlmish\"")));
    }
}
