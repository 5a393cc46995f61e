//! Versions of what the store holds: each change raises the one of its key, so that
//! whoever has an older one knows that what he knows may not be so any more.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// So many stripes there are at least and at most: 8 KiB, 512 KiB.
const FEWEST: u64 = 1 << 10;
const MOST: u64 = 1 << 16;

/// A version of all keys of a stripe. It says of which: its remainder by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub(super) u64);

/// The versions that are current. They are shared by the keys of one stripe: a change of
/// another key of it costs a copy that was being read, and a shortcut that has to be noted
/// anew, never the truth.
pub struct Versions {
    hasher: RandomState,
    stripes: Box<[AtomicU64]>,
    /// How many there are, less one: a power of two, less one.
    mask: u64,
}

impl Version {
    /// One that never is current.
    pub const NONE: Self = Self(u64::MAX);
}

impl Versions {
    /// Of so many keys, most of which do not change together. Nothing has changed yet.
    pub fn new(keys: usize) -> Self {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        let stripes = (keys / 2).clamp(FEWEST, MOST).next_power_of_two();
        Self {
            hasher: RandomState::new(),
            stripes: (0..stripes).map(AtomicU64::new).collect(),
            mask: stripes - 1,
        }
    }

    /// The current version of what has this name.
    pub fn of(&self, name: &str) -> Version {
        let stripe = self.stripes.get(self.stripe(name));
        stripe.map_or(Version::NONE, |stripe| {
            Version(stripe.load(Ordering::SeqCst))
        })
    }

    /// Whether nothing has changed since this version was the current one.
    pub fn is_current(&self, version: Version) -> bool {
        let stripe = self.stripes.get((version.0 & self.mask) as usize);
        stripe.is_some_and(|stripe| stripe.load(Ordering::SeqCst) == version.0)
    }

    /// What has this name changes. Earlier versions are not current any more.
    pub fn raise(&self, name: &str) {
        if let Some(stripe) = self.stripes.get(self.stripe(name)) {
            stripe.fetch_add(self.mask + 1, Ordering::SeqCst);
        }
    }

    /// Which names have their version in common.
    pub(super) fn stripe(&self, name: &str) -> usize {
        (self.hasher.hash_one(name) & self.mask) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_the_versions_before_it_and_no_others() {
        let versions = Versions::new(0);
        let others = |name: &&String| versions.stripe(name) != versions.stripe("a");
        let names: Vec<String> = (0..100).map(|number| format!("b{number}")).collect();
        let other = names.iter().find(others).unwrap();
        let before = (versions.of("a"), versions.of(other));
        assert!(versions.is_current(before.0) && versions.is_current(before.1));
        versions.raise("a");
        assert!(!versions.is_current(before.0) && versions.is_current(before.1));
        let after = versions.of("a");
        assert!(versions.is_current(after) && after != before.0);
        versions.raise("a");
        assert!(!versions.is_current(before.0) && !versions.is_current(after));
    }

    #[test]
    fn none_is_not_current() {
        for keys in [0, 1, 5_000, 100_000, usize::MAX] {
            let versions = Versions::new(keys);
            assert!(!versions.is_current(Version::NONE));
            let stripes = versions.mask + 1;
            assert!((FEWEST..=MOST).contains(&stripes) && stripes.is_power_of_two());
            for number in 0..stripes {
                assert!(versions.is_current(Version(number)));
            }
        }
    }
}
