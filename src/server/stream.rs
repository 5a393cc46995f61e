//! A client's stream: tells its deadlines what happens, and first gives back
//! the bytes that were read to tell HTTP/2 from HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::deadlines::Deadlines;

/// What every HTTP/2 connection with prior knowledge begins with (RFC 9113
/// section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A stream with deadlines.
pub struct Stream {
    inner: TcpStream,
    deadlines: Deadlines,
    /// Read already, to be given out first.
    pending: Bytes,
    /// Whether reading moves the deadlines; it does not in HTTP/2, where
    /// frames come between requests.
    watch_reads: bool,
}

impl Stream {
    /// Finds out what the client speaks. Waits for its first bytes: the caller
    /// bounds the time.
    ///
    /// # Errors
    ///
    /// What reading from the socket gave; the end of the stream included.
    pub async fn accept(
        mut inner: TcpStream,
        deadlines: Deadlines,
        http2: bool,
    ) -> io::Result<(Self, Protocol)> {
        let (protocol, pending) = if http2 {
            detect(&mut inner).await?
        } else {
            (Protocol::Http1, Bytes::new())
        };
        let stream = Self {
            inner,
            deadlines,
            pending,
            watch_reads: protocol == Protocol::Http1,
        };
        Ok((stream, protocol))
    }
}

/// Looks at the first byte without taking it; only what may be a preface is
/// read further.
async fn detect(stream: &mut TcpStream) -> io::Result<(Protocol, Bytes)> {
    let mut first = [0; 1];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first != [b'P'] {
        return Ok((Protocol::Http1, Bytes::new()));
    }
    let mut read = Vec::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&read) && read.len() < PREFACE.len() {
        let left = PREFACE.len() - read.len();
        let limit = u64::try_from(left).unwrap_or(1);
        if (&mut *stream).take(limit).read_buf(&mut read).await? == 0 {
            break;
        }
    }
    let protocol = if read == PREFACE {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    Ok((protocol, read.into()))
}

impl AsyncRead for Stream {
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
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        if self.watch_reads {
            self.deadlines.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Notes whether the client takes what is sent.
    fn noted<T>(&self, result: Poll<T>) -> Poll<T> {
        match result {
            Poll::Pending => self.deadlines.write_blocked(),
            Poll::Ready(_) => self.deadlines.written(),
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.noted(result)
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
