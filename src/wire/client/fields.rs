//! The forwarding fields of outbound requests: removed as a family, then
//! written anew.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Client, ConnInfo, ForwardingHeader, Trust};
use crate::wire::fields::Sink;
use crate::wire::hop::remove_where;
use crate::wire::reserved::same_name;
use crate::wire::target::Target;

pub(super) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Families of which every member counts.
const FAMILIES: [&[u8]; 2] = [b"x-forwarded-", b"x-original-"];

/// The other names by which servers learn of a request's way.
const NAMES: [&[u8]; 9] = [
    b"forwarded",
    b"forwarded-for",
    b"x-forwarded",
    b"x-real-ip",
    b"x-client-ip",
    b"true-client-ip",
    b"x-cluster-client-ip",
    b"x-rewrite-url",
    b"client-ip",
];

/// Whether a field tells of a request's way, in any spelling of case, `-` and
/// `_`. None of them passes from a client to the upstream: a forgotten member
/// of the family is a hole (CVE-2026-39858, CVE-2026-35051, CVE-2026-54764).
pub fn is_forwarding_field(name: &HeaderName) -> bool {
    is_forwarding_name(name.as_str().as_bytes())
}

/// The same of a name in lower case.
pub(in crate::wire) fn is_forwarding_name(name: &[u8]) -> bool {
    if !matches!(name.first(), Some(b'x' | b'f' | b't' | b'c')) {
        return false;
    }
    let begins = |family: &&[u8]| {
        name.get(..family.len())
            .is_some_and(|start| same_name(start, family))
    };
    FAMILIES.iter().any(begins) || NAMES.iter().any(|other| same_name(name, other))
}

/// Removes the whole family.
pub fn remove_forwarding(headers: &mut HeaderMap) {
    remove_where(headers, is_forwarding_field);
}

/// Writes `X-Forwarded-For` (the walked chain and the peer), `-Proto`
/// (`http` or `https`, also for WebSockets), `-Host`, and `Forwarded` if that
/// is the configured family. Replaces fields of these names; call
/// [`remove_forwarding`] before.
pub fn write_forwarding(
    out: &mut impl Sink,
    client: &Client,
    conn: &ConnInfo,
    target: &Target,
    trust: &Trust,
) {
    if let Some(chain) = chain_value(client, conn) {
        out.put(&X_FORWARDED_FOR, &chain);
    }
    let scheme = HeaderValue::from_static(client.scheme.as_str());
    out.put(&FORWARDED_PROTO, &scheme);
    let host = client
        .forwarded_host
        .as_ref()
        .unwrap_or(target.authority_value());
    if !host.is_empty() {
        out.put(&FORWARDED_HOST, host);
    }
    if trust.header == ForwardingHeader::Forwarded
        && let Some(value) = forwarded_value(client, conn, host)
    {
        out.put(&FORWARDED, &value);
    }
}

/// Nothing over a Unix socket without a chain: there is no address to tell.
fn chain_value<'c>(client: &Client, conn: &'c ConnInfo) -> Option<Cow<'c, HeaderValue>> {
    match (&client.forwarded_for, conn.unix) {
        (None, true) => None,
        (None, false) => Some(Cow::Borrowed(&conn.peer_value)),
        (Some(chain), true) => HeaderValue::from_str(chain).ok().map(Cow::Owned),
        (Some(chain), false) => {
            let mut text = String::with_capacity(chain.len() + 2 + conn.peer_value.len());
            text.push_str(chain);
            text.push_str(", ");
            text.push_str(conn.peer_value.to_str().ok()?);
            let chain = HeaderValue::from_maybe_shared(Bytes::from(text));
            chain.ok().map(Cow::Owned)
        }
    }
}

/// One element per hop; the client's carries host and scheme (RFC 7239).
fn forwarded_value(client: &Client, conn: &ConnInfo, host: &HeaderValue) -> Option<HeaderValue> {
    let mut text = String::from("for=");
    if client.forwarded_for.is_none() && conn.unix {
        text.push_str("unknown");
    } else {
        push_node(&mut text, client.ip);
    }
    if !host.is_empty() {
        // A checked host has neither quotes nor backslashes.
        let _ = write!(text, ";host=\"{}\"", host.to_str().ok()?);
    }
    let _ = write!(text, ";proto={}", client.scheme.as_str());
    let chain = client.forwarded_for.as_deref().unwrap_or_default();
    for hop in chain.split(", ").skip(1) {
        text.push_str(", for=");
        push_node(&mut text, hop.parse().ok()?);
    }
    if client.forwarded_for.is_some() && !conn.unix {
        text.push_str(", for=");
        push_node(&mut text, conn.peer.ip());
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

fn push_node(text: &mut String, address: IpAddr) {
    // Writing to a string cannot fail.
    let _ = match address {
        IpAddr::V4(address) => write!(text, "{address}"),
        IpAddr::V6(address) => write!(text, "\"[{address}]\""),
    };
}
