//! A connection that has left HTTP: bytes pass both ways until one side ends,
//! or nobody has said anything for too long.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::rand;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::record::Record;
use crate::base::refusal::Refusal;
use crate::upstream::Upgrade;
use crate::upstream::http1::Pipe;
use crate::upstream::multiplex::Stream;
use crate::wire::frames::{self, Frames, SESSION_OVER};

/// How long the end of a frame is waited for when the session is over.
const EDGE_WAIT: Duration = Duration::from_millis(100);

/// How long both sides have to take note of the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// The shortest time between two looks whether a tunnel is in use.
const SHORTEST_TICK: Duration = Duration::from_millis(50);

/// Keeps a connection counted, and waited for, while a tunnel runs on it. The
/// server puts it into the extensions of a request that asks for an upgrade.
#[derive(Clone)]
pub struct Hold {
    /// Nothing is ever sent; that it is there is what counts.
    _alive: mpsc::Sender<Infallible>,
    /// What else is to live as long.
    _beside: Option<Arc<dyn Any + Send + Sync>>,
}

/// The holds on a connection. Few ever have one, and what tells that the last is gone is
/// made for these.
#[derive(Default)]
pub struct Holds(OnceLock<(Hold, mpsc::Receiver<Infallible>)>);

/// The two ends of a tunnel that is about to be.
pub struct Tunnel {
    /// The client's side, once it has got its 101, or 200 over HTTP/2.
    pub client: OnUpgrade,
    /// The application's side.
    pub upstream: Upgrade,
    /// Keeps the client's connection counted.
    pub hold: Option<Hold>,
    /// The place that the tunnel has on a connection to the application that
    /// others use too.
    pub place: Option<Stream>,
    /// The longest silence.
    pub idle: Duration,
    /// Whether it is a WebSocket, which can be told of its end.
    pub websocket: bool,
}

impl Hold {
    /// A copy that keeps something else as well.
    pub fn beside(&self, kept: impl Any + Send + Sync) -> Self {
        Self {
            _beside: Some(Arc::new(kept)),
            ..self.clone()
        }
    }
}

impl Holds {
    /// One more.
    pub fn hold(&self) -> Hold {
        let (hold, _) = self.0.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(1);
            let hold = Hold {
                _alive: sender,
                _beside: None,
            };
            (hold, receiver)
        });
        hold.clone()
    }

    /// Waits until all of them are gone: at once where there was none.
    pub async fn released(self) {
        let Some((hold, mut all)) = self.0.into_inner() else {
            return;
        };
        drop(hold);
        // Nothing is ever sent, so this is the end of the last sender.
        let None = all.recv().await;
    }
}

impl Tunnel {
    /// Starts to pass bytes on, in a task of its own. The request is recorded
    /// when the tunnel ends.
    pub fn start(self, mut record: Box<Record>) {
        record.settle();
        tokio::spawn(async move {
            let (Ok(client), Ok(upstream)) = tokio::join!(self.client, opened(self.upstream))
            else {
                // The client went away before it had its answer.
                return;
            };
            let seen = Seen::new();
            let edge = || self.websocket.then(Edge::default);
            let mut client = Noted::new(TokioIo::new(client), &seen, edge());
            let mut upstream = Noted::new(upstream, &seen, edge());
            let edges = (client.edge.clone(), upstream.edge.clone());
            let over = {
                let mut copy = pin!(copy_bidirectional(&mut client, &mut upstream));
                tokio::select! {
                    ended = &mut copy => {
                        record.complete = ended.is_ok();
                        None
                    }
                    () = seen.silence(self.idle) => None,
                    why = until_over(&mut record, &seen) => {
                        let edge = to_edge(copy, edges);
                        // Where no edge comes, the tunnel is cut.
                        let _ = timeout(EDGE_WAIT, edge).await;
                        Some(why)
                    }
                }
            };
            record.bytes_in = client.read;
            record.bytes_out = upstream.read;
            if let Some(why) = over {
                let (client, upstream) = (
                    client.say_goodbye(why, false),
                    upstream.say_goodbye(why, true),
                );
                tokio::join!(client, upstream);
            }
            drop((self.hold, self.place));
        });
    }
}

/// The application's side, once it is there.
async fn opened(upgrade: Upgrade) -> hyper::Result<Box<dyn Pipe>> {
    Ok(match upgrade {
        Upgrade::Http1(raw) => raw,
        Upgrade::Http2(upgrade) => Box::new(TokioIo::new(upgrade.await?)),
    })
}

/// Ends with the reason when the session is over. Until then, what is said keeps the
/// session alive.
async fn until_over(record: &mut Record, seen: &Seen) -> Refusal {
    let mut tick = interval(record.touch_interval().max(SHORTEST_TICK));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = seen.last();
    loop {
        tokio::select! {
            why = poll_fn(|context| record.poll_over(context)) => return why,
            _ = tick.tick() => {
                let last = seen.last();
                if std::mem::replace(&mut heard, last) != last {
                    record.keep_alive();
                }
            }
        }
    }
}

/// Passes on what is left of the present frame in each direction, and no more.
async fn to_edge<T>(
    mut copy: Pin<&mut impl Future<Output = T>>,
    (client, upstream): (Option<Arc<Edge>>, Option<Arc<Edge>>),
) {
    let (Some(client), Some(upstream)) = (client, upstream) else {
        return;
    };
    client.stop.store(true, Ordering::Relaxed);
    upstream.stop.store(true, Ordering::Relaxed);
    // The client's counts. What it says itself need not be heard to its end.
    poll_fn(|context| match copy.as_mut().poll(context) {
        Poll::Pending if !client.is_reached() => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
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

    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
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

/// Whether what is written to one side of a WebSocket is between two frames.
#[derive(Default)]
struct Edge {
    /// Nothing but the rest of the present frame is to be written.
    stop: AtomicBool,
    /// Within a frame.
    within: AtomicBool,
}

impl Edge {
    fn is_reached(&self) -> bool {
        !self.within.load(Ordering::Relaxed)
    }
}

/// A stream whose reads are noted and counted.
struct Noted<T> {
    inner: T,
    seen: Seen,
    read: u64,
    edge: Option<Arc<Edge>>,
    /// What was written, for its edges.
    frames: Frames,
}

impl<T> Noted<T> {
    fn new(inner: T, seen: &Seen, edge: Option<Edge>) -> Self {
        Self {
            inner,
            seen: seen.clone(),
            read: 0,
            edge: edge.map(Arc::new),
            frames: Frames::default(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Noted<T> {
    /// Tells a WebSocket that its session is over, if that can be said here, and ends
    /// the stream. `masked`: to the application, as from a client.
    async fn say_goodbye(mut self, why: Refusal, masked: bool) {
        let Some(edge) = self.edge.take() else {
            return;
        };
        if !edge.is_reached() {
            return;
        }
        let mut mask = [0; 4];
        // Without randomness the mask is of no use against confused caches; nor is
        // there anything in the frame that they could be told.
        let _ = rand::fill(&mut mask);
        let frame = frames::close(SESSION_OVER, why.label(), masked.then_some(mask));
        let goodbye = async {
            self.inner.write_all(&frame).await?;
            self.inner.shutdown().await?;
            // To close while something is unread would reset the connection, and take
            // the frame back on its way.
            let mut rest = [0; 1024];
            while self.inner.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // Whoever does not take it is cut off all the same.
        let _ = timeout(GOODBYE, goodbye).await;
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
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(edge) = &this.edge else {
            return Pin::new(&mut this.inner).poll_write(context, bytes);
        };
        let mut bytes = bytes;
        if edge.stop.load(Ordering::Relaxed) {
            let rest = this.frames.until_edge(bytes);
            bytes = bytes.get(..rest).unwrap_or_default();
            if bytes.is_empty() {
                // Nobody is to be woken for more: there is none.
                return Poll::Pending;
            }
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(context, bytes))?;
        this.frames.pass(bytes.get(..written).unwrap_or_default());
        edge.within.store(!this.frames.at_edge(), Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
