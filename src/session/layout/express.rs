//! The `express` layout: records as express-session writes and reads them, through
//! connect-redis or connect-pg-simple, so that running applications share them.
//!
//! ```text
//! key    = prefix ‖ token, as it stands
//! record = {"cookie":{"originalMaxAge":86400000,"expires":"2026-11-21T08:00:00.000Z",
//!           "httpOnly":true,"path":"/","sameSite":"lax"},"userId":"u1",…}
//! ```
//!
//! Nothing here is secret from the store: whoever reads a dump of it can be anybody
//! in it, as with Express itself. The `sealed` layout is the one that prevents this.
//!
//! Cloakroom writes a record once, when it creates it, and never again: what the
//! application makes of it stays, byte for byte. What Cloakroom itself has to know of a
//! session it created (its [`Head`]) lies beside the record, under a key of its own.
//!
//! A record lives for as long as its key does. `cookie.expires` in it says nothing:
//! the application prolongs the key alone.

mod cookie;
mod envelope;
mod merge;
mod record;

use std::time::Duration;

use bytes::Bytes;

pub use self::cookie::StoredCookie;
pub use self::envelope::{
    Kept, facts_key, facts_life, has_neighbours, tombstone_key, tombstone_life,
};
pub use self::merge::moved;
pub use self::record::{Damaged, Record, is_dropped};
use crate::base::clock::Timestamp;
use crate::session::data::Data;
use crate::session::record::Head;
use crate::wire::cookie::CookieSpec;

/// Writes and reads records. Built once from the configuration.
#[derive(Clone, Debug)]
pub struct ExpressLayout {
    /// The session cookie, whose attributes a new record repeats.
    pub cookie: CookieSpec,
    /// `session.idle_timeout`: the `originalMaxAge` of new records.
    pub idle_timeout: Duration,
    /// Where the user id is; a dotted path.
    pub user: String,
    /// Every path from which an identity is made: user, roles, and those of identity
    /// headers. What stands there comes from a login, and never from an anonymous
    /// record that a login takes over.
    pub identity: Vec<String>,
}

/// A record of the store with what is known beside it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What Cloakroom noted when it created the session. `None`: the application did.
    pub head: Option<Head>,
    /// The record.
    pub record: Record,
    /// Whether the key has no time to live, so that the session never ends by itself.
    pub endless: bool,
}

impl ExpressLayout {
    /// What is kept for a session that begins now: the record, and `head` beside it.
    /// `secure`: whether the browser's connection is.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if `data` has no members, or the head cannot be written: never with
    /// what [`Data::new`] and [`Head::new`] make.
    pub fn compose(&self, head: &Head, data: &Data, secure: bool) -> Result<Bytes, Damaged> {
        let cookie = StoredCookie::new(&self.cookie, self.idle_timeout, secure);
        let json = record::write(&cookie, Timestamp(head.created), data)?;
        let facts = serde_json::to_vec(head).map_err(|_| Damaged("its facts are no JSON"))?;
        let kept = Kept {
            json: json.into(),
            facts: Some(facts.into()),
            endless: false,
        };
        Ok(kept.pack())
    }

    /// Reads what the store has under a key. `None`: as good as nothing (`null`, an
    /// empty value), which Express takes for an unknown session too.
    ///
    /// # Errors
    ///
    /// [`Damaged`] for a record to which Express answers 500 or never, and for facts
    /// that are not Cloakroom's.
    pub fn open(&self, value: &Bytes) -> Result<Option<Opened>, Damaged> {
        let kept = Kept::unpack(value).ok_or(Damaged("the store gave something else"))?;
        let head = match &kept.facts {
            Some(facts) => Some(
                serde_json::from_slice(facts).map_err(|_| Damaged("its facts are unreadable"))?,
            ),
            None => None,
        };
        Ok(Record::read(&kept.json)?.map(|record| Opened {
            head,
            record,
            endless: kept.endless,
        }))
    }

    /// Whose record it is, if anybody's.
    pub fn user_of(&self, record: &Record) -> Option<String> {
        record.user(&self.user)
    }

    /// The members of a record from which an identity is made, or a part of one.
    pub fn shown(&self, data: &Data) -> Data {
        let first = |path: &'_ String| path.split('.').next().unwrap_or_default().to_owned();
        let names: Vec<String> = self.identity.iter().map(first).collect();
        data.only(names.iter().map(String::as_str))
    }

    /// Whether a store's value is a record of this user.
    pub fn is_of(&self, value: &Bytes, user: &str) -> bool {
        let opened = self.open(value).ok().flatten();
        opened.is_some_and(|opened| self.user_of(&opened.record).as_deref() == Some(user))
    }

    /// The fields of a login's new record: those of the anonymous record that the
    /// browser had, without its cookie and without anything that an identity is made
    /// from, and over them those of the login.
    pub fn take_over(&self, anonymous: &Record, login: &Data) -> Option<Data> {
        moved(anonymous.data().text(), login.text(), &self.identity)
            .and_then(|text| Data::parse(text).ok())
    }
}

#[cfg(test)]
mod tests;
