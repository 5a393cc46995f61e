//! The HTTP/2 connections of one worker to one address: few, each with many
//! streams.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;

use crate::wire::body::Body;

/// The most streams of one connection, even if the upstream allows more:
/// beyond that another connection is the better one, since all streams of one
/// wait for the same lost packet.
pub const STREAMS: usize = 100;

/// How many streams a connection opens until the upstream has said how many
/// it takes. The others wait that long: it would refuse those that are too many.
pub const UNKNOWN: usize = 1;

/// What is known of a connection, by its driver, its streams and the pool.
#[derive(Debug)]
pub struct Shared {
    in_use: AtomicUsize,
    most: AtomicUsize,
    is_settled: AtomicBool,
    is_retired: AtomicBool,
    ask: Notify,
    is_open: AtomicBool,
    /// Whether WebSockets are taken: [`UNHEARD`] (nobody has asked),
    /// [`AWAITED`], [`REFUSES`] or [`TAKES`].
    sockets: AtomicU8,
    heard: Notify,
    idle_since: Mutex<Instant>,
}

const UNHEARD: u8 = 0;
const AWAITED: u8 = 1;
const REFUSES: u8 = 2;
const TAKES: u8 = 3;

impl Default for Shared {
    fn default() -> Self {
        Self {
            in_use: AtomicUsize::new(0),
            most: AtomicUsize::new(STREAMS),
            is_settled: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            ask: Notify::new(),
            is_open: AtomicBool::new(false),
            sockets: AtomicU8::new(UNHEARD),
            heard: Notify::new(),
            idle_since: Mutex::new(Instant::now()),
        }
    }
}

impl Shared {
    /// Waits until somebody wants to know how many streams there may be.
    pub async fn asked(&self) {
        self.ask.notified().await;
    }

    /// Takes in how many the upstream allows. Before the first response
    /// [`UNKNOWN`] means that it has not said so yet.
    pub fn learn(&self, most: usize) {
        if most != UNKNOWN || self.is_settled.load(Ordering::Relaxed) {
            self.most.store(most.min(STREAMS), Ordering::Relaxed);
        }
    }

    /// The upstream's settings have come and count.
    pub fn opened(&self) {
        self.is_open.store(true, Ordering::Relaxed);
        self.ask.notify_one();
    }

    /// Takes in whether the upstream allows extended CONNECT (RFC 8441 section
    /// 3), for those who wait to know it. Before its settings have come a no
    /// says nothing.
    pub fn hear(&self, takes: bool) {
        let is_awaited = self.sockets.load(Ordering::Relaxed) == AWAITED;
        if is_awaited && (takes || self.is_open.load(Ordering::Relaxed)) {
            self.tell(if takes { TAKES } else { REFUSES });
        }
    }

    /// The connection has ended. Whoever waits finds out by using it.
    pub fn end(&self) {
        self.tell(TAKES);
    }

    fn tell(&self, sockets: u8) {
        self.sockets.store(sockets, Ordering::Relaxed);
        self.heard.notify_waiters();
    }

    /// Waits until it is known. Asks again after a no: settings can change.
    async fn takes_sockets(&self) -> bool {
        if self.sockets.load(Ordering::Relaxed) != TAKES {
            self.sockets.store(AWAITED, Ordering::Relaxed);
        }
        loop {
            let mut heard = pin!(self.heard.notified());
            // From here on nothing is missed.
            heard.as_mut().enable();
            match self.sockets.load(Ordering::Relaxed) {
                TAKES => return true,
                REFUSES => return false,
                _ => self.ask.notify_one(),
            }
            heard.await;
        }
    }

    /// No new streams from now on; those that are open go on.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed)
    }

    fn is_old(&self, now: Instant, longest: Duration) -> bool {
        self.in_use.load(Ordering::Relaxed) == 0
            && now.saturating_duration_since(*self.idle_since()) >= longest
    }

    fn idle_since(&self) -> MutexGuard<'_, Instant> {
        self.idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's connections to one address. Only that worker's thread takes the
/// lock, so it is never waited for.
pub struct Connections {
    open: Mutex<Vec<(SendRequest<Body>, Arc<Shared>)>>,
    /// What the last connection allowed: likely what the next one will.
    usual: AtomicUsize,
    longest: Duration,
}

/// A place on a connection for one request, until it is dropped.
pub struct Stream {
    /// Takes the request.
    pub sender: SendRequest<Body>,
    shared: Arc<Shared>,
}

impl Connections {
    /// None yet. One without any stream is dropped after `longest`.
    pub fn new(longest: Duration) -> Self {
        Self {
            open: Mutex::default(),
            usual: AtomicUsize::new(STREAMS),
            longest,
        }
    }

    /// A place on the oldest connection that has one, so that the others may
    /// grow old. Drops those that have been closed or are idle for too long.
    pub fn take(&self) -> Option<Stream> {
        let mut open = self.lock();
        if open.is_empty() {
            return None;
        }
        self.retain(&mut open, Instant::now());
        let Some((sender, shared)) = open.iter().find(|(_, shared)| shared.has_room()) else {
            let (_, last) = open.last()?;
            let most = last.most.load(Ordering::Relaxed);
            self.usual.store(most, Ordering::Relaxed);
            return None;
        };
        if !shared.is_settled.load(Ordering::Relaxed) {
            shared.ask.notify_one();
        }
        Some(Stream::new(sender.clone(), shared.clone()))
    }

    /// Takes in a fresh connection, and gives its first place.
    pub fn add(&self, sender: SendRequest<Body>, shared: Arc<Shared>) -> Stream {
        let usual = self.usual.load(Ordering::Relaxed);
        shared.most.store(usual, Ordering::Relaxed);
        self.lock().push((sender.clone(), shared.clone()));
        Stream::new(sender, shared)
    }

    /// Lets go of those that have been closed or are idle for too long. Whether
    /// any are left.
    pub fn sweep(&self, now: Instant) -> bool {
        let mut open = self.lock();
        self.retain(&mut open, now);
        !open.is_empty()
    }

    fn retain(&self, open: &mut Vec<(SendRequest<Body>, Arc<Shared>)>, now: Instant) {
        open.retain(|(sender, shared)| {
            !sender.is_closed()
                && !shared.is_retired.load(Ordering::Relaxed)
                && !shared.is_old(now, self.longest)
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(SendRequest<Body>, Arc<Shared>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The place of one request on a connection.
    pub fn new(sender: SendRequest<Body>, shared: Arc<Shared>) -> Self {
        shared.in_use.fetch_add(1, Ordering::Relaxed);
        Self { sender, shared }
    }

    /// A response has come, and so have the settings of the upstream, which
    /// are the first thing it sends (RFC 9113 section 3.4).
    pub fn answered(&self) {
        if !self.shared.is_settled.swap(true, Ordering::Relaxed) {
            self.shared.ask.notify_one();
        }
    }

    /// Whether the upstream takes WebSockets on it. Waits until it has said so,
    /// which it does first of all: the caller bounds the time.
    pub async fn takes_sockets(&self) -> bool {
        self.shared.takes_sockets().await
    }

    /// No new streams on its connection.
    pub fn retire(&self) {
        self.shared.retire();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.shared.in_use.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.shared.idle_since() = Instant::now();
        }
    }
}
