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

/// Collects the copies that one that comes replaces or puts out. It is told of both while
/// their part of the map is locked (that it is, a test of the [cache](super::cache) says:
/// `a_copy_counts_until_its_record_changes`), so that who finds none there knows of none
/// that says it is kept.
#[derive(Clone)]
struct PutOut;

impl Lifecycle<u64, Arc<Known>> for PutOut {
    type RequestState = Vec<Arc<Known>>;

    fn on_evict(&self, out: &mut Vec<Arc<Known>>, _: u64, known: Arc<Known>) {
        known.standing().go();
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
        // What is not kept yet is still to be found right: see `Cache::keep`.
        let is_kept = known.key() == key && known.standing().is_kept();
        is_kept.then_some(known)
    }

    /// Puts a copy in, once, in place of another one of the same record. It is kept as soon
    /// as it says so itself.
    pub fn put(&self, known: &Arc<Known>) {
        let place = self.place(known.key());
        let mut out = Vec::new();
        self.entries
            .insert_with_lifecycle(place, known.clone(), &mut out);
        self.put.fetch_add(1, Ordering::Relaxed);
        out.iter().for_each(|gone| self.forget_sight(gone));
    }

    /// Takes out what was put in and never kept.
    pub fn take_back(&self, known: &Arc<Known>) {
        self.entries
            .remove_if(&self.place(known.key()), |copy| Arc::ptr_eq(copy, known));
    }

    /// Keeps none of this record any more.
    pub fn remove(&self, key: &str) {
        // While the map is locked, so that nobody finds that it is out before it says so.
        let goes = |known: &Arc<Known>| {
            known.standing().go();
            true
        };
        if let Some((_, known)) = self.entries.remove_if(&self.place(key), goes) {
            self.forget_sight(&known);
        }
    }

    /// The copy to which a shortcut leads. It may be kept no more, and it may be the copy of
    /// another session.
    pub fn by_sight(&self, sight: u64) -> Option<Arc<Known>> {
        let known = self.shortcuts.find(sight, Known::fetch)?;
        self.tell_use(&known);
        Some(known)
    }

    /// Notes a shortcut to a copy, in place of the one that there was.
    pub fn note_sight(&self, sight: u64, known: &Arc<Known>) {
        if sight == NO_SIGHT {
            return;
        }
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
        if !standing.is_kept() || standing.sight() != sight {
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
    /// see that, so it is told now and then.
    fn tell_use(&self, known: &Arc<Known>) {
        // The lower half says which turn it is for long enough.
        let turn = (self.put.load(Ordering::Relaxed) >> self.turn) as u32;
        let standing = known.standing();
        if !standing.is_told(turn) {
            self.entries.get(&self.place(known.key()));
            standing.tell(turn);
        }
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
