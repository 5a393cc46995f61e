//! What the cache notes in a copy that it keeps: so that whoever comes by the copy
//! without looking it up knows whether it counts.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// How exactly it is noted when a copy last counted, in milliseconds.
const TICK: u64 = 250;

/// Instead of a sight: there is no shortcut.
pub(super) const NO_SIGHT: u64 = 0;

/// Instead of a turn: no use was told yet.
const NEVER: u32 = u32::MAX;

/// Whether a copy is kept: it may be put in soon, it is, it was and never will be again.
const NEW: u8 = 0;
const KEPT: u8 = 1;
const GONE: u8 = 2;

/// Of a copy: whether it is kept, where a shortcut to it is, and when it was used.
#[derive(Debug)]
pub struct Standing {
    sight: AtomicU64,
    /// In ticks of the cache's own time after the first; 0: never.
    confirmed: AtomicU32,
    told: AtomicU32,
    state: AtomicU8,
}

impl Default for Standing {
    /// Of what is no copy yet.
    fn default() -> Self {
        Self {
            sight: AtomicU64::new(NO_SIGHT),
            confirmed: AtomicU32::new(0),
            told: AtomicU32::new(NEVER),
            state: AtomicU8::new(NEW),
        }
    }
}

impl Standing {
    /// Whether it is kept, so that a change of its record would end it.
    pub fn is_kept(&self) -> bool {
        self.state.load(Ordering::SeqCst) == KEPT
    }

    /// It is kept, unless it is gone by now.
    pub fn keep(&self) {
        let order = Ordering::SeqCst;
        let _ = self.state.compare_exchange(NEW, KEPT, order, order);
    }

    /// It is not kept any more.
    pub fn go(&self) {
        self.state.store(GONE, Ordering::SeqCst);
    }

    /// By which sight there may be a shortcut to it, or [`NO_SIGHT`].
    pub fn sight(&self) -> u64 {
        self.sight.load(Ordering::SeqCst)
    }

    /// A shortcut is noted by this sight. Answers where the one before it is.
    pub fn set_sight(&self, sight: u64) -> u64 {
        self.sight.swap(sight, Ordering::SeqCst)
    }

    /// When it last counted, in milliseconds of the cache's own time; a quarter of a
    /// second too early at most.
    pub fn confirmed(&self) -> u64 {
        let ticks = self.confirmed.load(Ordering::Relaxed);
        u64::from(ticks.saturating_sub(1)) * TICK
    }

    /// It counts at `now`. A line of memory that is not written stays shared between
    /// cores.
    pub fn confirm(&self, now: u64) {
        let ticks = u32::try_from(now / TICK + 1).unwrap_or(u32::MAX);
        if self.confirmed.load(Ordering::Relaxed) != ticks {
            self.confirmed.store(ticks, Ordering::Relaxed);
        }
    }

    /// Whether its use has been told in this turn to what chooses who has to go.
    pub fn is_told(&self, turn: u32) -> bool {
        self.told.load(Ordering::Relaxed) == turn
    }

    /// It is told.
    pub fn tell(&self, turn: u32) {
        self.told.store(turn, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_does_not_come_back() {
        let standing = Standing::default();
        assert!(!standing.is_kept());
        standing.keep();
        assert!(standing.is_kept());
        standing.go();
        standing.keep();
        assert!(!standing.is_kept());
    }

    #[test]
    fn when_it_counted_is_known_to_a_quarter_of_a_second() {
        let standing = Standing::default();
        for now in [0, 1, 249, 250, 251, 10_000, 86_400_000 * 365] {
            standing.confirm(now);
            let earliest = u64::saturating_sub(now, 249);
            assert!((earliest..=now).contains(&standing.confirmed()), "{now}");
        }
    }
}
