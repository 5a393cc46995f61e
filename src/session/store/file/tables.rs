//! What is in the file, and each change of it.
//!
//! Beside each kind of record stands an index by expiry, so that a sweep reads
//! only what it removes, and beside the sessions one by user. Moments are milliseconds since the Unix epoch.

use std::time::Duration;

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use super::super::memory::{Ticks, expiry};
use super::super::{Epoch, NewRecord, StoredRecord};
use crate::base::clock::Timestamp;
use crate::session::layout::sealed::head_of;

/// The version of what this file describes.
pub(super) const FORMAT: u64 = 2;

/// The version before: without [`OWNERS`] and [`USERS`].
pub(super) const UNOWNED: u64 = 1;

/// `format` → [`FORMAT`].
const META: TableDefinition<&str, u64> = TableDefinition::new("cloakroom");
/// Key → seen, expires, value.
pub(super) const SESSIONS: TableDefinition<&str, (u64, u64, &[u8])> =
    TableDefinition::new("sessions");
/// Expires and key of each session.
const SESSIONS_DUE: TableDefinition<(u64, &str), ()> = TableDefinition::new("sessions_due");
/// Key → user. Apart from the session, since a touch writes that anew.
const OWNERS: TableDefinition<&str, &str> = TableDefinition::new("owners");
/// User and key of each session.
pub(super) const USERS: TableDefinition<(&str, &str), ()> = TableDefinition::new("users");
/// User → epoch in microseconds, expires.
const EPOCHS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("epochs");
/// Expires and user of each epoch.
const EPOCHS_DUE: TableDefinition<(u64, &str), ()> = TableDefinition::new("epochs_due");

pub(super) type Result<T> = std::result::Result<T, redb::Error>;

/// Makes an empty database into an empty store.
pub(super) fn initialise(database: &Database) -> Result<()> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(META)?.insert("format", FORMAT)?;
    // Made here, so that readers find every table.
    drop(Tables::open(&transaction)?);
    transaction.commit()?;
    Ok(())
}

/// Makes a store of the version before into one of this: whose each session is
/// stands in its clear head. A record without one is nobody's, and was never a
/// session that somebody could use.
pub(super) fn upgrade(database: &Database) -> Result<()> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut tables = Tables::open(&transaction)?;
    let mut owned = Vec::new();
    for entry in tables.sessions.iter()? {
        let (key, record) = entry?;
        if let Some(head) = head_of(record.value().2) {
            owned.push((key.value().to_owned(), head.user));
        }
    }
    for (key, user) in owned {
        tables.own(&key, &user)?;
    }
    drop(tables);
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// The format of a store; `None` if the database is not one of ours.
pub(super) fn format(database: &Database) -> Result<Option<u64>> {
    match database.begin_read()?.open_table(META) {
        Ok(table) => Ok(table.get("format")?.map(|format| format.value())),
        Err(TableError::Storage(e)) => Err(e.into()),
        Err(_) => Ok(None),
    }
}

/// Fails if the database cannot be read.
pub(super) fn check(database: &Database) -> Result<()> {
    database.begin_read()?.open_table(META)?;
    Ok(())
}

/// The record, if there is one that has not expired.
pub(super) fn load(database: &Database, key: &str, now: Timestamp) -> Result<Option<StoredRecord>> {
    let table = database.begin_read()?.open_table(SESSIONS)?;
    let Some(found) = table.get(key)? else {
        return Ok(None);
    };
    let (seen, expires, value) = found.value();
    Ok((expires > now.0).then(|| StoredRecord {
        value: Bytes::copy_from_slice(value),
        seen: Timestamp(seen),
    }))
}

/// The latest epoch of all users, or zero. Looks at each.
pub(super) fn latest_epoch(database: &Database) -> Result<Epoch> {
    let table = database.begin_read()?.open_table(EPOCHS)?;
    let mut latest = Epoch::default();
    for entry in table.iter()? {
        let (_, value) = entry?;
        latest = latest.max(Epoch(value.value().0));
    }
    Ok(latest)
}

/// The user's epoch, if there is one that has not expired.
pub(super) fn epoch(database: &Database, user: &str, now: Timestamp) -> Result<Option<Epoch>> {
    let table = database.begin_read()?.open_table(EPOCHS)?;
    let found = table.get(user)?.map(|found| found.value());
    Ok(found
        .filter(|(_, expires)| *expires > now.0)
        .map(|(epoch, _)| Epoch(epoch)))
}

/// The tables within a write transaction.
pub(super) struct Tables<'t> {
    sessions: Table<'t, &'static str, (u64, u64, &'static [u8])>,
    sessions_due: Table<'t, (u64, &'static str), ()>,
    owners: Table<'t, &'static str, &'static str>,
    users: Table<'t, (&'static str, &'static str), ()>,
    epochs: Table<'t, &'static str, (u64, u64)>,
    epochs_due: Table<'t, (u64, &'static str), ()>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            sessions_due: transaction.open_table(SESSIONS_DUE)?,
            owners: transaction.open_table(OWNERS)?,
            users: transaction.open_table(USERS)?,
            epochs: transaction.open_table(EPOCHS)?,
            epochs_due: transaction.open_table(EPOCHS_DUE)?,
        })
    }

    /// Keeps a record where there is none, or none that is still alive.
    pub(super) fn create(&mut self, record: &NewRecord, now: Timestamp) -> Result<bool> {
        let key = &*record.key;
        let found = self.sessions.get(key)?.map(|found| found.value().1);
        if let Some(expires) = found {
            if expires > now.0 {
                return Ok(false);
            }
            self.sessions_due.remove((expires, key))?;
            self.disown(key)?;
        }
        let expires = expiry(now, record.ttl).0;
        self.sessions
            .insert(key, (record.seen.0, expires, &*record.value))?;
        self.sessions_due.insert((expires, key), ())?;
        self.own(key, &record.user)?;
        Ok(true)
    }

    /// Writes `seen` and the expiry of a record that is alive.
    pub(super) fn touch(
        &mut self,
        key: &str,
        seen: Timestamp,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<bool> {
        let Some((_, before, value)) = self.live(key, now)? else {
            return Ok(false);
        };
        let expires = expiry(now, ttl).0;
        self.sessions.insert(key, (seen.0, expires, &*value))?;
        if expires != before {
            self.sessions_due.remove((before, key))?;
            self.sessions_due.insert((expires, key), ())?;
        }
        Ok(true)
    }

    /// Replaces the value of a record that is alive, if it is `old`.
    pub(super) fn update(
        &mut self,
        key: &str,
        old: &[u8],
        new: &[u8],
        now: Timestamp,
    ) -> Result<bool> {
        match self.live(key, now)? {
            Some((seen, expires, value)) if value == old => {
                self.sessions.insert(key, (seen, expires, new))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Removes a record. `false` if there was none, or it had expired.
    pub(super) fn delete(&mut self, key: &str, now: Timestamp) -> Result<bool> {
        if self.live(key, now)?.is_none() {
            return Ok(false);
        }
        let removed = self.sessions.remove(key)?.map(|found| found.value().1);
        if let Some(expires) = removed {
            self.sessions_due.remove((expires, key))?;
        }
        self.disown(key)?;
        Ok(true)
    }

    /// Sets the user's epoch to the present moment, above what it was.
    pub(super) fn raise(
        &mut self,
        user: &str,
        ttl: Duration,
        now: Timestamp,
        ticks: &Ticks,
    ) -> Result<Epoch> {
        let found = self.epochs.get(user)?.map(|found| found.value());
        if let Some((_, expires)) = found {
            self.epochs_due.remove((expires, user))?;
        }
        let live = found.filter(|(_, expires)| *expires > now.0);
        let epoch = ticks.above(live.map(|(epoch, _)| Epoch(epoch)));
        let expires = expiry(now, ttl).0;
        self.epochs.insert(user, (epoch.0, expires))?;
        self.epochs_due.insert((expires, user), ())?;
        Ok(epoch)
    }

    /// Removes up to `limit` records and epochs that have expired, and says
    /// how many. The record decides, not the index: a mistake there must not
    /// end a session.
    pub(super) fn sweep(&mut self, limit: usize, now: Timestamp) -> Result<usize> {
        let mut swept = 0;
        while swept < limit {
            let Some(key) = due(&self.sessions_due, now)? else {
                break;
            };
            self.sessions_due.remove((key.0, key.1.as_str()))?;
            if self.live(&key.1, now)?.is_none() {
                self.sessions.remove(key.1.as_str())?;
                self.disown(&key.1)?;
            }
            swept += 1;
        }
        while swept < limit {
            let Some(user) = due(&self.epochs_due, now)? else {
                break;
            };
            self.epochs_due.remove((user.0, user.1.as_str()))?;
            let expires = self.epochs.get(user.1.as_str())?.map(|e| e.value().1);
            if expires.is_some_and(|expires| expires <= now.0) {
                self.epochs.remove(user.1.as_str())?;
            }
            swept += 1;
        }
        Ok(swept)
    }

    /// When the next record or epoch expires.
    pub(super) fn next_due(&self) -> Result<Option<Timestamp>> {
        let session = self.sessions_due.first()?.map(|(key, _)| key.value().0);
        let epoch = self.epochs_due.first()?.map(|(key, _)| key.value().0);
        Ok(session.into_iter().chain(epoch).min().map(Timestamp))
    }

    fn own(&mut self, key: &str, user: &str) -> Result<()> {
        self.owners.insert(key, user)?;
        self.users.insert((user, key), ())?;
        Ok(())
    }

    fn disown(&mut self, key: &str) -> Result<()> {
        let removed = self.owners.remove(key)?;
        let user = removed.map(|user| user.value().to_owned());
        if let Some(user) = user {
            self.users.remove((user.as_str(), key))?;
        }
        Ok(())
    }

    fn live(&self, key: &str, now: Timestamp) -> Result<Option<(u64, u64, Vec<u8>)>> {
        let Some(found) = self.sessions.get(key)? else {
            return Ok(None);
        };
        let (seen, expires, value) = found.value();
        Ok((expires > now.0).then(|| (seen, expires, value.to_vec())))
    }
}

fn due(
    table: &Table<'_, (u64, &'static str), ()>,
    now: Timestamp,
) -> Result<Option<(u64, String)>> {
    let Some((key, _)) = table.first()? else {
        return Ok(None);
    };
    let (expires, key) = key.value();
    Ok((expires <= now.0).then(|| (expires, key.to_owned())))
}
