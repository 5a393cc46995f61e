//! When a connection has waited long enough: for a request's head, for the
//! next request, for the client to read.
//!
//! Moving a deadline is a store to an atomic. The one timer of a connection is
//! set again only when it fires too early, so a busy connection arms a timer
//! once in many requests. (hyper's own header timeout arms one per request and
//! also ends idle kept connections.)

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::ServerSettings;
use crate::base::alarm::Alarm;

/// No deadline. In microseconds since the connection began, as all of them.
const NEVER: u64 = u64::MAX;

/// A deadline that begins now: the watchdog, which is asked in the same turn, says when it
/// ends. Most heads come as a whole, and have none by then.
const BEGINS: u64 = NEVER - 1;

/// How far the timer looks ahead while there is no deadline.
const FAR: Duration = Duration::from_secs(3600);

/// How long a connection waits for its next request before it gives back the
/// memory that requests are served with.
const RESTLESS: Duration = Duration::from_millis(250);

/// How long an answer may take to begin after the client has shut down its
/// sending side. That may be a client that waits, or one that has gone: TCP
/// tells the two apart only when something is sent to it.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// The deadlines of one connection, shared by its stream and its requests.
#[derive(Clone)]
pub struct Deadlines(Arc<Cells>);

struct Cells {
    began: Instant,
    header: Duration,
    idle: Duration,
    write: Duration,
    /// For the next head, or the next request.
    read_by: AtomicU64,
    /// For the client to take what is waiting to be sent.
    write_by: AtomicU64,
    /// Requests under way.
    active: AtomicUsize,
    /// Whether the connection waits for a request's first byte.
    waiting: AtomicU64,
    /// When a connection that waits may rest.
    rest_at: AtomicU64,
    /// Whether the client has shut down its sending side.
    half_closed: AtomicBool,
    /// Who waits for the last answer to end.
    waker: Mutex<Option<Waker>>,
    /// Whether streams are watched: on HTTP/2.
    watched: AtomicBool,
    /// The streams of HTTP/2, where a client can stop taking one answer
    /// without any sign on the socket.
    streams: Mutex<Streams>,
    /// When to look at them; [`NEVER`] on HTTP/1.
    look_at: AtomicU64,
}

/// Answers that nobody asks for their next piece.
#[derive(Default)]
struct Streams {
    next: u64,
    /// Since when, by number.
    stalled: HashMap<u64, u64>,
}

/// One request under way; its drop is its end.
pub struct Busy {
    deadlines: Deadlines,
    /// Its number, where streams are watched.
    stream: Option<u64>,
}

impl Busy {
    /// The next piece of the answer is asked for.
    pub fn taken(&self) {
        if let Some(number) = self.stream {
            self.deadlines.streams().stalled.remove(&number);
        }
    }

    /// A piece of the answer was handed over, and the next one is not asked
    /// for yet.
    pub fn given(&self) {
        if let Some(number) = self.stream {
            let now = self.deadlines.due_in(Duration::ZERO);
            self.deadlines.streams().stalled.insert(number, now);
        }
    }
}

impl Deadlines {
    /// Of a connection that begins now, and whose first request is awaited.
    pub fn new(settings: &ServerSettings) -> Self {
        Self(Arc::new(Cells {
            began: Instant::now(),
            header: settings.header_timeout,
            idle: settings.idle_timeout,
            write: settings.body_idle_timeout,
            read_by: AtomicU64::new(micros(settings.header_timeout)),
            write_by: AtomicU64::new(NEVER),
            active: AtomicUsize::new(0),
            waiting: AtomicU64::new(0),
            rest_at: AtomicU64::new(NEVER),
            half_closed: AtomicBool::new(false),
            waker: Mutex::new(None),
            watched: AtomicBool::new(false),
            streams: Mutex::default(),
            look_at: AtomicU64::new(NEVER),
        }))
    }

    /// The connection speaks HTTP/2: each answer is watched by itself.
    pub fn watch_streams(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// A request's head has been read.
    pub fn request(&self) -> Busy {
        let cells = &self.0;
        cells.active.fetch_add(1, Ordering::Relaxed);
        cells.waiting.store(0, Ordering::Relaxed);
        cells.rest_at.store(NEVER, Ordering::Relaxed);
        let by = match cells.half_closed.load(Ordering::Relaxed) {
            true => self.due_in(HALF_CLOSED),
            false => NEVER,
        };
        cells.read_by.store(by, Ordering::Relaxed);
        Busy {
            deadlines: self.clone(),
            stream: self.number(),
        }
    }

    /// A number for the next stream, if they are watched.
    fn number(&self) -> Option<u64> {
        if !self.0.watched.load(Ordering::Relaxed) {
            return None;
        }
        let mut streams = self.streams();
        let number = streams.next;
        streams.next = number.wrapping_add(1);
        drop(streams);
        if self.0.look_at.load(Ordering::Relaxed) == NEVER {
            let at = self.due_in(self.0.write);
            self.0.look_at.store(at, Ordering::Relaxed);
        }
        Some(number)
    }

    /// Looks at the streams, if it is time to. Whether one has stalled for too
    /// long.
    fn has_stalled(&self, now: u64) -> bool {
        let cells = &self.0;
        if cells.look_at.load(Ordering::Relaxed) > now {
            return false;
        }
        let longest = micros(cells.write);
        let oldest = self.streams().stalled.values().min().copied();
        let at = match oldest {
            Some(since) if since.saturating_add(longest) <= now => return true,
            Some(since) => since.saturating_add(longest),
            None if self.is_busy() => now.saturating_add(longest),
            None => NEVER,
        };
        cells.look_at.store(at, Ordering::Relaxed);
        false
    }

    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.0
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.0.active.load(Ordering::Relaxed) > 0
    }

    /// The client sends nothing more, and a request of it is under way.
    pub fn half_closed(&self) {
        let cells = &self.0;
        cells.half_closed.store(true, Ordering::Relaxed);
        cells
            .read_by
            .store(self.due_in(HALF_CLOSED), Ordering::Relaxed);
    }

    /// A client that sends nothing more takes bytes of its answer.
    pub fn still_there(&self) {
        self.written();
        if self.is_busy() {
            self.0.read_by.store(NEVER, Ordering::Relaxed);
        }
    }

    /// Ready once no request is under way.
    pub fn wait_for_answer(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_busy() {
            return Poll::Ready(Ok(()));
        }
        *self.waker() = Some(context.waker().clone());
        match self.is_busy() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of HTTP/1 have come. The first ones of a head start its time.
    pub fn received(&self) {
        let cells = &self.0;
        if cells.waiting.load(Ordering::Relaxed) == 1 {
            cells.waiting.store(0, Ordering::Relaxed);
            cells.rest_at.store(NEVER, Ordering::Relaxed);
            cells.read_by.store(BEGINS, Ordering::Relaxed);
        }
    }

    /// Says when the time for a head ends, where that has just begun.
    fn begin_head(&self) {
        let cells = &self.0;
        if cells.read_by.load(Ordering::Relaxed) == BEGINS {
            let end = self.due_in(cells.header);
            cells.read_by.store(end, Ordering::Relaxed);
        }
    }

    /// Whether every answer has been sent, and nothing came since the last one.
    /// To be asked after the connection was polled, and had to wait.
    pub fn is_quiet(&self) -> bool {
        let cells = &self.0;
        !self.is_busy()
            && cells.waiting.load(Ordering::Relaxed) == 1
            && cells.write_by.load(Ordering::Relaxed) == NEVER
    }

    /// The client takes nothing of what is waiting to be sent.
    pub fn write_blocked(&self) {
        let cells = &self.0;
        if cells.write_by.load(Ordering::Relaxed) == NEVER {
            cells
                .write_by
                .store(self.due_in(cells.write), Ordering::Relaxed);
        }
    }

    /// The client takes bytes.
    pub fn written(&self) {
        if self.0.write_by.load(Ordering::Relaxed) != NEVER {
            self.0.write_by.store(NEVER, Ordering::Relaxed);
        }
    }

    /// The next deadline.
    fn next(&self) -> u64 {
        let cells = &self.0;
        let read_by = cells.read_by.load(Ordering::Relaxed);
        read_by
            .min(cells.write_by.load(Ordering::Relaxed))
            .min(cells.look_at.load(Ordering::Relaxed))
            .min(cells.rest_at.load(Ordering::Relaxed))
    }

    /// Whether it is time to rest. Says so once.
    fn may_rest(&self) -> bool {
        let cells = &self.0;
        let is_time = cells.rest_at.load(Ordering::Relaxed) <= self.due_in(Duration::ZERO);
        if is_time {
            cells.rest_at.store(NEVER, Ordering::Relaxed);
        }
        is_time
    }

    /// Whether the connection has to end now.
    fn is_over(&self) -> bool {
        let cells = &self.0;
        let now = self.due_in(Duration::ZERO);
        cells.read_by.load(Ordering::Relaxed) <= now
            || cells.write_by.load(Ordering::Relaxed) <= now
            || self.has_stalled(now)
    }

    fn due_in(&self, span: Duration) -> u64 {
        micros(self.0.began.elapsed().saturating_add(span))
    }

    fn instant(&self, at: u64) -> Instant {
        match at {
            NEVER => Instant::now() + FAR,
            at => self.0.began + Duration::from_micros(at),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.taken();
        let cells = &self.deadlines.0;
        if cells.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.deadlines.due_in(Duration::ZERO);
            let in_time = |span| now.saturating_add(micros(span));
            cells.read_by.store(in_time(cells.idle), Ordering::Relaxed);
            cells.rest_at.store(in_time(RESTLESS), Ordering::Relaxed);
            cells.waiting.store(1, Ordering::Relaxed);
            if cells.half_closed.load(Ordering::Relaxed)
                && let Some(waker) = self.deadlines.waker().take()
            {
                waker.wake();
            }
        }
    }
}

/// What a watchdog has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A deadline has passed: the connection has to end.
    End,
    /// It has waited for its next request for a while. It is not said again
    /// before there was one.
    Rest,
}

/// Watches deadlines. To be polled after the connection, in the same task:
/// they move while that is polled.
pub struct Watchdog {
    deadlines: Deadlines,
    alarm: Alarm,
}

impl Watchdog {
    /// Watches these deadlines.
    pub fn new(deadlines: Deadlines) -> Self {
        let first = deadlines.instant(deadlines.next());
        Self {
            deadlines,
            alarm: Alarm::new(first),
        }
    }

    /// Ready when there is something to do. May be polled again after that.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Due> {
        self.deadlines.begin_head();
        let next = self.deadlines.next();
        if next == NEVER && !self.alarm.is_awaited() {
            // Many a connection has one request, and needs no timer.
            return Poll::Pending;
        }
        if next != NEVER {
            let at = self.deadlines.instant(next);
            if self.alarm.at().is_none_or(|set| at < set) {
                self.alarm.set(at);
            }
        }
        while self.alarm.poll(context).is_ready() {
            if self.deadlines.is_over() {
                return Poll::Ready(Due::End);
            }
            let rest = self.deadlines.may_rest();
            let at = self.deadlines.instant(self.deadlines.next());
            self.alarm.set(at);
            if rest {
                return Poll::Ready(Due::Rest);
            }
        }
        Poll::Pending
    }
}

fn micros(span: Duration) -> u64 {
    // What is no deadline is none of these.
    let micros = u64::try_from(span.as_micros());
    micros.unwrap_or(u64::MAX).min(BEGINS - 1)
}

#[cfg(test)]
mod tests;
