//! What all workers of a process share of the sessions.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::flights::Flights;
use super::live::Live;
use super::memo::Memo;
use super::settings::CacheSettings;
use super::store::{Listener, Opened, SessionStore};
use super::touches::Touches;

/// What all workers of a process share of the sessions.
pub struct Shared {
    /// Copies of records.
    pub cache: Cache,
    /// Which sessions were touched of late.
    pub touches: Touches,
    /// What is open on behalf of sessions.
    pub live: Live,
    pub(super) flights: Flights,
    pub(super) serve_stale_for: Duration,
    memo: Memo,
    /// The handle whose answers may be copied.
    followed: OnceLock<Arc<dyn SessionStore>>,
}

impl Shared {
    /// Begins to follow the store. To be called once, inside a runtime that lives
    /// as long as the process.
    pub fn follow(opened: &Opened, settings: &CacheSettings) -> Arc<Self> {
        let staleness = (!opened.is_of_this_process()).then_some(settings.staleness);
        let shared = Arc::new(Self::new(settings, staleness));
        // Without copies there is nothing for which a channel would be worth while.
        if (staleness.is_none() || settings.entries > 0)
            && let Some(followed) = opened.follow(shared.clone())
        {
            shared.followed_by(followed);
        }
        shared
    }

    /// What this handle answers may be copied from now on.
    pub(super) fn followed_by(&self, handle: Arc<dyn SessionStore>) {
        let _ = self.followed.set(handle);
    }

    /// As a process has it that follows no store yet. `staleness` as for
    /// [`Cache::new`].
    pub fn new(settings: &CacheSettings, staleness: Option<Duration>) -> Self {
        Self {
            cache: Cache::new(settings.entries, staleness),
            touches: Touches::default(),
            live: Live::default(),
            flights: Flights::default(),
            serve_stale_for: settings.serve_stale_for,
            memo: Memo::new(),
            followed: OnceLock::new(),
        }
    }

    /// The handle whose answers may be copied, if the store tells of changes.
    pub(super) fn followed(&self) -> Option<&dyn SessionStore> {
        self.followed.get().map(|store| &**store)
    }

    /// What was read before, if the store never tells of changes.
    pub(super) fn memo(&self) -> Option<&Memo> {
        self.followed.get().is_none().then_some(&self.memo)
    }
}

impl Default for Shared {
    /// For a process that looks once and ends: nothing is copied.
    fn default() -> Self {
        let none = CacheSettings {
            entries: 0,
            ..CacheSettings::default()
        };
        Self::new(&none, None)
    }
}

impl Listener for Shared {
    fn record_changed(&self, key: &str) {
        self.cache.record_changed(key);
        self.live.record_changed(key);
    }

    fn epoch_changed(&self, name: &str) {
        self.cache.epoch_changed(name);
        self.live.epoch_changed(name);
    }

    fn lost(&self) {
        self.cache.lost();
    }

    fn proven(&self, asked: Instant) {
        self.cache.proven(asked);
    }

    fn is_used(&self) -> bool {
        // What is open must hear of its end, whether or not requests come.
        self.cache.is_used() || self.live.count() > 0
    }
}
