//! A client's stream: first gives back what was read to find out what the
//! client speaks, tells the deadlines what happens, and lets a client that has
//! said all it has to say wait for its answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::bare::Bare;
use super::deadlines::Deadlines;
use super::frames::Frames;
use super::scan::Scanner;
use crate::base::company::lets_others_go;
use crate::base::gather::poll_write_pieces;

/// What every HTTP/2 connection with prior knowledge begins with (RFC 9113
/// section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at once to find out what a client speaks. Most first
/// requests are smaller.
const FIRST_READ: usize = 1024;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a connection runs over.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// A stream of which some bytes were read already; they come out first.
pub struct Early<T> {
    /// The stream.
    pub inner: T,
    /// Read already.
    pub pending: Bytes,
}

impl<T: Io> Early<T> {
    /// Nothing was read yet.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            pending: Bytes::new(),
        }
    }

    /// Finds out what the client speaks. Waits for its first bytes: the caller
    /// bounds the time.
    ///
    /// # Errors
    ///
    /// What reading gave; the end of the stream included.
    pub async fn detect(&mut self) -> io::Result<Protocol> {
        loop {
            let seen = self.pending.len().min(PREFACE.len());
            if self.pending.get(..seen) != PREFACE.get(..seen) {
                return Ok(Protocol::Http1);
            }
            if seen == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            if self.read_more(FIRST_READ).await? == 0 {
                // Not even a byte: nobody is there. Else the parser says what
                // is wrong with them.
                return match seen {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(Protocol::Http1),
                };
            }
        }
    }

    /// Reads more of the stream to what is pending; 0 at its end.
    ///
    /// # Errors
    ///
    /// What reading gave.
    pub async fn read_more(&mut self, most: usize) -> io::Result<usize> {
        let mut buffer = BytesMut::with_capacity(self.pending.len() + most);
        buffer.extend_from_slice(&self.pending);
        let limit = u64::try_from(most).unwrap_or(1);
        let count = (&mut self.inner).take(limit).read_buf(&mut buffer).await?;
        self.pending = buffer.freeze();
        Ok(count)
    }

    /// Waits until there is something to read, or the stream has ended, and
    /// holds no buffer meanwhile. Whether there is something.
    ///
    /// # Errors
    ///
    /// What reading gave. Who reads next gets an error as well, or the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.pending.is_empty() {
            let mut space = [0; FIRST_READ];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            self.pending = Bytes::copy_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(!self.pending.is_empty()))
    }
}

impl<T: Io> AsyncRead for Early<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pending.has_remaining() {
            let take = self.pending.len().min(buffer.remaining());
            buffer.put_slice(&self.pending.split_to(take));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Io> AsyncWrite for Early<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_pieces(Pin::new(&mut self.inner), context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A stream with deadlines.
pub struct Stream<T> {
    inner: Early<T>,
    deadlines: Deadlines,
    /// Follows what an HTTP/1 client sends. In HTTP/2 frames come between
    /// requests, and reading moves no deadline.
    scanner: Option<Scanner>,
    /// Follows what an HTTP/2 client sends.
    frames: Frames,
    /// What was followed already, and is still to be read.
    followed: Bytes,
    /// Holds back what the parser says of what an HTTP/1 client sends.
    bare: Option<Bare>,
    /// Whether the client has shut down its sending side after a request that
    /// is still being answered.
    half_closed: bool,
    /// With the first bytes of the answer to this request others were let go first.
    put_off: u64,
}

impl<T: Io> Stream<T> {
    /// A stream of HTTP/1, with a scanner and with what the parser's refusals
    /// become; or of HTTP/2.
    pub fn new(inner: Early<T>, deadlines: Deadlines, http1: Option<(Scanner, Bare)>) -> Self {
        let (scanner, bare) = http1.unzip();
        Self {
            inner,
            deadlines,
            scanner,
            frames: Frames::new(),
            followed: Bytes::new(),
            bare,
            half_closed: false,
            put_off: 0,
        }
    }

    /// Gives back what a parser has read and not used. The next one reads it
    /// first; it was followed once, and is not again.
    pub fn unread(&mut self, bytes: Bytes) {
        self.followed = bytes;
    }

    /// Waits until the client has said more, or has gone. Until then it gets
    /// what is held back, as it would from a read.
    pub fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(self.release(context)) {
            // Whoever reads next gets an error as well.
            Ok(()) => self.inner.poll_more(context).map(drop),
            // Whoever writes next gets the error as well.
            Err(_) => Poll::Ready(()),
        }
    }

    /// Whether the first bytes of an answer of HTTP/1 are put off. (HTTP/2 gathers what it
    /// writes by itself.)
    fn lets_others_go(&mut self, context: &Context<'_>) -> bool {
        let requests = self.requests();
        let mut asked = std::mem::replace(&mut self.put_off, requests) == requests;
        lets_others_go(&mut asked, 0, context)
    }

    /// The requests that the parser has read.
    fn requests(&self) -> u64 {
        self.scanner.as_ref().map_or(0, Scanner::requests)
    }

    /// Reads from an HTTP/2 client.
    fn read_frames(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        while !self.followed.has_remaining() {
            ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
            let read = buffer.filled().get(before..).unwrap_or_default();
            match self.frames.feed(read)? {
                // An empty one is the end.
                None => return Poll::Ready(Ok(())),
                Some(changed) => self.followed = changed.into(),
            }
            buffer.set_filled(before);
        }
        self.give_followed(buffer);
        Poll::Ready(Ok(()))
    }

    fn give_followed(&mut self, buffer: &mut ReadBuf<'_>) {
        let take = self.followed.len().min(buffer.remaining());
        buffer.put_slice(&self.followed.split_to(take));
    }

    /// Sends what was held back.
    fn release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(bare) = &mut self.bare else {
            return Poll::Ready(Ok(()));
        };
        bare.poll_release(&mut self.inner, context)
    }

    /// Writes bytes, but for a refusal of the parser at their end.
    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.release(context))?;
        let requests = self.requests();
        let now = match &mut self.bare {
            Some(bare) => bare.hold(bytes, requests),
            None => bytes.len(),
        };
        match bytes.split_at_checked(now) {
            Some(([], held)) if !held.is_empty() => Poll::Ready(Ok(held.len())),
            Some((now, _)) => Pin::new(&mut self.inner).poll_write(context, now),
            None => Pin::new(&mut self.inner).poll_write(context, bytes),
        }
    }

    /// While a request is answered nobody reads. Notices all the same that the client
    /// has shut down its sending side; one byte more, and it has not. Where the scanner
    /// does not know what comes, the end is that of the client.
    ///
    /// # Errors
    ///
    /// What reading gave: the client has gone.
    fn look_for_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(scanner) = &self.scanner else {
            return Ok(());
        };
        let is_read = self.half_closed || !self.inner.pending.is_empty();
        // Else somebody is to read, or there is more of the request.
        let is_blind = scanner.is_blind();
        let is_answered = self.deadlines.is_busy() && (is_blind || scanner.between_messages());
        if is_read || !is_answered || self.followed.has_remaining() {
            return Ok(());
        }
        let Poll::Ready(has_more) = self.inner.poll_more(context) else {
            return Ok(());
        };
        match (has_more?, is_blind) {
            // Whoever waits for these bytes would never hear of them.
            (true, true) => context.waker().wake_by_ref(),
            (true, false) => {}
            (false, true) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (false, false) => {
                self.half_closed = true;
                self.deadlines.half_closed();
            }
        }
        Ok(())
    }

    /// Notes whether the client takes what is sent.
    fn noted<R>(
        &mut self,
        result: Poll<io::Result<R>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if result.is_pending() {
            self.look_for_end(context)?;
        }
        match result {
            Poll::Pending => self.deadlines.write_blocked(),
            Poll::Ready(_) if self.half_closed => self.deadlines.still_there(),
            Poll::Ready(_) => self.deadlines.written(),
        }
        result
    }
}

impl<T: Io> AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.half_closed {
            // The end is told when the answer is, and not before: it would be
            // taken for a client that has gone.
            return this.deadlines.wait_for_answer(context);
        }
        if this.scanner.as_ref().is_some_and(Scanner::is_broken) {
            return Poll::Ready(Err(broken()));
        }
        ready!(this.release(context))?;
        if this.followed.has_remaining() {
            this.give_followed(buffer);
            return Poll::Ready(Ok(()));
        }
        let Some(scanner) = &mut this.scanner else {
            return this.read_frames(context, buffer);
        };
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            this.deadlines.received();
            let good = scanner.feed(read);
            if scanner.is_broken() {
                // An empty read would be the end.
                if good == 0 {
                    return Poll::Ready(Err(broken()));
                }
                buffer.set_filled(before + good);
            }
        } else if scanner.between_messages() && this.deadlines.is_busy() {
            this.half_closed = true;
            this.deadlines.half_closed();
            return this.deadlines.wait_for_answer(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> AsyncWrite for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.lets_others_go(context) {
            return Poll::Pending;
        }
        let result = self.write(context, bytes);
        self.noted(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.lets_others_go(context) {
            return Poll::Pending;
        }
        // The parser's refusals come in one piece.
        let result = match pieces {
            [piece] => self.write(context, piece),
            _ => match self.release(context) {
                Poll::Ready(Ok(())) => {
                    Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            },
        };
        self.noted(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let requests = self.requests();
        if self.bare.as_ref().is_some_and(|b| b.is_overtaken(requests)) {
            let released = self.release(context);
            ready!(self.noted(released, context))?;
        }
        self.look_for_end(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(bare) = &mut this.bare
            && (!this.inner.pending.is_empty()
                || this.scanner.as_ref().is_some_and(Scanner::has_more))
        {
            bare.replace();
        }
        let released = this.release(context);
        ready!(this.noted(released, context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

/// What reading a message gives that can not become whole.
fn broken() -> io::Error {
    let why = "bare LF in the trailers of a request";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
