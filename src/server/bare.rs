//! The parser's own refusals, given the form of all others.
//!
//! A head that hyper cannot parse never becomes a request: hyper answers it
//! with a bare head (400, 414 or 431) and shuts the connection down. That head
//! is held back here, and if the connection is shut down next, our own answer
//! goes out in its place.
//!
//! An application's answer may look the same, and so may the end of a body.
//! Both are followed by something else: a read, a write, another request. Then
//! what was held is sent as it is. Only where the connection ends behind them,
//! and the client has sent more than the requests that were read, they cannot
//! be told apart, and nothing follows that the difference could confuse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Response};
use tokio::io::AsyncWrite;

use crate::base::refusal::Refusal;

/// How hyper's heads begin and end, around their `Date`.
const BEGINNINGS: [(&[u8], Refusal); 3] = [
    (b"400 Bad Request", Refusal::BadFraming),
    (b"414 URI Too Long", Refusal::RequestHeaderTooLarge),
    (
        b"431 Request Header Fields Too Large",
        Refusal::RequestHeaderTooLarge,
    ),
];
const VERSIONS: [(&[u8], &[u8]); 2] = [
    (
        b"HTTP/1.1 ",
        b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: ",
    ),
    // If the request before it was one of HTTP/1.0.
    (b"HTTP/1.0 ", b"\r\ncontent-length: 0\r\ndate: "),
];
const END: &[u8] = b"\r\n\r\n";

/// The length of an HTTP date (RFC 9110 section 5.6.7).
const DATE_LENGTH: usize = 29;

/// Makes the answer to a head that cannot be parsed, and notes it.
pub type Refuse = Box<dyn Fn(Refusal) -> Response<Bytes> + Send>;

/// Holds back what may be a refusal of the parser.
pub struct Bare {
    refuse: Refuse,
    held: Bytes,
    /// What it says, and the requests that were read by then.
    found: Option<(Refusal, u64)>,
}

impl Bare {
    /// With the answers that are to be given instead.
    pub fn new(refuse: Refuse) -> Self {
        Self {
            refuse,
            held: Bytes::new(),
            found: None,
        }
    }

    /// How many of these bytes may be written now. With 0, all of them are held
    /// back, and count as written.
    pub fn hold(&mut self, bytes: &[u8], requests: u64) -> usize {
        let Some((at, refusal)) = find(bytes) else {
            return bytes.len();
        };
        if at == 0 {
            self.held = Bytes::copy_from_slice(bytes);
            self.found = Some((refusal, requests));
        }
        at
    }

    /// Whether something is held, and another request was read since.
    pub fn is_overtaken(&self, requests: u64) -> bool {
        self.found.is_some_and(|(_, before)| before != requests)
    }

    /// Puts our own answer in the place of what is held.
    pub fn replace(&mut self) {
        let Some((refusal, _)) = self.found.take() else {
            return;
        };
        let date = self.held.len().checked_sub(END.len() + DATE_LENGTH);
        let date = date
            .and_then(|at| self.held.get(at..at + DATE_LENGTH))
            .and_then(|date| HeaderValue::from_bytes(date).ok());
        self.held = written(&(self.refuse)(refusal), date);
    }

    /// Writes what is held.
    ///
    /// # Errors
    ///
    /// What writing gave.
    pub fn poll_release<W: AsyncWrite + Unpin>(
        &mut self,
        mut stream: &mut W,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.found = None;
        while self.held.has_remaining() {
            let written = ready!(Pin::new(&mut stream).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written.min(self.held.len()));
        }
        Poll::Ready(Ok(()))
    }
}

/// Where the head begins that these bytes end with, if it looks like one of
/// hyper's refusals, and what it refuses.
fn find(bytes: &[u8]) -> Option<(usize, Refusal)> {
    let head = bytes.strip_suffix(END)?;
    let (head, _) = head.split_at_checked(head.len().checked_sub(DATE_LENGTH)?)?;
    for (version, fields) in VERSIONS {
        let Some(head) = head.strip_suffix(fields) else {
            continue;
        };
        for (status, refusal) in BEGINNINGS {
            let before = head.strip_suffix(status);
            if let Some(before) = before.and_then(|head| head.strip_suffix(version)) {
                return Some((before.len(), refusal));
            }
        }
    }
    None
}

/// A response as HTTP/1.1 writes it, the last one of its connection.
fn written(response: &Response<Bytes>, date: Option<HeaderValue>) -> Bytes {
    let (status, body) = (response.status(), response.body());
    let mut headers = response.headers().clone();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(date) = date {
        headers.insert(DATE, date);
    }
    let mut out = BytesMut::with_capacity(1024);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &headers {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(END);
    out.extend_from_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATED: &str = "date: Sat, 21 Nov 2026 04:00:00 GMT\r\n\r\n";

    fn bare(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n{DATED}")
    }

    #[test]
    fn only_the_whole_head_is_found_and_only_at_the_end() {
        let head = bare("400 Bad Request");
        assert_eq!(find(head.as_bytes()), Some((0, Refusal::BadFraming)));
        let behind = format!("abc{}", bare("431 Request Header Fields Too Large"));
        assert_eq!(
            find(behind.as_bytes()),
            Some((3, Refusal::RequestHeaderTooLarge))
        );
        let old = format!("HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n{DATED}");
        assert!(find(old.as_bytes()).is_some());
        for other in [
            &head[1..],
            &head[..head.len() - 1],
            &format!("{head}x"),
            &bare("404 Not Found"),
            &bare("400 Bad Request\r\nx: y"),
            &head.replace("connection: close", "connection: keep-alive"),
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(find(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_held_goes_out_as_it_was_or_as_ours() {
        let refuse = |refusal: Refusal| {
            let mut response = Response::new(Bytes::from_static(b"ours"));
            *response.status_mut() = refusal.status();
            response
        };
        let released = |replace: bool| {
            let mut bare_ = Bare::new(Box::new(refuse));
            let head = bare("400 Bad Request");
            assert_eq!(bare_.hold(b"abc", 1), 3);
            assert_eq!(bare_.hold(format!("abc{head}").as_bytes(), 1), 3);
            assert!(!bare_.is_overtaken(2));
            assert_eq!(bare_.hold(head.as_bytes(), 1), 0);
            assert!(bare_.is_overtaken(2) && !bare_.is_overtaken(1));
            if replace {
                bare_.replace();
            }
            let mut out = Vec::new();
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(bare_.poll_release(&mut out, &mut context).is_ready());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(released(false), bare("400 Bad Request"));
        let ours = released(true);
        assert!(ours.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{ours}");
        assert!(ours.contains("\r\ncontent-length: 4\r\n"), "{ours}");
        assert!(ours.contains("\r\nconnection: close\r\n"), "{ours}");
        assert!(
            ours.contains("\r\ndate: Sat, 21 Nov 2026 04:00:00 GMT\r\n"),
            "{ours}"
        );
        assert!(ours.ends_with("\r\n\r\nours"), "{ours}");
    }
}
