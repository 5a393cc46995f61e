//! What stores of records that Express applications share have in common, wherever
//! these are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Found, NewRecord, StoreError, StoredRecord};
use crate::base::clock::{Timestamp, millis};
use crate::session::layout::express::{Kept, Record, facts_life, tombstone_life};
use crate::session::record::Head;

/// What is said of a record that never ends by itself, about a hundred years.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

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
