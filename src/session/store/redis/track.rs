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

mod channel;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{ErrorKind, PushInfo, PushKind, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use self::channel::{Channel, Closed, Trouble};
use super::RedisTarget;
use super::dial::Wire;
use super::link::{Request, ask};
use super::slots::SlotMap;
use super::url::Address;
use crate::session::store::attempt::jittered;
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
    channel: Mutex<Option<Arc<Channel>>>,
    /// The nodes of a cluster, as they were when it was last connected to.
    nodes: Mutex<Vec<Address>>,
    /// A proof is wanted now.
    wake: Notify,
    /// Nobody uses the copies, and no proof is asked for until somebody does.
    asleep: AtomicBool,
}

impl Tracked {
    /// Keeps a connection from now on, in the present runtime.
    pub(super) fn start(target: RedisTarget, listener: Arc<dyn Listener>) -> Self {
        let shared = Arc::new(Shared {
            target,
            listener,
            channel: Mutex::default(),
            nodes: Mutex::default(),
            wake: Notify::new(),
            asleep: AtomicBool::new(false),
        });
        let task = tokio::spawn(keep(shared.clone()));
        Self { shared, task }
    }

    /// Asks on the connection that is tracked for this key, and fails at once if
    /// there is none.
    pub(super) async fn call(&self, key: &str, request: &Request<'_>) -> Result<Value, StoreError> {
        let channel = self.channel()?;
        let Some(wire) = channel.wire(key) else {
            let why = "no node of the cluster has the slot of the key";
            return Err(self.shared.target.unavailable(why));
        };
        self.ask(&channel, wire, request).await
    }

    /// The masters of a cluster by name, always in one order; else one without.
    pub(super) fn nodes(&self) -> Result<Vec<String>, StoreError> {
        let channel = self.channel()?;
        let names = channel.map.as_ref().map(SlotMap::names);
        Ok(names.unwrap_or_else(|| vec![String::new()]))
    }

    /// Asks one node, whatever it has.
    pub(super) async fn call_node(
        &self,
        node: &str,
        request: &Request<'_>,
    ) -> Result<Value, StoreError> {
        let channel = self.channel()?;
        let Some(wire) = channel.node(node) else {
            let why = "a node has left the cluster";
            return Err(self.shared.target.unavailable(why));
        };
        self.ask(&channel, wire, request).await
    }

    fn channel(&self) -> Result<Arc<Channel>, StoreError> {
        self.shared.channel().ok_or_else(|| {
            let why = "the channel that tells of changes is down";
            self.shared.target.unavailable(why)
        })
    }

    async fn ask(
        &self,
        channel: &Channel,
        wire: &Wire,
        request: &Request<'_>,
    ) -> Result<Value, StoreError> {
        let shared = &self.shared;
        // Before the question, so that the first read after a quiet time already
        // counts again when its answer comes, or soon after.
        if shared.asleep.load(Ordering::SeqCst) {
            shared.wake.notify_one();
        }
        let timeout = shared.target.timeout;
        let mut connection = wire.connection.clone();
        match tokio::time::timeout(timeout, ask(&mut connection, request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
                    shared.end(Some(&channel.closed));
                    channel.closed.tell();
                }
                Err(shared.target.explain(&error))
            }
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
            Ok(channel) => {
                let channel = Arc::new(channel);
                let trouble = shared.watch(channel, &mut said, &mut failures).await;
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
    fn channel(&self) -> Option<Arc<Channel>> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.clone()
    }

    /// The channel is of no use any more; with `only`, if it is that one. The order
    /// matters: whoever begins to read after the listener was told must not find it.
    fn end(&self, only: Option<&Arc<Closed>>) {
        let ended = {
            let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            channel.take_if(|channel| only.is_none_or(|only| Arc::ptr_eq(only, &channel.closed)))
        };
        if ended.is_some() {
            self.listener.lost();
        }
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
                closed.tell();
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

    /// Offers the channel to readers, and proves it until it fails; says why.
    async fn watch(
        &self,
        channel: Arc<Channel>,
        said: &mut Option<String>,
        failures: &mut u32,
    ) -> StoreError {
        let sentinels = self.target.sentinels.as_ref();
        let mut switches = sentinels.map(|sentinels| {
            sentinels.watch();
            sentinels.subscribe()
        });
        let closed = channel.closed.clone();
        {
            let mut place = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Some(channel.clone());
        }
        let period = self.period();
        loop {
            // Also where it was closed before it was offered.
            if closed.is_closed() {
                return self.target.unavailable("the connection was closed");
            }
            let asked = Instant::now();
            if let Err(trouble) = self.prove(&channel, period).await {
                return trouble;
            }
            self.listener.proven(asked);
            *failures = 0;
            if said.take().is_some() {
                tracing::info!("Redis tells of changes again: sessions are cached");
            }
            tokio::select! {
                biased;
                () = closed.told.notified() => {}
                () = switched(&mut switches) => {
                    return self.target.unavailable("the Sentinels name another master");
                }
                () = self.until_wanted(asked, period) => {}
            }
        }
    }

    /// Asks on each connection at once; all have to answer.
    async fn prove(&self, channel: &Channel, within: Duration) -> Result<(), StoreError> {
        let proof = channel.proof;
        let mut asked = JoinSet::new();
        for wire in &channel.wires {
            let mut connection = wire.connection.clone();
            asked.spawn(async move {
                let question = Request::Command(proof.question());
                ask(&mut connection, &question).await
            });
        }
        let answers = tokio::time::timeout(within, asked.join_all());
        let Ok(answers) = answers.await else {
            return Err(StoreError::Timeout(within));
        };
        for answer in answers {
            let answer = answer.map_err(|error| self.target.explain(&error))?;
            if !proof.is_proven_by(&answer) {
                let why = "a server is no master any more, or the cluster has changed";
                return Err(self.target.unavailable(why));
            }
        }
        Ok(())
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

/// Waits until the Sentinels name another master; for ever where there are none.
async fn switched(switches: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(switches) = switches
        // The sender lives as long as the target.
        && switches.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
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
