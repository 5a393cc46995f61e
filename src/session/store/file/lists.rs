//! Many records at once: those of a user, and all of them bit by bit.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase};

use super::super::{Found, Page, StoredRecord};
use super::tables::{Result, SESSIONS, USERS};
use crate::base::clock::Timestamp;

/// The user's live records.
pub(super) fn of_user(database: &Database, user: &str, now: Timestamp) -> Result<Vec<Found>> {
    let view = database.begin_read()?;
    let (users, sessions) = (view.open_table(USERS)?, view.open_table(SESSIONS)?);
    let mut found = Vec::new();
    for entry in users.range::<(&str, &str)>((user, "")..)? {
        let (name, _) = entry?;
        let (owner, key) = name.value();
        if owner != user {
            break;
        }
        if let Some(record) = sessions.get(key)? {
            found.extend(read(key, record.value(), now));
        }
    }
    Ok(found)
}

/// Looks at the `most` records behind the key `cursor`.
pub(super) fn page(
    database: &Database,
    cursor: Option<&str>,
    most: usize,
    now: Timestamp,
) -> Result<Page> {
    let sessions = database.begin_read()?.open_table(SESSIONS)?;
    let begin = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let most = most.max(1);
    let (mut page, mut looked_at) = (Page::default(), 0);
    for entry in sessions.range::<&str>((begin, Bound::Unbounded))? {
        let (key, record) = entry?;
        page.found.extend(read(key.value(), record.value(), now));
        looked_at += 1;
        if looked_at == most {
            page.next = Some(key.value().to_owned());
            break;
        }
    }
    Ok(page)
}

fn read(key: &str, record: (u64, u64, &[u8]), now: Timestamp) -> Option<Found> {
    let (seen, expires, value) = record;
    (expires > now.0).then(|| Found {
        key: Arc::from(key),
        record: StoredRecord {
            value: Bytes::copy_from_slice(value),
            seen: Timestamp(seen),
        },
        ttl: Timestamp(expires).since(now),
    })
}
