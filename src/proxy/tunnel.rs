//! A connection that has left HTTP: bytes pass both ways until one side ends,
//! or nobody has said anything for too long.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::record::Record;
use crate::upstream::multiplex::Stream;

/// Keeps a connection counted, and waited for, while a tunnel runs on it. The
/// server puts it into the extensions of a request that asks for an upgrade.
#[derive(Clone)]
pub struct Hold {
    /// Nothing is ever sent; that it is there is what counts.
    _alive: mpsc::Sender<Infallible>,
    /// What else is to live as long.
    _beside: Option<Arc<dyn Any + Send + Sync>>,
}

/// Tells when the last [`Hold`] is gone.
#[derive(Debug)]
pub struct Released(mpsc::Receiver<Infallible>);

/// The two ends of a tunnel that is about to be.
pub struct Tunnel {
    /// The client's side, once it has got its 101, or 200 over HTTP/2.
    pub client: OnUpgrade,
    /// The application's side.
    pub upstream: OnUpgrade,
    /// Keeps the client's connection counted.
    pub hold: Option<Hold>,
    /// The place that the tunnel has on a connection to the application that
    /// others use too.
    pub place: Option<Stream>,
    /// The longest silence.
    pub idle: Duration,
}

impl Hold {
    /// A hold, and the means to wait until all its copies are gone.
    pub fn new() -> (Self, Released) {
        let (sender, receiver) = mpsc::channel(1);
        let hold = Self {
            _alive: sender,
            _beside: None,
        };
        (hold, Released(receiver))
    }

    /// A copy that keeps something else as well.
    pub fn beside(&self, kept: impl Any + Send + Sync) -> Self {
        Self {
            _beside: Some(Arc::new(kept)),
            ..self.clone()
        }
    }
}

impl Released {
    /// Waits for it. At once where no copy was made.
    pub async fn wait(mut self) {
        // Nothing is ever sent, so this is the end of the last sender.
        let None = self.0.recv().await;
    }
}

impl Tunnel {
    /// Starts to pass bytes on, in a task of its own. The request is recorded
    /// when the tunnel ends.
    pub fn start(self, mut record: Box<Record>) {
        tokio::spawn(async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(self.client, self.upstream) else {
                // The client went away before it had its answer.
                return;
            };
            let seen = Seen::new();
            let mut client = Noted::new(TokioIo::new(client), &seen);
            let mut upstream = Noted::new(TokioIo::new(upstream), &seen);
            tokio::select! {
                ended = copy_bidirectional(&mut client, &mut upstream) => {
                    record.complete = ended.is_ok();
                }
                () = seen.silence(self.idle) => {}
            }
            record.bytes_in = client.read;
            record.bytes_out = upstream.read;
            drop((self.hold, self.place));
        });
    }
}

/// When something was last said, in either direction.
#[derive(Clone)]
struct Seen {
    began: Instant,
    /// Milliseconds after that.
    last: Arc<AtomicU64>,
}

impl Seen {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: Arc::default(),
        }
    }

    fn note(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has been said for `longest`.
    async fn silence(&self, longest: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let due = self.began + last + longest;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A stream whose reads are noted and counted.
struct Noted<T> {
    inner: T,
    seen: Seen,
    read: u64,
}

impl<T> Noted<T> {
    fn new(inner: T, seen: &Seen) -> Self {
        Self {
            inner,
            seen: seen.clone(),
            read: 0,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let count = buffer.filled().len().saturating_sub(before);
        self.read += u64::try_from(count).unwrap_or(u64::MAX);
        self.seen.note();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
