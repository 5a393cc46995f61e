//! Shortcuts from what a cookie says to where the copy of its session is.
//!
//! The way from a cookie to a copy leads over the store's key, which is a hash that is
//! dear to compute. It is the same each time, so its end is noted here: by a keyed
//! hash of the token, its *sight*, stands the place of the copy, another keyed hash.
//! Neither says anything of a token or a key.
//!
//! A shortcut is a hint and no more. It says nothing of whether there is a copy, whether
//! it counts, or whose it is: who takes it has to prove all that of what he finds. So
//! nothing here has to go when a session goes; what leads nowhere is written over
//! first. Two numbers that do not belong together, as a reader may see them while
//! somebody writes, lead astray, and that is found out in the same way. This is why all
//! threads share it without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Shortcuts in one line: two lines of memory, which processors fetch together.
const WAYS: usize = 8;

/// Lines in the smallest table, at least: 4 KiB.
const FEWEST: usize = 32;

/// How many times larger each table is than the one before it.
const STEP: usize = 4;

/// Instead of a sight: nothing was noted.
const NONE: u64 = 0;

/// Shortcuts, in a table that is replaced by a larger one as sessions become more. What
/// the smaller one had is noted anew, when it is asked for.
pub struct Shortcuts {
    /// From the smallest to the largest; each is made when it is needed.
    tables: Box<[OnceLock<Table>]>,
    /// Lines of the largest.
    most: usize,
    /// Which table is in use.
    current: AtomicUsize,
    /// How many in the present table had to make room while their copies were there.
    displaced: AtomicU32,
}

type Table = Box<[Line]>;

#[derive(Default)]
#[repr(align(128))]
struct Line([Shortcut; WAYS]);

#[derive(Default)]
struct Shortcut {
    sight: AtomicU64,
    place: AtomicU64,
}

impl Shortcuts {
    /// For this many copies. In the end it takes 22 to 43 bytes for each, at first a few KiB.
    pub fn new(copies: usize) -> Self {
        // Full to three quarters or less, mostly, and then few lines are too short.
        let most = (copies / WAYS).next_power_of_two().max(FEWEST);
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

    /// The place that was noted last by this sight, if it was not written over. It may be
    /// that of another.
    pub fn find(&self, sight: u64) -> Option<u64> {
        let table = self.tables.get(self.current.load(Ordering::Relaxed))?;
        let line = line(table.get()?, sight)?;
        let noted = line.0.iter().find(|noted| noted.has(sight))?;
        Some(noted.place.load(Ordering::Relaxed))
    }

    /// Notes a place by a sight. `is_used` says of others whether there is a copy: the
    /// shortcuts of those that are gone make room first.
    pub fn put(&self, sight: u64, place: u64, is_used: impl Fn(u64) -> bool) {
        let number = self.current.load(Ordering::Relaxed);
        let Some(table) = self.tables.get(number) else {
            return;
        };
        let table = table.get_or_init(|| self.table(number));
        let Some(Line(line)) = line(table, sight) else {
            return;
        };
        let leads = |noted: &Shortcut| is_used(noted.place.load(Ordering::Relaxed));
        let same = line.iter().find(|noted| noted.has(sight));
        let free = || line.iter().find(|noted| noted.has(NONE));
        let idle = || line.iter().find(|noted| !leads(noted));
        let noted = same.or_else(free).or_else(idle).or_else(|| {
            self.displace(number, table.len());
            // Any of them: which one it is must not depend on what chose the line.
            line.get(usize::try_from(sight >> 32).ok()? % WAYS)
        });
        if let Some(noted) = noted {
            noted.place.store(place, Ordering::Relaxed);
            noted.sight.store(sight, Ordering::Relaxed);
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

    fn table(&self, number: usize) -> Table {
        let above = self.tables.len().saturating_sub(number.saturating_add(1));
        let lines = (0..above).fold(self.most, |lines, _| lines / STEP);
        (0..lines).map(|_| Line::default()).collect()
    }
}

impl Shortcut {
    fn has(&self, sight: u64) -> bool {
        self.sight.load(Ordering::Relaxed) == sight
    }
}

/// The line in which a sight has its place, in a table of some power of two.
fn line(table: &Table, sight: u64) -> Option<&Line> {
    let mask = table.len().checked_sub(1)?;
    // Any part of a hash is as good.
    table.get(sight as usize & mask)
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

    fn lines(shortcuts: &Shortcuts) -> usize {
        let made = shortcuts.tables.iter().filter_map(OnceLock::get);
        made.map(|table| table.len()).sum()
    }

    const FIRST: u64 = FEWEST as u64;

    #[test]
    fn what_was_noted_is_found_by_its_sight_alone() {
        let shortcuts = Shortcuts::new(100);
        let find = |sight| shortcuts.find(sight);
        assert_eq!(find(5), None);
        shortcuts.put(5, 50, |_| true);
        // In the same line.
        shortcuts.put(5 + FIRST, 51, |_| true);
        assert_eq!((find(5), find(5 + FIRST)), (Some(50), Some(51)));
        assert_eq!(find(5 + 2 * FIRST), None);
        shortcuts.put(5, 52, |_| true);
        assert_eq!((find(5), find(5 + FIRST)), (Some(52), Some(51)));
    }

    #[test]
    fn what_leads_nowhere_makes_room_first() {
        let shortcuts = Shortcuts::new(100);
        let of_one_line = |number: u64| FIRST * (number + 1);
        let found = |many: u64| -> Vec<u64> {
            let places = (0..many).filter_map(|number| shortcuts.find(of_one_line(number)));
            places.collect()
        };
        for number in 0..8 {
            shortcuts.put(of_one_line(number), number, |_| true);
        }
        shortcuts.put(of_one_line(8), 8, |place| place != 2);
        assert_eq!(found(9), [0, 1, 3, 4, 5, 6, 7, 8]);
        shortcuts.put(of_one_line(9), 9, |_| true);
        let left = found(10);
        assert!(left.len() == 8 && left.contains(&9), "{left:?}");
    }

    #[test]
    fn it_grows_with_the_copies_and_is_bounded() {
        for copies in [1, 300, 1_000, 5_000, 100_000] {
            let shortcuts = Shortcuts::new(copies);
            let many = u64::try_from(copies).unwrap();
            for _ in 0..4 {
                for (sight, place) in sights(many).zip(0..) {
                    shortcuts.put(sight, place, |_| true);
                }
            }
            let right = |(sight, place): &(u64, u64)| shortcuts.find(*sight) == Some(*place);
            let found = sights(many).zip(0..).filter(right).count();
            assert!(found * 100 >= copies * 85, "{found} of {copies}");
            let most = (copies * 43).max(4096);
            assert!(lines(&shortcuts) * size_of::<Line>() <= most, "{copies}");
        }
        // However many come and go.
        let shortcuts = Shortcuts::new(1_000);
        sights(100_000).for_each(|sight| shortcuts.put(sight, sight, |_| true));
        assert_eq!(lines(&shortcuts), 128 + 32);
    }

    #[test]
    fn those_who_come_and_go_need_no_larger_table() {
        let shortcuts = Shortcuts::new(100_000);
        for sight in sights(20_000) {
            shortcuts.put(sight, sight, |_| false);
        }
        assert_eq!(lines(&shortcuts), shortcuts.table(0).len());
    }

    #[test]
    fn the_last_table_is_as_large_as_it_is_said() {
        for copies in [0, 1, 128, 1_000, 100_000, 1_000_000] {
            let shortcuts = Shortcuts::new(copies);
            let last = shortcuts.tables.len() - 1;
            let (first, last) = (shortcuts.table(0).len(), shortcuts.table(last).len());
            assert_eq!(last, shortcuts.most);
            assert!((FEWEST..FEWEST * STEP).contains(&first), "{first}");
            assert!(last * WAYS + WAYS > copies, "{copies}");
        }
        assert_eq!(size_of::<Line>(), 128);
    }
}
