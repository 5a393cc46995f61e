//! The session cookie on the wire: found in requests, taken out of what is
//! forwarded, set and cleared.
//!
//! Reading follows the `cookie` package that Express uses (RFC 6265 section
//! 5.2 is looser in places), so that both sides agree on which bytes are the
//! value. Nothing here knows what the value means.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::clock::Timestamp;
use crate::base::refusal::Refusal;
use crate::wire::hop::remove_where;

/// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// `session.cookie.same_site`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// Sent with requests of the same site only.
    Strict,
    /// Also sent with top-level navigations from elsewhere.
    Lax,
    /// Always sent; needs `Secure`.
    None,
}

/// `session.cookie.secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// As the browser's connection is.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `[session.cookie]`: the name and the attributes, which setting and clearing
/// share so that a browser takes them for the same cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieSpec {
    /// A token (RFC 9110 section 5.6.2); compared byte by byte.
    pub name: String,
    /// `Path`.
    pub path: String,
    /// `Domain`; `None`: this host only.
    pub domain: Option<String>,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`.
    pub secure: Secure,
    /// Whether it outlives the browser: `Expires` and `Max-Age` are sent.
    pub persistent: bool,
    /// `Partitioned`.
    pub partitioned: bool,
}

impl CookieSpec {
    /// Whether the cookie carries `Secure` on a connection that is, or is not,
    /// secure as the browser sees it.
    pub fn is_secure(&self, connection: bool) -> bool {
        match self.secure {
            Secure::Auto => connection,
            Secure::Always => true,
            Secure::Never => false,
        }
    }

    /// Whether browsers drop the cookie unless it carries `Secure`: for the
    /// promise in its name, which they read in any case (RFC 6265bis section
    /// 4.1.3), or for another attribute.
    pub fn needs_secure(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        self.secure == Secure::Always
            || self.same_site == SameSite::None
            || self.partitioned
            || name.starts_with("__secure-")
            || name.starts_with("__host-")
    }

    /// Every value that the request carries under our name, in order, over all
    /// `Cookie` lines, as raw bytes: blanks around them are gone, quotes and
    /// escapes are not ([`decode`] does that). Allocates nothing.
    pub fn values<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h [u8]> {
        let name = self.name.as_bytes();
        headers
            .get_all(COOKIE)
            .iter()
            .flat_map(|line| parts(line.as_bytes()))
            .filter_map(move |part| value_of(part, name))
    }

    /// The value that [`CookieSpec::values`] gives, if it gives exactly one.
    pub fn only_value<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        let mut only = None;
        for line in headers.get_all(COOKIE) {
            for part in parts(line.as_bytes()) {
                let value = value_of(part, self.name.as_bytes());
                if value.is_some() && only.is_some() {
                    return None;
                }
                only = only.or(value);
            }
        }
        only
    }

    /// Takes our cookie out of every `Cookie` line, however it is spaced,
    /// quoted or repeated. All other bytes stay; several lines become one,
    /// joined with `; ` (RFC 9113 section 8.2.3). A request with one line and
    /// without our cookie is left as it is.
    pub fn strip(&self, headers: &mut HeaderMap) {
        match self.others(headers) {
            Some(Cow::Borrowed(_)) => {}
            // In the place of the first line.
            Some(Cow::Owned(value)) => drop(headers.insert(COOKIE, value)),
            None => remove_where(headers, |name| *name == COOKIE),
        }
    }

    /// What [`CookieSpec::strip`] leaves, in one line; `None`: nothing.
    pub fn others<'h>(&self, headers: &'h HeaderMap) -> Option<Cow<'h, HeaderValue>> {
        let mut lines = headers.get_all(COOKIE).iter();
        let (first, second) = (lines.next()?, lines.next());
        let mut kept = Vec::with_capacity(first.len());
        let found = self.keep_others(first.as_bytes(), &mut kept);
        if second.is_none() && !found {
            return Some(Cow::Borrowed(first));
        }
        let mut sensitive = first.is_sensitive();
        for line in second.into_iter().chain(lines) {
            sensitive |= line.is_sensitive();
            self.keep_others(line.as_bytes(), &mut kept);
        }
        // The bytes come out of valid values, so they are one; were they ever
        // not, a request without cookies is the safe one.
        match HeaderValue::from_maybe_shared(Bytes::from(kept)) {
            Ok(mut value) if !value.is_empty() => {
                value.set_sensitive(sensitive);
                Some(Cow::Owned(value))
            }
            _ => None,
        }
    }

    /// `Set-Cookie` for a session that ends at `absolute_end` at the latest.
    /// `encoded_value` is what [`encode`] made; `secure` says whether the
    /// browser's connection is (see [`CookieSpec::is_secure`]).
    ///
    /// # Errors
    /// [`Refusal::InternalError`] if a part holds bytes that a header cannot.
    pub fn set(
        &self,
        encoded_value: &str,
        now: Timestamp,
        absolute_end: Timestamp,
        secure: bool,
    ) -> Result<HeaderValue, Refusal> {
        let left = absolute_end.since(now).min(LONGEST);
        let lifetime = self.persistent.then(|| (now.after(left), left.as_secs()));
        self.line(encoded_value, lifetime, secure)
    }

    /// `Set-Cookie` that makes the browser forget the cookie: the same
    /// attributes, no value, a lifetime of nothing (S-46).
    ///
    /// # Errors
    /// As for [`CookieSpec::set`].
    pub fn clear(&self, secure: bool) -> Result<HeaderValue, Refusal> {
        self.line("", Some((Timestamp(0), 0)), secure)
    }

    /// Whether a `Set-Cookie` would make the browser send a cookie of our
    /// name. A nameless cookie `=name=value` does too: browsers send it as
    /// `name=value`.
    pub fn is_ours_set_cookie(&self, value: &HeaderValue) -> bool {
        let name = self.name.as_bytes();
        let Some(pair) = parts(value.as_bytes()).next() else {
            return false;
        };
        let pair = trim(pair);
        let pair = pair.strip_prefix(b"=").unwrap_or(pair);
        value_of(pair, name).is_some()
    }

    /// Adds the other cookies of a line to those that are kept. Whether ours was there.
    fn keep_others(&self, line: &[u8], kept: &mut Vec<u8>) -> bool {
        let (mut first, mut found) = (true, false);
        for part in parts(line) {
            if value_of(part, self.name.as_bytes()).is_some() {
                found = true;
                continue;
            }
            let part = if first { part.trim_ascii_start() } else { part };
            if first && part.is_empty() {
                continue;
            }
            match (first, kept.is_empty()) {
                (_, true) => {}
                (true, false) => kept.extend_from_slice(b"; "),
                (false, false) => kept.push(b';'),
            }
            kept.extend_from_slice(part);
            first = false;
        }
        found
    }

    fn line(
        &self,
        value: &str,
        lifetime: Option<(Timestamp, u64)>,
        secure: bool,
    ) -> Result<HeaderValue, Refusal> {
        let mut line = String::with_capacity(self.name.len() + value.len() + 160);
        line.push_str(&self.name);
        line.push('=');
        line.push_str(value);
        if let Some(domain) = &self.domain {
            line.push_str("; Domain=");
            line.push_str(domain);
        }
        line.push_str("; Path=");
        line.push_str(&self.path);
        if let Some((expires, seconds)) = lifetime {
            let expires = httpdate::HttpDate::from(expires.system());
            // Writing to a string cannot fail.
            let _ = write!(line, "; Expires={expires}; Max-Age={seconds}");
        }
        line.push_str("; HttpOnly");
        if self.is_secure(secure) {
            line.push_str("; Secure");
        }
        if self.partitioned {
            line.push_str("; Partitioned");
        }
        line.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        HeaderValue::from_maybe_shared(Bytes::from(line)).map_err(|_| Refusal::InternalError)
    }
}

/// One `Cookie` line of several, as RFC 9113 section 8.2.3 has it: HTTP/2 may split it,
/// and not every application reads more than one. `None`: there is none.
pub fn joined_cookies(headers: &HeaderMap) -> Option<Cow<'_, HeaderValue>> {
    let mut lines = headers.get_all(COOKIE).iter();
    let first = lines.next()?;
    if lines.next().is_none() {
        return Some(Cow::Borrowed(first));
    }
    let lines: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = lines.join(&b"; "[..]);
    let sensitive = headers
        .get_all(COOKIE)
        .iter()
        .any(HeaderValue::is_sensitive);
    // Made of valid values it is one; were it ever not, no cookie is the safe one.
    match HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        Ok(mut value) => {
            value.set_sensitive(sensitive);
            Some(Cow::Owned(value))
        }
        Err(_) => None,
    }
}

/// A raw cookie value as Express understands it, in UTF-8: one pair of quotes
/// is taken off; then, if every escape is right, they are decoded once
/// (`decodeURIComponent`), else none is. `+` is no blank. Bytes from 0x80 are
/// Latin-1, as Node reads header fields.
pub fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = match raw {
        [b'"'] => &[],
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    };
    if memchr::memchr(b'%', raw).is_some()
        && let Some(decoded) = decode_component(raw)
    {
        return Cow::Owned(decoded);
    }
    if raw.is_ascii() {
        return Cow::Borrowed(raw);
    }
    let mut text = Vec::with_capacity(raw.len() * 2);
    raw.iter().for_each(|byte| push_latin1(&mut text, *byte));
    Cow::Owned(text)
}

/// `encodeURIComponent`.
pub fn encode(value: &str) -> String {
    utf8_percent_encode(value, COMPONENT).to_string()
}

/// The parts between semicolons. Quotes do not protect a semicolon: servers
/// that think so can be made to read a neighbour's cookie as part of a value.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = memchr::memchr(b';', line).unwrap_or(line.len());
        let (part, tail) = line.split_at_checked(end)?;
        rest = tail.get(1..);
        Some(part)
    })
}

/// The value of a part whose name is `name`; parts without `=` have none.
fn value_of<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = part.trim_ascii_start().strip_prefix(name)?;
    let value = rest.trim_ascii_start().strip_prefix(b"=")?;
    Some(trim(value))
}

/// Without blanks and tabs at both ends; other controls cannot be in a value.
fn trim(part: &[u8]) -> &[u8] {
    part.trim_ascii()
}

fn push_latin1(text: &mut Vec<u8>, byte: u8) {
    let mut buffer = [0; 4];
    text.extend_from_slice(char::from(byte).encode_utf8(&mut buffer).as_bytes());
}

/// `decodeURIComponent`; `None` where it throws. Each run of escapes that
/// makes one character must be that character's whole UTF-8.
fn decode_component(raw: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    loop {
        // Nearly all of a value is plain, and is taken at once.
        let plain = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        let (plain, after) = rest.split_at_checked(plain)?;
        match plain.is_ascii() {
            true => text.extend_from_slice(plain),
            false => plain.iter().for_each(|byte| push_latin1(&mut text, *byte)),
        }
        rest = after;
        if rest.is_empty() {
            return Some(text);
        }
        let start = text.len();
        let (first, mut tail) = unescape(rest)?;
        text.push(first);
        let more = match first {
            0x00..=0x7f => 0,
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => return None,
        };
        for _ in 0..more {
            let (next, after) = unescape(tail)?;
            text.push(next);
            tail = after;
        }
        std::str::from_utf8(text.get(start..)?).ok()?;
        rest = tail;
    }
}

/// The byte of an escape at the front, and what follows it.
fn unescape(rest: &[u8]) -> Option<(u8, &[u8])> {
    match rest {
        [b'%', high, low, tail @ ..] => Some((hex(*high)? << 4 | hex(*low)?, tail)),
        _ => None,
    }
}

/// The value of one hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
