//! Where a browser may be sent after signing in or out.
//!
//! The target comes from the URL, so anybody can have written it. It is either
//! a path on our own origin or an absolute URL whose host is named exactly;
//! whatever a browser could read in another way is refused. Browsers follow the
//! WHATWG URL standard, which drops tabs and line breaks, takes `\` for `/`, and
//! reads `//host` as another site.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The longest target in bytes, as it arrives.
pub const MAX_TARGET: usize = 2048;

/// ASCII that no URI holds (RFC 3986 section 2) is encoded; `%` is not, since
/// the target is encoded already.
const NOT_IN_URI: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The target as it may stand in `Location`, in ASCII; `None` if it must not
/// be followed.
///
/// - `rd`: as the client gave it, decoded from its form or query once.
/// - `own`: our own host, with a port where it is not the scheme's own; `None`
///   if unknown, so that only paths are taken.
/// - `own_scheme`: `http` or `https`, as the browser sees us.
/// - `redirect_hosts`: other hosts that may be returned to, by either scheme,
///   compared whole: neither a suffix nor a user name before it will do.
pub fn return_to(
    rd: &str,
    own: Option<&str>,
    own_scheme: &str,
    redirect_hosts: &[String],
) -> Option<String> {
    if rd.len() > MAX_TARGET || rd.chars().any(|c| c.is_control() || c == '\\') {
        return None;
    }
    if rd.starts_with('/') {
        return path(rd);
    }
    let (scheme, rest) = rd.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let host = canonical(scheme, authority)?;
    let ours = scheme == own_scheme
        && own.and_then(|own| canonical(scheme, own)).as_deref() == Some(&*host);
    let named = redirect_hosts
        .iter()
        .any(|named| canonical(scheme, named).as_deref() == Some(&*host));
    if !ours && !named {
        return None;
    }
    let tail = if tail.starts_with('/') {
        path(tail)?
    } else {
        format!("/{}", encode(tail))
    };
    Some(format!("{scheme}://{host}{tail}"))
}

/// A target that begins with `/`, if no reading of it leaves the origin.
fn path(target: &str) -> Option<String> {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let path = target.get(..end)?;
    if may_become_authority(path) {
        return None;
    }
    Some(encode(target))
}

/// Whether the path begins with `//`, or would after decoding it or removing
/// dot segments, in whole or in part (RFC 3986 section 5.2.4). Only the first
/// of these leaves the origin in a browser; but something on the way, a proxy
/// that rewrites `Location` say, must not make `//host` of `/%2fhost` or
/// `/.//host`.
fn may_become_authority(path: &str) -> bool {
    let mut plain = path.to_owned();
    // Twice: an encoded percent sign may hide an encoded slash.
    for _ in 0..2 {
        for (encoded, decoded) in ENCODED {
            plain = plain.replace(encoded, decoded);
        }
    }
    let mut depth = 0_usize;
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => depth = depth.saturating_sub(1),
            "" if depth == 0 && segments.peek().is_some() => return true,
            _ => depth = depth.saturating_add(1),
        }
    }
    false
}

/// How dots, slashes and backslashes are hidden, and what browsers drop wherever
/// it stands: tabs and line breaks.
const ENCODED: [(&str, &str); 12] = [
    ("%25", "%"),
    ("%2e", "."),
    ("%2E", "."),
    ("%2f", "/"),
    ("%2F", "/"),
    ("%5c", "/"),
    ("%5C", "/"),
    ("%09", ""),
    ("%0a", ""),
    ("%0A", ""),
    ("%0d", ""),
    ("%0D", ""),
];

/// Host and port in lower case without the scheme's own port; `None` if it
/// holds anything that a host does not, such as `@` or `%`.
fn canonical<'a>(scheme: &str, authority: &'a str) -> Option<Cow<'a, str>> {
    let plain = authority
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = authority.strip_suffix(usual).unwrap_or(authority);
    if !plain || host.is_empty() {
        return None;
    }
    Some(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_URI).to_string()
}

#[cfg(test)]
mod tests;
