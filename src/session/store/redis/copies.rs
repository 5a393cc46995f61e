//! The simplest cache that a listener can be, for tests: it believes nothing that
//! was changed while it was being read, nothing after a loss, and nothing that was
//! not proven of late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::session::store::{Listener, SessionStore, StoreError, StoredRecord};

/// What a look-up gave, and where from.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// A copy.
    Copy(Option<StoredRecord>),
    /// The store's answer.
    Read(Option<StoredRecord>),
}

pub(crate) struct Copies {
    staleness: Duration,
    state: Mutex<State>,
    used: AtomicBool,
    /// What was told: epochs by name.
    pub(crate) epochs: Mutex<Vec<String>>,
    /// What was told: records by key.
    pub(crate) records: Mutex<Vec<String>>,
    /// How often it was told of a loss.
    pub(crate) losses: AtomicUsize,
    /// How often something was proven.
    pub(crate) proofs: AtomicUsize,
    proven: watch::Sender<Option<Instant>>,
}

#[derive(Default)]
struct State {
    copies: HashMap<String, Option<StoredRecord>>,
    pending: HashMap<String, u64>,
    tokens: u64,
}

impl Copies {
    pub(crate) fn new(staleness: Duration) -> Arc<Self> {
        Arc::new(Self {
            staleness,
            state: Mutex::default(),
            used: AtomicBool::new(true),
            epochs: Mutex::default(),
            records: Mutex::default(),
            losses: AtomicUsize::new(0),
            proofs: AtomicUsize::new(0),
            proven: watch::Sender::new(None),
        })
    }

    /// The copy, if it counts; else what the store says.
    pub(crate) async fn find(
        &self,
        store: &dyn SessionStore,
        key: &str,
    ) -> Result<Found, StoreError> {
        self.used.store(true, Ordering::SeqCst);
        if let Some(copy) = self.copy(key) {
            return Ok(Found::Copy(copy));
        }
        let token = {
            let mut state = self.state.lock().unwrap();
            state.tokens += 1;
            let token = state.tokens;
            state.pending.insert(key.to_owned(), token);
            token
        };
        let record = store.load(key).await?;
        let mut state = self.state.lock().unwrap();
        if state.pending.get(key) == Some(&token) {
            state.pending.remove(key);
            state.copies.insert(key.to_owned(), record.clone());
        }
        Ok(Found::Read(record))
    }

    /// The copy, if there is one that counts now.
    pub(crate) fn copy(&self, key: &str) -> Option<Option<StoredRecord>> {
        let proven = *self.proven.borrow();
        if proven.is_none_or(|asked| asked.elapsed() >= self.staleness) {
            return None;
        }
        self.state.lock().unwrap().copies.get(key).cloned()
    }

    /// Waits until something is proven that was asked after `moment`.
    pub(crate) async fn proven_after(&self, moment: Instant) {
        self.used.store(true, Ordering::SeqCst);
        let mut proven = self.proven.subscribe();
        let waiting = proven.wait_for(|at| at.is_some_and(|at| at > moment));
        let patience = tokio::time::timeout(Duration::from_secs(10), waiting);
        patience.await.expect("nothing was proven").unwrap();
    }

    /// Waits until nothing is proven any more.
    pub(crate) async fn lost_soon(&self) {
        let mut proven = self.proven.subscribe();
        let waiting = proven.wait_for(Option::is_none);
        let patience = tokio::time::timeout(Duration::from_secs(10), waiting);
        patience.await.expect("no loss was told").unwrap();
    }

    /// Waits until this record was told to have changed.
    pub(crate) async fn told_of(&self, key: &str) {
        let start = Instant::now();
        while !self.records.lock().unwrap().iter().any(|told| told == key) {
            assert!(start.elapsed() < Duration::from_secs(10), "{key} not told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.records.lock().unwrap().clear();
    }
}

impl Listener for Copies {
    fn record_changed(&self, key: &str) {
        let mut state = self.state.lock().unwrap();
        state.copies.remove(key);
        state.pending.remove(key);
        self.records.lock().unwrap().push(key.to_owned());
    }

    fn epoch_changed(&self, name: &str) {
        self.epochs.lock().unwrap().push(name.to_owned());
    }

    fn lost(&self) {
        let mut state = self.state.lock().unwrap();
        state.copies.clear();
        state.pending.clear();
        self.losses.fetch_add(1, Ordering::SeqCst);
        self.proven.send_replace(None);
    }

    fn proven(&self, asked: Instant) {
        self.proofs.fetch_add(1, Ordering::SeqCst);
        self.proven.send_replace(Some(asked));
    }

    fn is_used(&self) -> bool {
        self.used.swap(false, Ordering::SeqCst)
    }
}
