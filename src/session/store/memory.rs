//! The store that dies with the process, for development and for tests.
//!
//! One lock over two maps: every operation is short, and nobody measures a
//! store that forgets everything. It never drops a live session to make room:
//! that would sign somebody out without a trace, so a full store refuses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Announcer, Epoch, Found, NewRecord, Page, SessionStore, StoreError, StoredRecord};
use crate::base::BoxFuture;
use crate::base::clock::{Clock, Timestamp};

/// How many sessions, and apart from them how many epochs, a store in memory
/// holds.
pub const DEFAULT_CAPACITY: usize = 100_000;

/// Sessions in the memory of this process.
pub struct MemoryStore {
    clock: Clock,
    ticks: Ticks,
    held: Mutex<Held>,
    announcer: Announcer,
}

impl MemoryStore {
    /// An empty store for `capacity` sessions and as many epochs.
    pub fn new(clock: Clock, capacity: usize) -> Self {
        Self {
            ticks: Ticks::new(clock.clone()),
            clock,
            held: Mutex::new(Held {
                sessions: Shelf::new(capacity, "sessions"),
                epochs: Shelf::new(capacity, "epochs"),
            }),
            announcer: Announcer::default(),
        }
    }

    /// Where what changes is told.
    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// Nothing that runs under the lock can leave the maps half changed, so a
    /// panic elsewhere in the process is no reason to stop serving.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, record: NewRecord) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut held = self.held();
        if held.sessions.live(&record.key, now).is_some() {
            return Ok(false);
        }
        let kept = Owned {
            user: record.user.into(),
            record: StoredRecord {
                value: record.value,
                seen: record.seen,
            },
        };
        held.sessions
            .put(record.key, kept, expiry(now, record.ttl), now)?;
        Ok(true)
    }

    fn slide(&self, key: &str, seen: Timestamp, ttl: Duration) -> bool {
        let now = self.clock.now();
        let mut held = self.held();
        let Some(slot) = held.sessions.live(key, now) else {
            return false;
        };
        slot.kept.record.seen = seen;
        slot.expires = expiry(now, ttl);
        let expires = slot.expires;
        held.sessions.due = held.sessions.due.min(expires);
        true
    }

    fn swap(&self, key: &str, old: &Bytes, new: Bytes) -> bool {
        match self.held().sessions.live(key, self.clock.now()) {
            Some(slot) if slot.kept.record.value == *old => slot.kept.record.value = new,
            _ => return false,
        }
        self.announcer.record(key);
        true
    }

    /// Loses a record without a word, as no store should.
    #[cfg(test)]
    pub(crate) fn forget(&self, key: &str) {
        self.held().sessions.slots.remove(key);
    }

    fn remove(&self, key: &str) -> bool {
        let now = self.clock.now();
        let removed = self.held().sessions.slots.remove(key);
        self.announcer.record(key);
        removed.is_some_and(|slot| slot.expires > now)
    }

    fn raise(&self, user: &str, ttl: Duration) -> Result<Epoch, StoreError> {
        let now = self.clock.now();
        let mut held = self.held();
        let before = held.epochs.live(user, now).map(|slot| slot.kept);
        let epoch = self.ticks.above(before);
        held.epochs.put(user.into(), epoch, expiry(now, ttl), now)?;
        drop(held);
        self.announcer.epoch(user);
        Ok(epoch)
    }

    /// Looks at every session: a store for development needs no index.
    fn of(&self, user: &str) -> Vec<Found> {
        let now = self.clock.now();
        let held = self.held();
        let slots = held.sessions.slots.iter();
        slots
            .filter(|(_, slot)| slot.expires > now && &*slot.kept.user == user)
            .map(|(key, slot)| slot.found(key, now))
            .collect()
    }

    /// The live sessions behind `cursor`, a key, in the order of the keys.
    fn page(&self, cursor: Option<&str>, most: usize) -> Page {
        let now = self.clock.now();
        let held = self.held();
        let slots = held.sessions.slots.iter();
        let mut behind: Vec<_> = slots
            .filter(|(key, slot)| slot.expires > now && cursor.is_none_or(|last| &***key > last))
            .collect();
        behind.sort_unstable_by_key(|(key, _)| *key);
        let most = most.max(1);
        let more = behind.len() > most;
        behind.truncate(most);
        Page {
            next: behind
                .last()
                .filter(|_| more)
                .map(|(key, _)| key.to_string()),
            found: behind
                .into_iter()
                .map(|(key, slot)| slot.found(key, now))
                .collect(),
        }
    }
}

impl SessionStore for MemoryStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        Box::pin(async move { Ok(self.ticks.next()) })
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { self.insert(record) })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut held = self.held();
            Ok(held.sessions.live(key, now).map(|s| s.kept.record.clone()))
        })
    }

    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.slide(key, seen, ttl)) })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.swap(key, &old, new)) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.remove(key)) })
    }

    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(self.held().epochs.live(user, now).map(|slot| slot.kept))
        })
    }

    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        Box::pin(async move { self.raise(user, ttl) })
    }

    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(async move { Ok(self.of(user)) })
    }

    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { Ok(self.page(cursor.as_deref(), most)) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { Ok(()) })
    }
}

/// The moments of a store that lives in one process.
///
/// No two are equal, although the clock counts milliseconds: a login that
/// begins after "sign out everywhere" must get a later moment, even within the
/// same millisecond, and even where the clock is put back.
pub(super) struct Ticks {
    clock: Clock,
    last: AtomicU64,
}

impl Ticks {
    /// Moments by `clock`.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            last: AtomicU64::new(0),
        }
    }

    /// The moments from here on are later than this one, which an earlier
    /// process may have given out by a clock that was ahead.
    pub(super) fn pass(&self, moment: Epoch) {
        self.last.fetch_max(moment.0, Ordering::SeqCst);
    }

    /// The present moment, later than all before.
    pub(super) fn next(&self) -> Epoch {
        self.above(None)
    }

    /// The present moment, later than all before and than `floor`.
    pub(super) fn above(&self, floor: Option<Epoch>) -> Epoch {
        let clock = self.clock.now().0.saturating_mul(1000);
        let least = clock.max(floor.map_or(0, |epoch| epoch.0.saturating_add(1)));
        let last = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                Some(least.max(last.saturating_add(1)))
            })
            .unwrap_or_else(|last| last);
        Epoch(least.max(last.saturating_add(1)))
    }
}

/// The moment at which something ends that begins now. At least one
/// millisecond on, so that a span too short for the clock is still a span.
pub(super) fn expiry(now: Timestamp, ttl: Duration) -> Timestamp {
    now.after(ttl.max(Duration::from_millis(1)))
}

struct Held {
    sessions: Shelf<Owned>,
    epochs: Shelf<Epoch>,
}

/// A record, and whose it is.
struct Owned {
    user: Arc<str>,
    record: StoredRecord,
}

impl Slot<Owned> {
    fn found(&self, key: &Arc<str>, now: Timestamp) -> Found {
        Found {
            key: key.clone(),
            record: self.kept.record.clone(),
            ttl: self.expires.since(now),
        }
    }
}

/// A bounded map whose entries expire.
struct Shelf<T> {
    slots: HashMap<Arc<str>, Slot<T>>,
    capacity: usize,
    what: &'static str,
    /// Nothing expires before this moment, so no sweep before it finds any.
    due: Timestamp,
    /// Insertions left until the next sweep.
    countdown: usize,
}

struct Slot<T> {
    kept: T,
    expires: Timestamp,
}

impl<T> Shelf<T> {
    fn new(capacity: usize, what: &'static str) -> Self {
        Self {
            slots: HashMap::new(),
            capacity,
            what,
            due: Timestamp(u64::MAX),
            countdown: LEAST_SWEEP,
        }
    }

    fn live(&mut self, key: &str, now: Timestamp) -> Option<&mut Slot<T>> {
        self.slots.get_mut(key).filter(|slot| slot.expires > now)
    }

    /// Keeps `kept` under `key`, in the place of what was there.
    fn put(
        &mut self,
        key: Arc<str>,
        kept: T,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.countdown = self.countdown.saturating_sub(1);
        let full = self.slots.len() >= self.capacity && !self.slots.contains_key(&key);
        if (full || self.countdown == 0) && self.due <= now {
            self.sweep(now);
        }
        if full && self.slots.len() >= self.capacity {
            return Err(StoreError::Unavailable(format!(
                "the store in memory is full: it holds {} live {} and no more",
                self.capacity, self.what
            )));
        }
        self.due = self.due.min(expires);
        self.slots.insert(key, Slot { kept, expires });
        Ok(())
    }

    /// Drops what has expired. It walks over everything, so it comes at most
    /// once in as many insertions as half of what was left the last time:
    /// each insertion pays for two steps of it.
    fn sweep(&mut self, now: Timestamp) {
        self.slots.retain(|_, slot| slot.expires > now);
        let next = self.slots.values().map(|slot| slot.expires).min();
        self.due = next.unwrap_or(Timestamp(u64::MAX));
        self.countdown = LEAST_SWEEP.max(self.slots.len() / 2);
    }
}

/// A sweep of fewer entries than this is not worth its walk.
const LEAST_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::contract::{self, Time};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store(capacity: usize) -> (MemoryStore, Clock) {
        let clock = Clock::fixed(Timestamp(1_700_000_000_000));
        (MemoryStore::new(clock.clone(), capacity), clock)
    }

    fn record(key: &str, ttl: Duration) -> NewRecord {
        NewRecord {
            key: key.into(),
            user: "ann".into(),
            value: Bytes::from_static(b"value"),
            seen: Timestamp(1),
            ttl,
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let (store, clock) = store(DEFAULT_CAPACITY);
        let store = Arc::new(store);
        contract::run(|| store.clone(), Time::Fixed(clock)).await;
    }

    #[tokio::test]
    async fn a_full_store_refuses_and_evicts_nobody() {
        let (store, clock) = store(3);
        for key in ["a", "b"] {
            assert_eq!(store.create(record(key, MINUTE)).await, Ok(true));
        }
        assert_eq!(store.create(record("short", MINUTE / 2)).await, Ok(true));
        let refused = store.create(record("c", MINUTE)).await.unwrap_err();
        assert!(refused.to_string().contains("full"), "{refused}");
        for key in ["a", "b", "short"] {
            assert!(store.load(key).await.unwrap().is_some(), "{key}");
        }

        clock.set(clock.now().after(MINUTE / 2));
        assert_eq!(store.create(record("c", MINUTE)).await, Ok(true));
        assert!(store.create(record("d", MINUTE)).await.is_err());
    }

    #[tokio::test]
    async fn epochs_are_bounded_too() {
        let (store, _) = store(1);
        store.raise_epoch("ann", MINUTE).await.unwrap();
        store.raise_epoch("ann", MINUTE).await.unwrap();
        assert!(store.raise_epoch("bob", MINUTE).await.is_err());
    }

    #[tokio::test]
    async fn expired_records_leave_with_later_writes() {
        let (store, clock) = store(DEFAULT_CAPACITY);
        for n in 0..1000 {
            let record = record(&format!("old-{n}"), MINUTE);
            store.create(record).await.unwrap();
        }
        clock.set(clock.now().after(MINUTE));
        for n in 0..1000 {
            let record = record(&format!("new-{n}"), MINUTE);
            store.create(record).await.unwrap();
        }
        assert_eq!(store.held().sessions.slots.len(), 1000);
    }

    #[test]
    fn moments_rise_although_the_clock_stands_or_falls() {
        let clock = Clock::fixed(Timestamp(1_000));
        let ticks = Ticks::new(clock.clone());
        assert_eq!(ticks.next(), Epoch(1_000_000));
        assert_eq!(ticks.next(), Epoch(1_000_001));
        clock.set(Timestamp(500));
        assert_eq!(ticks.next(), Epoch(1_000_002));
        assert_eq!(ticks.above(Some(Epoch(2_000_000))), Epoch(2_000_001));
        assert_eq!(ticks.next(), Epoch(2_000_002));
    }
}
