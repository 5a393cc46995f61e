//! Which of the fields that matter to a proxy stand in a head.
//!
//! Hardly any message has most of them. One look at each name costs less than a
//! look-up for each field that might be there.

use http::{HeaderMap, HeaderName};

/// A field that is asked for in nearly every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `Authorization`.
    Authorization,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Content-Type`.
    ContentType,
    /// `Expect`.
    Expect,
    /// `Max-Forwards`.
    MaxForwards,
    /// `Sec-Fetch-Dest` or `Sec-Fetch-Mode`.
    SecFetch,
    /// `Sec-WebSocket-Key`.
    SecWebSocketKey,
    /// `TE`.
    Te,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Via`.
    Via,
    /// `X-Requested-With`.
    XRequestedWith,
}

/// The fields of a head. Holds for as long as nobody writes others into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present(u16);

impl Present {
    /// Of this head.
    pub fn of(headers: &HeaderMap) -> Self {
        let fields = headers.keys().filter_map(Field::of);
        Self(fields.fold(0, |all, field| all | field.bit()))
    }

    /// Whether the field is there, once or several times.
    pub const fn has(self, field: Field) -> bool {
        self.0 & field.bit() != 0
    }

    /// Whether one of these fields is.
    pub const fn any(self, one: Field, other: Field) -> bool {
        self.0 & (one.bit() | other.bit()) != 0
    }
}

impl Field {
    fn of(name: &HeaderName) -> Option<Self> {
        Some(match name.as_str() {
            "te" => Self::Te,
            "via" => Self::Via,
            "expect" => Self::Expect,
            "connection" => Self::Connection,
            "content-type" => Self::ContentType,
            "max-forwards" => Self::MaxForwards,
            "authorization" => Self::Authorization,
            "content-length" => Self::ContentLength,
            "sec-fetch-dest" | "sec-fetch-mode" => Self::SecFetch,
            "x-requested-with" => Self::XRequestedWith,
            "transfer-encoding" => Self::TransferEncoding,
            "sec-websocket-key" => Self::SecWebSocketKey,
            _ => return None,
        })
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_field_is_found_by_itself() {
        for (name, field) in [
            ("Authorization", Field::Authorization),
            ("Connection", Field::Connection),
            ("Content-Length", Field::ContentLength),
            ("Content-Type", Field::ContentType),
            ("Expect", Field::Expect),
            ("Max-Forwards", Field::MaxForwards),
            ("Sec-Fetch-Dest", Field::SecFetch),
            ("SEC-FETCH-MODE", Field::SecFetch),
            ("Sec-WebSocket-Key", Field::SecWebSocketKey),
            ("tE", Field::Te),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Via", Field::Via),
            ("X-Requested-With", Field::XRequestedWith),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("accept", HeaderValue::from_static("*/*"));
            assert_eq!(Present::of(&headers), Present::default());
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(&name, HeaderValue::from_static("1"));
            headers.append(&name, HeaderValue::from_static("2"));
            assert_eq!(Present::of(&headers), Present(field.bit()), "{name}");
            assert!(Present::of(&headers).has(field));
        }
    }
}
