//! The embedded store: one redb file in a folder, for one process.
//!
//! Reads look into the file where they are asked; all writes go to one thread,
//! which commits what waits for it together. A write that was answered is on
//! the disk, except for a touch: it can be seen at once, but reaches the disk
//! within about a second. A crash in between costs nothing but a little of the
//! session's idle time.

mod disk;
mod lists;
mod tables;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use self::disk::Disk;
use self::writer::{Change, Job, Message, Writer};
use super::memory::Ticks;
use super::{Announcer, Epoch, Found, NewRecord, Page, SessionStore, StoreError, StoredRecord};
use crate::base::BoxFuture;
use crate::base::clock::{Clock, Timestamp};

/// The name of the file within the folder.
pub const FILE_NAME: &str = "sessions.redb";

/// Writes that may wait for the disk; further ones wait for a place, within
/// `store.timeout`.
const QUEUE: usize = 4096;

/// Sessions in a file of this machine.
pub struct FileStore {
    disk: Arc<Disk>,
    clock: Clock,
    ticks: Arc<Ticks>,
    timeout: Duration,
    announcer: Arc<Announcer>,
    places: Arc<Semaphore>,
    /// `None` only while the store is dropped.
    queue: Option<Sender<Message>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl FileStore {
    /// Opens [`FILE_NAME`] in `folder`, and makes both where there is nothing:
    /// the folder with mode 0700, the file with mode 0600. Each operation
    /// takes at most `timeout`.
    ///
    /// If another process has the file open, this waits up to a second for it:
    /// a predecessor that was just killed still holds its lock. One that is only
    /// opening it is waited for until it has.
    ///
    /// # Errors
    ///
    /// What is wrong with the folder or the file, and what to do. A file that
    /// cannot be read as a store is left as it is, and is never replaced by an
    /// empty one.
    pub fn open(folder: &Path, clock: Clock, timeout: Duration) -> Result<Self, StoreError> {
        let path = disk::prepare(folder)?;
        let _alone = disk::alone(folder);
        disk::verify(&path)?;
        Self::start(Disk::open(move || disk::open(&path))?, clock, timeout)
    }

    fn start(disk: Disk, clock: Clock, timeout: Duration) -> Result<Self, StoreError> {
        let disk = Arc::new(disk);
        let ticks = Arc::new(Ticks::new(clock.clone()));
        ticks.pass(disk.with(tables::latest_epoch)?);
        let (queue, messages) = mpsc::channel();
        let announcer = Arc::new(Announcer::default());
        let writer = Writer::new(
            disk.clone(),
            clock.clone(),
            ticks.clone(),
            announcer.clone(),
            messages,
        );
        let thread = std::thread::Builder::new()
            .name("session-store".into())
            .spawn(move || writer.run())
            .map_err(|e| unavailable(format!("cannot start its thread: {e}")))?;
        Ok(Self {
            disk,
            clock,
            ticks,
            timeout,
            announcer,
            places: Arc::new(Semaphore::new(QUEUE)),
            queue: Some(queue),
            writer: Mutex::new(Some(thread)),
        })
    }

    /// Where what changes is told.
    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// Has the writer make a change, and waits for it to be kept.
    async fn change(&self, change: Change) -> Result<u64, StoreError> {
        tokio::time::timeout(self.timeout, self.enqueue(change))
            .await
            .unwrap_or(Err(StoreError::Timeout(self.timeout)))
    }

    async fn enqueue(&self, change: Change) -> Result<u64, StoreError> {
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            change,
            reply,
            _place: place,
        };
        self.send(Message::Job(job))?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn send(&self, message: Message) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(message).map_err(|_| stopped())
    }

    /// Looks into the file here and now.
    fn read<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let result = self.disk.with(work);
        if self.disk.has_failed() {
            // Opening the file again is the writer's to do, which may have
            // nothing else to do. If it is gone, the next write says so.
            let _ = self.send(Message::Reopen);
        }
        result
    }
}

impl Drop for FileStore {
    /// Waits until what is queued has been written.
    fn drop(&mut self) {
        self.queue = None;
        let thread = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It catches its own panics, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl SessionStore for FileStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        Box::pin(async move { Ok(self.ticks.next()) })
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.change(Change::Create(record)).await? != 0) })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.read(|database| tables::load(database, key, now))
        })
    }

    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let key = key.to_owned();
        Box::pin(async move { Ok(self.change(Change::Touch { key, seen, ttl }).await? != 0) })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let key = key.to_owned();
        Box::pin(async move { Ok(self.change(Change::Update { key, old, new }).await? != 0) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        let key = key.to_owned();
        Box::pin(async move { Ok(self.change(Change::Delete { key }).await? != 0) })
    }

    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.read(|database| tables::epoch(database, user, now))
        })
    }

    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        let user = user.to_owned();
        Box::pin(async move { Ok(Epoch(self.change(Change::Raise { user, ttl }).await?)) })
    }

    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.read(|database| lists::of_user(database, user, now))
        })
    }

    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.read(|database| lists::page(database, cursor.as_deref(), most, now))
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.read(tables::check) })
    }
}

fn unavailable(what: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(what.to_string())
}

fn stopped() -> StoreError {
    unavailable("its thread has stopped")
}
