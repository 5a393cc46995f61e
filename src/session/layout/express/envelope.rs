//! A record and what Cloakroom keeps beside it, as one value for the store's port; and
//! the names and lives of the keys beside a record.
//!
//! ```text
//! value = flags (1: facts follow, 2: the key has no time to live)
//!       ‖ length of the facts (u32, big endian) ‖ facts ‖ record
//! ```
//!
//! Stores that applications read too take it apart; the others keep it as it is.

use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::Timestamp;
use crate::session::record::Head;

const WITH_FACTS: u8 = 1;
const ENDLESS: u8 = 2;

/// A tombstone, and the facts beside a record, are kept for at least this long.
const LEAST: Duration = Duration::from_secs(24 * 3600);

/// How long a request that is in flight may take to write a record back.
const IN_FLIGHT: Duration = Duration::from_secs(3600);

/// As long as browsers keep a cookie: what a record without an end is given.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);

/// What is kept for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record, byte for byte.
    pub json: Bytes,
    /// What Cloakroom noted when it created the session.
    pub facts: Option<Bytes>,
    /// Whether the key has no time to live.
    pub endless: bool,
}

impl Kept {
    /// As one value.
    pub fn pack(&self) -> Bytes {
        let facts = self.facts.as_deref().unwrap_or_default();
        let mut flags = 0;
        if self.facts.is_some() {
            flags |= WITH_FACTS;
        }
        if self.endless {
            flags |= ENDLESS;
        }
        let mut value = Vec::with_capacity(5 + facts.len() + self.json.len());
        value.push(flags);
        // Facts are an address, an agent of at most 256 bytes, a user's id.
        let length = u32::try_from(facts.len()).unwrap_or(u32::MAX);
        value.extend_from_slice(&length.to_be_bytes());
        value.extend_from_slice(facts);
        value.extend_from_slice(&self.json);
        value.into()
    }

    /// The parts of what [`Kept::pack`] made; `None` for anything else.
    pub fn unpack(value: &Bytes) -> Option<Self> {
        let (&[flags, a, b, c, d], _) = value.split_first_chunk::<5>()?;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        let end = length.checked_add(5)?;
        let known = flags & !(WITH_FACTS | ENDLESS) == 0;
        let with_facts = flags & WITH_FACTS != 0;
        if !known || end > value.len() || (!with_facts && length > 0) {
            return None;
        }
        Some(Self {
            json: value.slice(end..),
            facts: with_facts.then(|| value.slice(5..end)),
            endless: flags & ENDLESS != 0,
        })
    }
}

/// The key of the facts beside a record, in the same slot of a cluster.
pub fn facts_key(key: &str) -> String {
    beside("facts", key)
}

/// The key that says that a session has ended, in the same slot of a cluster.
pub fn tombstone_key(key: &str) -> String {
    beside("ended", key)
}

/// Whether keys that begin so can have neighbours in their slot of a cluster, which takes
/// either a whole `{tag}` or no `}`.
pub fn has_neighbours(prefix: &str) -> bool {
    tag(prefix).is_some() || !prefix.contains('}')
}

/// How long facts are kept from `now` on: to the session's absolute end, and for as long
/// as the application can then keep the record alive with one more use.
pub fn facts_life(head: &Head, now: Timestamp, ttl: Duration) -> Duration {
    let left = Timestamp(head.absolute_end).since(now);
    left.saturating_add(ttl.max(LEAST)).min(LONGEST)
}

/// How long a tombstone is kept for a record of which one use makes `span`, and which
/// the store would keep for `left` (`None`: without an end). A request that is in
/// flight may write the record back, to last for a whole span once more.
pub fn tombstone_life(span: Duration, left: Option<Duration>) -> Duration {
    let record = left.map_or(LONGEST, |left| left.max(span));
    record.max(LEAST).saturating_add(IN_FLIGHT).min(LONGEST)
}

/// Redis Cluster puts a key where the first `{…}` in its name says, if that is not empty,
/// else where the whole name does. (A name without such a tag that has a `}` in it can
/// have no neighbour by name; on a cluster Redis refuses it.)
fn beside(what: &str, key: &str) -> String {
    match tag(key) {
        Some(tag) => format!("cloakroom:{what}-by-tag:{{{tag}}}:{key}"),
        None => format!("cloakroom:{what}:{{{key}}}"),
    }
}

fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::settings::SessionSettings;
    use crate::session::store::Epoch;

    fn kept(json: &str, facts: Option<&str>, endless: bool) -> Kept {
        Kept {
            json: Bytes::copy_from_slice(json.as_bytes()),
            facts: facts.map(|facts| Bytes::copy_from_slice(facts.as_bytes())),
            endless,
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for facts in [None, Some(""), Some("{\"user\":\"u1\"}")] {
            for json in ["", "{}", "\u{1}\0\0\0\0"] {
                for endless in [false, true] {
                    let kept = kept(json, facts, endless);
                    assert_eq!(Kept::unpack(&kept.pack()), Some(kept));
                }
            }
        }
        for bad in [
            &b""[..],
            b"{}",
            b"\x00\0\0\0",
            b"\x00\0\0\0\x01x",
            b"\x01\0\0\0\x02x",
            b"\x01\xff\xff\xff\xffx",
            b"\x04\0\0\0\0{}",
        ] {
            assert_eq!(Kept::unpack(&Bytes::from_static(bad)), None, "{bad:?}");
        }
    }

    /// Redis Cluster's specification, "Hash tags".
    #[test]
    fn keys_beside_a_record_share_its_slot() {
        for (key, facts) in [
            ("sess:abc", "cloakroom:facts:{sess:abc}"),
            (
                "{app}sess:abc",
                "cloakroom:facts-by-tag:{app}:{app}sess:abc",
            ),
            ("s{a}{b}", "cloakroom:facts-by-tag:{a}:s{a}{b}"),
            ("s{{a}}", "cloakroom:facts-by-tag:{{a}:s{{a}}"),
            ("sess:{abc", "cloakroom:facts:{sess:{abc}"),
        ] {
            assert_eq!(facts_key(key), facts);
            let slot = |key: &str| tag(key).unwrap_or(key).to_owned();
            assert_eq!(slot(&facts_key(key)), slot(key), "{key}");
            assert_eq!(slot(&tombstone_key(key)), slot(key), "{key}");
            assert_ne!(tombstone_key(key), facts_key(key));
            assert!(has_neighbours(key), "{key}");
        }
        for prefix in ["a}", "{}:", "}{a"] {
            assert!(!has_neighbours(prefix), "{prefix}");
        }
    }

    #[test]
    fn a_tombstone_outlives_whatever_may_be_written_back() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(tombstone_life(hours(1), Some(hours(1))), hours(25));
        assert_eq!(tombstone_life(hours(720), Some(hours(3))), hours(721));
        assert_eq!(tombstone_life(hours(1), Some(hours(720))), hours(721));
        assert_eq!(tombstone_life(hours(1), None), LONGEST);
        assert_eq!(tombstone_life(Duration::MAX, Some(hours(1))), LONGEST);
    }

    #[test]
    fn facts_outlive_the_absolute_end() {
        let settings = SessionSettings {
            secrets: Vec::new(),
            idle_timeout: LEAST * 2,
            absolute_timeout: LEAST * 7,
            touch_interval: Duration::ZERO,
            max_per_user: 0,
            user: "userId".into(),
            roles: "roles".into(),
        };
        let now = Timestamp(1_000);
        let head = Head::new("u1", Epoch(1), now, &settings, "::1".into(), "curl");
        assert_eq!(facts_life(&head, now, LEAST * 2), LEAST * 9);
        assert_eq!(facts_life(&head, now, Duration::from_secs(1)), LEAST * 8);
        assert_eq!(facts_life(&head, Timestamp(u64::MAX), LEAST), LEAST);
    }
}
