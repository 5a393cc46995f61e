//! What stores of records that Express applications share have in common, wherever
//! these are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Found, NewRecord, StoreError, StoredRecord};
use crate::base::clock::{Timestamp, millis};
use crate::session::layout::express::{Kept, Record, facts_life, tombstone_life};
use crate::session::record::Head;

/// What is said of a record that never ends by itself, about a hundred years.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How long whoever ends sessions, or signs in, waits for others who do, at least. It is
/// long, since what does not end must be ended by asking again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a search through all records is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To end sessions, or to see whether some must end.
    End,
    /// To show them.
    List,
}

/// Turns at searching through all records. Applications keep no index, so each search costs
/// the server what all sessions together weigh; one process does one of a purpose at a time.
/// Those who look at lists, which anybody may as often as he likes, take no turn from those
/// who end something.
pub(super) struct Searches {
    ends: Semaphore,
    lists: Semaphore,
}

impl Default for Searches {
    fn default() -> Self {
        Self {
            ends: Semaphore::new(1),
            lists: Semaphore::new(1),
        }
    }
}

impl Searches {
    /// A turn, which lasts until it is dropped. `timeout` is `store.timeout`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Timeout`] if others have taken too long: `timeout` for lists, some
    /// seconds for ends.
    pub(super) async fn turn(
        &self,
        purpose: Purpose,
        timeout: Duration,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        let (turns, limit) = match purpose {
            Purpose::End => (&self.ends, timeout.max(PATIENCE)),
            Purpose::List => (&self.lists, timeout),
        };
        match tokio::time::timeout(limit, turns.acquire()).await {
            Ok(turn) => turn.map_err(|error| StoreError::Unavailable(error.to_string())),
            Err(_) => Err(StoreError::Timeout(limit)),
        }
    }
}

/// What the store has under a record's key.
pub(super) struct Stored {
    pub(super) json: Bytes,
    /// `None`: it is kept without an end.
    pub(super) left: Option<Duration>,
    pub(super) facts: Option<Bytes>,
}

impl Stored {
    /// As the port has it. Each use makes a whole span of what is left, so what is missing
    /// of it has passed since the last. Where more than a span is left, the application
    /// thinks otherwise, and the last use lies ahead.
    pub(super) fn record(self, now: Timestamp) -> StoredRecord {
        let spent = match (self.left, span_of(&self.json)) {
            (Some(left), Some(span)) => i128::from(millis(span)) - i128::from(millis(left)),
            _ => 0,
        };
        let seen = i128::from(now.0).saturating_sub(spent);
        let kept = Kept {
            json: self.json,
            facts: self.facts,
            endless: self.left.is_none(),
        };
        StoredRecord {
            value: kept.pack(),
            seen: Timestamp(u64::try_from(seen.max(0)).unwrap_or(u64::MAX)),
        }
    }

    /// The same with its key; `None` if it is no session's record.
    pub(super) fn found(self, key: impl Into<Arc<str>>, now: Timestamp) -> Option<Found> {
        span_of(&self.json)?;
        Some(Found {
            key: key.into(),
            ttl: self.left.unwrap_or(LONGEST_TTL),
            record: self.record(now),
        })
    }

    /// How long the tombstone of what was found is kept.
    pub(super) fn tombstone_life(found: Option<&Self>) -> Duration {
        match found {
            Some(found) => tombstone_life(span_of(&found.json).unwrap_or_default(), found.left),
            // It may be on its way into the store at this moment.
            None => tombstone_life(Duration::ZERO, Some(Duration::ZERO)),
        }
    }
}

/// A new record, taken apart.
pub(super) struct New {
    pub(super) json: Bytes,
    pub(super) facts: Bytes,
    pub(super) facts_life: Duration,
}

impl New {
    /// # Errors
    ///
    /// [`StoreError::Unreadable`] if it is no record with facts.
    pub(super) fn of(record: &NewRecord) -> Result<Self, StoreError> {
        let no_record = || StoreError::Unreadable("this is no record with facts".into());
        let kept = Kept::unpack(&record.value).ok_or_else(no_record)?;
        let facts = kept.facts.ok_or_else(no_record)?;
        let head: Head = serde_json::from_slice(&facts).map_err(|_| no_record())?;
        Ok(Self {
            json: kept.json,
            facts_life: facts_life(&head, record.seen, record.ttl),
            facts,
        })
    }
}

/// Whether a record has this user at this path.
pub(super) fn is_of(found: &Found, user: &str, path: &str) -> bool {
    let kept = Kept::unpack(&found.record.value);
    let record = kept.and_then(|kept| Record::read(&kept.json).ok().flatten());
    record.is_some_and(|record| record.user(path).as_deref() == Some(user))
}

/// How long a use makes this record last; `None` if it is no session's record.
fn span_of(json: &[u8]) -> Option<Duration> {
    let record = Record::read(json).ok().flatten()?;
    Some(record.cookie().span())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn ends_wait_for_ends_and_never_for_lists() {
        let searches = Searches::default();
        let list = searches.turn(Purpose::List, TIMEOUT).await.unwrap();
        let start = tokio::time::Instant::now();
        let end = searches.turn(Purpose::End, TIMEOUT).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Another list is not worth a long wait.
        let refused = searches.turn(Purpose::List, TIMEOUT).await;
        assert_eq!(refused.err(), Some(StoreError::Timeout(TIMEOUT)));
        drop(list);
        assert!(searches.turn(Purpose::List, TIMEOUT).await.is_ok());

        // Another end is, up to a point.
        let refused = searches.turn(Purpose::End, TIMEOUT).await;
        assert_eq!(refused.err(), Some(StoreError::Timeout(PATIENCE)));
        let release = async {
            tokio::time::sleep(TIMEOUT * 10).await;
            drop(end);
        };
        let (turn, ()) = tokio::join!(searches.turn(Purpose::End, TIMEOUT), release);
        assert!(turn.is_ok());
    }
}
