//! Which sessions were touched of late, so that a page with fifty images, or
//! fifty connections over all workers, writes once.
//!
//! What the store says of a session's last use is not enough: a request that
//! read it before a touch would touch again right after it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Timestamp;

/// So many are remembered before the first sweep.
const FIRST_SWEEP: usize = 1024;

/// The touches of this process; its workers share it.
#[derive(Debug, Default)]
pub struct Touches {
    /// Two hashes, each with a secret of its own, stand for a key: there may be as many
    /// touches as sessions, and that any two of these agree in 128 bits is not to be
    /// expected. It would cost one of them a touch.
    hashers: [RandomState; 2],
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    touches: HashMap<[u64; 2], Touch>,
    /// At this size what no longer matters is swept out. It grows with what
    /// does, so that a sweep costs each touch next to nothing.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Touch {
    at: Timestamp,
    under_way: bool,
}

impl Touches {
    /// Whether to touch the session of this key at `now`: not while a touch is
    /// under way, and not within `interval` after one. Whoever is told to do
    /// it says by [`Touches::done`] how it went.
    pub fn begin(&self, key: &str, now: Timestamp, interval: Duration) -> bool {
        let key = self.hashes(key);
        let mut book = self.book();
        if book
            .touches
            .get(&key)
            .is_some_and(|touch| touch.matters(now, interval))
        {
            return false;
        }
        if book.touches.len() >= book.sweep_at.max(FIRST_SWEEP) {
            book.touches.retain(|_, touch| touch.matters(now, interval));
            book.sweep_at = book.touches.len().saturating_mul(2);
        }
        let touch = Touch {
            at: now,
            under_way: true,
        };
        book.touches.insert(key, touch);
        true
    }

    /// The touch is over. One that was not written is forgotten, so that the
    /// next request tries again.
    pub fn done(&self, key: &str, written: bool) {
        let key = self.hashes(key);
        let mut book = self.book();
        if !written {
            book.touches.remove(&key);
        } else if let Some(touch) = book.touches.get_mut(&key) {
            touch.under_way = false;
        }
    }

    /// Whether none is under way.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        !self.book().touches.values().any(|touch| touch.under_way)
    }

    fn hashes(&self, key: &str) -> [u64; 2] {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(key))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Touch {
    fn matters(&self, now: Timestamp, interval: Duration) -> bool {
        // A clock that was put back must not keep a session from sliding.
        let recent = now >= self.at && now.since(self.at) < interval;
        self.under_way || recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1000)
    }

    #[test]
    fn one_touch_per_interval() {
        let touches = Touches::default();
        let (a, b) = ("a", "b");
        assert!(touches.begin(a, at(0), INTERVAL));
        assert!(!touches.begin(a, at(60), INTERVAL), "one is under way");
        assert!(touches.begin(b, at(0), INTERVAL));
        touches.done("a", true);
        assert!(!touches.begin(a, at(9), INTERVAL));
        assert!(touches.begin(a, at(10), INTERVAL));
        touches.done("a", true);
        assert!(touches.begin(a, at(5), INTERVAL), "the clock was put back");
    }

    #[test]
    fn a_touch_that_failed_is_tried_again() {
        let touches = Touches::default();
        assert!(touches.begin("a", at(0), INTERVAL));
        assert!(!touches.is_quiet());
        touches.done("a", false);
        assert!(touches.is_quiet());
        assert!(touches.begin("a", at(0), INTERVAL));
    }

    #[test]
    fn what_no_longer_matters_is_forgotten() {
        let touches = Touches::default();
        let touch = |name: usize, now| {
            let key = name.to_string();
            assert!(touches.begin(&key, now, INTERVAL));
            touches.done(&key, true);
        };
        (0..FIRST_SWEEP).for_each(|name| touch(name, at(0)));
        touch(FIRST_SWEEP, at(20));
        assert_eq!(touches.book().touches.len(), 1);
        // Those that matter stay, however many they are.
        (0..3 * FIRST_SWEEP).for_each(|name| touch(name, at(40)));
        assert!(touches.book().touches.len() >= 3 * FIRST_SWEEP);
    }
}
