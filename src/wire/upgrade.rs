//! Requests to leave HTTP on this connection (RFC 9110 section 7.8): which of
//! them are passed on. Only WebSocket (RFC 6455) is.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Version};

/// The protocol that may be upgraded to.
pub const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Whether a request is a WebSocket handshake over HTTP/1.1: `GET` without
/// content, `Upgrade` that names WebSocket alone, and `Connection` that
/// nominates it. Anything else with an `Upgrade` field is served as if it had
/// none, as RFC 9110 allows.
pub fn asks_for_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && version == Version::HTTP_11
        && headers.contains_key(HOST)
        && !headers.contains_key(TRANSFER_ENCODING)
        && headers
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length == "0")
        && is_websocket(headers)
}

/// Whether a head (a request's, or that of a 101) says that the connection
/// becomes a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let only = match (upgrades.next(), upgrades.next()) {
        (Some(only), None) => only,
        _ => return false,
    };
    only.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()) && nominates_upgrade(headers)
}

/// Writes the two fields that hop-by-hop removal took away.
pub fn write_websocket(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
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
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn asks(fields: &[(&'static str, &'static str)]) -> bool {
        asks_for_websocket(&Method::GET, Version::HTTP_11, &head(fields))
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
        ] {
            assert!(!asks(fields), "{fields:?}");
        }
        let good = head(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(!asks_for_websocket(&Method::POST, Version::HTTP_11, &good));
        assert!(!asks_for_websocket(&Method::GET, Version::HTTP_10, &good));
    }
}
