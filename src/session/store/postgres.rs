//! Sessions in a PostgreSQL database, which replicas share.
//!
//! Two tables of our own (`postgres/schema.sql`), made on first use if the role
//! may; or the table of an application (`postgres/shared.rs`). Rows that have expired count as absent and are removed some time later.
//! Triggers tell what changes, whoever changes it.

mod follow;
mod handle;
mod link;
mod prune;
mod schema;
mod shared;
mod statements;
mod tls;
pub mod url;
mod written;

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Error, Row};

use self::handle::Handle;
use self::link::Wire;
use self::prune::Turns;
use self::schema::{NotReady, Schema, quoted};
pub use self::shared::SharedPostgresStore;
use self::statements::Prepared;
use self::url::PostgresUrl;
use super::express::Searches;
use super::{
    Epoch, Found, Listener, NewRecord, Page, SessionStore, StoreError, StoredRecord, user_name,
};
use crate::base::BoxFuture;
use crate::base::clock::{Timestamp, millis};
use crate::session::settings::{LayoutKind, StoreSettings};

/// The longest time to live that is asked for, about a hundred years: moments
/// must not overflow.
const LONGEST_TTL: u64 = 100 * 366 * 24 * 3600 * 1000;

/// The most records that one page of a scan has.
const LARGEST_PAGE: usize = 1000;

/// A PostgreSQL server that has not been spoken to yet.
#[derive(Clone)]
pub struct PostgresTarget {
    url: Arc<PostgresUrl>,
    /// `store.prefix`, or what stands for it, as it is written in the tables.
    prefix: Arc<str>,
    /// `store.prefix` as it is.
    plain_prefix: Arc<str>,
    schema: Arc<Schema>,
    /// Where shared records have the user id; a dotted path.
    user: Arc<str>,
    timeout: Duration,
    staleness: Duration,
    /// What each connection is told first, as SQL.
    settings: Arc<str>,
    turns: Arc<Turns>,
    searches: Arc<Searches>,
}

impl PostgresTarget {
    /// The server of this URL. It need not run.
    pub fn new(url: &PostgresUrl, settings: &StoreSettings) -> Self {
        let mut url = url.clone();
        if url.config.get_connect_timeout().is_none() {
            // Of several hosts, one that does not answer must not take the time
            // of all.
            let hosts = u32::try_from(url.config.get_hosts().len()).unwrap_or(1);
            url.config
                .connect_timeout(settings.timeout / hosts.saturating_add(1));
        }
        let millis = millis(settings.timeout).clamp(1, i32::MAX as u64);
        let mut sql = format!(
            "set statement_timeout = {millis}; \
             set default_transaction_isolation = 'read committed'; \
             set client_min_messages = warning;"
        );
        if let Some(schema) = &url.schema {
            sql.push_str(&format!(" set search_path = {};", quoted(schema)));
        }
        // Of shared sessions, those of one table belong together.
        let (schema, user, prefix) = match &settings.layout {
            LayoutKind::Sealed => (Schema::own(), "", settings.prefix.clone()),
            LayoutKind::Express { user } => {
                let table = url.table();
                (Schema::shared(table), &**user, format!("table:{table}"))
            }
        };
        Self {
            schema: Arc::new(schema),
            user: user.into(),
            url: Arc::new(url),
            prefix: written::key(&prefix).into(),
            plain_prefix: settings.prefix.as_str().into(),
            timeout: settings.timeout,
            staleness: settings.cache.staleness,
            settings: sql.into(),
            turns: Arc::default(),
            searches: Arc::default(),
        }
    }

    /// Tells `listener` what changes, on a connection of its own that is driven
    /// in the present runtime until that ends.
    pub fn follow(&self, listener: Arc<dyn Listener>) {
        tokio::spawn(follow::run(self.clone(), listener));
    }

    async fn connect(&self) -> Result<(Client, Wire), Error> {
        self.url.config.connect(self.url.tls.clone()).await
    }

    /// What an error means to the operator.
    fn explain(&self, error: &Error) -> StoreError {
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            return StoreError::Timeout(self.timeout);
        }
        self.unavailable(&words(error))
    }

    fn explain_setup(&self, why: &NotReady) -> StoreError {
        match why {
            NotReady::Failed(error) => self.explain(error),
            NotReady::Missing(error) => self.unavailable(&format!(
                "its tables or triggers are missing and cannot be made: {}; let their owner run {}",
                words(error),
                self.schema.files
            )),
            NotReady::NoApplication(error) => self.unavailable(&format!(
                "{}; the application makes this table: connect-pg-simple does with createTableIfMissing, or run its table.sql; after the ? of store.url, schema=NAME and table=NAME say which it is",
                words(error)
            )),
            NotReady::Unfit(why) => self.unavailable(&format!(
                "the table {:?} cannot be shared, because {why}: a logout there could be undone, and changes would not be told; it must be a plain table",
                self.url.table()
            )),
            NotReady::Triggers => self.unavailable(&format!(
                "its triggers are missing or disabled; let the owner of the tables run {}",
                self.schema.files
            )),
        }
    }

    /// No server repeats the password; this makes sure of it.
    fn unavailable(&self, what: &str) -> StoreError {
        let text = format!("{}: {what}", self.url.shown());
        StoreError::Unavailable(self.url.without_password(text))
    }
}

/// Sessions in a PostgreSQL database, over one connection that is made when it
/// is first needed and again when it is lost.
pub struct PostgresStore {
    handle: Handle<Prepared>,
}

impl PostgresStore {
    /// A handle to `target`. To be called in the runtime that drives its
    /// connection; the handle can be used in others too.
    pub fn new(target: PostgresTarget) -> Self {
        Self {
            handle: Handle::new(target),
        }
    }

    /// All live records of a user, in the order of their keys.
    ///
    /// # Errors
    ///
    /// As all operations have them.
    async fn records_of(&self, user: &str) -> Result<Vec<Found>, StoreError> {
        let name = user_name(user);
        let params: [&(dyn ToSql + Sync); 2] = [&name, &&*self.handle.target.prefix];
        let rows = self.handle.read(|sql| &sql.of_user, &params).await?;
        rows.iter().map(found).collect()
    }

    /// All live records in turn, `most` at a time and a thousand at most.
    /// `cursor` is what the page before said of the next, `None` at the
    /// beginning. What is there all the while comes exactly once.
    ///
    /// # Errors
    ///
    /// As all operations have them.
    async fn page(&self, cursor: Option<String>, most: usize) -> Result<Page, StoreError> {
        let most = most.clamp(1, LARGEST_PAGE);
        let prefix = &*self.handle.target.prefix;
        let (start, end) = (cursor.as_deref().unwrap_or(prefix), written::after(prefix));
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 4] = [&start, &end, &prefix, &limit];
        let rows = self.handle.read(|sql| &sql.scan, &params).await?;
        let last = match rows.len() < most {
            true => None,
            false => rows.last(),
        };
        // The first text after a key is the key and the least character that a
        // text can hold.
        let next = last
            .map(|row| column::<&str>(row, 0).map(|key| format!("{key}\u{1}")))
            .transpose()?;
        let found = rows.iter().map(found).collect::<Result<_, _>>()?;
        Ok(Page { found, next })
    }
}

impl SessionStore for PostgresStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        Box::pin(self.handle.now())
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let key = written::key(&record.key);
            let user = user_name(&record.user);
            let (seen, ttl) = (record.seen.0.cast_signed(), span(record.ttl));
            self.handle
                .write(
                    |sql| &sql.create,
                    &[&key, &&record.value[..], &seen, &ttl, &user],
                )
                .await
        })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(async move {
            let rows = self
                .handle
                .read(|sql| &sql.load, &[&written::key(key)])
                .await?;
            rows.first().map(|row| stored(row, 0)).transpose()
        })
    }

    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let (seen, ttl) = (seen.0.cast_signed(), span(ttl));
            self.handle
                .write(|sql| &sql.touch, &[&written::key(key), &seen, &ttl])
                .await
        })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            self.handle
                .write(
                    |sql| &sql.update,
                    &[&written::key(key), &&old[..], &&new[..]],
                )
                .await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let rows = self
                .handle
                .read(|sql| &sql.delete, &[&written::key(key)])
                .await?;
            rows.first().map_or(Ok(false), |row| column(row, 0))
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
        Box::pin(self.records_of(user))
    }

    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.page(cursor, most))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.now().await.map(|_| ()) })
    }
}

/// A time to live in milliseconds.
fn span(ttl: Duration) -> i64 {
    millis(ttl).clamp(1, LONGEST_TTL).cast_signed()
}

/// A random span below this one.
fn jitter(most: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness everybody comes at the same time, which can be borne.
    let _ = aws_lc_rs::rand::fill(&mut random);
    most / u32::from(u16::MAX) * u32::from(u16::from_ne_bytes(random))
}

/// The columns `key, value, seen, left`.
fn found(row: &Row) -> Result<Found, StoreError> {
    let left: i64 = column(row, 3)?;
    Ok(Found {
        key: written::read(column(row, 0)?).into(),
        record: stored(row, 1)?,
        ttl: Duration::from_millis(left.max(1).unsigned_abs()),
    })
}

/// The columns `value, seen`, from this one on.
fn stored(row: &Row, at: usize) -> Result<StoredRecord, StoreError> {
    let seen: i64 = column(row, at + 1)?;
    Ok(StoredRecord {
        value: Bytes::copy_from_slice(column(row, at)?),
        seen: Timestamp(seen.cast_unsigned()),
    })
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| {
        StoreError::Unreadable(format!("a column of its tables has another type: {error}"))
    })
}

fn strange() -> StoreError {
    StoreError::Unavailable("postgres gave a strange answer".into())
}

/// An error with its reasons. Details are left out: they may repeat values.
fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(next) = reason {
        text.push_str(&format!(": {next}"));
        reason = next.source();
    }
    text
}
