//! The database file: made, opened, and opened again after a failure.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::{Builder, Database, DatabaseError, StorageError};

use super::{FILE_NAME, tables, unavailable, verify};
use crate::session::store::StoreError;

/// How long to wait for a predecessor's lock. A process that was killed may
/// hold it for some time after its successor has started.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// redb would take up to 1 GiB. Sessions are small, and the system caches the
/// file as well.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

const CONTRADICTION: &str = "it contradicts itself";
const DAMAGED: &str = "it is empty, or not as it was written";

/// An open database that can be replaced by itself, opened anew.
///
/// redb refuses all work after an error of the device, such as a full disk,
/// until the file is opened again.
pub(super) struct Disk {
    open: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    state: RwLock<Result<Database, StoreError>>,
    /// Whether an error was seen that only opening the file again can mend.
    failed: AtomicBool,
}

impl Disk {
    /// Opens the database with `open`, which is kept for the next time.
    pub(super) fn open(
        open: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            state: RwLock::new(Ok(open()?)),
            open: Box::new(open),
            failed: AtomicBool::new(false),
        })
    }

    /// Works with the database, together with any others that do.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            // A panic while the file is read must not take the caller along;
            // redb marks its own state as in need of repair.
            Ok(database) => catch_unwind(AssertUnwindSafe(|| work(database)))
                .unwrap_or_else(|_| Err(redb::Error::Corrupted(CONTRADICTION.into())))
                .map_err(|e| {
                    if !matches!(e, redb::Error::Corrupted(_)) {
                        self.failed.store(true, Ordering::SeqCst);
                    }
                    failure(&e)
                }),
            Err(error) => Err(error.clone()),
        }
    }

    /// Whether the database is open, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.is_ok()
    }

    /// Whether the database is open but must be opened again.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Closes the database and opens it again, so that it is as the last
    /// durable commit left it.
    pub(super) fn reopen(&self) {
        let replace = |state| {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        };
        // Closed first: the lock on the file belongs to the open database. And
        // opened outside of the lock on the state: it may take a second, in
        // which readers are to be told so and not to wait.
        replace(Err(unavailable("the file is being opened again")));
        replace((self.open)());
        self.failed.store(false, Ordering::SeqCst);
    }
}

/// Makes the folder and an empty store in it, where there is none, and gives
/// the path of the file.
///
/// The file gets its name when it is complete. So one that is empty or cut off
/// is never a store that is only just being made.
pub(super) fn prepare(folder: &Path) -> Result<PathBuf, StoreError> {
    let cannot = |e: &dyn std::fmt::Display| {
        unavailable(format!(
            "cannot make {FILE_NAME} in {}: {e}",
            folder.display()
        ))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| unavailable(format!("cannot make the folder {}: {e}", folder.display())))?;
    let path = folder.join(FILE_NAME);
    match path.symlink_metadata() {
        Ok(_) => return Ok(path),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(unavailable(format!("{}: {e}", path.display()))),
    }
    // Such files have mode 0600.
    let draft = tempfile::Builder::new()
        .prefix(".sessions-")
        .tempfile_in(folder)
        .map_err(|e| cannot(&e))?;
    let file = draft.reopen().map_err(|e| cannot(&e))?;
    let database = Builder::new().create_file(file).map_err(|e| cannot(&e))?;
    tables::initialise(&database).map_err(|e| cannot(&e))?;
    drop(database);
    match draft.persist_noclobber(&path) {
        Ok(_) => {}
        // Another process was faster; its file is as good.
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(cannot(&e.error)),
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| cannot(&e))?;
    Ok(path)
}

/// Waits until nobody else is opening the store in `folder`, and keeps others from it
/// for as long as this is held: between verifying the file and opening it, redb's lock
/// is free, and whoever took it then would keep it for a verification. Only a file
/// system that cannot lock a folder has none.
pub(super) fn alone(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    loop {
        match folder.lock() {
            Ok(()) => return Some(folder),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Makes sure that nothing of the file at `path` was damaged since it was written.
pub(super) fn verify(path: &Path) -> Result<(), StoreError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let verified = catch_unwind(|| verify::is_intact(path, CACHE_BYTES));
        match verified {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => return Err(unusable(path, &DAMAGED)),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Ok(Err(e)) => return Err(refusal(path, &e)),
            Err(_) => return Err(unusable(path, &CONTRADICTION)),
        }
    }
}

/// Opens the file at `path`, which must exist and hold a store.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        // A damaged file can make redb's assertions fail.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Builder::new().set_cache_size(CACHE_BYTES).open(path)?;
            let mut format = tables::format(&database);
            if matches!(format, Ok(Some(tables::UNOWNED))) {
                format = tables::upgrade(&database).and_then(|()| tables::format(&database));
            }
            Ok((database, format))
        }));
        match opened {
            Ok(Ok((database, Ok(Some(tables::FORMAT))))) => return Ok(database),
            Ok(Ok((_, Ok(Some(other))))) => {
                return Err(unusable(
                    path,
                    &format!(
                        "it has format {other}, and this version knows {}",
                        tables::FORMAT
                    ),
                ));
            }
            Ok(Ok((_, Ok(None)))) => return Err(unusable(path, &"it belongs to another program")),
            Ok(Ok((_, Err(e)))) => return Err(unusable(path, &e)),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Ok(Err(e)) => return Err(refusal(path, &e)),
            Err(_) => return Err(unusable(path, &CONTRADICTION)),
        }
    }
}

fn refusal(path: &Path, error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => unavailable(format!(
            "another process has {} open; a store in a file belongs to one process alone",
            path.display()
        )),
        DatabaseError::Storage(StorageError::Io(e))
            if !matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            unavailable(format!("cannot open {}: {e}", path.display()))
        }
        _ => unusable(path, error),
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    unavailable(format!(
        "{} cannot be read as a session store ({why}). It was left as it is. \
         To begin with an empty store, move it away; the sessions in it are lost",
        path.display()
    ))
}

fn failure(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(_) => unavailable(format!(
            "the file is damaged ({error}); to begin with an empty store, stop Cloakroom \
             and move it away; the sessions in it are lost"
        )),
        redb::Error::PreviousIo => unavailable("the file failed and is being opened again"),
        _ => unavailable(error),
    }
}
