//! One line per request, once its response has been sent.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

#[cfg(test)]
use serde::Serialize;

use super::times::{Milliseconds, Moment, decimal};
use crate::base::address::write_address;
use crate::base::log_queue::LogQueue;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where access lines go; `None`: nowhere. A full queue drops lines rather
/// than hold up requests.
#[derive(Clone)]
pub struct AccessLog(Option<(LogQueue, Format)>);

/// One line. Every field but the first ones may be unknown. Values come from
/// outside; JSON escapes what must not reach a terminal, and the text form
/// escapes it too.
#[derive(Debug)]
#[cfg_attr(test, derive(Serialize))]
pub struct Line<'a> {
    /// When the request came.
    pub time: Moment,
    /// Always `access`, to tell these lines from others.
    pub kind: &'static str,
    /// The request's id.
    #[cfg_attr(test, serde(serialize_with = "tests::as_text"))]
    pub request_id: &'a [u8],
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: &'a str,
    /// The request's host.
    #[cfg_attr(test, serde(serialize_with = "tests::as_text_or_null"))]
    pub host: Option<&'a [u8]>,
    /// The request's path, without its query, which may hold secrets.
    pub path: &'a str,
    /// The protocol the client spoke.
    pub protocol: &'static str,
    /// The status of the response.
    pub status: u16,
    /// The route it met.
    pub route: Option<&'a str>,
    /// The user id.
    pub user: Option<&'a str>,
    /// The session's handle; never its token.
    pub session: Option<&'a str>,
    /// Why it was refused.
    pub reason: Option<&'static str>,
    /// Whether the response was cut off.
    pub aborted: bool,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the response's body that were sent.
    pub bytes_out: u64,
    /// From the request's head to the end of the response.
    pub duration_ms: Milliseconds,
    /// From forwarding to the head of the application's response.
    pub upstream_ms: Option<Milliseconds>,
}

impl AccessLog {
    /// Writes to `sink` in `format`.
    pub fn new(sink: LogQueue, format: Format) -> Self {
        Self(Some((sink, format)))
    }

    /// The same for another worker: none waits for the lines of the other.
    pub fn beside(&self) -> Self {
        let of_worker = |(sink, format): &(LogQueue, Format)| (sink.beside(), *format);
        Self(self.0.as_ref().map(of_worker))
    }

    /// Writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether lines are wanted at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line. Failures are dropped: there is nowhere to report them.
    pub fn write(&self, line: &Line<'_>) {
        let Some((sink, format)) = &self.0 else {
            return;
        };
        sink.push_with(|out| {
            let before = out.len();
            let is_plain = match format {
                Format::Json => line.write_json(out),
                Format::Text => {
                    line.write_text(out);
                    false
                }
            };
            out.push(b'\n');
            if is_plain {
                return;
            }
            let line = out.get(before..).unwrap_or_default();
            if let Cow::Owned(escaped) = without_controls(line) {
                out.truncate(before);
                out.extend_from_slice(&escaped);
            }
        });
    }
}

/// A line of JSON with the control characters escaped that JSON itself lets
/// pass: DEL, and U+0080 to U+009F, with which some terminals can be driven as
/// with ESC. They stand in strings alone: all else in JSON is plain ASCII.
pub fn without_controls(line: &[u8]) -> Cow<'_, [u8]> {
    let is_control = |pair: &[u8]| matches!(pair, [0x7f, ..] | [0xc2, 0x80..=0x9f]);
    // Hardly any line has either of these bytes.
    let may_have_one = memchr::memchr2(0x7f, 0xc2, line).is_some();
    if !may_have_one || !line.contains(&0x7f) && !line.windows(2).any(is_control) {
        return Cow::Borrowed(line);
    }
    let mut escaped = Vec::with_capacity(line.len() + 16);
    let mut rest = line;
    loop {
        // Writing to a vector cannot fail.
        let _ = match rest {
            [] => return Cow::Owned(escaped),
            [0x7f, tail @ ..] => {
                rest = tail;
                write!(escaped, "\\u007f")
            }
            [0xc2, byte @ 0x80..=0x9f, tail @ ..] => {
                rest = tail;
                write!(escaped, "\\u{byte:04x}")
            }
            [byte, tail @ ..] => {
                rest = tail;
                escaped.write_all(&[*byte])
            }
        };
    }
}

impl Line<'_> {
    /// Writes the names with what stands around them, which is the same in each
    /// line and most of it. Whether there was nothing to escape.
    fn write_json(&self, out: &mut Vec<u8>) -> bool {
        plain(out, b"{\"time\":\"", self.time.text());
        plain(out, b",\"kind\":\"", self.kind.as_bytes());
        let mut is_plain = text(out, b",\"request_id\":", Some(self.request_id));
        out.extend_from_slice(b",\"client\":");
        client(out, self.client);
        // Methods, like the next names, have nothing to escape (RFC 9110 section 5.6.2).
        plain(out, b",\"method\":\"", self.method.as_bytes());
        is_plain &= text(out, b",\"host\":", self.host);
        is_plain &= text(out, b",\"path\":", Some(self.path.as_bytes()));
        plain(out, b",\"protocol\":\"", self.protocol.as_bytes());
        out.extend_from_slice(b",\"status\":");
        decimal(out, u64::from(self.status));
        is_plain &= text(out, b",\"route\":", self.route.map(str::as_bytes));
        is_plain &= text(out, b",\"user\":", self.user.map(str::as_bytes));
        is_plain &= text(out, b",\"session\":", self.session.map(str::as_bytes));
        is_plain &= text(out, b",\"reason\":", self.reason.map(str::as_bytes));
        out.extend_from_slice(match self.aborted {
            true => b",\"aborted\":true,\"bytes_in\":".as_slice(),
            false => b",\"aborted\":false,\"bytes_in\":",
        });
        decimal(out, self.bytes_in);
        out.extend_from_slice(b",\"bytes_out\":");
        decimal(out, self.bytes_out);
        out.extend_from_slice(b",\"duration_ms\":");
        self.duration_ms.write(out);
        out.extend_from_slice(b",\"upstream_ms\":");
        match self.upstream_ms {
            Some(time) => time.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        is_plain
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.time.text());
        out.push(b' ');
        match self.client {
            Some(client) => write_address(out, client),
            None => out.push(b'-'),
        }
        let host = String::from_utf8_lossy(self.host.unwrap_or(b"-"));
        let _ = write!(
            out,
            " {} {}{} {} {:.1} ms",
            self.method,
            host.escape_debug(),
            self.path.escape_debug(),
            self.status,
            self.duration_ms.value(),
        );
        let id = String::from_utf8_lossy(self.request_id);
        let _ = write!(out, " id={}", id.escape_debug());
        if let Some(user) = self.user {
            let _ = write!(out, " user={}", user.escape_debug());
        }
        if let Some(reason) = self.reason {
            let _ = write!(out, " reason={reason}");
        }
        if self.aborted {
            let _ = out.write_all(b" aborted");
        }
    }
}

/// A member of an object whose value is a text without anything to escape. `name`: up to
/// the first quote of the value.
#[inline]
fn plain<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.push(b'"');
}

fn client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    match client {
        Some(client) => {
            out.push(b'"');
            write_address(out, client);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// A member of an object whose value is a text in UTF-8. Whether there was nothing to
/// escape.
#[inline]
fn text<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: Option<&[u8]>) -> bool {
    out.extend_from_slice(name);
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return true;
    };
    if is_plain(value) {
        plain(out, b"\"", value);
        return true;
    }
    // Neither a vector nor a text fails to be written.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(value));
    false
}

/// Whether all of it is printable ASCII and none has to be escaped. It is looked at in
/// pieces of eight, the last of which may begin in the one before.
fn is_plain(value: &[u8]) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let Some(last) = value.last_chunk::<8>() else {
        return value.iter().all(|byte| plain(*byte));
    };
    let (pieces, _) = value.as_chunks::<8>();
    pieces.iter().all(are_plain) && are_plain(last)
}

/// The same of eight bytes. In each, the highest bit tells.
#[inline]
fn are_plain(bytes: &[u8; 8]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let word = u64::from_ne_bytes(*bytes);
    // A difference borrows from the next byte only where this one tells already; and where
    // nothing has the highest bit, no sum carries.
    let is_control = word.wrapping_sub(each(b' '));
    let is_quote = (word ^ each(b'"')).wrapping_sub(each(1));
    let is_backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
    let is_delete = word.wrapping_add(each(1));
    (word | is_control | is_quote | is_backslash | is_delete) & each(0x80) == 0
}

#[cfg(test)]
mod tests;
