//! Fields that belong to one connection (RFC 9110 section 7.6.1).
//!
//! Removing comes before anything is added: a `Connection` line that names an
//! identity or forwarding field can then only remove what the client sent.

use http::header::{CONNECTION, HeaderName, MAX_FORWARDS, TE, VIA};
use http::{HeaderMap, Method};

use crate::wire::present::{Field, Present};

/// Never removed by being named in `Connection`: without them the message
/// means something else, or nothing. RFC 9110 section 7.6.1 forbids senders to
/// name fields that are meant for all recipients.
const KEPT: [&[u8]; 3] = [b"host", b"content-length", b"cache-control"];

/// Connection options that name no field, or one that goes anyway.
const PLAIN: [&[u8]; 4] = [b"keep-alive", b"close", b"upgrade", b"te"];

/// Removes what `Connection` names (every line, any case, empty elements
/// skipped) and every field that is hop-by-hop by itself, in a request or a
/// response.
///
/// `Host`, `Content-Length` and `Cache-Control` stay even if they are named.
/// Returns whether there was a `TE: trailers`, which the caller may send again
/// for itself.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) -> bool {
    remove_for_next(headers, Present::of(headers))
}

/// The same where it is known which fields are `present`.
pub fn remove_for_next(headers: &mut HeaderMap, present: Present) -> bool {
    let hop = Hop::of(headers, present);
    // Most messages name their connection: no need to look for something else.
    match present.any(Field::Connection, Field::Te) {
        true => rebuild(headers, |name| hop.ends(name)),
        false => remove_where(headers, |name| hop.ends(name)),
    }
    hop.trailers
}

/// What of a head belongs to the connection that it came over.
pub struct Hop {
    nominated: Vec<HeaderName>,
    /// Whether there was a `TE: trailers`, which may be sent again for ourselves.
    pub trailers: bool,
}

impl Hop {
    /// Of this head, in which these fields are `present`.
    pub fn of(headers: &HeaderMap, present: Present) -> Self {
        Self {
            nominated: match present.has(Field::Connection) {
                true => nominated(headers),
                false => Vec::new(),
            },
            trailers: present.has(Field::Te) && wants_trailers(headers),
        }
    }

    /// Whether a field ends here: it is hop-by-hop by itself, or `Connection` names it.
    /// Never `Host`, `Content-Length` or `Cache-Control`.
    pub fn ends(&self, name: &HeaderName) -> bool {
        is_hop_by_hop(name.as_str()) || self.nominated.contains(name)
    }
}

/// Proxies of our name that a request may have come through.
const LONGEST_CHAIN: usize = 10;

/// Whether a request goes in a circle: `Via` names our pseudonym too often (RFC
/// 9110 section 7.6.3). Once or twice is a chain of proxies.
pub fn is_looping(headers: &HeaderMap, pseudonym: &str) -> bool {
    let ours = |hop: &&[u8]| {
        let mut words = hop.split(|b| *b == b' ').filter(|word| !word.is_empty());
        words.nth(1) == Some(pseudonym.as_bytes())
    };
    let hops = headers.get_all(VIA).iter();
    hops.flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter(ours)
        .count()
        > LONGEST_CHAIN
}

/// `Max-Forwards`, which counts for OPTIONS alone here, since TRACE is refused
/// (RFC 9110 section 7.6.2). What is no number is ignored.
pub fn max_forwards(method: &Method, headers: &HeaderMap) -> Option<u64> {
    if *method != Method::OPTIONS {
        return None;
    }
    headers.get(MAX_FORWARDS)?.to_str().ok()?.parse().ok()
}

/// Whether a `TE` line accepts trailers.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The fields that `Connection` names and that may go; allocates nothing for
/// the options of nearly every request, which name no other field.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter();
    lines
        // What nearly every request says.
        .filter(|line| !line.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            !option.is_empty()
                && !PLAIN
                    .iter()
                    .chain(&KEPT)
                    .any(|plain| option.eq_ignore_ascii_case(plain))
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect()
}

/// Whether a field is removed even if `Connection` does not name it.
///
/// `Proxy-Authenticate` and `Proxy-Authorization` are, because no one on
/// either side of us speaks to a forward proxy. `Trailer` is not: RFC 9110
/// section 6.6.2 makes it an end-to-end field, and HTTP/1.1 trailers need it.
/// `HTTP2-Settings` (RFC 7540 section 3.2.1) belongs to an upgrade that is
/// never passed on.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Removes every field whose name matches. The others keep their order, which
/// [`HeaderMap::remove`] would not do; costs nothing if none matches.
pub(super) fn remove_where(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&matches) {
        rebuild(headers, matches);
    }
}

/// Writes anew what does not match.
fn rebuild(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    let mut current: Option<HeaderName> = None;
    for (name, value) in std::mem::take(headers) {
        // Only the first of several values comes with the name.
        if let Some(name) = name {
            current = (!matches(&name)).then_some(name);
        }
        if let Some(name) = &current {
            kept.append(name, value);
        }
    }
    *headers = kept;
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::wire::framing::tests::headers;

    fn names_left(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = headers(lines);
        remove_hop_by_hop(&mut headers);
        headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect()
    }

    /// S-23: a chain of proxies is no circle.
    #[test]
    fn a_circle_is_told_from_a_chain() {
        let mut headers = HeaderMap::new();
        for _ in 0..5 {
            headers.append(VIA, HeaderValue::from_static("1.1 cloakroom, 1.1 nginx"));
            headers.append(VIA, HeaderValue::from_static("2.0  cloakroom (x)"));
        }
        assert!(!is_looping(&headers, "cloakroom"));
        headers.append(VIA, HeaderValue::from_static("1.1 cloakroom"));
        assert!(is_looping(&headers, "cloakroom"));
        assert!(!is_looping(&headers, "nginx"));
    }

    /// S-22.
    #[test]
    fn max_forwards_counts_for_options() {
        let mut headers = HeaderMap::new();
        headers.insert(MAX_FORWARDS, HeaderValue::from_static("3"));
        assert_eq!(max_forwards(&Method::OPTIONS, &headers), Some(3));
        assert_eq!(max_forwards(&Method::GET, &headers), None);
        headers.insert(MAX_FORWARDS, HeaderValue::from_static("-1"));
        assert_eq!(max_forwards(&Method::OPTIONS, &headers), None);
    }

    #[test]
    fn s21_hop_by_hop_fields_go() {
        let left = names_left(&[
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, ["trailer", "accept"]);
    }

    /// CVE-2026-29054: any case, lists, several lines, empty elements. S-21.
    #[test]
    fn s21_what_connection_names_goes_in_every_spelling() {
        let left = names_left(&[
            ("connection", "keep-alive, X-One"),
            ("connection", ",, x-two ,"),
            ("connection", "\tX-THREE"),
            ("connection", "no token, x-four"),
            ("x-one", "1"),
            ("x-one", "again"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
            ("x-five", "5"),
        ]);
        assert_eq!(left, ["x-five"]);
    }

    #[test]
    fn s21_framing_and_host_cannot_be_named_away() {
        let left = names_left(&[
            (
                "connection",
                "Host, content-length, cache-control, connection",
            ),
            ("host", "a"),
            ("content-length", "1"),
            ("cache-control", "no-store"),
        ]);
        assert_eq!(left, ["host", "content-length", "cache-control"]);
    }

    #[test]
    fn what_stays_keeps_its_order_and_repeats() {
        let mut headers = headers(&[
            ("connection", "x-a"),
            ("b", "1"),
            ("x-a", "2"),
            ("c", "3"),
            ("b", "4"),
            ("d", "5"),
        ]);
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(left, [("b", "1"), ("b", "4"), ("c", "3"), ("d", "5")]);
    }

    #[test]
    fn te_trailers_is_reported() {
        for (value, expected) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("trailers;q=0.5", false),
            ("gzip", false),
        ] {
            let mut headers = headers(&[("te", value), ("connection", "te")]);
            assert_eq!(remove_hop_by_hop(&mut headers), expected, "{value}");
            assert!(headers.is_empty());
        }
        assert!(!remove_hop_by_hop(&mut HeaderMap::new()));
    }
}
