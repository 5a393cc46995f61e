//! Requests to leave HTTP on this connection (RFC 9110 section 7.8) or stream
//! (RFC 8441): which of them are passed on. Only WebSocket (RFC 6455) is.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

/// The protocol that may be upgraded to.
pub const WEBSOCKET: &str = "websocket";

/// What is hashed behind a key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How a client asks for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// HTTP/1.1: with an `Upgrade`, which a 101 agrees to.
    Upgrade,
    /// HTTP/2: with an extended CONNECT, which a 200 agrees to.
    Connect,
}

/// A request for a WebSocket.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// How the client makes it.
    pub over: Over,
    /// `Sec-WebSocket-Key`: the client's, or a new one where HTTP/2 has none.
    key: HeaderValue,
}

impl Handshake {
    /// Finds out whether a request is a WebSocket handshake:
    ///
    /// * over HTTP/1.1, `GET` without content, one `Sec-WebSocket-Key`,
    ///   `Upgrade` that names WebSocket alone, and `Connection` that nominates
    ///   it. Anything else with an `Upgrade` field is served as if it had none,
    ///   as RFC 9110 allows;
    /// * over HTTP/2, `CONNECT` whose `:protocol` is WebSocket. Its head
    ///   becomes that of the HTTP/1.1 handshake that it stands for (RFC 8441
    ///   section 5): the rules for `GET` hold for it. Any other `CONNECT` stays
    ///   one.
    pub fn take(head: &mut Parts, protocol: Option<&str>) -> Option<Self> {
        if head.version != Version::HTTP_2 {
            let key = head.headers.get(SEC_WEBSOCKET_KEY);
            return key.filter(|_| is_upgrade(head)).map(|key| Self {
                over: Over::Upgrade,
                key: key.clone(),
            });
        }
        let named = protocol.is_some_and(|name| name.eq_ignore_ascii_case(WEBSOCKET));
        if !named || head.method != Method::CONNECT || has_content(&head.headers) {
            return None;
        }
        let handshake = Self {
            over: Over::Connect,
            key: new_key(),
        };
        head.method = Method::GET;
        handshake.write_upgrade(&mut head.headers);
        Some(handshake)
    }

    /// Writes what a request over HTTP/1.1 asks with.
    pub fn write_upgrade(&self, headers: &mut HeaderMap) {
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        write_upgrade(headers);
        // `Connection` does not name it any more, and nothing ends in trailers.
        headers.remove(TE);
    }

    /// Removes what a request over HTTP/2 does not ask with (RFC 8441 section
    /// 5).
    pub fn remove_upgrade(headers: &mut HeaderMap) {
        for name in [SEC_WEBSOCKET_KEY, UPGRADE, CONNECTION, TE] {
            headers.remove(name);
        }
    }

    /// Whether a 101 agrees. Where the key is the client's own, the client
    /// looks at what was made of it.
    pub fn is_agreed(&self, headers: &HeaderMap) -> bool {
        is_websocket(headers)
            && match self.over {
                Over::Upgrade => true,
                Over::Connect => only(headers, SEC_WEBSOCKET_ACCEPT) == Some(&self.accept()),
            }
    }

    /// Makes the application's agreement (a 101, or a 200 over HTTP/2) the one
    /// that the client waits for.
    pub fn agree<B>(&self, response: &mut Response<B>) {
        let is_connected = response.status() == StatusCode::OK;
        let headers = response.headers_mut();
        // Nothing but the socket follows.
        headers.remove(CONTENT_LENGTH);
        match self.over {
            Over::Upgrade => {
                // Over HTTP/2 the application has not seen the key.
                if is_connected {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept());
                }
                write_upgrade(headers);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            }
            Over::Connect => {
                headers.remove(SEC_WEBSOCKET_ACCEPT);
                *response.status_mut() = StatusCode::OK;
            }
        }
    }

    /// `Sec-WebSocket-Accept` for the key (RFC 6455 section 4.2.2).
    fn accept(&self) -> HeaderValue {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(self.key.as_bytes());
        context.update(GUID);
        // Base64 is visible ASCII; were it ever not, nothing would be equal.
        HeaderValue::from_str(&STANDARD.encode(context.finish()))
            .unwrap_or(HeaderValue::from_static("none"))
    }
}

/// 16 random bytes (RFC 6455 section 4.1).
fn new_key() -> HeaderValue {
    let mut bytes = [0; 16];
    // The key tells an answer from one to another handshake, and hides nothing.
    let _ = rand::fill(&mut bytes);
    HeaderValue::from_str(&STANDARD.encode(bytes))
        .unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

fn is_upgrade(head: &Parts) -> bool {
    let headers = &head.headers;
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && headers.contains_key(HOST)
        && !has_content(headers)
        && only(headers, SEC_WEBSOCKET_KEY).is_some()
        && is_websocket(headers)
}

fn has_content(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

/// Whether a head (a request's, or that of a 101) says that the connection
/// becomes a WebSocket.
fn is_websocket(headers: &HeaderMap) -> bool {
    let names_it =
        |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    only(headers, UPGRADE).is_some_and(names_it) && nominates_upgrade(headers)
}

/// Writes the two fields that hop-by-hop removal took away.
fn write_upgrade(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

/// The value of a field that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    first.filter(|_| lines.next().is_none())
}

fn nominates_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");

    fn head(method: Method, version: Version, fields: &[(&'static str, &'static str)]) -> Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = method;
        head.version = version;
        head.headers.insert(HOST, HeaderValue::from_static("a"));
        for (name, value) in fields {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    fn asks(fields: &[(&'static str, &'static str)]) -> bool {
        let fields = [fields, &[KEY]].concat();
        Handshake::take(&mut head(Method::GET, Version::HTTP_11, &fields), None).is_some()
    }

    /// S-24.
    #[test]
    fn only_a_nominated_websocket_is_passed_on() {
        assert!(asks(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ]));
        assert!(asks(&[
            ("connection", "x"),
            ("connection", "upgrade"),
            ("upgrade", "websocket")
        ]));
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "h2c"),
            ],
            &[("connection", "upgraded"), ("upgrade", "websocket")],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("content-length", "5"),
            ],
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("transfer-encoding", "chunked"),
            ],
            // A second key.
            &[("connection", "upgrade"), ("upgrade", "websocket"), KEY],
        ] {
            assert!(!asks(fields), "{fields:?}");
        }
        let good = [("connection", "upgrade"), ("upgrade", "websocket"), KEY];
        for (method, version, fields) in [
            (Method::POST, Version::HTTP_11, &good[..]),
            (Method::GET, Version::HTTP_10, &good),
            (Method::GET, Version::HTTP_2, &good),
            (Method::GET, Version::HTTP_11, &good[..2]),
        ] {
            assert!(Handshake::take(&mut head(method, version, fields), None).is_none());
        }
    }

    #[test]
    fn an_extended_connect_stands_for_a_get() {
        let mut connect = head(Method::CONNECT, Version::HTTP_2, &[KEY, ("te", "trailers")]);
        let handshake = Handshake::take(&mut connect, Some("WebSocket")).unwrap();
        assert_eq!(handshake.over, Over::Connect);
        assert_eq!(connect.method, Method::GET);
        assert!(is_websocket(&connect.headers) && !connect.headers.contains_key(TE));
        // Not the client's, which nobody has asked for.
        let key = only(&connect.headers, SEC_WEBSOCKET_KEY).unwrap();
        assert_ne!(key, KEY.1);
        assert_eq!(STANDARD.decode(key).unwrap().len(), 16);
        let another = head(Method::CONNECT, Version::HTTP_2, &[]);
        let another = Handshake::take(&mut { another }, Some("websocket")).unwrap();
        assert_ne!(*key, another.key);
    }

    #[test]
    fn any_other_connect_stays_one() {
        for (method, version, protocol, fields) in [
            (Method::CONNECT, Version::HTTP_2, None, &[][..]),
            (Method::CONNECT, Version::HTTP_2, Some("connect-udp"), &[]),
            (Method::CONNECT, Version::HTTP_2, Some("websocket, x"), &[]),
            (
                Method::CONNECT,
                Version::HTTP_2,
                Some("websocket"),
                &[("content-length", "1")],
            ),
            (Method::CONNECT, Version::HTTP_11, Some("websocket"), &[]),
            (Method::POST, Version::HTTP_2, Some("websocket"), &[]),
        ] {
            let mut head = head(method.clone(), version, fields);
            assert!(
                Handshake::take(&mut head, protocol).is_none(),
                "{protocol:?}"
            );
            assert_eq!(head.method, method);
            assert!(!head.headers.contains_key(UPGRADE));
        }
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn an_agreement_is_checked_and_translated() {
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let agreed = |over, value: &str, twice: bool| {
            let handshake = Handshake {
                over,
                key: HeaderValue::from_static(KEY.1),
            };
            let mut headers = HeaderMap::new();
            write_upgrade(&mut headers);
            for _ in 0..1 + usize::from(twice) {
                headers.append(SEC_WEBSOCKET_ACCEPT, value.parse().unwrap());
            }
            handshake.is_agreed(&headers)
        };
        assert!(agreed(Over::Connect, accept, false));
        assert!(!agreed(Over::Connect, accept, true));
        assert!(!agreed(Over::Connect, &accept.to_lowercase(), false));
        assert!(!agreed(Over::Connect, "", false));
        assert!(agreed(Over::Upgrade, "", false));

        for (over, status, fields) in [(Over::Upgrade, 101, 3), (Over::Connect, 200, 0)] {
            let handshake = Handshake {
                over,
                key: HeaderValue::from_static(KEY.1),
            };
            let mut response = Response::new(());
            let length = HeaderValue::from_static("5");
            response.headers_mut().insert(CONTENT_LENGTH, length);
            let other = HeaderValue::from_static("of another key");
            response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, other);
            handshake.agree(&mut response);
            assert_eq!(response.status(), status);
            let headers = response.headers();
            assert_eq!(headers.len(), fields);
            if over == Over::Upgrade {
                assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], accept);
                assert!(is_websocket(headers));
            }
        }
    }
}
