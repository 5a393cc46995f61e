//! Sessions on a Redis server, which replicas share.
//!
//! A record is a hash with the fields `v` (the value), `seen` (milliseconds
//! since the Unix epoch, decimal), and what `index` needs. Whatever must not be torn apart is a Lua
//! script, and each key gets its time to live in the script that makes it.

mod index;
mod link;
mod scripts;
mod track;
mod url;

#[cfg(test)]
mod copies;
#[cfg(test)]
mod relay;
#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Client, ErrorKind, RedisError, ScriptInvocation, Value};

use self::link::{Link, Request};
use self::scripts::Scripts;
use self::track::Tracked;
use super::{
    Epoch, Found, Listener, NewRecord, Page, SessionStore, StoreError, StoredRecord, user_name,
};
use crate::base::BoxFuture;
use crate::base::clock::{Timestamp, millis};
use crate::base::secret::Secret;
use crate::session::settings::StoreSettings;

/// The longest time to live that is asked for, about a hundred years. Redis
/// refuses moments that overflow, and a key must never stay without one.
const LONGEST_TTL: u64 = 100 * 366 * 24 * 3600 * 1000;

/// A Redis server that has not been spoken to yet.
#[derive(Clone)]
pub struct RedisTarget {
    client: Client,
    /// Where it is, for messages: host and port, or the socket's path.
    place: Arc<str>,
    /// What the names of session keys begin with.
    prefix: Arc<str>,
    /// What the names of epochs begin with.
    epochs: Arc<str>,
    timeout: Duration,
    /// How long copies are believed after a proof.
    staleness: Duration,
    scripts: Arc<Scripts>,
}

impl RedisTarget {
    /// Understands `store.url`: `redis://[user[:password]@]host[:port][/db]`
    /// or `redis+unix:///path[?db=…&user=…&pass=…]`. The server need not run.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, without a word of it that may be secret.
    pub fn new(url: &Secret, settings: &StoreSettings) -> Result<Self, StoreError> {
        let info =
            url::parse(url).map_err(|why| StoreError::Unavailable(format!("store.url: {why}")))?;
        let place = info.addr().to_string();
        let client = Client::open(info).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok(Self {
            client,
            place: place.into(),
            prefix: settings.prefix.as_str().into(),
            epochs: format!("cloakroom:epoch:{}", settings.prefix).into(),
            timeout: settings.timeout,
            staleness: settings.cache.staleness,
            scripts: Arc::new(Scripts::new()),
        })
    }

    /// What an error means to the operator.
    fn explain(&self, error: &RedisError) -> StoreError {
        let text = self.without_password(error.to_string());
        // Within a script, old servers put the code into the text.
        if error.code() == Some("WRONGTYPE") || text.contains("WRONGTYPE") {
            return StoreError::Unreadable("the key is not a session record".into());
        }
        if error.kind() == ErrorKind::Io && error.is_timeout() {
            return StoreError::Timeout(self.timeout);
        }
        self.unavailable(&text)
    }

    fn unavailable(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("redis at {}: {why}", self.place))
    }

    /// No server repeats the password; this makes sure of it.
    fn without_password(&self, text: String) -> String {
        match self
            .client
            .get_connection_info()
            .redis_settings()
            .password()
        {
            Some(password) if !password.is_empty() => text.replace(password, "…"),
            _ => text,
        }
    }
}

/// Sessions on a Redis server, over one connection that is made when it is
/// first needed and again when it is lost.
pub struct RedisStore {
    target: RedisTarget,
    link: Line,
}

/// What a handle speaks over.
enum Line {
    /// A connection of its own.
    Own(Box<Link>),
    /// The connection that brings the news.
    Tracked(Tracked),
}

impl Line {
    async fn call(&self, request: &Request<'_>) -> Result<Value, StoreError> {
        match self {
            Self::Own(link) => link.call(request).await,
            Self::Tracked(tracked) => tracked.call(request).await,
        }
    }
}

impl RedisStore {
    /// A handle to `target`. It must be used in one runtime, the one in which
    /// it is first used, since that drives its connection.
    pub fn new(target: RedisTarget) -> Self {
        Self {
            link: Line::Own(Box::new(Link::new(&target))),
            target,
        }
    }

    /// A handle over one connection that Redis tells of changes to what was read
    /// on it ([`super::Opened::follow`]). The connection is driven in the runtime in
    /// which this is called; the handle may be used in any.
    pub fn following(target: RedisTarget, listener: Arc<dyn Listener>) -> Self {
        Self {
            link: Line::Tracked(Tracked::start(target.clone(), listener)),
            target,
        }
    }

    /// A script that acts on one key and answers 1 for done, 0 for not, and -1
    /// where it met something else than a record.
    async fn change(
        &self,
        key: &str,
        mut script: ScriptInvocation<'_>,
    ) -> Result<bool, StoreError> {
        script.key(key);
        match self.link.call(&Request::Script(script)).await? {
            Value::Int(1) => Ok(true),
            Value::Int(0) => Ok(false),
            _ => Err(not_a_record()),
        }
    }

    async fn fetch(&self, key: &str) -> Result<Option<StoredRecord>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(key);
        let reply = self.link.call(&Request::Command(command)).await?;
        let fields = reply.into_map_iter().map_err(|_| not_a_record())?;
        let (mut value, mut seen, mut empty) = (None, None, true);
        for (name, content) in fields {
            empty = false;
            let (Some(name), Some(content)) = (bytes(name), bytes(content)) else {
                return Err(not_a_record());
            };
            match &*name {
                b"v" => value = Some(content),
                b"seen" => seen = decimal(&content),
                _ => {}
            }
        }
        match (value, seen) {
            (Some(value), Some(seen)) => Ok(Some(StoredRecord {
                value,
                seen: Timestamp(seen),
            })),
            _ if empty => Ok(None),
            _ => Err(not_a_record()),
        }
    }

    /// The name of a user's epoch.
    fn epoch_key(&self, user: &str) -> String {
        format!("{}{}", self.target.epochs, user_name(user))
    }
}

impl SessionStore for RedisStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        Box::pin(async move {
            let reply = self
                .link
                .call(&Request::Command(redis::cmd("TIME")))
                .await?;
            let (seconds, micros): (u64, u64) =
                redis::from_redis_value(reply).map_err(|_| strange("TIME"))?;
            Ok(Epoch(
                seconds.saturating_mul(1_000_000).saturating_add(micros),
            ))
        })
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.keep(record))
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(self.fetch(key))
    }

    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.slide(key, seen, ttl))
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut script = self.target.scripts.update.prepare_invoke();
            script.arg(&old[..]).arg(&new[..]);
            self.change(key, script).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.remove(key))
    }

    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        Box::pin(async move {
            let mut command = redis::cmd("GET");
            command.arg(self.epoch_key(user));
            match self.link.call(&Request::Command(command)).await? {
                Value::Nil => Ok(None),
                reply => epoch_of(reply).map(Some),
            }
        })
    }

    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        Box::pin(async move {
            let mut script = self.target.scripts.raise.key(self.epoch_key(user));
            script.arg(span(ttl));
            epoch_of(self.link.call(&Request::Script(script)).await?)
        })
    }

    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        Box::pin(self.records_of(user))
    }

    fn scan(&self, cursor: Option<String>, most: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.page(cursor, most))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.link
                .call(&Request::Command(redis::cmd("PING")))
                .await?;
            Ok(())
        })
    }
}

/// A time to live in milliseconds, which Redis takes in any case.
fn span(ttl: Duration) -> u64 {
    millis(ttl).clamp(1, LONGEST_TTL)
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into_bytes().into()),
        _ => None,
    }
}

/// Digits alone: no sign and no space, which `parse` would let pass.
fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn epoch_of(reply: Value) -> Result<Epoch, StoreError> {
    bytes(reply)
        .and_then(|digits| decimal(&digits))
        .map(Epoch)
        .ok_or_else(|| StoreError::Unreadable("the user's epoch is not a number".into()))
}

fn not_a_record() -> StoreError {
    StoreError::Unreadable("the key is not a session record".into())
}

fn strange(command: &str) -> StoreError {
    StoreError::Unavailable(format!("redis gave a strange answer to {command}"))
}
