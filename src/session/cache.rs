//! Copies of sessions in this process, so that a request of a known session asks
//! the store nothing.
//!
//! A copy counts only while every change of the store is known to reach it
//! ([`Listener`]). Three things keep an ended session from living on here:
//!
//! - What changes is removed, and a copy whose reading began before the change is
//!   never put in after it: each key has a *version* that every change raises, and
//!   a reader must find it as it was when the reading began ([`Reading`]). A copy
//!   says itself whether it is kept, so that nobody takes one for it, wherever it is found.
//! - A channel that was lost ends the *era*: copies of an earlier one count no more.
//! - A channel that is silent is believed for `store.cache.staleness` only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::copies::Copies;
use super::known::{EpochCopy, Known};
use super::pool::Common;
use super::store::{Epoch, Listener};
use super::versions::Versions;
use crate::base::clock::millis;

/// So many epochs are kept before the first sweep.
const FIRST_SWEEP: usize = 1024;

/// Copies of sessions, and of the epochs of their users. All workers share it.
pub struct Cache {
    copies: Option<Copies>,
    common: Common,
    epochs: Mutex<Epochs>,
    versions: Versions,
    era: AtomicU32,
    belief: Belief,
    used: AtomicBool,
}

/// A reading of the store that began at a known state of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    version: u64,
    era: u32,
}

/// Copies by users' names: one of this era, and those that sessions of earlier eras
/// hold, which `serve_stale_for` may need. Sessions hold their user's epoch, and the
/// book only points at it, so what no session needs goes by itself.
#[derive(Default)]
struct Epochs {
    copies: HashMap<Box<str>, Vec<Weak<EpochCopy>>>,
    sweep_at: usize,
}

/// Until when copies count.
struct Belief {
    start: Instant,
    /// `None`: the store is part of this process and tells everything.
    staleness: Option<Duration>,
    /// Milliseconds after `start`.
    until: AtomicU64,
}

impl Cache {
    /// For so many sessions; 0: none is copied. Copies count for `staleness` after
    /// the channel was proven alive; `None`: always, since the store tells of its
    /// changes as it makes them.
    pub fn new(entries: usize, staleness: Option<Duration>) -> Self {
        Self {
            copies: (entries > 0).then(|| Copies::new(entries)),
            common: Common::default(),
            epochs: Mutex::default(),
            versions: Versions::default(),
            era: AtomicU32::new(0),
            belief: Belief {
                start: Instant::now(),
                staleness,
                until: AtomicU64::new(0),
            },
            used: AtomicBool::new(false),
        }
    }

    /// Whether any copies are kept.
    pub(super) fn keeps_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// The copy of a record, if it counts now.
    pub fn fresh(&self, key: &str) -> Option<Arc<Known>> {
        let copies = self.copies.as_ref()?;
        self.note_use();
        let now = self.believed_now()?;
        let known = copies.get(key)?;
        self.counts(&known, now).then_some(known)
    }

    /// The copy to which a shortcut leads that was noted by this sight, if it counts now.
    /// A shortcut proves nothing: `is_meant` says whether it is the right one.
    pub(super) fn fresh_by_sight(
        &self,
        sight: u64,
        is_meant: impl FnOnce(&Known) -> bool,
    ) -> Option<Arc<Known>> {
        let copies = self.copies.as_ref()?;
        self.note_use();
        let now = self.believed_now()?;
        let known = copies.by_sight(sight)?;
        let counts = is_meant(&known) && self.counts(&known, now);
        counts.then_some(known)
    }

    /// Notes a shortcut to a copy.
    pub(super) fn note_sight(&self, sight: u64, known: &Arc<Known>) {
        if let Some(copies) = &self.copies {
            copies.note_sight(sight, known);
        }
    }

    /// The time, while the channel is believed.
    fn believed_now(&self) -> Option<u64> {
        let now = self.belief.now();
        self.belief.holds_at(now).then_some(now)
    }

    /// Whether a copy counts now.
    fn counts(&self, known: &Known, now: u64) -> bool {
        let standing = known.standing();
        let counts = standing.is_kept() && known.era() == self.era() && known.has_valid_epoch();
        if counts {
            standing.confirm(now);
        }
        counts
    }

    /// The copy of a record that counted within this time: for when the store does
    /// not answer and the operator prefers this to an outage.
    pub fn stale(&self, key: &str, within: Duration) -> Option<Arc<Known>> {
        let known = self.copies.as_ref()?.get(key)?;
        let age = self
            .belief
            .now()
            .saturating_sub(known.standing().confirmed());
        (known.has_valid_epoch() && age < millis(within)).then_some(known)
    }

    /// Whether this very copy is kept and counts, so that its end will be told.
    pub fn holds(&self, known: &Arc<Known>) -> bool {
        self.is_believed()
            && known.standing().is_kept()
            && known.era() == self.era()
            && known.has_valid_epoch()
    }

    /// Whether the channel is known to work, so that changes will be told.
    pub fn is_believed(&self) -> bool {
        self.belief.holds()
    }

    /// Begins to read what the store holds under `name`: a record's key, or a
    /// user's name.
    pub fn begin(&self, name: &str) -> Reading {
        // The era first: a loss that comes in between is then noticed.
        let era = self.era();
        Reading {
            version: self.versions.of(name),
            era,
        }
    }

    /// Whether nothing has changed under `name` since `reading` began.
    pub fn still(&self, reading: Reading, name: &str) -> bool {
        self.begin(name) == reading
    }

    /// The copy of a user's epoch, if it counts.
    pub fn epoch(&self, name: &str) -> Option<Arc<EpochCopy>> {
        if !self.is_believed() {
            return None;
        }
        let era = self.era();
        self.epochs()
            .of(name)
            .find(|copy| copy.is_valid() && copy.era() == era)
    }

    /// Keeps a user's epoch that was read by `reading`. What comes back is not
    /// valid if it changed meanwhile: good for one request, and not for more.
    pub fn keep_epoch(&self, reading: Reading, name: &str, epoch: Option<Epoch>) -> Arc<EpochCopy> {
        let mut book = self.epochs();
        let copy = Arc::new(EpochCopy::new(epoch, reading.era));
        if !self.still(reading, name) {
            copy.invalidate();
            return copy;
        }
        book.outdate(name, epoch);
        // Two copies of which one is known to nobody would be a hole.
        let other = book
            .of(name)
            .find(|other| other.is_valid() && other.era() == reading.era);
        other.unwrap_or_else(|| {
            book.put(name, &copy);
            copy
        })
    }

    /// A user's epoch was read, and will not be kept. Copies of an earlier one are over
    /// all the same.
    pub fn note_epoch(&self, name: &str, epoch: Option<Epoch>) {
        self.epochs().outdate(name, epoch);
    }

    /// Keeps a record that was read by `reading`, unless it changed meanwhile.
    pub fn keep(&self, reading: Reading, known: &Arc<Known>) {
        let Some(copies) = &self.copies else {
            return;
        };
        known.standing().confirm(self.belief.now());
        if !self.still(reading, known.key()) || !known.has_valid_epoch() {
            return;
        }
        copies.put(known);
        self.settle(copies, reading, known);
    }

    /// A copy that was put in is kept from now on, unless its record changed meanwhile.
    fn settle(&self, copies: &Copies, reading: Reading, known: &Arc<Known>) {
        // A change that came between the look and the insertion found nothing to
        // remove; but it has raised the version before it looked.
        match self.still(reading, known.key()) {
            true => known.standing().keep(),
            false => copies.take_back(known),
        }
    }

    /// The era of copies: it ends when the channel is lost.
    pub fn era(&self) -> u32 {
        self.era.load(Ordering::SeqCst)
    }

    /// Which names have their version in common.
    #[cfg(test)]
    pub(super) fn stripe_of(&self, name: &str) -> usize {
        self.versions.stripe(name)
    }

    /// What copies have in common.
    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    fn note_use(&self) {
        // Mostly it is set already, and the line stays shared between cores.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Cache {
    fn record_changed(&self, key: &str) {
        // In this order: see `keep`.
        self.versions.raise(key);
        if let Some(copies) = &self.copies {
            copies.remove(key);
        }
    }

    fn epoch_changed(&self, name: &str) {
        let mut book = self.epochs();
        self.versions.raise(name);
        book.of(name).for_each(|copy| copy.invalidate());
        book.copies.remove(name);
    }

    fn lost(&self) {
        // Copies stay where they are, for `serve_stale_for`; they count no more.
        self.era.fetch_add(1, Ordering::SeqCst);
        self.belief.end();
    }

    fn proven(&self, asked: Instant) {
        self.belief.extend(asked);
    }

    fn is_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Reading {
    /// The era in which it began.
    pub fn era(self) -> u32 {
        self.era
    }
}

impl Epochs {
    fn of(&self, name: &str) -> impl Iterator<Item = Arc<EpochCopy>> + use<'_> {
        let copies = self.copies.get(name).into_iter().flatten();
        copies.filter_map(Weak::upgrade)
    }

    /// Epochs only rise: copies of a lower one do not count any more.
    fn outdate(&self, name: &str, epoch: Option<Epoch>) {
        self.of(name)
            .filter(|copy| copy.epoch() < epoch)
            .for_each(|copy| copy.invalidate());
    }

    fn put(&mut self, name: &str, copy: &Arc<EpochCopy>) {
        if self.copies.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.copies.retain(|_, copies| {
                copies.retain(|copy| copy.strong_count() > 0);
                !copies.is_empty()
            });
            self.sweep_at = self.copies.len().saturating_mul(2);
        }
        let copies = self.copies.entry(name.into()).or_default();
        copies.retain(|copy| copy.strong_count() > 0);
        // Mostly there is one.
        copies.reserve_exact(1);
        copies.push(Arc::downgrade(copy));
    }
}

impl Belief {
    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }

    fn holds(&self) -> bool {
        self.holds_at(self.now())
    }

    fn holds_at(&self, now: u64) -> bool {
        self.staleness.is_none() || now < self.until.load(Ordering::SeqCst)
    }

    fn extend(&self, asked: Instant) {
        let Some(staleness) = self.staleness else {
            return;
        };
        let until = (asked + staleness).saturating_duration_since(self.start);
        self.until.fetch_max(millis(until), Ordering::SeqCst);
    }

    fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
