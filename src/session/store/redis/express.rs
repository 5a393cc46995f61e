//! Records that Express applications share, as connect-redis keeps them: a string with
//! JSON under `prefix ‖ token`, and a time to live in whole seconds.
//!
//! Beside a record lie, in the same slot of a cluster, what Cloakroom noted when it
//! created the session (its facts), and, once it has ended, a tombstone. An application's
//! request that is in flight during a logout writes the whole record back; the tombstone
//! is how the next reader knows that it must not be there, and removes it.
//!
//! The application writes to these keys when it likes, so nothing here relies on what was
//! read before: what must hold together is one script.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Script, ScriptInvocation, Value};

use super::index::{AT_ONCE, together};
use super::link::Request;
use super::{RedisStore, RedisTarget, bytes, not_a_record, span, strange};
use crate::base::BoxFuture;
use crate::base::clock::{Clock, Timestamp};
use crate::session::layout::express::{facts_key, tombstone_key};
use crate::session::store::express::{New, Purpose, Stored, is_of};
use crate::session::store::{
    Epoch, Found, Listener, NewRecord, Page, SessionStore, StoreError, StoredRecord,
};

/// Keys that one step of a search looks at, about.
const STEP: usize = 100;

/// Shared records on a Redis server.
pub struct SharedRedisStore {
    plain: RedisStore,
    scripts: Arc<Scripts>,
    clock: Clock,
}

/// The scripts. Their keys are a record, its facts, its tombstone.
pub(super) struct Scripts {
    create: Script,
    load: Script,
    touch: Script,
    end: Script,
}

impl SharedRedisStore {
    /// A handle to `target`, to be used in one runtime. `clock` is the proxy's.
    pub fn new(target: RedisTarget, clock: Clock) -> Self {
        Self {
            scripts: target.shared.clone(),
            plain: RedisStore::new(target),
            clock,
        }
    }

    /// A handle over one connection that Redis tells of changes to what was read on it.
    pub fn following(target: RedisTarget, clock: Clock, listener: Arc<dyn Listener>) -> Self {
        Self {
            scripts: target.shared.clone(),
            plain: RedisStore::following(target, listener),
            clock,
        }
    }

    async fn run(&self, key: &str, mut script: ScriptInvocation<'_>) -> Result<Value, StoreError> {
        script.key(key).key(facts_key(key)).key(tombstone_key(key));
        self.plain.link.call(key, &Request::Script(script)).await
    }

    /// 1 for done, 0 for not.
    async fn change(&self, key: &str, script: ScriptInvocation<'_>) -> Result<bool, StoreError> {
        match self.run(key, script).await? {
            Value::Int(1) => Ok(true),
            Value::Int(0) => Ok(false),
            _ => Err(strange("a script")),
        }
    }

    async fn find(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let parts = match self.run(key, self.scripts.load.prepare_invoke()).await? {
            Value::Array(parts) => parts,
            Value::Nil => return Ok(None),
            _ => return Err(strange("a script")),
        };
        let mut parts = parts.into_iter();
        let (Some(json), Some(Value::Int(left)), facts) =
            (parts.next().and_then(bytes), parts.next(), parts.next())
        else {
            return Err(not_a_record());
        };
        Ok(Some(Stored {
            json,
            left: u64::try_from(left).ok().map(Duration::from_millis),
            facts: facts.and_then(bytes),
        }))
    }

    async fn end(&self, key: &str) -> Result<bool, StoreError> {
        let found = match self.find(key).await {
            Ok(found) => found,
            // Something else than a string: it goes all the same.
            Err(StoreError::Unreadable(_)) => None,
            Err(error) => return Err(error),
        };
        let life = Stored::tombstone_life(found.as_ref());
        let mut script = self.scripts.end.prepare_invoke();
        script.arg(span(life));
        self.change(key, script).await
    }

    /// One step of `SCAN`, and the records it found.
    async fn page(&self, cursor: Option<String>, most: usize) -> Result<Page, StoreError> {
        let (keys, next) = self.plain.step(cursor, most).await?;
        let mut found = Vec::new();
        for keys in keys.chunks(AT_ONCE) {
            let reads = keys.iter().map(|key| self.read_one(key));
            let reads = reads.map(|read| -> BoxFuture<'_, _> { Box::pin(read) });
            for record in together(reads.collect()).await {
                found.extend::<Option<Found>>(record?);
            }
        }
        Ok(Page { found, next })
    }

    async fn read_one(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let stored = match self.find(key).await {
            Ok(Some(stored)) => stored,
            Ok(None) | Err(StoreError::Unreadable(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(stored.found(key, self.clock.now()))
    }

    /// By looking through all records: applications keep no index.
    async fn records_of(&self, user: &str, purpose: Purpose) -> Result<Vec<Found>, StoreError> {
        let target = &self.plain.target;
        let _turn = target.searches.turn(purpose, target.timeout).await?;
        let (mut found, mut cursor): (Vec<Found>, _) = (Vec::new(), None);
        loop {
            let page = self.page(cursor, STEP).await?;
            found.extend(
                page.found
                    .into_iter()
                    .filter(|found| is_of(found, user, &self.plain.target.user)),
            );
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        // A step may come upon a key for the second time.
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }
}

impl SessionStore for SharedRedisStore {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        self.plain.now()
    }

    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let new = New::of(&record)?;
            let mut script = self.scripts.create.prepare_invoke();
            script
                .arg(&new.json[..])
                .arg(seconds(record.ttl))
                .arg(&new.facts[..])
                .arg(span(new.facts_life));
            self.change(&record.key, script).await
        })
    }

    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        Box::pin(async move {
            let stored = self.find(key).await?;
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
            let mut script = self.scripts.touch.prepare_invoke();
            script.arg(seconds(ttl));
            self.change(key, script).await
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
        Box::pin(self.end(key))
    }

    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        self.plain.epoch(user)
    }

    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        self.plain.raise_epoch(user, ttl)
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
        self.plain.ping()
    }
}

/// A time to live in whole seconds, rounded up, as connect-redis counts.
fn seconds(ttl: Duration) -> u64 {
    span(ttl).div_ceil(1000)
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: Script::new(CREATE),
            load: Script::new(LOAD),
            touch: Script::new(TOUCH),
            end: Script::new(END),
        }
    }
}

// Neither over a record nor over a tombstone. Record, seconds, facts, milliseconds.
const CREATE: &str = r"
if redis.call('EXISTS', KEYS[1], KEYS[3]) > 0 then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX')
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1
";

// What was written back after its end goes again. An empty value is no session.
const LOAD: &str = r"
if redis.call('EXISTS', KEYS[3]) == 1 then
    if redis.call('EXISTS', KEYS[1]) == 1 then
        redis.call('DEL', KEYS[1])
    end
    return false
end
local record = redis.call('GET', KEYS[1])
if not record or record == '' then
    return false
end
return {record, redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2])}
";

// Seconds. A key without a time to live stays without one.
const TOUCH: &str = r"
local left = redis.call('PTTL', KEYS[1])
if left == -2 then
    return 0
end
if left >= 0 and left < ARGV[1] * 1000 then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 1
";

// Milliseconds for the tombstone, which no later end may cut short.
const END: &str = r"
local removed = redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[3], '1', 'PX', ARGV[1])
end
return removed
";

#[cfg(test)]
mod tests;
