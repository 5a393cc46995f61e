//! Removes rows that have expired, a few at a time.
//!
//! No row that has expired is ever given out, so this is a matter of room alone:
//! it happens while the store is used, and not at all while nobody needs it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio_postgres::Statement;

use super::jitter;
use super::link::{Link, Request};
use super::statements::Statements;
use crate::session::store::StoreError;

/// How often a process looks, on average.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many rows go in one statement, so that what waits behind it on the same
/// connection does not wait long.
const BATCH: i64 = 250;

/// How many statements follow each other at most, for each table.
const ROUNDS: usize = 40;

/// How long others have the connection between two of them.
const BREATH: Duration = Duration::from_millis(20);

/// When it is time; one for all handles of a process.
pub(super) struct Turns {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self::every(INTERVAL)
    }
}

impl Turns {
    pub(super) fn every(interval: Duration) -> Self {
        Self {
            interval,
            next: Mutex::new(Instant::now() + jitter(interval)),
        }
    }

    /// Whether it is time. Whoever is told so has to do it.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        // Whoever holds it takes the turn, or there is none.
        let Ok(mut next) = self.next.try_lock() else {
            return false;
        };
        let due = *next <= now;
        if due {
            *next = now + self.interval / 2 + jitter(self.interval);
        }
        due
    }

    /// There was more than one turn's work: the next comes soon.
    fn hurry(&self) {
        let soon = Instant::now() + Duration::from_secs(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = soon.min(*next);
    }
}

/// Removes what has expired, as far as one turn goes. The number of rows.
pub(super) async fn run<P: Statements>(link: &Link<P>, turns: &Turns) -> Result<usize, StoreError> {
    let mut all = 0;
    for statement in P::prunes() {
        all += table(link, turns, statement).await?;
    }
    Ok(all)
}

async fn table<P: Statements>(
    link: &Link<P>,
    turns: &Turns,
    statement: fn(&P) -> &Statement,
) -> Result<usize, StoreError> {
    let mut all = 0;
    for _ in 0..ROUNDS {
        let removed = link
            .call(&Request {
                statement,
                params: &[&BATCH],
                may_repeat: true,
            })
            .await?
            .len();
        all += removed;
        if removed < usize::try_from(BATCH).unwrap_or_default() {
            return Ok(all);
        }
        tokio::time::sleep(BREATH).await;
    }
    turns.hurry();
    Ok(all)
}
