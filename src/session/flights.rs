//! Readings of the store that are under way: whoever wants the same record at the
//! same time waits for the one that was asked for first.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::cache::Reading;
use super::known::Known;
use crate::base::refusal::{Failure, Refusal};

/// What a reading came to.
#[derive(Clone, Debug)]
pub enum Read {
    /// There is such a record.
    Known(Arc<Known>),
    /// There is none that can be used, and why.
    Dead(Refusal),
    /// The store gave no answer, or a damaged one.
    Failed(Refusal, Option<Arc<str>>),
}

/// The readings of this process.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<Arc<str>, Arc<Flight>>>);

struct Flight {
    reading: Reading,
    result: OnceCell<Read>,
}

/// A place in a flight; the last to leave takes it off the board.
struct Seat<'a> {
    flights: &'a Flights,
    key: &'a Arc<str>,
    flight: Arc<Flight>,
}

impl Flights {
    /// The result of the reading of `key` that is under way, or of `read`; and whether
    /// it was the latter. Nobody joins a reading that began before the last change that
    /// is known of: `now` is the state of the cache at this moment.
    ///
    /// A reading that was under way may be older than the call. One that is joined by a
    /// second call, after the first is over, is not: it was taken off the board then.
    pub async fn join<F>(
        &self,
        key: &Arc<str>,
        now: Reading,
        read: impl FnOnce() -> F,
    ) -> (Read, bool)
    where
        F: Future<Output = Read>,
    {
        let seat = self.board(key, now);
        let own = AtomicBool::new(false);
        let read = || {
            own.store(true, Ordering::Relaxed);
            read()
        };
        let result = seat.flight.result.get_or_init(read).await.clone();
        (result, own.into_inner())
    }

    fn board<'a>(&'a self, key: &'a Arc<str>, now: Reading) -> Seat<'a> {
        let mut flights = self.lock();
        let flight = match flights.get(key) {
            Some(flight) if flight.reading == now => flight.clone(),
            _ => {
                let flight = Arc::new(Flight {
                    reading: now,
                    result: OnceCell::new(),
                });
                flights.insert(key.clone(), flight.clone());
                flight
            }
        };
        Seat {
            flights: self,
            key,
            flight,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // The board's and this one: nobody can board while the board is locked. A
        // result is good for those who waited for it, and not for later ones.
        let last = Arc::strong_count(&self.flight) <= 2 || self.flight.result.initialized();
        if last
            && flights
                .get(self.key)
                .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            flights.remove(self.key);
        }
    }
}

impl From<Failure> for Read {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.refusal, failure.cause.map(Into::into))
    }
}

impl Read {
    /// What was read, or why not.
    ///
    /// # Errors
    ///
    /// The failure, if it is one.
    pub fn into_result(self) -> Result<Result<Arc<Known>, Refusal>, Failure> {
        match self {
            Self::Known(known) => Ok(Ok(known)),
            Self::Dead(refusal) => Ok(Err(refusal)),
            Self::Failed(refusal, cause) => Err(Failure {
                refusal,
                cause: cause.map(|cause| cause.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::cache::Cache;
    use crate::session::store::Listener;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Notify;

    fn unknown() -> Read {
        Read::Dead(Refusal::UnknownSession)
    }

    #[tokio::test]
    async fn many_who_want_the_same_ask_once() {
        let (flights, cache) = (Flights::default(), Cache::new(1, None));
        let (asked, open) = (AtomicUsize::new(0), Notify::new());
        let key: Arc<str> = "k".into();
        let want = || {
            flights.join(&key, cache.begin(&key), || async {
                asked.fetch_add(1, Ordering::SeqCst);
                open.notified().await;
                unknown()
            })
        };
        let many = async { tokio::join!(want(), want(), want()) };
        let opener = async {
            tokio::task::yield_now().await;
            open.notify_one();
        };
        tokio::join!(many, opener);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn nobody_joins_a_reading_from_before_a_change() {
        let (flights, cache) = (Flights::default(), Cache::new(1, None));
        let key: Arc<str> = "k".into();
        let old = flights.board(&key, cache.begin(&key));
        cache.record_changed(&key);
        let new = flights.board(&key, cache.begin(&key));
        assert!(!Arc::ptr_eq(&old.flight, &new.flight));
        drop(old);
        assert_eq!(flights.len(), 1);
        drop(new);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn one_that_was_given_up_is_taken_over() {
        let (flights, cache) = (Flights::default(), Cache::new(1, None));
        let key: Arc<str> = "k".into();
        let now = cache.begin(&key);
        let mut first = Box::pin(flights.join(&key, now, std::future::pending));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(1), &mut first)
                .await
                .is_err()
        );
        let second = flights.join(&key, now, || async { unknown() });
        drop(first);
        assert!(matches!(second.await, (Read::Dead(_), true)));
    }
}
