//! Shortcuts from what a cookie says to the copy of its session.
//!
//! The way from a cookie to a copy leads over the store's key, which is a hash that is
//! dear to compute, and over a map, each step of which is a look into memory that is in no
//! cache of the processor where sessions are many. So the copy itself is noted here: by a
//! keyed hash of the token, its *sight*, which says nothing of the token.
//!
//! A shortcut is a hint and no more. It does not say that the copy is still kept, that it
//! counts, or whose it is: who takes it has to prove all that of what he finds.
//!
//! All threads share them. Each line has a lock of its own, which is held for as long as a
//! look into memory takes. Who looks for a copy, or notes a shortcut, and finds it taken does
//! not wait, since there is always the other way; only who forgets one does.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use super::standing::NO_SIGHT;

/// Shortcuts in one line: two lines of memory, which processors fetch together.
const WAYS: usize = 7;

/// So many of them are used, if all copies are there.
const MEAN: usize = 5;

/// Lines in the smallest table, at least: 4 KiB.
const FEWEST: usize = 32;

/// How many times larger each table is than the one before it.
const STEP: usize = 4;

/// Shortcuts, in a table that is replaced by a larger one as sessions become more. What
/// the smaller one had is noted anew, when it is asked for.
pub struct Shortcuts<T> {
    /// From the smallest to the largest; each is made when it is needed.
    tables: Box<[OnceLock<Table<T>>]>,
    /// Lines of the largest.
    most: usize,
    /// Which table is in use.
    current: AtomicUsize,
    /// How many in the present table had to make room.
    displaced: AtomicU32,
}

type Table<T> = Box<[Line<T>]>;

#[repr(align(128))]
struct Line<T>(Mutex<[Shortcut<T>; WAYS]>);

struct Shortcut<T> {
    sight: u64,
    to: Option<Arc<T>>,
}

impl<T> Shortcuts<T> {
    /// For this many copies. In the end it takes some 34 bytes for each, at first 4 to 16 KiB.
    pub fn new(copies: usize) -> Self {
        // When all room is used, one of twenty has none because its line is full.
        let most = copies.div_ceil(MEAN).max(FEWEST);
        let mut tables = vec![OnceLock::new()];
        let mut lines = most / STEP;
        while lines >= FEWEST {
            tables.push(OnceLock::new());
            lines /= STEP;
        }
        Self {
            tables: tables.into(),
            most,
            current: AtomicUsize::new(0),
            displaced: AtomicU32::new(0),
        }
    }

    /// What was noted last by this sight, if it was not written over and nobody else looks
    /// at this line now. It may be that of another. `fetch` looks at it before anything has
    /// to wait for it.
    pub fn find(&self, sight: u64, fetch: impl FnOnce(&T)) -> Option<Arc<T>> {
        let table = self.tables.get(self.current.load(Ordering::Relaxed))?;
        let line = line(table.get()?, sight)?.try_lock()?;
        let noted = line.iter().find(|noted| noted.sight == sight)?;
        let to = noted.to.as_ref()?;
        fetch(to);
        Some(to.clone())
    }

    /// Notes a shortcut by a sight, if nobody else looks at its line now.
    pub fn put(&self, sight: u64, to: &Arc<T>) {
        let number = self.current.load(Ordering::Relaxed);
        let Some(table) = self.tables.get(number) else {
            return;
        };
        let table = table.get_or_init(|| self.table(number));
        let Some(mut line) = line(table, sight).and_then(Line::try_lock) else {
            return;
        };
        let same = line.iter().position(|noted| noted.sight == sight);
        let free = || line.iter().position(|noted| noted.to.is_none());
        let place = same.or_else(free).unwrap_or_else(|| {
            self.displace(number, table.len());
            // Any of them: which one it is must not depend on what chose the line.
            sight as u32 as usize % WAYS
        });
        if let Some(noted) = line.get_mut(place).filter(|noted| !noted.leads(sight, to)) {
            let to = Some(to.clone());
            *noted = Shortcut { sight, to };
        }
    }

    /// Forgets the shortcut by this sight, if it leads there: in all tables, so that none
    /// keeps it in memory.
    pub fn forget(&self, sight: u64, to: &Arc<T>) {
        for table in self.tables.iter().filter_map(OnceLock::get) {
            let Some(mut line) = line(table, sight).map(Line::lock) else {
                continue;
            };
            for noted in line.iter_mut().filter(|noted| noted.leads(sight, to)) {
                *noted = Shortcut::default();
            }
        }
    }

    /// Counts it, and takes the next table if it comes to that often.
    fn displace(&self, number: usize, lines: usize) {
        let displaced = self.displaced.fetch_add(1, Ordering::Relaxed);
        let many = usize::try_from(displaced).is_ok_and(|displaced| displaced >= lines / 2);
        let next = number.saturating_add(1);
        if many && next < self.tables.len() {
            self.displaced.store(0, Ordering::Relaxed);
            // Of those who come at once one is enough.
            let order = Ordering::Relaxed;
            let _ = self.current.compare_exchange(number, next, order, order);
        }
    }

    fn table(&self, number: usize) -> Table<T> {
        let above = self.tables.len().saturating_sub(number.saturating_add(1));
        let lines = (0..above).fold(self.most, |lines, _| lines / STEP);
        (0..lines).map(|_| Line::default()).collect()
    }
}

impl<T> Line<T> {
    fn lock(&self) -> MutexGuard<'_, [Shortcut<T>; WAYS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, [Shortcut<T>; WAYS]>> {
        match self.0.try_lock() {
            Ok(line) => Some(line),
            Err(TryLockError::Poisoned(line)) => Some(line.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shortcut<T> {
    fn leads(&self, sight: u64, to: &Arc<T>) -> bool {
        let is_same = |known: &Arc<T>| Arc::ptr_eq(known, to);
        self.sight == sight && self.to.as_ref().is_some_and(is_same)
    }
}

impl<T> Default for Shortcut<T> {
    fn default() -> Self {
        Self {
            sight: NO_SIGHT,
            to: None,
        }
    }
}

/// The line in which a sight has its place: as far into the table as the hash is between
/// nothing and the greatest number.
fn line<T>(table: &Table<T>, sight: u64) -> Option<&Line<T>> {
    let place = (u128::from(sight) * table.len() as u128) >> u64::BITS;
    table.get(place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are as good as hashes.
    fn sights(many: u64) -> impl Iterator<Item = u64> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        (0..many).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
    }

    fn lines<T>(shortcuts: &Shortcuts<T>) -> usize {
        let made = shortcuts.tables.iter().filter_map(OnceLock::get);
        made.map(|table| table.len()).sum()
    }

    const MANY: u64 = WAYS as u64;

    #[test]
    fn what_was_noted_is_found_by_its_sight_alone() {
        let shortcuts = Shortcuts::new(100);
        let find = |sight| shortcuts.find(sight, |_| ()).map(|found| *found);
        assert_eq!(find(5), None);
        shortcuts.put(5, &Arc::new(50));
        // In the same line.
        shortcuts.put(6, &Arc::new(51));
        assert_eq!((find(5), find(6)), (Some(50), Some(51)));
        assert_eq!(find(7), None);
        assert_eq!(find(NO_SIGHT), None);
        shortcuts.put(5, &Arc::new(52));
        assert_eq!((find(5), find(6)), (Some(52), Some(51)));
    }

    #[test]
    fn what_is_forgotten_is_not_kept_and_makes_room() {
        let shortcuts = Shortcuts::new(100);
        let of_one_line = |number: u64| number + 1;
        let found = |many: u64| -> Vec<u64> {
            let places = (0..many).filter_map(|number| shortcuts.find(of_one_line(number), |_| ()));
            places.map(|found| *found).collect()
        };
        let copies: Vec<_> = (0..MANY + 2).map(Arc::new).collect();
        for (copy, number) in copies.iter().zip(0..MANY) {
            shortcuts.put(of_one_line(number), copy);
        }
        shortcuts.forget(of_one_line(2), &copies[3]);
        assert_eq!(found(MANY), [0, 1, 2, 3, 4, 5, 6], "leads elsewhere");
        shortcuts.forget(of_one_line(2), &copies[2]);
        assert_eq!(Arc::strong_count(&copies[2]), 1);
        shortcuts.put(of_one_line(7), &copies[7]);
        assert_eq!(found(MANY + 1), [0, 1, 3, 4, 5, 6, 7]);
        shortcuts.put(of_one_line(8), &copies[8]);
        let left = found(MANY + 2);
        assert!(left.len() == WAYS && left.contains(&8), "{left:?}");
    }

    #[test]
    fn who_finds_a_line_taken_does_not_wait() {
        let shortcuts = Shortcuts::new(100);
        shortcuts.put(5, &Arc::new(()));
        let table = shortcuts.tables[0].get().unwrap();
        let taken = line(table, 5).unwrap().lock();
        assert_eq!(shortcuts.find(5, |_| ()), None);
        drop(taken);
        assert!(shortcuts.find(5, |_| ()).is_some());
    }

    #[test]
    fn it_grows_with_the_copies_and_is_bounded() {
        for copies in [1, 300, 1_000, 5_000, 100_000] {
            let shortcuts = Shortcuts::new(copies);
            let many = u64::try_from(copies).unwrap();
            let kept: Vec<_> = (0..many).map(Arc::new).collect();
            for _ in 0..4 {
                for (sight, copy) in sights(many).zip(&kept) {
                    shortcuts.put(sight, copy);
                }
            }
            let right = |(sight, copy): &(u64, &Arc<u64>)| {
                shortcuts
                    .find(*sight, |_| ())
                    .is_some_and(|found| Arc::ptr_eq(&found, copy))
            };
            let found = sights(many).zip(&kept).filter(right).count();
            assert!(found * 100 >= copies * 94, "{found} of {copies}");
            let most = (copies * 35).max(4096);
            assert!(
                lines(&shortcuts) * size_of::<Line<u64>>() <= most,
                "{copies}"
            );
            // From the tables that are in use no more, too.
            for (sight, copy) in sights(many).zip(&kept) {
                shortcuts.forget(sight, copy);
            }
            assert!(kept.iter().all(|copy| Arc::strong_count(copy) == 1));
        }
        // However many come and go.
        let shortcuts = Shortcuts::new(1_000);
        sights(100_000).for_each(|sight| shortcuts.put(sight, &Arc::new(())));
        assert_eq!(lines(&shortcuts), 200 + 50);
    }

    #[test]
    fn those_who_come_and_go_need_no_larger_table() {
        let shortcuts = Shortcuts::new(100_000);
        for sight in sights(20_000) {
            let copy = Arc::new(());
            shortcuts.put(sight, &copy);
            shortcuts.forget(sight, &copy);
        }
        assert_eq!(lines(&shortcuts), shortcuts.table(0).len());
    }

    #[test]
    fn the_last_table_is_as_large_as_it_is_said() {
        for copies in [0, 1, 128, 129, 1_000, 100_000, 1_000_000] {
            let shortcuts = Shortcuts::<()>::new(copies);
            let last = shortcuts.tables.len() - 1;
            let (first, last) = (shortcuts.table(0).len(), shortcuts.table(last).len());
            assert_eq!(last, shortcuts.most);
            assert!((FEWEST..FEWEST * STEP).contains(&first), "{first}");
            assert!(last * MEAN >= copies, "{copies}");
        }
        assert_eq!(size_of::<Line<u64>>(), 128);
    }
}
