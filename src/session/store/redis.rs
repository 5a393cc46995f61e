//! Sessions on Redis, which replicas share: one server, the master that Sentinels
//! name, or a cluster.
//!
//! A record is a hash with the fields `v` (the value), `seen` (milliseconds
//! since the Unix epoch, decimal), and what `index` needs. Whatever must not be torn apart is a Lua
//! script, and each key gets its time to live in the script that makes it.

mod cluster;
mod dial;
mod express;
mod index;
mod link;
mod scripts;
mod sentinel;
mod slots;
mod tls;
mod track;
mod url;

#[cfg(test)]
mod copies;
#[cfg(test)]
mod pki;
#[cfg(test)]
mod relay;
#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod topology;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, RedisError, ScriptInvocation, Value};

use self::cluster::Cluster;
use self::dial::Dialer;
pub use self::express::SharedRedisStore;
use self::link::{Aim, Link, Request};
use self::scripts::Scripts;
use self::sentinel::Sentinels;
pub use self::slots::side_key;
use self::tls::Tls;
use self::track::Tracked;
use self::url::{Address, Servers};
pub use self::url::{RedisUrl, UrlFault};
use super::express::Searches;
use super::{
    Epoch, Found, Listener, NewRecord, Page, SessionStore, StoreError, StoredRecord, user_name,
};
use crate::base::BoxFuture;
use crate::base::clock::{Timestamp, millis};
use crate::session::settings::{LayoutKind, StoreSettings};

/// The longest time to live that is asked for, about a hundred years. Redis
/// refuses moments that overflow, and a key must never stay without one.
const LONGEST_TTL: u64 = 100 * 366 * 24 * 3600 * 1000;

/// Redis, not spoken to yet.
#[derive(Clone)]
pub struct RedisTarget {
    servers: Arc<Servers>,
    dialer: Dialer,
    /// Those that say who the master is, if there are any.
    sentinels: Option<Arc<Sentinels>>,
    /// Where it is, for messages.
    place: Arc<str>,
    /// What the names of session keys begin with.
    prefix: Arc<str>,
    /// What the names of epochs begin with. In a cluster, the node that has the slot
    /// of this name keeps the time.
    epochs: Arc<str>,
    timeout: Duration,
    /// How long copies are believed after a proof.
    staleness: Duration,
    scripts: Arc<Scripts>,
    shared: Arc<express::Scripts>,
    /// Of all handles of a process.
    searches: Arc<Searches>,
    /// Where the user id is in records that applications share.
    user: Arc<str>,
}

impl RedisTarget {
    /// Reads the files that the URL names. No server need run.
    ///
    /// # Errors
    ///
    /// Which file cannot be used, and why.
    pub fn new(url: &RedisUrl, settings: &StoreSettings) -> Result<Self, StoreError> {
        let tls = match &url.tls {
            Some(files) => {
                let tls = Tls::new(files);
                Some(Arc::new(tls.map_err(|why| {
                    StoreError::Unavailable(format!("store.url: {why}"))
                })?))
            }
            None => None,
        };
        let sentinels = match &url.servers {
            Servers::Sentinel {
                sentinels,
                master,
                login,
            } => {
                let dialer = Dialer::new(login, 0, true, tls.clone());
                Some(Sentinels::new(dialer, sentinels, master, settings.timeout))
            }
            Servers::One(_) | Servers::Cluster(_) => None,
        };
        Ok(Self {
            servers: Arc::new(url.servers.clone()),
            dialer: Dialer::new(&url.login, url.database, url.resp3, tls),
            sentinels,
            place: url.place().into(),
            prefix: settings.prefix.as_str().into(),
            epochs: format!("cloakroom:epoch:{}", settings.prefix).into(),
            timeout: settings.timeout,
            staleness: settings.cache.staleness,
            scripts: Arc::new(Scripts::new()),
            shared: Arc::new(express::Scripts::new()),
            searches: Arc::default(),
            user: match &settings.layout {
                LayoutKind::Express { user } => user.as_str().into(),
                LayoutKind::Sealed => "".into(),
            },
        })
    }

    /// What an error means to the operator.
    fn explain(&self, error: &RedisError) -> StoreError {
        self.explain_as(error, &self.place)
    }

    /// The same of one of several servers.
    fn explain_at(&self, error: &RedisError, address: &Address) -> StoreError {
        self.explain_as(error, &address.to_string())
    }

    fn explain_as(&self, error: &RedisError, place: &str) -> StoreError {
        let text = self.dialer.without_password(error.to_string());
        // Within a script, old servers put the code into the text.
        if error.code() == Some("WRONGTYPE") || text.contains("WRONGTYPE") {
            return StoreError::Unreadable("the key is not a session record".into());
        }
        if error.kind() == ErrorKind::Io && error.is_timeout() {
            return StoreError::Timeout(self.timeout);
        }
        StoreError::Unavailable(format!("redis at {place}: {text}"))
    }

    fn unavailable(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("redis at {}: {why}", self.place))
    }
}

/// Sessions on Redis, over connections that are made when they are first needed and
/// again when they are lost.
pub struct RedisStore {
    target: RedisTarget,
    link: Line,
}

/// What a handle speaks over.
enum Line {
    /// A connection of its own.
    Own(Box<Link>),
    /// Connections of its own to the nodes of a cluster.
    Cluster(Box<Cluster>),
    /// What brings the news.
    Tracked(Tracked),
}

impl Line {
    /// The masters of a cluster by name, always in one order; else one without a name.
    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Own(_) => Ok(vec![String::new()]),
            Self::Cluster(cluster) => cluster.nodes_by_name().await,
            Self::Tracked(tracked) => tracked.nodes(),
        }
    }

    /// Asks the node of this name.
    async fn call_node(&self, node: &str, request: &Request<'_>) -> Result<Value, StoreError> {
        match self {
            Self::Own(link) => link.call(request).await,
            Self::Cluster(cluster) => cluster.call_node(node, request).await,
            Self::Tracked(tracked) => tracked.call_node(node, request).await,
        }
    }

    /// Asks for something that concerns this key alone.
    async fn call(&self, key: &str, request: &Request<'_>) -> Result<Value, StoreError> {
        match self {
            Self::Own(link) => link.call(request).await,
            Self::Cluster(cluster) => cluster.call(key, request).await,
            Self::Tracked(tracked) => tracked.call(key, request).await,
        }
    }
}

impl RedisStore {
    /// A handle to `target`. It must be used in one runtime, the one in which
    /// it is first used, since that drives its connections.
    pub fn new(target: RedisTarget) -> Self {
        let link = match &*target.servers {
            Servers::One(address) => {
                Line::Own(Box::new(Link::new(&target, Aim::At(address.clone()))))
            }
            Servers::Sentinel { .. } => Line::Own(Box::new(Link::new(&target, Aim::Master))),
            Servers::Cluster(seeds) => Line::Cluster(Box::new(Cluster::new(&target, seeds))),
        };
        Self { target, link }
    }

    /// A handle over connections that Redis tells of changes to what was read
    /// on them ([`super::Opened::follow`]). They are driven in the runtime in
    /// which this is called; the handle may be used in any.
    pub fn following(target: RedisTarget, listener: Arc<dyn Listener>) -> Self {
        Self {
            link: Line::Tracked(Tracked::start(target.clone(), listener)),
            target,
        }
    }

    /// The time of the server, and in a cluster that of one and the same node.
    async fn time(&self) -> Result<Epoch, StoreError> {
        let request = Request::Command(redis::cmd("TIME"));
        let reply = self.link.call(&self.target.epochs, &request).await?;
        let (seconds, micros): (u64, u64) =
            redis::from_redis_value(reply).map_err(|_| strange("TIME"))?;
        Ok(Epoch(
            seconds.saturating_mul(1_000_000).saturating_add(micros),
        ))
    }

    /// A script that acts on one key and answers 1 for done, 0 for not, and -1
    /// where it met something else than a record.
    async fn change(
        &self,
        key: &str,
        mut script: ScriptInvocation<'_>,
    ) -> Result<bool, StoreError> {
        script.key(key);
        match self.link.call(key, &Request::Script(script)).await? {
            Value::Int(1) => Ok(true),
            Value::Int(0) => Ok(false),
            _ => Err(not_a_record()),
        }
    }

    async fn fetch(&self, key: &str) -> Result<Option<StoredRecord>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg("v").arg("seen");
        let reply = self.link.call(key, &Request::Command(command)).await?;
        let fields = reply.into_sequence().map_err(|_| not_a_record())?;
        match <[Value; 2]>::try_from(fields) {
            Ok([Value::Nil, Value::Nil]) => self.must_be_absent(key).await.map(|()| None),
            Ok([value, seen]) => {
                let value = bytes(value).ok_or_else(not_a_record)?;
                let seen = bytes(seen).and_then(|seen| decimal(&seen));
                let seen = Timestamp(seen.ok_or_else(not_a_record)?);
                Ok(Some(StoredRecord { value, seen }))
            }
            Err(_) => Err(not_a_record()),
        }
    }

    /// Where neither field of a record is there.
    ///
    /// # Errors
    ///
    /// That the key is there all the same: it is something else than a record then.
    async fn must_be_absent(&self, key: &str) -> Result<(), StoreError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(key);
        match self.link.call(key, &Request::Command(command)).await? {
            Value::Int(0) => Ok(()),
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
        Box::pin(self.time())
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
            let key = self.epoch_key(user);
            command.arg(&key);
            match self.link.call(&key, &Request::Command(command)).await? {
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
            let key = self.epoch_key(user);
            let mut script = self.target.scripts.raise.key(&key);
            script.arg(span(ttl));
            // The nodes of a cluster have a clock each, and logins read that of one.
            if let Servers::Cluster(_) = &*self.target.servers {
                script.arg(self.time().await?.0);
            }
            epoch_of(self.link.call(&key, &Request::Script(script)).await?)
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
            let ping = Request::Command(redis::cmd("PING"));
            self.link.call(&self.target.epochs, &ping).await?;
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
