//! What many sessions have in common is kept once: the cookie of an application's
//! records, the roles of a group.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Terms;

/// So many are kept before the first sweep.
const FIRST_SWEEP: usize = 64;

/// What copies of sessions have in common.
#[derive(Debug, Default)]
pub struct Common {
    /// Terms of records that applications share.
    pub terms: Pool<Terms>,
    /// Roles, in their order.
    pub roles: Pool<Vec<String>>,
}

/// Equal values, of which one is kept for as long as anybody has it.
#[derive(Debug)]
pub struct Pool<T>(Mutex<Book<T>>);

#[derive(Debug)]
struct Book<T> {
    values: HashSet<Arc<T>>,
    /// At this size what nobody has is swept out. It grows with what somebody has, so
    /// that a sweep costs each value next to nothing.
    sweep_at: usize,
}

impl<T: Eq + Hash> Pool<T> {
    /// The one that all have who ask for a value that equals this one.
    pub fn share(&self, value: T) -> Arc<T> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = book.values.get(&value) {
            return known.clone();
        }
        if book.values.len() >= book.sweep_at {
            // Nobody else can come by one that only the book has.
            book.values.retain(|value| Arc::strong_count(value) > 1);
            book.sweep_at = book.values.len().saturating_mul(2).max(FIRST_SWEEP);
        }
        let value = Arc::new(value);
        book.values.insert(value.clone());
        value
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::new(Book {
            values: HashSet::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let pool = Pool::default();
        let (one, two) = (pool.share("a".to_owned()), pool.share("a".to_owned()));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!Arc::ptr_eq(&one, &pool.share("b".to_owned())));
    }

    #[test]
    fn what_nobody_has_goes() {
        let pool = Pool::default();
        let kept: Vec<_> = (0..100_usize).map(|value| pool.share(value)).collect();
        for value in 1_000..10_000 {
            pool.share(value);
        }
        let size = pool.0.lock().unwrap().values.len();
        assert!(size <= 2 * kept.len(), "{size}");
        assert!(Arc::ptr_eq(&kept[7], &pool.share(7)));
    }
}
