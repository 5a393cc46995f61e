//! The forwarding chain of a trusted peer, walked from the right.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{FORWARDED_HOST, FORWARDED_PROTO, X_FORWARDED_FOR};
use super::{ForwardingHeader, Scheme, Trust};
use crate::wire::target::split_authority;

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// From the client to the proxy before the peer; empty: the peer is the
    /// client.
    pub(super) hops: Vec<IpAddr>,
    /// The scheme at the client's hop, if it is said.
    pub(super) scheme: Option<Scheme>,
    /// The host at the client's hop, if it is said and believed.
    pub(super) host: Option<HeaderValue>,
}

/// Walks the configured family of fields; `None` if what is walked is
/// malformed.
pub(super) fn walk(headers: &HeaderMap, trust: &Trust) -> Option<Found> {
    match trust.header {
        ForwardingHeader::XForwardedFor => walk_x_forwarded(headers, trust),
        ForwardingHeader::Forwarded => walk_forwarded(headers, trust),
    }
}

/// Addresses as `X-Forwarded-For` writes them.
pub(super) fn join(hops: &[IpAddr]) -> Option<String> {
    let (first, rest) = hops.split_first()?;
    let mut text = String::with_capacity(hops.len() * 17);
    // Writing to a string cannot fail.
    let _ = write!(text, "{first}");
    for hop in rest {
        let _ = write!(text, ", {hop}");
    }
    Some(text)
}

fn walk_x_forwarded(headers: &HeaderMap, trust: &Trust) -> Option<Found> {
    let mut hops = Vec::new();
    for element in elements_from_right(headers, &X_FORWARDED_FOR) {
        let address = address(std::str::from_utf8(element).ok()?)?;
        hops.push(address);
        if !trust.trusts(address) {
            break;
        }
    }
    hops.reverse();
    let place = hops.len().saturating_sub(1);
    let scheme = match at_hop(headers, &FORWARDED_PROTO, place) {
        Some(text) => Some(scheme(text)?),
        None => None,
    };
    let host = match at_hop(headers, &FORWARDED_HOST, place).filter(|_| trust.host) {
        Some(text) => Some(host(text)?),
        None => None,
    };
    Some(Found { hops, scheme, host })
}

/// The element of a list that belongs to a hop, counted from the right. Where
/// the list is shorter than the walk, all of it comes from trusted proxies, and
/// its first element is the nearest to the client.
fn at_hop<'h>(headers: &'h HeaderMap, name: &HeaderName, place: usize) -> Option<&'h [u8]> {
    elements_from_right(headers, name).take(place + 1).last()
}

/// The elements of all lines of a list field, last first; empty ones are
/// skipped (RFC 9110 section 5.6.1.2).
fn elements_from_right<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

fn walk_forwarded(headers: &HeaderMap, trust: &Trust) -> Option<Found> {
    let mut found = Found::default();
    let lines = headers.get_all(http::header::FORWARDED).iter().rev();
    'walk: for line in lines {
        let line = line.to_str().ok()?;
        for element in split_quoted(line, b',')?.into_iter().rev() {
            if element.is_empty() {
                continue;
            }
            let element = Element::parse(element)?;
            found.scheme = element.proto;
            found.host = element.host.filter(|_| trust.host);
            match element.node {
                Node::Address(address) => {
                    found.hops.push(address);
                    if !trust.trusts(address) {
                        break 'walk;
                    }
                }
                Node::Hidden => break 'walk,
            }
        }
    }
    found.hops.reverse();
    Some(found)
}

/// One `forwarded-element` (RFC 7239 section 4).
struct Element {
    node: Node,
    proto: Option<Scheme>,
    host: Option<HeaderValue>,
}

enum Node {
    Address(IpAddr),
    /// `unknown`, an obfuscated name, or no `for` at all.
    Hidden,
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let mut names: Vec<String> = Vec::new();
        let mut element = Self {
            node: Node::Hidden,
            proto: None,
            host: None,
        };
        for pair in split_quoted(text, b';')? {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_once('=')?;
            let name = name.to_ascii_lowercase();
            if name.is_empty() || names.contains(&name) {
                return None;
            }
            let value = unquote(value)?;
            match name.as_str() {
                "for" => element.node = node(&value)?,
                "proto" => element.proto = Some(scheme(value.as_bytes())?),
                "host" => element.host = Some(host(value.as_bytes())?),
                _ => {}
            }
            names.push(name);
        }
        Some(element)
    }
}

/// RFC 7239 section 6.
fn node(text: &str) -> Option<Node> {
    let name = text.split(':').next()?;
    if name.eq_ignore_ascii_case("unknown") || name.starts_with('_') {
        return Some(Node::Hidden);
    }
    // A port may be obfuscated while the address is not.
    match text.rsplit_once(":_") {
        Some((name, _)) => address(name).map(Node::Address),
        None => address(text).map(Node::Address),
    }
}

/// Splits outside quoted strings; `None` for an open quote, or one that begins
/// or ends inside a word.
fn split_quoted(text: &str, at: u8) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == at && !quoted => {
                parts.push(text.get(start..place)?.trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?.trim());
    (!quoted).then_some(parts)
}

/// The value of a token or quoted string. Unquoted colons and brackets are
/// taken: proxies do send `for=10.0.0.1:80`.
fn unquote(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        let fine = !text.is_empty() && !text.contains(|c: char| c == '"' || c.is_whitespace());
        return fine.then(|| text.to_owned());
    };
    let mut value = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
    characters.next().is_none().then_some(value)
}

/// `ip`, `ip:port`, `[v6]`, `[v6]:port`.
fn address(text: &str) -> Option<IpAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?),
            None => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

/// A WebSocket's scheme is that of its handshake.
fn scheme(text: &[u8]) -> Option<Scheme> {
    let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    match () {
        () if is("https") || is("wss") => Some(Scheme::Https),
        () if is("http") || is("ws") => Some(Scheme::Http),
        () => None,
    }
}

fn host(text: &[u8]) -> Option<HeaderValue> {
    let text = std::str::from_utf8(text).ok()?;
    split_authority(text)?;
    HeaderValue::from_str(&text.to_ascii_lowercase()).ok()
}
