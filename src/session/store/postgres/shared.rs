//! Records that Express applications share, as connect-pg-simple keeps them: a row with
//! JSON under the bare session id, and the moment from which on it counts as absent, in
//! whole seconds.
//!
//! The table is the application's, and so is what stands in it. Beside it lies
//! `cloakroom_shared` (`shared.sql`), with what Cloakroom noted when it created a session
//! (its facts), or that the session has ended. An application's request that is in flight
//! during a logout saves the whole record again; a trigger on its table passes over what
//! has ended, and a reader that comes upon such a record all the same removes it.
//!
//! `store.prefix` is no part of a session id here: connect-pg-simple knows none.
//!
//! `expire` is a timestamp without time zone: a moment by the clock on the wall of
//! whoever wrote it. So the connection's `TimeZone` is left as the role, the database and
//! the server have it, as node-postgres leaves it; who writes in another one is heard of
//! ([`super::follow`]).

mod statements;

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::statements::Prepared;
use super::handle::Handle;
use super::{LARGEST_PAGE, PostgresTarget, column, span};
use crate::base::BoxFuture;
use crate::base::clock::{Clock, Timestamp};
use crate::session::store::express::{New, Purpose, Stored, is_of};
use crate::session::store::{
    Epoch, Found, NewRecord, Page, SessionStore, StoreError, StoredRecord,
};

/// Rows that one step of a search looks at.
const STEP: usize = 500;

/// Shared records in a PostgreSQL database.
pub struct SharedPostgresStore {
    handle: Handle<Prepared>,
    clock: Clock,
}

/// A row, and whether its session has ended in spite of it.
struct Held {
    stored: Stored,
    ended: bool,
}

impl SharedPostgresStore {
    /// A handle to `target`. To be called in the runtime that drives its connection; the
    /// handle can be used in others too. `clock` is the proxy's.
    pub fn new(target: PostgresTarget, clock: Clock) -> Self {
        Self {
            handle: Handle::new(target),
            clock,
        }
    }

    /// The session id of a key; `None` if no row can have it.
    fn sid<'a>(&self, key: &'a str) -> Option<&'a str> {
        let sid = key.strip_prefix(&*self.handle.target.plain_prefix)?;
        // PostgreSQL's texts hold no NUL.
        (!sid.contains('\0')).then_some(sid)
    }

    async fn find(&self, sid: &str) -> Result<Option<Held>, StoreError> {
        let rows = self.handle.read(|sql| &sql.load, &[&sid]).await?;
        rows.first().map(|row| held(row, 0)).transpose()
    }

    /// The record that counts. One that was written after its end goes again.
    async fn read(&self, sid: &str) -> Result<Option<Stored>, StoreError> {
        match self.find(sid).await? {
            Some(held) if held.ended => {
                self.remove(sid, Some(&held.stored)).await?;
                Ok(None)
            }
            found => Ok(found.map(|held| held.stored)),
        }
    }

    /// Ends a session of which this was found.
    async fn remove(&self, sid: &str, found: Option<&Stored>) -> Result<bool, StoreError> {
        let life = span(Stored::tombstone_life(found));
        let rows = self.handle.read(|sql| &sql.end, &[&sid, &life]).await?;
        rows.first().map_or(Ok(false), |row| column(row, 0))
    }

    /// Looks at `most` rows, whether they have expired or not.
    async fn page(&self, cursor: Option<String>, most: usize) -> Result<Page, StoreError> {
        let most = most.clamp(1, LARGEST_PAGE);
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        // No session has an empty id.
        let start = cursor.unwrap_or_default();
        let params: [&(dyn ToSql + Sync); 2] = [&start, &limit];
        let rows = self.handle.read(|sql| &sql.scan, &params).await?;
        let last = match rows.len() < most {
            true => None,
            false => rows.last(),
        };
        let next = last.map(|row| column::<&str>(row, 0).map(str::to_owned));
        let mut found = Vec::new();
        for row in &rows {
            if column::<Option<&str>>(row, 1)?.is_none() {
                continue;
            }
            let key = format!(
                "{}{}",
                self.handle.target.plain_prefix,
                column::<&str>(row, 0)?
            );
            let held = held(row, 1)?;
            if !held.ended {
                found.extend(held.stored.found(key, self.clock.now()));
            }
        }
        Ok(Page {
            found,
            next: next.transpose()?,
        })
    }

    /// By looking through all records: applications keep no index.
    async fn records_of(&self, user: &str, purpose: Purpose) -> Result<Vec<Found>, StoreError> {
        let target = &self.handle.target;
        let _turn = target.searches.turn(purpose, target.timeout).await?;
        let (mut found, mut cursor): (Vec<Found>, _) = (Vec::new(), None);
        loop {
            let page = self.page(cursor, STEP).await?;
            let own = |found: &Found| is_of(found, user, &target.user);
            found.extend(page.found.into_iter().filter(own));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }
}

impl SessionStore for SharedPostgresStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        Box::pin(self.handle.now())
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let new = New::of(&record)?;
            let no_text = |_| StoreError::Unreadable("the record is no text".into());
            let json = std::str::from_utf8(&new.json).map_err(no_text)?;
            let facts = std::str::from_utf8(&new.facts).map_err(no_text)?;
            let Some(sid) = self.sid(&record.key) else {
                return Ok(false);
            };
            let (ttl, facts_life) = (span(record.ttl), span(new.facts_life));
            self.handle
                .write(|sql| &sql.create, &[&sid, &json, &ttl, &facts, &facts_life])
                .await
        })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(async move {
            let Some(sid) = self.sid(key) else {
                return Ok(None);
            };
            let stored = self.read(sid).await?;
            Ok(stored.map(|stored| stored.record(self.clock.now())))
        })
    }

    /// Prolongs the record's life and never shortens it. `seen` is what its life tells.
    fn touch<'a>(
        &'a self,
        key: &'a str,
        _seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let Some(sid) = self.sid(key) else {
                return Ok(false);
            };
            self.handle
                .write(|sql| &sql.touch, &[&sid, &span(ttl)])
                .await
        })
    }

    /// Never: what the application has written stays as it is.
    fn update<'a>(
        &'a self,
        _key: &'a str,
        _old: Bytes,
        _new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async { Ok(false) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let Some(sid) = self.sid(key) else {
                return Ok(false);
            };
            let found = self.find(sid).await?.map(|held| held.stored);
            self.remove(sid, found.as_ref()).await
        })
    }

    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        Box::pin(self.handle.epoch(user))
    }

    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        Box::pin(self.handle.raise_epoch(user, ttl))
    }

    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(self.records_of(user, Purpose::End))
    }

    fn of_user_to_list<'a>(
        &'a self,
        user: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(self.records_of(user, Purpose::List))
    }

    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.page(cursor, most))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.handle.now().await.map(|_| ()) })
    }
}

/// The columns `sess, left, facts, ended`, from this one on.
fn held(row: &Row, at: usize) -> Result<Held, StoreError> {
    let left: Option<i64> = column(row, at + 1)?;
    let facts: Option<&str> = column(row, at + 2)?;
    Ok(Held {
        stored: Stored {
            json: Bytes::copy_from_slice(column::<&str>(row, at)?.as_bytes()),
            left: left.map(|left| Duration::from_millis(left.max(1).unsigned_abs())),
            facts: facts.map(|facts| Bytes::copy_from_slice(facts.as_bytes())),
        },
        ended: column(row, at + 3)?,
    })
}

#[cfg(test)]
pub(super) mod tests;
