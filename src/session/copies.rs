//! The copies of sessions themselves, by their keys and by shortcuts. Whether one
//! counts, the [cache](super::cache) says.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache as Entries;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};

use super::known::Known;
use super::shortcuts::Shortcuts;
use super::standing::NO_SIGHT;
use super::versions::Version;

/// Into so many turns, or up to twice as many, the time is parted in which as many copies
/// are put in as there is room for (into fewer, if that is for fewer). Once in each the use
/// of a copy is told.
const TURNS: u64 = 64;

/// Copies by a hash of their keys. A copy says itself which key it is of, so a key beside
/// it would only take room, and looking at it time. Of two keys with one hash, which are
/// not to be expected, each puts out the other's copy: that costs a copy, never the truth.
pub struct Copies {
    hasher: DefaultHashBuilder,
    entries: Entries<u64, Arc<Known>, UnitWeighter, DefaultHashBuilder, PutOut>,
    shortcuts: Shortcuts<Known>,
    /// How many were put in.
    put: AtomicU64,
    /// So many of them, as a power of two, are a turn.
    turn: u32,
}

/// Collects the copies that one that comes replaces or puts out.
#[derive(Clone)]
struct PutOut;

impl Lifecycle<u64, Arc<Known>> for PutOut {
    type RequestState = Vec<Arc<Known>>;

    fn on_evict(&self, out: &mut Vec<Arc<Known>>, _: u64, known: Arc<Known>) {
        out.push(known);
    }
}

impl Copies {
    /// For so many.
    pub fn new(most: usize) -> Self {
        let hasher = DefaultHashBuilder::default();
        let room = u64::try_from(most).unwrap_or(u64::MAX);
        Self {
            entries: Entries::with(most, room, UnitWeighter, hasher.clone(), PutOut),
            hasher,
            shortcuts: Shortcuts::new(most),
            put: AtomicU64::new(0),
            turn: (room / TURNS).max(1).ilog2(),
        }
    }

    /// The copy of the record with this key.
    pub fn get(&self, key: &str) -> Option<Arc<Known>> {
        let known = self.entries.get(&self.place(key))?;
        // What has no version is still to be found right: see `Cache::keep`.
        let counts = known.key() == key && known.standing().version() != Version::NONE;
        counts.then_some(known)
    }

    /// Whether this very copy is kept, and has a version.
    pub fn holds(&self, known: &Arc<Known>) -> bool {
        let is_same = |copy: Arc<Known>| Arc::ptr_eq(&copy, known);
        self.entries
            .peek(&self.place(known.key()))
            .is_some_and(is_same)
            && known.standing().version() != Version::NONE
    }

    /// Keeps a copy, in place of another one of the same record.
    pub fn put(&self, known: &Arc<Known>) {
        let place = self.place(known.key());
        let mut out = Vec::new();
        self.entries
            .insert_with_lifecycle(place, known.clone(), &mut out);
        self.put.fetch_add(1, Ordering::Relaxed);
        out.iter().for_each(|gone| self.forget_sight(gone));
    }

    /// Keeps it no more, if it is still this one that is kept.
    pub fn take_back(&self, known: &Arc<Known>) {
        self.entries
            .remove_if(&self.place(known.key()), |copy| Arc::ptr_eq(copy, known));
    }

    /// Keeps none of this record any more.
    pub fn remove(&self, key: &str) {
        if let Some((_, known)) = self.entries.remove(&self.place(key)) {
            self.forget_sight(&known);
        }
    }

    /// The copy to which a shortcut leads. It may be kept no more, and it may be the copy of
    /// another session.
    pub fn by_sight(&self, sight: u64) -> Option<Arc<Known>> {
        self.shortcuts.find(sight)
    }

    /// Notes a shortcut to a copy, in place of the one that there was.
    pub fn note_sight(&self, sight: u64, known: &Arc<Known>) {
        let standing = known.standing();
        if standing.sight() != sight {
            let before = standing.set_sight(sight);
            if before != NO_SIGHT {
                self.shortcuts.forget(before, known);
            }
        }
        self.shortcuts.put(sight, known);
        // Whoever has put the copy out meanwhile, or noted another shortcut to it, may have
        // found nothing to forget.
        if !self.holds(known) || standing.sight() != sight {
            self.shortcuts.forget(sight, known);
        }
    }

    /// What is not kept is to take no memory, and to be found no more.
    fn forget_sight(&self, known: &Arc<Known>) {
        let sight = known.standing().sight();
        if sight != NO_SIGHT {
            self.shortcuts.forget(sight, known);
        }
    }

    /// A copy is used to which a shortcut led. What chooses who has to make room does not
    /// see that, so it is told now and then. Answers whether the copy was still kept then.
    pub fn tell_use(&self, known: &Arc<Known>) -> bool {
        // The lower half says which turn it is for long enough.
        let turn = (self.put.load(Ordering::Relaxed) >> self.turn) as u32;
        let standing = known.standing();
        if standing.is_told(turn) {
            return true;
        }
        let kept = self.entries.get(&self.place(known.key()));
        let is_kept = kept.is_some_and(|kept| Arc::ptr_eq(&kept, known));
        if is_kept {
            standing.tell(turn);
        }
        is_kept
    }

    /// As if it was put out while a shortcut to it was being noted.
    #[cfg(test)]
    pub fn lose(&self, key: &str) {
        self.entries.remove(&self.place(key));
    }

    /// As if as many were put in as there are in a turn.
    #[cfg(test)]
    pub fn end_turn(&self) {
        self.put.fetch_add(1 << self.turn, Ordering::Relaxed);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn place(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }
}
