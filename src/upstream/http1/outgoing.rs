//! A request on its way out (RFC 9112 sections 3 and 5 to 7).

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, Request};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;

use super::connection::Error;
use super::raw::Pipe;
use crate::base::gather::poll_write_pieces;
use crate::base::refusal::Failure;
use crate::wire::body::Body;
use crate::wire::fields::{Lines, Sink as _};

/// Room for a head that is kept from one request to the next.
const HEAD_KEPT: usize = 4096;

/// What is still to be written of a request.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The head, then what frames the content.
    bytes: Vec<u8>,
    written: usize,
    content: Option<Box<Content>>,
    /// All that was ever written.
    total: u64,
    /// Whether what was written has left: TLS may hold it back.
    is_flushed: bool,
}

/// The content of a request that is being sent.
struct Content {
    body: Body,
    framing: Framing,
    /// The piece that is being written, and what follows it.
    piece: Bytes,
    after: &'static [u8],
    /// The piece that completes the declared length, until the client has ended its stream.
    last: Bytes,
    ended: bool,
}

/// How the application learns where the content ends.
enum Framing {
    /// By a length, of which so much is left.
    Length(u64),
    /// In chunks. With the names of the fields that were announced to follow them: no
    /// others are sent (RFC 9110 section 6.6.2).
    Chunked(Vec<HeaderName>),
}

impl Outgoing {
    /// Begins with a request. Its body is taken out of it.
    ///
    /// # Errors
    ///
    /// What `fields` refuses; the request is whole then.
    pub(super) fn begin(
        &mut self,
        request: &mut Request<Body>,
        target: &str,
        fields: impl FnOnce(&Request<Body>, &mut Lines<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let has_content = !request.body().is_end_stream();
        let out = &mut self.bytes;
        out.clear();
        out.shrink_to(HEAD_KEPT);
        (self.written, self.is_flushed) = (0, false);
        out.extend_from_slice(request.method().as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Err(failure) = fields(request, &mut Lines(out)) {
            out.clear();
            return Err(failure);
        }
        self.content = has_content.then(|| {
            let length = request.body().size_hint().exact();
            let framing = Framing::of(request.headers(), length, out);
            let body = std::mem::take(request.body_mut());
            Box::new(Content::new(body, framing))
        });
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Whether all of the request has been written, and has left.
    pub(super) fn is_done(&self) -> bool {
        self.is_flushed
    }

    /// Writes what can be written. Ready when nothing is left.
    ///
    /// # Errors
    ///
    /// The connection's, and those of the content.
    pub(super) fn poll_send(
        &mut self,
        pipe: &mut Box<dyn Pipe>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            let waits = match &mut self.content {
                Some(content) => content.poll_next(&mut self.bytes, context)?.is_pending(),
                None => false,
            };
            let head = self
                .bytes
                .get(self.written..self.head_end())
                .unwrap_or_default();
            let written = match &self.content {
                None if head.is_empty() => break,
                None => ready!(Pin::new(&mut *pipe).poll_write(context, head)),
                Some(content) if head.is_empty() && content.is_written() => {
                    if content.ended {
                        break;
                    }
                    ready!(Pin::new(&mut *pipe).poll_flush(context)).map_err(Error::Io)?;
                    match waits {
                        true => return Poll::Pending,
                        false => continue,
                    }
                }
                Some(content) => {
                    let slices = [head, &content.piece, content.after].map(IoSlice::new);
                    ready!(poll_write_pieces(Pin::new(&mut *pipe), context, &slices))
                }
            };
            let written = written.map_err(Error::Io)?;
            if written == 0 {
                return Poll::Ready(Err(Error::Io(io::ErrorKind::WriteZero.into())));
            }
            self.advance(written);
        }
        ready!(Pin::new(pipe).poll_flush(context)).map_err(Error::Io)?;
        self.content = None;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// How much was written so far, if the application is to take more: not where the
    /// content has to be waited for.
    pub(super) fn blocked_at(&self) -> Option<u64> {
        let content = self.content.as_ref();
        let is_written = content.is_none_or(|content| content.is_written());
        let is_ended = content.is_none_or(|content| content.ended);
        let is_waiting = self.written >= self.head_end() && is_written && !is_ended;
        (!is_waiting).then_some(self.total)
    }

    /// How far the head, and what frames the content, may be written now. Where the content
    /// is held back and there is none, it is the head's end that would make the request
    /// whole.
    fn head_end(&self) -> usize {
        let is_kept = |content: &Content| content.holds() && content.last.is_empty();
        let kept = usize::from(self.content.as_deref().is_some_and(is_kept));
        self.bytes.len().saturating_sub(kept)
    }

    fn advance(&mut self, written: usize) {
        let count = u64::try_from(written).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(count);
        let head = self.bytes.len().saturating_sub(self.written).min(written);
        self.written += head;
        let Some(content) = &mut self.content else {
            return;
        };
        let piece = content.piece.len().min(written.saturating_sub(head));
        content.piece.advance(piece);
        let after = written.saturating_sub(head).saturating_sub(piece);
        content.after = content.after.get(after..).unwrap_or_default();
        if self.written == self.bytes.len() && content.is_written() && !content.ended {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

impl Framing {
    /// By the length that was written, or else by what is written here.
    fn of(headers: &HeaderMap, length: Option<u64>, out: &mut Vec<u8>) -> Self {
        let said = headers.get(CONTENT_LENGTH);
        let said = said.and_then(|said| said.to_str().ok()?.parse().ok());
        if let Some(length) = said {
            return Self::Length(length);
        }
        if let Some(length) = length {
            // Writing to a vector cannot fail.
            let _ = write!(out, "content-length: {length}\r\n");
            return Self::Length(length);
        }
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        let lines = headers.get_all(TRAILER).iter();
        let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
        Self::Chunked(names.collect())
    }
}

impl Content {
    fn new(body: Body, framing: Framing) -> Self {
        Self {
            body,
            framing,
            piece: Bytes::new(),
            after: b"",
            last: Bytes::new(),
            ended: false,
        }
    }

    fn is_written(&self) -> bool {
        self.piece.is_empty() && self.after.is_empty()
    }

    /// Whether the content is complete by its length before the client has ended its
    /// stream. With HTTP/2 more may come, which makes the request malformed (RFC 9113
    /// section 8.1.1), or a reset, which takes it back: what would make the request whole is
    /// held back until then. All before it is sent, so that the application knows of the
    /// request.
    fn holds(&self) -> bool {
        matches!(self.framing, Framing::Length(0)) && !self.ended
    }

    /// Takes the next piece, once the one before is written. Pending: there is none yet.
    fn poll_next(
        &mut self,
        out: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while self.is_written() && !self.ended {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => {
                    self.end(out, None)?;
                    break;
                }
                Some(frame) => frame.map_err(|error| Error::Content(Box::new(error)))?,
            };
            match frame.into_data() {
                Ok(data) => self.put(data, out)?,
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    self.end(out, trailers)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, data: Bytes, out: &mut Vec<u8>) -> Result<(), Error> {
        // An empty chunk would be the last one.
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Length(left) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                *left = left.checked_sub(length).ok_or(Error::OtherLength)?;
                if *left == 0 {
                    self.last = data;
                    if self.body.is_end_stream() {
                        self.end(out, None)?;
                    }
                    return Ok(());
                }
            }
            Framing::Chunked(_) => {
                let _ = write!(out, "{:x}\r\n", data.len());
                self.after = b"\r\n";
            }
        }
        self.piece = data;
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>, trailers: Option<HeaderMap>) -> Result<(), Error> {
        self.ended = true;
        match &self.framing {
            Framing::Length(0) => {
                self.piece = std::mem::take(&mut self.last);
                Ok(())
            }
            Framing::Length(_) => Err(Error::OtherLength),
            Framing::Chunked(announced) => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flatten() {
                    if announced.contains(name) {
                        Lines(out).pass(name, value);
                    }
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}
