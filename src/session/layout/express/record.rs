//! A record as text: what Express makes of it, and what it is written as.

use std::borrow::Cow;

use super::cookie::{StoredCookie, is_truthy};
use crate::base::clock::Timestamp;
use crate::session::data::Data;
use crate::session::members::{check, member, members};

/// Members of a session that express-session does not load, because its session object
/// or every JavaScript object has something of that name (`session/session.js`).
const DROPPED: &[&str] = &[
    "id",
    "req",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
];

/// Why Express could not serve a request with this record.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the record is damaged: {0}")]
pub struct Damaged(pub &'static str);

/// A record that Express would take for a session.
#[derive(Clone, Debug)]
pub struct Record {
    data: Data,
    cookie: StoredCookie,
}

/// Whether Express loses a member of this name when it loads a session.
pub fn is_dropped(name: &str) -> bool {
    DROPPED.contains(&name)
}

impl Record {
    /// Reads a stored value. `None`: Express takes it for no session at all.
    ///
    /// # Errors
    ///
    /// [`Damaged`] where Express answers every request with 500, or with nothing.
    pub fn read(stored: &[u8]) -> Result<Option<Self>, Damaged> {
        // Node.js reads bytes that are no UTF-8 in the same way.
        let text: Cow<'_, str> = String::from_utf8_lossy(stored);
        if text.is_empty() {
            return Ok(None);
        }
        let value = check(&text).map_err(|_| Damaged("it is no JSON"))?;
        if !is_truthy(value) {
            return Ok(None);
        }
        if members(value).is_none() {
            return Err(Damaged("it is no object"));
        }
        let cookie = member(value, "cookie").ok_or(Damaged("it has no cookie"))?;
        let cookie = StoredCookie::read(cookie)?;
        let data = Data::parse(value.to_owned()).map_err(|_| Damaged("it is no object"))?;
        Ok(Some(Self { data, cookie }))
    }

    /// All of it, its cookie included.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its cookie.
    pub fn cookie(&self) -> &StoredCookie {
        &self.cookie
    }

    /// The parts.
    pub fn into_parts(self) -> (Data, StoredCookie) {
        (self.data, self.cookie)
    }

    /// The user id at a dotted path: a string that is not empty, or a number. Passport
    /// keeps either; where it keeps an object, the path has to lead into it.
    pub fn user(&self, path: &str) -> Option<String> {
        self.data.user(path)
    }
}

/// A new record: its cookie first, as express-session has it, then the fields.
pub(super) fn write(
    cookie: &StoredCookie,
    now: Timestamp,
    fields: &Data,
) -> Result<String, Damaged> {
    let members = members(fields.text()).ok_or(Damaged("its fields are no object"))?;
    let mut json = format!(r#"{{"cookie":{}"#, cookie.to_json(now));
    for member in members.iter().filter(|member| !member.name.is("cookie")) {
        json.push(',');
        json.push_str(member.written);
        json.push(':');
        json.push_str(member.value);
    }
    json.push('}');
    Ok(json)
}
