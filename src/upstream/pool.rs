//! One worker's connections to one address of an upstream.

mod lease;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connect::{Connection, Offer, connect};
use super::head::Dress;
use super::http1;
use super::multiplex::{Connections, Stream};
use super::settings::{Scheme, UpstreamAddress, UpstreamSettings};
use super::standing::Group;
use crate::base::alarm::Alarm;
use crate::base::refusal::{Failure, Refusal};

pub use lease::{Fitting, Unanswered};

/// An HTTP/1.1 connection that was idle for less than this is taken to be
/// alive: what is then lost is only what crosses a close on its way. Longer
/// pauses come with a load so low that a copy of the head (about a microsecond)
/// is not felt, while under load a connection is used again within less.
const TRUSTED: Duration = Duration::from_millis(10);

/// How long idle connections are left alone at least.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// An address and this worker's connections to it. Only that worker's thread
/// takes its locks, so they are never waited for.
pub struct Address {
    /// Its number within the upstream.
    pub number: usize,
    /// The upstream's settings.
    pub settings: Arc<UpstreamSettings>,
    /// How requests look that go there.
    pub dress: Dress,
    address: UpstreamAddress,
    group: Arc<Group>,
    idle: Mutex<VecDeque<Idle>>,
    streams: Connections,
    /// A connection being made that others may share.
    connecting: Mutex<Option<watch::Receiver<Made>>>,
    /// Whether HTTP/2 is spoken there, as far as is known.
    is_http2: AtomicBool,
    in_flight: AtomicUsize,
    turn: AtomicUsize,
    /// Who looks after idle connections, if somebody does.
    sweeper: Mutex<Sweeper>,
}

/// The task that lets go of idle connections.
#[derive(Default)]
enum Sweeper {
    /// There is none.
    #[default]
    None,
    /// It was started, and has not run yet.
    Starting,
    /// It waits, and is woken by this.
    Waiting(Waker),
}

struct Idle {
    connection: Box<http1::Connection>,
    alarm: Alarm,
    since: Instant,
}

impl Idle {
    /// Whether it has ended, or is too old. Whoever asks is told when it ends later.
    fn is_over(&mut self, now: Instant, longest: Duration, context: &mut Context<'_>) -> bool {
        now.duration_since(self.since) >= longest || self.connection.is_over(context)
    }
}

/// What became of making a connection; `None`: not known yet.
type Made = Option<Result<(), (Refusal, String)>>;

/// Which connection a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any that can take it.
    Any,
    /// None that was used before.
    Fresh,
    /// One that nobody else uses, neither at once nor later.
    Alone,
}

/// A connection on loan, or a place on one. An HTTP/1.1 connection goes back
/// with [`Lease::give_back`] when its response has been read to the end;
/// dropped before, it is closed.
pub struct Lease {
    carrier: Carrier,
    load: Load,
    /// For how long it was idle; `None`: it is fresh.
    idle: Option<Duration>,
    /// When its use began. Whoever sends a request at once need not look at the clock again.
    began: Instant,
    may_return: bool,
    /// Goes off while its answer is waited for. It is kept with the connection, so that
    /// it need not be set for each request.
    alarm: Alarm,
}

enum Carrier {
    /// `None`: it is where the answer's content is read.
    Http1(Option<Box<http1::Connection>>),
    Http2(Stream),
}

/// A request in flight, counted until it is dropped.
struct Load(Arc<Address>);

impl Load {
    fn new(address: &Arc<Address>) -> Self {
        address.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(address.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Address {
    /// An address without connections.
    pub fn new(
        number: usize,
        settings: Arc<UpstreamSettings>,
        address: UpstreamAddress,
        group: Arc<Group>,
    ) -> Self {
        Self {
            number,
            dress: Dress::new(&address),
            is_http2: AtomicBool::new(address.scheme != Scheme::Http),
            streams: Connections::new(settings.pool_idle_timeout),
            settings,
            address,
            group,
            idle: Mutex::default(),
            connecting: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            sweeper: Mutex::default(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &UpstreamAddress {
        &self.address
    }

    /// How many requests of this worker are in flight there.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A connection for a WebSocket: HTTP/1.1 where the upstream speaks it.
    ///
    /// # Errors
    ///
    /// Those of [`connect`].
    async fn lease_for_socket(self: &Arc<Self>, want: Want) -> Result<Lease, Failure> {
        if self.address.scheme != Scheme::Https {
            return self.lease(want).await;
        }
        if want == Want::Any
            && let Some(lease) = self.take_http1()
        {
            return Ok(lease);
        }
        match self.open(want, Offer::Http1).await {
            // It speaks HTTP/2 alone, and may take WebSockets over that.
            Err(failure) if failure.refusal == Refusal::UpstreamProtocolError => {
                self.lease(want).await
            }
            opened => opened,
        }
    }

    /// A connection for a WebSocket, or for any other request.
    ///
    /// # Errors
    ///
    /// Those of [`connect`].
    pub async fn lease_for(self: &Arc<Self>, want: Want, socket: bool) -> Result<Lease, Failure> {
        match socket {
            true => self.lease_for_socket(want).await,
            false => self.lease(want).await,
        }
    }

    /// A connection for one request: one that is there, or a new one.
    ///
    /// # Errors
    ///
    /// Those of [`connect`].
    pub async fn lease(self: &Arc<Self>, want: Want) -> Result<Lease, Failure> {
        if want == Want::Any
            && let Some(lease) = self.take()
        {
            return Ok(lease);
        }
        match want == Want::Any && self.is_http2.load(Ordering::Relaxed) {
            true => self.share().await,
            false => self.open(want, Offer::Both).await,
        }
    }

    /// The connection that was used last and can take a request at once.
    /// Drops those that have been closed or are too old.
    pub fn take(self: &Arc<Self>) -> Option<Lease> {
        if self.is_http2.load(Ordering::Relaxed)
            && let Some(stream) = self.streams.take()
        {
            let now = Instant::now();
            return Some(self.lend(Carrier::Http2(stream), Some(Duration::ZERO), now));
        }
        self.take_http1()
    }

    /// The same, of HTTP/1.1 alone.
    fn take_http1(self: &Arc<Self>) -> Option<Lease> {
        let longest = self.settings.pool_idle_timeout;
        let mut idle = self.lock();
        let now = Instant::now();
        // From the back: the warmest first, so that the others may grow old.
        while let Some(mut last) = idle.pop_back() {
            // Nobody is to be told later: it is used at once, or dropped.
            if !last.is_over(now, longest, &mut Context::from_waker(Waker::noop())) {
                drop(idle);
                let age = now.saturating_duration_since(last.since);
                let carrier = Carrier::Http1(Some(last.connection));
                let mut lease = self.lend(carrier, Some(age), now);
                lease.alarm = last.alarm;
                return Some(lease);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    fn keep(self: &Arc<Self>, mut connection: Box<http1::Connection>, mut alarm: Alarm) {
        let most = self.settings.pool_idle;
        if most == 0 {
            return;
        }
        connection.rest();
        alarm.forget();
        let now = Instant::now();
        let mut last = Idle {
            connection,
            alarm,
            since: now,
        };
        let is_over = match &*self.sweeper() {
            // It looks at all of them before it waits.
            Sweeper::None | Sweeper::Starting => false,
            Sweeper::Waiting(waker) => {
                let longest = self.settings.pool_idle_timeout;
                last.is_over(now, longest, &mut Context::from_waker(waker))
            }
        };
        if is_over {
            return;
        }
        let mut idle = self.lock();
        if idle.len() >= most {
            idle.pop_front();
        }
        idle.push_back(last);
        drop(idle);
        self.look_after();
    }

    /// Has idle connections let go when they end or are too old, also if no other
    /// request comes to look at them. The task ends with the last of them.
    fn look_after(self: &Arc<Self>) {
        let mut sweeper = self.sweeper();
        if !matches!(*sweeper, Sweeper::None) {
            return;
        }
        *sweeper = Sweeper::Starting;
        drop(sweeper);
        let address = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut due = Box::pin(tokio::time::sleep(Duration::ZERO));
            poll_fn(|context| {
                loop {
                    let Some(address) = address.upgrade() else {
                        return Poll::Ready(());
                    };
                    let Some(pause) = address.sweep(context) else {
                        return Poll::Ready(());
                    };
                    due.as_mut().reset(tokio::time::Instant::now() + pause);
                    ready!(due.as_mut().poll(context));
                }
            })
            .await;
        });
    }

    /// Lets go of what is over. How long until the next one may be; `None`: none
    /// is left, and nobody looks after them any more.
    fn sweep(&self, context: &mut Context<'_>) -> Option<Duration> {
        let longest = self.settings.pool_idle_timeout;
        let now = Instant::now();
        let mut idle = self.lock();
        idle.retain_mut(|idle| !idle.is_over(now, longest, context));
        let oldest = idle.front().map(|idle| idle.since);
        let streams = self.streams.sweep(now);
        let mut sweeper = self.sweeper();
        if oldest.is_none() && !streams {
            *sweeper = Sweeper::None;
            return None;
        }
        match &mut *sweeper {
            Sweeper::Waiting(waker) => waker.clone_from(context.waker()),
            sweeper => *sweeper = Sweeper::Waiting(context.waker().clone()),
        }
        let age = oldest.map_or(Duration::ZERO, |since| now.duration_since(since));
        // Not all at once, where they were given back one after the other.
        Some(longest.saturating_sub(age).max(LEAST_PAUSE))
    }

    /// Makes a connection that those share who need one at the same time: one
    /// HTTP/2 connection does for all of them.
    async fn share(self: &Arc<Self>) -> Result<Lease, Failure> {
        loop {
            let running = self.connecting().clone();
            let Some(mut running) = running else {
                let (made, receiver) = watch::channel(None);
                *self.connecting() = Some(receiver);
                // However this ends, by being dropped too, the next one is not
                // to wait for it.
                let finished = Finished(self);
                let lease = self.open(Want::Any, Offer::Both).await;
                drop(finished);
                let told = match &lease {
                    Ok(_) => Ok(()),
                    Err(failure) => {
                        Err((failure.refusal, failure.cause.clone().unwrap_or_default()))
                    }
                };
                // Nobody may be waiting.
                let _ = made.send(Some(told));
                return lease;
            };
            let made = match running.wait_for(Option::is_some).await {
                Ok(made) => made.clone(),
                // Its maker has gone: the next one tries.
                Err(_) => None,
            };
            match made {
                Some(Err((refusal, cause))) => return Err(Failure::new(refusal, cause)),
                Some(Ok(())) => match self.take() {
                    Some(lease) => return Ok(lease),
                    // It is HTTP/1.1, or full already.
                    None if !self.is_http2.load(Ordering::Relaxed) => {
                        return self.open(Want::Any, Offer::Both).await;
                    }
                    None => {}
                },
                None => {}
            }
        }
    }

    async fn open(self: &Arc<Self>, want: Want, offer: Offer) -> Result<Lease, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let open = &self.group.metrics.connections;
        // On the heap: seldom needed, and larger than all the rest of a request.
        let connecting = connect(&self.settings, &self.address, offer, turn, open);
        let connection = Box::pin(connecting).await?;
        Ok(match connection {
            Connection::Http1(connection) => {
                // Where nothing else was offered, it tells nothing.
                if offer == Offer::Both {
                    self.is_http2.store(false, Ordering::Relaxed);
                }
                self.lend(Carrier::Http1(Some(connection)), None, Instant::now())
            }
            Connection::Http2 { sender, shared } => {
                self.is_http2.store(true, Ordering::Relaxed);
                let stream = match want {
                    Want::Alone => Stream::new(sender, shared),
                    Want::Any | Want::Fresh => self.streams.add(sender, shared),
                };
                self.look_after();
                self.lend(Carrier::Http2(stream), None, Instant::now())
            }
        })
    }

    fn lend(self: &Arc<Self>, carrier: Carrier, idle: Option<Duration>, now: Instant) -> Lease {
        Lease {
            carrier,
            load: Load::new(self),
            idle,
            began: now,
            may_return: true,
            alarm: Alarm::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sweeper(&self) -> MutexGuard<'_, Sweeper> {
        self.sweeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connecting(&self) -> MutexGuard<'_, Option<watch::Receiver<Made>>> {
        self.connecting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever comes after this makes a connection anew.
struct Finished<'a>(&'a Address);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        *self.0.connecting() = None;
    }
}
