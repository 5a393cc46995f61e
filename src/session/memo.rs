//! What readings of the store came to, where they may not be copied.
//!
//! Without a store that tells of changes each request has to ask it. The answer is the same
//! nearly each time, byte for byte, and then it is not deciphered and parsed again: what
//! it says is noted here beside its bytes. That is no copy: nothing of it counts unless the
//! store has just said these bytes, and who presents a token has still to prove it.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Entries;

use super::known::Known;

/// The room for all notes, in bytes: for those of some thousand sessions. Of what is used
/// less there are none.
const ROOM: u64 = 4 * 1024 * 1024;

/// What a note takes, beside what the store said: about this much. What was taken from a
/// record comes to it, and is no larger than the record.
const LEAST: usize = 512;

/// Notes of readings, by the sight of a token
/// ([`SessionRules::sight`](super::rules::SessionRules)), so that those of one
/// configuration lead nowhere in the next one. All workers share it.
pub struct Memo(Entries<u64, Arc<Noted>, Size>);

/// How much of the room a note takes. What applications keep in a record is part of it.
#[derive(Clone)]
struct Size;

impl Weighter<u64, Arc<Noted>> for Size {
    fn weight(&self, _: &u64, noted: &Arc<Noted>) -> u64 {
        u64::try_from(noted.value.len().saturating_add(LEAST)).unwrap_or(u64::MAX)
    }
}

/// A reading.
pub(super) struct Noted {
    /// The store's key.
    pub(super) key: Arc<str>,
    /// What it came to.
    pub(super) known: Arc<Known>,
    /// What the store said.
    value: Bytes,
}

impl Memo {
    /// Nothing is noted yet.
    pub(super) fn new() -> Self {
        let items = usize::try_from(ROOM).unwrap_or(usize::MAX) / LEAST;
        Self(Entries::with_weighter(items, ROOM, Size))
    }

    /// What was noted by this sight. Of two tokens with one sight it may be the other's.
    pub(super) fn find(&self, sight: u64) -> Option<Arc<Noted>> {
        self.0.get(&sight)
    }

    /// Notes what the store has said under a key, and what that came to.
    pub(super) fn note(&self, sight: u64, key: &Arc<str>, value: Bytes, known: Arc<Known>) {
        let key = key.clone();
        let noted = Arc::new(Noted { key, known, value });
        self.0.insert(sight, noted);
    }

    /// Forgets what was noted by this sight: the session is over.
    pub(super) fn forget(&self, sight: u64) {
        self.0.remove(&sight);
    }
}

impl Noted {
    /// Whether the store has said the same now.
    pub(super) fn is_of(&self, value: &Bytes) -> bool {
        self.value == value
    }
}
