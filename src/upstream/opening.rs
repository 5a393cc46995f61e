//! Tells when the settings of an upstream have come, which are the first frame
//! that it sends on an HTTP/2 connection (RFC 9113 section 3.4). The parser does
//! not say so by itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::multiplex::Shared;

/// The head of a frame (RFC 9113 section 4.1), in bytes. It begins with the
/// length of the rest, in three of them.
const HEAD: usize = 9;

/// A stream whose first frame is waited for.
pub struct Opening<S> {
    inner: S,
    /// Who is told; `None` once that has been done.
    shared: Option<Arc<Shared>>,
    /// The first bytes of the frame.
    begin: Vec<u8>,
    read: usize,
}

impl<S> Opening<S> {
    /// Tells `shared` of it.
    pub fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared: Some(shared),
            begin: Vec::with_capacity(3),
            read: 0,
        }
    }

    fn has_come(&self) -> bool {
        let Some(length) = self.begin.first_chunk::<3>() else {
            return false;
        };
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        self.read >= HEAD + length
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shared.is_none() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        // Whoever wants more has looked at what there was.
        if self.has_come()
            && let Some(shared) = self.shared.take()
        {
            shared.opened();
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let missing = 3_usize.saturating_sub(self.begin.len());
        self.begin.extend(fresh.iter().take(missing));
        self.read = self.read.saturating_add(fresh.len());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
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
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
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
