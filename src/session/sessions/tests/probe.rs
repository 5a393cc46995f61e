//! A store that tests look into.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::base::BoxFuture;
use crate::session::store::memory::MemoryStore;
use crate::session::store::{Found, Page, StoredRecord};

/// A store in memory that can be switched off and counts touches.
pub(in crate::session) struct Probe {
    pub(super) inner: MemoryStore,
    pub(in crate::session) down: AtomicBool,
    /// Only epochs cannot be read.
    pub(super) epochs_down: AtomicBool,
    pub(super) touches: AtomicUsize,
    pub(super) loads: AtomicUsize,
    /// Others get their turn while a record is being read.
    pub(super) slow: AtomicBool,
}

impl Probe {
    /// On, and with nothing in it.
    pub(super) fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            down: AtomicBool::new(false),
            epochs_down: AtomicBool::new(false),
            touches: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            slow: AtomicBool::new(false),
        }
    }

    fn guard(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("switched off".into())),
            false => Ok(()),
        }
    }
}

/// Passes a call on, unless the store is switched off.
macro_rules! pass {
    ($self:ident, $call:expr) => {
        Box::pin(async move {
            $self.guard()?;
            $call.await
        })
    };
}

impl SessionStore for Probe {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        pass!(self, self.inner.now())
    }
    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        pass!(self, self.inner.create(record))
    }
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        pass!(self, async {
            if self.slow.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            self.inner.load(key).await
        })
    }
    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.touches.fetch_add(1, Ordering::SeqCst);
        pass!(self, self.inner.touch(key, seen, ttl))
    }
    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        pass!(self, self.inner.update(key, old, new))
    }
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        pass!(self, self.inner.delete(key))
    }
    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        pass!(self, async {
            match self.epochs_down.load(Ordering::SeqCst) {
                true => Err(StoreError::Unavailable("no epochs".into())),
                false => self.inner.epoch(user).await,
            }
        })
    }
    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        pass!(self, self.inner.raise_epoch(user, ttl))
    }
    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        pass!(self, self.inner.of_user(user))
    }
    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        pass!(self, self.inner.scan(cursor, most))
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        pass!(self, self.inner.ping())
    }
}
