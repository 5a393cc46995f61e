//! The store's port: what a place for sessions must be able to do.
//!
//! There is no upsert. Only [`SessionStore::create`] makes a key, and only
//! where there is none; every other write does nothing where the key is gone.
//! So no late write can bring an ended session back.
//!
//! Each method answers hit, miss, or [`StoreError`]; an error says nothing
//! about the session, and callers must not treat it as a miss.
//!
//! `store/contract.rs` is the suite that every implementation passes.

mod attempt;
mod express;
pub mod file;
pub mod listener;
pub mod memory;
pub mod postgres;
pub mod redis;

#[cfg(test)]
pub mod contract;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

pub use self::listener::{Announcer, Listener};
use crate::base::BoxFuture;
use crate::base::clock::{Clock, Timestamp};
use crate::session::settings::{LayoutKind, StoreLocation, StoreSettings};

/// A moment by the store's own clock, in microseconds since the Unix epoch.
/// All replicas share it, so "before" and "after" mean the same to each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A new record, for [`SessionStore::create`].
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The whole key, with its prefix.
    pub key: Arc<str>,
    /// Whose it is, for finding all of a user's records.
    pub user: String,
    /// What is kept; opaque to the store.
    pub value: Bytes,
    /// When the session was last used.
    pub seen: Timestamp,
    /// After how long the store drops the record by itself. Never zero.
    pub ttl: Duration,
}

/// A record as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// As it was given to `create` or `update`, byte for byte.
    pub value: Bytes,
    /// As the last `touch` (or `create`) wrote it.
    pub seen: Timestamp,
}

/// A record that was found without its key being known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The whole key, with its prefix.
    pub key: Arc<str>,
    /// What is kept under it.
    pub record: StoredRecord,
    /// What is left of its time to live.
    pub ttl: Duration,
}

/// A part of all records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those of this part. There may be none, although more follow.
    pub found: Vec<Found>,
    /// Where to go on; `None`: that was all.
    pub next: Option<String>,
}

/// The store gave no answer. This says nothing about the session.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No answer within `store.timeout`.
    #[error("no answer from the session store within {0:?}")]
    Timeout(Duration),
    /// The store cannot be reached, or refused the operation.
    #[error("session store: {0}")]
    Unavailable(String),
    /// What the store holds under this key is not a record of ours.
    #[error("session store holds something unreadable: {0}")]
    Unreadable(String),
}

/// A place for sessions. All operations are atomic.
pub trait SessionStore: Send + Sync {
    /// The present moment by the store's clock.
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>>;

    /// Keeps a new record. `false`, and nothing changed, if the key exists.
    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// The record, or `None` if there is none (any more).
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>>;

    /// Writes `seen` and the time to live; the value stays as it is. `false`
    /// if the key does not exist.
    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Replaces the value if it still is `old`; `seen` and the time to live
    /// stay. `false`, and nothing changed, otherwise.
    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Removes the record. `false` if there was none.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The user's epoch: sessions whose login did not begin after it are over.
    /// `None` if there never was one, or it has expired.
    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>>;

    /// Sets the user's epoch to the store's present moment, or to one more
    /// than it was where that is later (a clock that was put back). It is kept
    /// for `ttl`, counted from now.
    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>>;

    /// All live records of a user, in no particular order. Each that
    /// [`SessionStore::create`] has made is among them as long as it lives, also
    /// where that was on another replica a moment ago. What cannot be read as a
    /// record is left out.
    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>>;

    /// The same, to be shown and for nothing else. Where it is dear, it may fail soon while
    /// others ask, and never makes [`SessionStore::of_user`] wait.
    fn of_user_to_list<'a>(
        &'a self,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        self.of_user(user)
    }

    /// All live records, about `most` at a time: `None` begins, and
    /// [`Page::next`] goes on. A record that is there from the beginning to the
    /// end comes at least once, and perhaps more often; one that comes or goes
    /// meanwhile may come or not. What cannot be read as a record is left out.
    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Whether the store answers at all.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a user is called in the names of keys: of a fixed length, and telling
/// nobody who lists the keys who the users are.
pub fn user_name(user: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, user.as_bytes()))
}

/// The open store of a process, from which each worker takes its own handle.
pub enum Opened {
    /// One object that all workers share.
    Memory(Arc<memory::MemoryStore>),
    /// One object that all workers share.
    File(Arc<file::FileStore>),
    /// Each worker keeps a connection of its own.
    Redis(Box<redis::RedisTarget>),
    /// The same, with records that applications share.
    SharedRedis(Box<redis::RedisTarget>, Clock),
    /// Each worker keeps a connection of its own.
    Postgres(Box<postgres::PostgresTarget>),
    /// The same, with records that applications share.
    SharedPostgres(Box<postgres::PostgresTarget>, Clock),
}

impl Opened {
    /// A worker's handle. Must be called inside that worker's runtime, since a
    /// connection is driven where it was made.
    pub fn handle(&self) -> Arc<dyn SessionStore> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::File(store) => store.clone(),
            Self::Redis(target) => Arc::new(redis::RedisStore::new((**target).clone())),
            Self::Postgres(target) => Arc::new(postgres::PostgresStore::new((**target).clone())),
            Self::SharedRedis(target, clock) => Arc::new(redis::SharedRedisStore::new(
                (**target).clone(),
                clock.clone(),
            )),
            Self::SharedPostgres(target, clock) => Arc::new(postgres::SharedPostgresStore::new(
                (**target).clone(),
                clock.clone(),
            )),
        }
    }

    /// Whether it is a part of this process, so that it tells of every change as it
    /// makes it.
    pub fn is_of_this_process(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::File(_))
    }

    /// The handle whose reads may be copied: from now on `listener` is told of
    /// what changes in the store. `None` if this kind of store tells nobody. To
    /// be called once, inside a runtime that lives as long as the process; the
    /// handle may be used in any other.
    ///
    /// With a remote store, the handle speaks over the one channel that also brings
    /// the news. While that is down, each of its methods fails at once with
    /// [`StoreError::Unavailable`], without trying to connect; this says nothing
    /// about the store. Callers then ask their own handle ([`Self::handle`]) and
    /// copy nothing. A server that cannot tell of changes gives a handle that
    /// always fails, and a listener to which nothing is ever proven.
    pub fn follow(&self, listener: Arc<dyn Listener>) -> Option<Arc<dyn SessionStore>> {
        match self {
            Self::Memory(store) => {
                store.announcer().tell(&listener);
                Some(store.clone())
            }
            Self::File(store) => {
                store.announcer().tell(&listener);
                Some(store.clone())
            }
            Self::Redis(target) => {
                let store = redis::RedisStore::following((**target).clone(), listener);
                Some(Arc::new(store))
            }
            Self::SharedRedis(target, clock) => {
                let clock = clock.clone();
                let store = redis::SharedRedisStore::following((**target).clone(), clock, listener);
                Some(Arc::new(store))
            }
            Self::Postgres(target) | Self::SharedPostgres(target, _) => {
                target.follow(listener);
                Some(self.handle())
            }
        }
    }
}

/// Opens the store. An embedded store is opened here and now; a remote one is
/// first spoken to when it is first needed, so that Cloakroom starts while it
/// is down.
///
/// # Errors
///
/// What is wrong with the folder, the file or the URL, and how to mend it.
pub fn open(settings: &StoreSettings, clock: Clock) -> Result<Opened, StoreError> {
    Ok(match &settings.location {
        StoreLocation::Memory => Opened::Memory(Arc::new(memory::MemoryStore::new(
            clock,
            memory::DEFAULT_CAPACITY,
        ))),
        StoreLocation::File(folder) => Opened::File(Arc::new(file::FileStore::open(
            folder,
            clock,
            settings.timeout,
        )?)),
        StoreLocation::Redis(url) => {
            let target = Box::new(redis::RedisTarget::new(url, settings)?);
            match &settings.layout {
                LayoutKind::Sealed => Opened::Redis(target),
                LayoutKind::Express { .. } => Opened::SharedRedis(target, clock),
            }
        }
        StoreLocation::Postgres(url) => {
            let target = Box::new(postgres::PostgresTarget::new(url, settings));
            match &settings.layout {
                LayoutKind::Sealed => Opened::Postgres(target),
                LayoutKind::Express { .. } => Opened::SharedPostgres(target, clock),
            }
        }
    })
}
