//! All of a user's records, and all records there are.
//!
//! Beside the records of a user stands an index: `cloakroom:user:`, the prefix
//! of session keys and the user's name ([`user_name`]), a sorted set of keys by
//! the moment until which each is kept there. On a cluster it lies in another
//! slot than the records, so it is written by commands of its own, always
//! before the record: an entry without a record is harmless, a record without
//! an entry would be missed by a login that counts.
//!
//! An entry is kept for twice the time to live that its record gets, and the
//! record says for how long (`indexed`). So a touch finds in the record that
//! its entry will outlast it, and writes the index once in a while only.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::super::{Found, NewRecord, Page, StoreError, StoredRecord, user_name};
use super::link::Request;
use super::{LONGEST_TTL, RedisStore, bytes, decimal, not_a_record, span, strange};
use crate::base::BoxFuture;
use crate::base::clock::Timestamp;
use crate::session::layout::sealed::head_of;

/// Records that are read at once.
pub(super) const AT_ONCE: usize = 64;

impl RedisStore {
    /// Writes the index, then the record.
    pub(super) async fn keep(&self, record: NewRecord) -> Result<bool, StoreError> {
        let user = user_name(&record.user);
        self.enlist(&user, &record.key, record.ttl).await?;
        let mut script = self.target.scripts.create.prepare_invoke();
        script
            .arg(&record.value[..])
            .arg(record.seen.0)
            .arg(span(record.ttl))
            .arg(user);
        self.change(&record.key, script).await
    }

    /// Slides a record, after its entry in the index where that would go
    /// before the record.
    pub(super) async fn slide(
        &self,
        key: &str,
        seen: Timestamp,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let mut script = self.target.scripts.touch.prepare_invoke();
        script.key(key).arg(seen.0).arg(span(ttl)).arg(0);
        let user = match self.link.call(key, &Request::Script(script)).await? {
            Value::Int(1) => return Ok(true),
            Value::Int(0) => return Ok(false),
            Value::Int(_) => return Err(not_a_record()),
            user => bytes(user).ok_or_else(not_a_record)?,
        };
        let user = match std::str::from_utf8(&user) {
            Ok("") => self.owner(key).await?,
            Ok(user) => Some(user.to_owned()),
            Err(_) => return Err(not_a_record()),
        };
        if let Some(user) = &user {
            self.enlist(user, key, ttl).await?;
        }
        let mut script = self.target.scripts.touch.prepare_invoke();
        script
            .arg(seen.0)
            .arg(span(ttl))
            .arg(1)
            .arg(user.unwrap_or_default());
        self.change(key, script).await
    }

    /// Removes a record, then its entry.
    pub(super) async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(key).arg("user");
        let user = match self.link.call(key, &Request::Command(command)).await {
            Ok(user) => bytes(user),
            // Whatever it is, it is to go.
            Err(StoreError::Unreadable(_)) => None,
            Err(error) => return Err(error),
        };
        let mut command = redis::cmd("DEL");
        command.arg(key);
        let removed = match self.link.call(key, &Request::Command(command)).await? {
            Value::Int(removed) => removed > 0,
            _ => return Err(strange("DEL")),
        };
        if removed && let Some(user) = user.as_deref().and_then(|u| std::str::from_utf8(u).ok()) {
            let mut command = redis::cmd("ZREM");
            let index = self.index_key(user);
            command.arg(&index).arg(key);
            // The record is gone, which is what counts. An entry that stays
            // leads nowhere and expires.
            let _ = self.link.call(&index, &Request::Command(command)).await;
        }
        Ok(removed)
    }

    /// All live records of a user.
    pub(super) async fn records_of(&self, user: &str) -> Result<Vec<Found>, StoreError> {
        let user = user_name(user);
        let index = self.index_key(&user);
        let script = self.target.scripts.members.key(&index);
        let members = self.link.call(&index, &Request::Script(script)).await?;
        let keys = keys_of(members).ok_or_else(|| strange("ZRANGE"))?;
        self.read_all(&keys, Some(&user)).await
    }

    /// One step of `SCAN`, and the records it found.
    pub(super) async fn page(
        &self,
        cursor: Option<String>,
        most: usize,
    ) -> Result<Page, StoreError> {
        let (keys, next) = self.step(cursor, most).await?;
        let found = self.read_all(&keys, None).await?;
        Ok(Page { found, next })
    }

    /// One step of `SCAN`: keys that begin with the prefix, and where to go on. In a
    /// cluster on node after node.
    pub(super) async fn step(
        &self,
        cursor: Option<String>,
        most: usize,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let nodes = self.link.nodes().await?;
        let start = Place::default();
        let place = cursor.map_or(Some(start), |text| Place::read(&text, &nodes));
        let place = place.ok_or_else(|| {
            let why = "the nodes of the cluster have changed since the first part, so begin again";
            self.target.unavailable(why)
        })?;
        let Some(node) = nodes.get(place.node) else {
            return Err(self.target.unavailable("no node of the cluster is known"));
        };
        let mut command = redis::cmd("SCAN");
        command
            .arg(place.cursor)
            .arg("MATCH")
            .arg(format!("{}*", escaped(&self.target.prefix)))
            .arg("COUNT")
            .arg(most.max(1));
        let request = Request::Command(command);
        let reply = self.link.call_node(node, &request).await?;
        let (next, keys) = step(reply).ok_or_else(|| strange("SCAN"))?;
        let cursor = next.parse().map_err(|_| strange("SCAN"))?;
        let next = match cursor {
            0 => Place {
                node: place.node + 1,
                cursor,
            },
            _ => Place { cursor, ..place },
        };
        let next = (next.node < nodes.len()).then(|| next.written(&nodes));
        Ok((keys, next))
    }

    /// Writes an entry of the index that outlives a record with this time to
    /// live, and drops those that have expired.
    async fn enlist(&self, user: &str, key: &str, ttl: Duration) -> Result<(), StoreError> {
        let index = self.index_key(user);
        let mut script = self.target.scripts.enlist.key(&index);
        script.arg(key).arg(span(ttl));
        match self.link.call(&index, &Request::Script(script)).await? {
            Value::Int(_) => Ok(()),
            _ => Err(strange("ZADD")),
        }
    }

    /// Whose a record is that does not say so, by its clear head: one that an
    /// earlier version has made.
    async fn owner(&self, key: &str) -> Result<Option<String>, StoreError> {
        let stored = self.fetch(key).await?;
        let head = stored.and_then(|record| head_of(&record.value));
        Ok(head.map(|head| user_name(&head.user)))
    }

    /// Reads records, many at once. What is gone, is no record, or is not the
    /// user's, is left out.
    async fn read_all(
        &self,
        keys: &[String],
        user: Option<&str>,
    ) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for keys in keys.chunks(AT_ONCE) {
            let reads = keys.iter().map(|key| self.read_one(key, user));
            let reads = reads.map(|read| -> BoxFuture<'_, _> { Box::pin(read) });
            for record in together(reads.collect()).await {
                found.extend::<Option<Found>>(record?);
            }
        }
        Ok(found)
    }

    async fn read_one(&self, key: &str, user: Option<&str>) -> Result<Option<Found>, StoreError> {
        let script = self.target.scripts.read.key(key);
        let reply = match self.link.call(key, &Request::Script(script)).await {
            Ok(reply) => reply,
            Err(StoreError::Unreadable(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (value, seen, owner, left) = parts(reply).ok_or_else(|| strange("HMGET"))?;
        let foreign = user.is_some_and(|user| owner.as_deref() != Some(user.as_bytes()));
        let seen = seen.and_then(|digits| decimal(&digits));
        let (Some(value), Some(seen), false) = (value, seen, foreign) else {
            return Ok(None);
        };
        Ok(Some(Found {
            key: key.into(),
            record: StoredRecord {
                value,
                seen: Timestamp(seen),
            },
            // Somebody's PERSIST: a long time, but an end.
            ttl: Duration::from_millis(u64::try_from(left).unwrap_or(LONGEST_TTL)),
        }))
    }

    /// The name of a user's index.
    fn index_key(&self, user: &str) -> String {
        format!("cloakroom:user:{}{user}", self.target.prefix)
    }
}

/// How far a walk over all nodes has come.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Place {
    /// Among the nodes in order of their names.
    node: usize,
    /// Of that node's `SCAN`.
    cursor: u64,
}

impl Place {
    /// With a mark of the nodes: among others, it would mean something else.
    fn written(self, nodes: &[String]) -> String {
        format!("{}.{}.{}", mark(nodes), self.node, self.cursor)
    }

    /// `None` if it was not written among these nodes.
    fn read(text: &str, nodes: &[String]) -> Option<Self> {
        let mut parts = text.split('.');
        let of_these = parts.next()? == mark(nodes);
        let (node, cursor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (of_these && node < nodes.len() && parts.next().is_none()).then_some(Self { node, cursor })
    }
}

fn mark(nodes: &[String]) -> String {
    let mut mark = user_name(&nodes.join(" "));
    mark.truncate(8);
    mark
}

/// Value, seen, user, and milliseconds left, as the script answers them.
#[allow(clippy::type_complexity)]
fn parts(reply: Value) -> Option<(Option<Bytes>, Option<Bytes>, Option<Bytes>, i64)> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [value, seen, user, left] = <[Value; 4]>::try_from(parts).ok()?;
    let Value::Int(left) = left else {
        return None;
    };
    Some((bytes(value), bytes(seen), bytes(user), left))
}

/// The cursor and the keys of an answer to `SCAN`. A key that is not UTF-8 is
/// none of ours.
pub(super) fn step(reply: Value) -> Option<(String, Vec<String>)> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [cursor, keys] = <[Value; 2]>::try_from(parts).ok()?;
    let cursor = String::from_utf8(bytes(cursor)?.to_vec()).ok()?;
    Some((cursor, keys_of(keys)?))
}

fn keys_of(reply: Value) -> Option<Vec<String>> {
    let Value::Array(keys) = reply else {
        return None;
    };
    let text = |key| String::from_utf8(bytes(key)?.to_vec()).ok();
    Some(keys.into_iter().filter_map(text).collect())
}

/// A text that `MATCH` takes as it stands.
pub(super) fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// Drives all futures at once and gives their results in order.
pub(super) async fn together<T>(mut pending: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in pending.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(done) = future.as_mut().poll(context)
            {
                *result = Some(done);
            }
        }
        match results.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    results.into_iter().flatten().collect()
}
