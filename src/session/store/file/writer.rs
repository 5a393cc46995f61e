//! The thread that makes all changes.
//!
//! It takes everything that waits, makes it one transaction, and answers when
//! that is kept: the more writers wait, the fewer syncs each of them costs.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, Durability};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::memory::Ticks;
use super::super::{Announcer, NewRecord, StoreError};
use super::disk::Disk;
use super::tables::Tables;
use crate::base::clock::{Clock, Timestamp};

/// Changes in one commit. More of them would not make it cheaper, but slower
/// to answer.
const BATCH: usize = 512;

/// Expired records that one commit removes, so that a sweep does not hold up
/// those who wait.
const SWEEP: usize = 1000;

/// How long touches alone may wait for the disk; also the least time between
/// sweeps that find little, and between attempts to open a file that failed.
const SETTLE: Duration = Duration::from_secs(1);

/// The longest time without a look at the clock, which may have been put
/// forward meanwhile.
const GLANCE: Duration = Duration::from_secs(3600);

/// What the thread is told.
pub(super) enum Message {
    /// Make a change.
    Job(Job),
    /// A reader was refused: open the file again if need be.
    Reopen,
}

/// A change, and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    /// Gets 1 or 0 for done or not, and the epoch in microseconds for a raise.
    pub(super) reply: oneshot::Sender<Result<u64, StoreError>>,
    /// The place in the queue, free again when the job is done.
    pub(super) _place: OwnedSemaphorePermit,
}

/// The changes that there are. See [`SessionStore`](super::SessionStore).
pub(super) enum Change {
    Create(NewRecord),
    Touch {
        key: String,
        seen: Timestamp,
        ttl: Duration,
    },
    Update {
        key: String,
        old: Bytes,
        new: Bytes,
    },
    Delete {
        key: String,
    },
    Raise {
        user: String,
        ttl: Duration,
    },
}

/// What a transaction has done, from the least to the most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Nothing: there is nothing to commit.
    None,
    /// Touches alone: to be seen at once, to be synced soon.
    Touched,
    /// What an answer promises: to be synced before it is given.
    Changed,
}

/// The state of the thread.
pub(super) struct Writer {
    disk: Arc<Disk>,
    clock: Clock,
    ticks: Arc<Ticks>,
    announcer: Arc<Announcer>,
    messages: Receiver<Message>,
    /// When touches that are not synced must be.
    sync_at: Option<Instant>,
    /// When to sweep; `None` if nothing is there that could expire.
    sweep_at: Option<Instant>,
    /// When to try to open the file again.
    reopen_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<Disk>,
        clock: Clock,
        ticks: Arc<Ticks>,
        announcer: Arc<Announcer>,
        messages: Receiver<Message>,
    ) -> Self {
        Self {
            disk,
            clock,
            ticks,
            announcer,
            messages,
            sync_at: None,
            // What a predecessor left may have expired.
            sweep_at: Some(Instant::now()),
            reopen_at: None,
        }
    }

    /// Serves until the store is dropped and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            match self.messages.recv_timeout(self.patience()) {
                Ok(message) => self.serve(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tend();
        }
        if self.sync_at.is_some() {
            self.sync();
        }
    }

    /// How long to wait for work before something else is due.
    fn patience(&self) -> Duration {
        [self.sync_at, self.sweep_at, self.reopen_at]
            .into_iter()
            .flatten()
            .min()
            .map_or(GLANCE, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Does what is due beside the work.
    fn tend(&mut self) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        if due(self.reopen_at) {
            self.reopen();
        }
        if due(self.sweep_at) && self.disk.is_open() {
            self.sweep();
        }
        if due(self.sync_at) {
            self.sync();
        }
    }

    /// Makes a change, together with all that wait behind it.
    fn serve(&mut self, first: Message) {
        let mut jobs = Vec::new();
        let mut reopen = false;
        for message in std::iter::once(first).chain(self.messages.try_iter().take(BATCH)) {
            match message {
                // The session of a login that nobody waits for any more would
                // be known to nobody. Everything else ends or keeps something
                // that is there, and is done.
                Message::Job(Job {
                    change: Change::Create(_),
                    reply,
                    ..
                }) if reply.is_closed() => {}
                Message::Job(job) => jobs.push(job),
                Message::Reopen => reopen = true,
            }
        }
        if reopen && self.disk.has_failed() {
            self.reopen();
        }
        if jobs.is_empty() {
            return;
        }
        let ticks = self.ticks.clone();
        let result = self.commit(|tables, now| {
            let mut answers = Vec::with_capacity(jobs.len());
            let mut effect = Effect::None;
            for job in &jobs {
                let (answer, this) = apply(tables, &job.change, now, &ticks)?;
                effect = effect.max(this);
                answers.push(answer);
            }
            Ok((answers, effect))
        });
        // Whoever does not listen any more has run out of time.
        match result {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    self.announce(&job.change);
                    let _ = job.reply.send(Ok(answer));
                }
            }
            Err(error) => {
                for job in jobs {
                    let _ = job.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Before whoever asked for the change hears that it is done. Touches are not
    /// told: this process made them, and knows.
    fn announce(&self, change: &Change) {
        match change {
            Change::Create(_) | Change::Touch { .. } => {}
            Change::Update { key, .. } | Change::Delete { key } => self.announcer.record(key),
            Change::Raise { user, .. } => self.announcer.epoch(user),
        }
    }

    fn sweep(&mut self) {
        self.sweep_at = None;
        let result = self.commit(|tables, now| {
            let swept = tables.sweep(SWEEP, now)?;
            let effect = match swept {
                0 => Effect::None,
                _ => Effect::Changed,
            };
            Ok((swept, effect))
        });
        match result {
            Ok(SWEEP) => self.sweep_at = Some(Instant::now()),
            Ok(_) => {}
            // Tried again when the file is well.
            Err(_) => self.sweep_at = Some(Instant::now() + SETTLE),
        }
    }

    /// Brings touches to the disk: a durable commit takes along all before it.
    fn sync(&mut self) {
        // A failure has been dealt with, and there is nobody to tell: the
        // touches are lost, as in a crash.
        let _ = self.commit(|_, _| Ok(((), Effect::Changed)));
    }

    /// One transaction. After a failure the file is opened again, and is as
    /// the last durable commit left it.
    fn commit<T>(
        &mut self,
        work: impl FnOnce(&mut Tables<'_>, Timestamp) -> Result<(T, Effect), redb::Error>,
    ) -> Result<T, StoreError> {
        let now = self.clock.now();
        let result = self.disk.with(|database| transact(database, now, work));
        match result {
            Ok((value, effect, next_due)) => {
                match effect {
                    Effect::None => {}
                    Effect::Touched => {
                        self.sync_at.get_or_insert_with(|| Instant::now() + SETTLE);
                    }
                    Effect::Changed => self.sync_at = None,
                }
                self.plan_sweep(next_due, now);
                Ok(value)
            }
            Err(error) => {
                if self.disk.is_open() {
                    tracing::error!("{error}; opening the file of the session store again");
                    self.reopen();
                }
                Err(error)
            }
        }
    }

    /// An earlier plan stands: under load it would else always be put off.
    fn plan_sweep(&mut self, next_due: Option<Timestamp>, now: Timestamp) {
        let Some(due) = next_due else {
            return;
        };
        let wait = due.since(now).clamp(SETTLE, GLANCE);
        let at = Instant::now() + wait;
        self.sweep_at = Some(self.sweep_at.map_or(at, |planned| planned.min(at)));
    }

    fn reopen(&mut self) {
        self.sync_at = None;
        self.disk.reopen();
        self.reopen_at = match self.disk.is_open() {
            true => None,
            false => Some(Instant::now() + SETTLE),
        };
    }
}

fn transact<T>(
    database: &Database,
    now: Timestamp,
    work: impl FnOnce(&mut Tables<'_>, Timestamp) -> Result<(T, Effect), redb::Error>,
) -> Result<(T, Effect, Option<Timestamp>), redb::Error> {
    let mut transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction)?;
    let (value, effect) = work(&mut tables, now)?;
    let next_due = tables.next_due()?;
    drop(tables);
    match effect {
        Effect::None => transaction.abort()?,
        Effect::Touched => {
            transaction.set_durability(Durability::None)?;
            transaction.commit()?;
        }
        Effect::Changed => {
            transaction.set_durability(Durability::Immediate)?;
            // The file opens at once after a crash, however large it is.
            transaction.set_quick_repair(true);
            transaction.commit()?;
        }
    }
    Ok((value, effect, next_due))
}

fn apply(
    tables: &mut Tables<'_>,
    change: &Change,
    now: Timestamp,
    ticks: &Ticks,
) -> Result<(u64, Effect), redb::Error> {
    let (done, effect) = match change {
        Change::Create(record) => (tables.create(record, now)?, Effect::Changed),
        Change::Touch { key, seen, ttl } => (tables.touch(key, *seen, *ttl, now)?, Effect::Touched),
        Change::Update { key, old, new } => (tables.update(key, old, new, now)?, Effect::Changed),
        Change::Delete { key } => (tables.delete(key, now)?, Effect::Changed),
        Change::Raise { user, ttl } => {
            let epoch = tables.raise(user, *ttl, now, ticks)?;
            return Ok((epoch.0, Effect::Changed));
        }
    };
    Ok(match done {
        true => (1, effect),
        false => (0, Effect::None),
    })
}
