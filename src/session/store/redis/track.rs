//! The connection that Redis tells of changes (`CLIENT TRACKING`).
//!
//! Redis remembers what was read on this connection and pushes the name of each
//! such key once it changes. Pushes and answers come in order on one socket, and
//! both are handled in the connection's driver: whatever the listener hears before
//! an answer is given to its asker was said by Redis before that answer.
//!
//! Two ways of falling silent are told apart. A connection that is closed says so
//! by itself. One that is merely dead does not, so something is asked on it again
//! and again, and each answer proves that all changes before the question were
//! told. Nothing is asked while nobody uses the copies.
//!
//! The crate's own cache is not used: it keeps what was deleted while it was being
//! read, and goes on serving from a connection that is dead.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError,
    Value,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::RedisTarget;
use super::link::{IN_FLIGHT, Request, ask};
use crate::session::store::{Listener, StoreError};

/// The longest time between two proofs while copies are used, and the longest that
/// one may take. Shorter where copies are believed for less than four times this.
const PERIOD: Duration = Duration::from_millis(250);
/// Even where copies are believed for no time at all.
const SHORTEST_PERIOD: Duration = Duration::from_millis(5);

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first one, doubled from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The pause where the server cannot tell of changes, or may not.
const PAUSE_WITHOUT_HOPE: Duration = Duration::from_secs(30);

/// A handle on the connection. The task that keeps it ends with the handle.
pub(super) struct Tracked {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    target: RedisTarget,
    listener: Arc<dyn Listener>,
    line: Mutex<Option<Line>>,
    /// A proof is wanted now.
    wake: Notify,
    /// Nobody uses the copies, and no proof is asked for until somebody does.
    asleep: AtomicBool,
}

/// A connection that is tracked.
#[derive(Clone)]
struct Line {
    connection: MultiplexedConnection,
    closed: Arc<Closed>,
}

/// Whether a connection was closed.
#[derive(Default)]
struct Closed {
    flag: AtomicBool,
    told: Notify,
}

/// Why there is no channel.
enum Trouble {
    /// It may pass.
    Passing(StoreError),
    /// The server cannot tell of changes, or this user may not ask it to.
    Lasting(StoreError),
}

impl Tracked {
    /// Keeps a connection from now on, in the present runtime.
    pub(super) fn start(target: RedisTarget, listener: Arc<dyn Listener>) -> Self {
        let shared = Arc::new(Shared {
            target,
            listener,
            line: Mutex::default(),
            wake: Notify::new(),
            asleep: AtomicBool::new(false),
        });
        let task = tokio::spawn(keep(shared.clone()));
        Self { shared, task }
    }

    /// Asks on the tracked connection, and fails at once if there is none.
    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Value, StoreError> {
        let Some(mut line) = self.shared.line() else {
            let why = "the channel that tells of changes is down";
            return Err(self.shared.target.unavailable(why));
        };
        // Before the question, so that the first read after a quiet time already
        // counts again when its answer comes, or soon after.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.shared.wake.notify_one();
        }
        let timeout = self.shared.target.timeout;
        match tokio::time::timeout(timeout, ask(&mut line.connection, request)).await {
            Ok(result) => result.map_err(|error| self.shared.target.explain(&error)),
            Err(_) => Err(StoreError::Timeout(timeout)),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.end(None);
    }
}

/// Connects again and again.
async fn keep(shared: Arc<Shared>) {
    let mut failures = 0;
    let mut said = None;
    loop {
        let trouble = match shared.connect().await {
            Ok(line) => {
                let trouble = shared.watch(&line, &mut said, &mut failures).await;
                shared.end(None);
                Trouble::Passing(trouble)
            }
            Err(trouble) => trouble,
        };
        let pause = match &trouble {
            Trouble::Passing(_) => jittered(pause_after(failures)),
            Trouble::Lasting(_) => PAUSE_WITHOUT_HOPE,
        };
        report(&trouble, &mut said);
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

impl Shared {
    fn line(&self) -> Option<Line> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }

    /// The connection is of no use any more; with `only`, if it is that one. The
    /// order matters: whoever begins to read after the listener was told must not
    /// find it.
    fn end(&self, only: Option<&Arc<Closed>>) {
        let ended = {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.take_if(|line| only.is_none_or(|only| Arc::ptr_eq(only, &line.closed)))
        };
        if ended.is_some() {
            self.listener.lost();
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Line, Trouble> {
        let target = &self.target;
        let timeout = target.timeout;
        let connected = tokio::time::timeout(timeout, self.connect_now()).await;
        match connected {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(judge(&error, target)),
            Err(_) => Err(Trouble::Passing(StoreError::Timeout(timeout))),
        }
    }

    async fn connect_now(self: &Arc<Self>) -> Result<Line, RedisError> {
        let info = self.target.client.get_connection_info().clone();
        let settings = info.redis_settings().clone();
        let client =
            Client::open(info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3)))?;
        let closed = Arc::new(Closed::default());
        let pushes = {
            let (shared, closed) = (Arc::downgrade(self), closed.clone());
            move |push| {
                if let Some(shared) = shared.upgrade() {
                    shared.hear(&push, &closed);
                }
                Ok::<(), std::convert::Infallible>(())
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_push_sender(pushes);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        redis::cmd("CLIENT")
            .arg("TRACKING")
            .arg("ON")
            .exec_async(&mut connection)
            .await?;
        Ok(Line { connection, closed })
    }

    /// What Redis says unasked. This runs in the connection's driver.
    fn hear(&self, push: &PushInfo, closed: &Arc<Closed>) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Invalidate, [Value::Array(keys)]) => {
                for key in keys {
                    self.changed(key);
                }
            }
            // All keys at once (`FLUSHALL`). Or something new, to be safe.
            (PushKind::Invalidate, _) => {
                self.listener.lost();
                self.wake.notify_one();
            }
            (PushKind::Disconnection, _) => {
                self.end(Some(closed));
                closed.flag.store(true, Ordering::Release);
                closed.told.notify_one();
            }
            _ => {}
        }
    }

    /// Either prefix may be the beginning of the other, so both are tried: telling
    /// too much does no harm.
    fn changed(&self, key: &Value) {
        let key = match key {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
            Value::SimpleString(text) => Some(text.as_str()),
            _ => None,
        };
        // Only what was read on this connection is announced, and such keys are text.
        let Some(key) = key else {
            return self.listener.lost();
        };
        if let Some(name) = key.strip_prefix(&*self.target.epochs) {
            self.listener.epoch_changed(name);
        }
        if key.starts_with(&*self.target.prefix) {
            self.listener.record_changed(key);
        }
    }

    /// Offers the connection to readers, and proves it until it fails; says why.
    async fn watch(
        &self,
        line: &Line,
        said: &mut Option<String>,
        failures: &mut u32,
    ) -> StoreError {
        {
            let mut place = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Some(line.clone());
        }
        let period = self.period();
        loop {
            // Also where it was closed before it was offered.
            if line.closed.flag.load(Ordering::Acquire) {
                return self.target.unavailable("the connection was closed");
            }
            let asked = Instant::now();
            if let Err(trouble) = self.prove(line, period).await {
                return trouble;
            }
            self.listener.proven(asked);
            *failures = 0;
            if said.take().is_some() {
                tracing::info!("Redis tells of changes again: sessions are cached");
            }
            tokio::select! {
                biased;
                () = line.closed.told.notified() => {}
                () = self.until_wanted(asked, period) => {}
            }
        }
    }

    async fn prove(&self, line: &Line, within: Duration) -> Result<(), StoreError> {
        let ping = Request::Command(redis::cmd("PING"));
        let mut connection = line.connection.clone();
        match tokio::time::timeout(within, ask(&mut connection, &ping)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.target.explain(&error)),
            Err(_) => Err(StoreError::Timeout(within)),
        }
    }

    /// Waits for the next proof to be due: a period after the last, if copies are in
    /// use, or when they are used again. Once nobody has used them for as long as
    /// they are believed, the next use is a read, and that wakes us.
    async fn until_wanted(&self, asked: Instant, period: Duration) {
        let mut due = asked;
        loop {
            due += period;
            tokio::select! {
                () = self.wake.notified() => return,
                () = tokio::time::sleep_until(due.into()) => {}
            }
            if self.listener.is_used() {
                return;
            }
            if due.duration_since(asked) >= self.target.staleness {
                break;
            }
        }
        self.asleep.store(true, Ordering::SeqCst);
        // A use between the question and now has not woken us.
        if !self.listener.is_used() {
            self.wake.notified().await;
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Four proofs in the time that each of them lasts: one may be lost, and the next
    /// be slow, and copies are still believed without a gap.
    fn period(&self) -> Duration {
        (self.target.staleness / 4).clamp(SHORTEST_PERIOD, PERIOD)
    }
}

/// Whether it is worth trying again soon.
fn judge(error: &RedisError, target: &RedisTarget) -> Trouble {
    let explained = target.explain(error);
    // An answer to `HELLO 3` or `CLIENT TRACKING` that is not about who we are.
    let refused = match error.kind() {
        ErrorKind::RESP3NotSupported => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            redis::ServerErrorKind::ResponseError | redis::ServerErrorKind::NoPerm
        ),
        _ => false,
    };
    match refused {
        true => Trouble::Lasting(explained),
        false => Trouble::Passing(explained),
    }
}

/// Says once what is wrong, not at each attempt.
fn report(trouble: &Trouble, said: &mut Option<String>) {
    let (Trouble::Passing(error) | Trouble::Lasting(error)) = trouble;
    let text = error.to_string();
    if said.as_ref() == Some(&text) {
        return;
    }
    match trouble {
        Trouble::Passing(_) => {
            tracing::warn!(cause = %text, "Redis cannot tell of changes now: sessions are read each time");
        }
        Trouble::Lasting(_) => tracing::warn!(
            cause = %text,
            "Redis does not tell of changes, so no session is cached: it needs Redis 6 or later, RESP3 and, with an ACL, the right to client|tracking"
        ),
    }
    *said = Some(text);
}

fn pause_after(failures: u32) -> Duration {
    let factor = 2u32.saturating_pow(failures.min(10));
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// Between half and all of it, so that replicas do not come back as one.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness, it is merely not jittered.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.5 + f64::from(byte) / 510.0)
}
