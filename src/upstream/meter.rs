//! Counts what an upstream sends before the head of its response.
//!
//! Interim responses (1xx) are read and dropped, so one that sends nothing else
//! would keep a connection busy without end (RFC 9110 section 15.2 sets no
//! limit).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

/// The most bytes before a response: its own head, the first piece of its
/// body, and as many interim responses as anybody needs.
const BUDGET: u64 = 1024 * 1024;

/// The most that is read at once. What a client does not take is held in pieces
/// of this size, several of them, and so is what the kernel's buffers give while
/// it is taken: larger ones take more memory, and fall out of the caches. hyper
/// reads into the next power of two.
const PIECE: u64 = 56 * 1024;

/// What a connection may still send; no limit outside of waiting for a head.
/// Only one thread writes it, so that plain loads and stores do.
#[derive(Debug)]
pub struct Meter(AtomicU64);

impl Default for Meter {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Meter {
    /// A request goes out: from now on its response's head is waited for.
    pub fn begin(&self) {
        self.0.store(BUDGET, Ordering::Relaxed);
    }

    /// The head has come.
    pub fn end(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left == u64::MAX {
            return Ok(());
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        match bytes < left {
            true => Ok(()),
            false => Err(io::Error::other("too much before the head of the response")),
        }
    }
}

/// A stream whose reads are counted, and not too large.
pub struct Metered<S> {
    inner: Take<S>,
    meter: Arc<Meter>,
}

impl<S: AsyncRead> Metered<S> {
    /// Counts into `meter`.
    pub fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self {
            inner: inner.take(PIECE),
            meter,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.inner.set_limit(PIECE);
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.meter.count(read))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_shutdown(context)
    }
}
