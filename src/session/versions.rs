//! Versions of what the store holds: each change raises the one of its key, so that
//! whoever has begun to read before it knows that what he has read may not be so any more.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Versions are shared by the keys of one stripe: a change of another key of it costs a
/// copy that was being read, never the truth.
const STRIPES: usize = 1024;

/// The versions that are current.
pub struct Versions {
    hasher: RandomState,
    stripes: Box<[AtomicU64]>,
}

impl Default for Versions {
    /// Nothing has changed yet.
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Versions {
    /// The current version of what has this name.
    pub fn of(&self, name: &str) -> u64 {
        let stripe = self.stripes.get(self.stripe(name));
        stripe.map_or(0, |stripe| stripe.load(Ordering::SeqCst))
    }

    /// What has this name changes.
    pub fn raise(&self, name: &str) {
        if let Some(stripe) = self.stripes.get(self.stripe(name)) {
            stripe.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Which names have their version in common.
    pub(super) fn stripe(&self, name: &str) -> usize {
        usize::try_from(self.hasher.hash_one(name) % STRIPES as u64).unwrap_or_default()
    }
}
