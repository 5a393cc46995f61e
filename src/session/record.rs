//! A session as it is kept: a clear head that never changes, and data.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::data::Data;
use super::layout::express::StoredCookie;
use super::settings::SessionSettings;
use super::store::Epoch;
use crate::base::clock::Timestamp;
use crate::base::refusal::Refusal;

/// The longest user agent that is kept, in bytes; the rest is cut off.
const USER_AGENT_BYTES: usize = 256;

/// What the store may see of a session. Written once, at login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The user id, by which the user's epoch is found.
    #[serde(rename = "user")]
    pub user: String,
    /// When the login began, by the store's clock, in microseconds.
    #[serde(rename = "epoch")]
    pub epoch: u64,
    /// When the login was completed, in milliseconds.
    #[serde(rename = "created")]
    pub created: u64,
    /// When the session ends however much it is used, in milliseconds.
    #[serde(rename = "ends")]
    pub absolute_end: u64,
    /// The client's address at login.
    #[serde(rename = "addr")]
    pub address: String,
    /// The client's user agent at login, cut off at 256 bytes.
    #[serde(rename = "agent")]
    pub user_agent: String,
}

/// The moments of a head, as [`Head`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When the login began, in microseconds.
    pub epoch: u64,
    /// When the login was completed, in milliseconds.
    pub created: u64,
    /// When the session ends however much it is used, in milliseconds.
    pub absolute_end: u64,
}

impl Head {
    /// The head of a session that begins now.
    pub fn new(
        user: &str,
        began: Epoch,
        now: Timestamp,
        settings: &SessionSettings,
        address: String,
        user_agent: &str,
    ) -> Self {
        Self {
            user: user.to_owned(),
            epoch: began.0,
            created: now.0,
            absolute_end: now.after(settings.absolute_timeout).0,
            address,
            user_agent: cut(user_agent, USER_AGENT_BYTES).to_owned(),
        }
    }

    /// The head of a session that an application created: no epoch and no absolute end
    /// bind it.
    pub fn of_application(user: String) -> Self {
        Self {
            user,
            epoch: u64::MAX,
            created: 0,
            absolute_end: u64::MAX,
            address: String::new(),
            user_agent: String::new(),
        }
    }

    /// The head of a session that is `user`'s by now. Where an application has made it
    /// somebody else's, it has done so after any epoch that we know of.
    pub fn now_of(self, user: String) -> Self {
        match self.user == user {
            true => self,
            false => Self {
                user,
                epoch: u64::MAX,
                ..self
            },
        }
    }

    /// When it began, and when it ends however much it is used.
    pub fn life(&self) -> Life {
        Life {
            epoch: self.epoch,
            created: self.created,
            absolute_end: self.absolute_end,
        }
    }
}

impl Life {
    /// Whether an epoch of its user can end it.
    pub fn has_epoch(&self) -> bool {
        self.epoch != u64::MAX
    }

    /// When it ends however much it is used; `None`: never. The configuration may have
    /// become stricter since the login.
    pub fn absolute_end(&self, settings: &SessionSettings) -> Option<Timestamp> {
        let created = Timestamp(self.created);
        (self.absolute_end != u64::MAX)
            .then(|| Timestamp(self.absolute_end).min(created.after(settings.absolute_timeout)))
    }

    /// Whether the session began after the user's epoch. A record that is not
    /// newer than it was ended by "sign out everywhere".
    pub fn is_newer_than(&self, epoch: Option<Epoch>) -> bool {
        epoch.is_none_or(|epoch| self.epoch > epoch.0)
    }
}

/// A record as it was stored and opened, before any rule was applied.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The clear head.
    pub head: Head,
    /// The fields.
    pub data: Data,
    /// Which secret it was sealed with.
    pub sealed_with: usize,
    /// The bytes it was read from, for replacing exactly them.
    pub stored: Bytes,
    /// Its own terms, if applications share it.
    pub terms: Option<Terms>,
}

/// What a record that applications share says of its own life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Its cookie.
    pub cookie: StoredCookie,
    /// Whether the store keeps it until somebody ends it.
    pub endless: bool,
}

/// How long one use makes a session last; `None`: without an end. A record that
/// applications share says so itself.
pub fn idle_timeout(terms: Option<&Terms>, settings: &SessionSettings) -> Option<Duration> {
    match terms {
        Some(terms) => (!terms.endless).then(|| terms.cookie.span()),
        None => Some(settings.idle_timeout),
    }
}

/// Whether a session with these times is over, and by which rule. The
/// absolute end is looked at first: it is the one that cannot be helped.
pub fn expired(
    life: Life,
    terms: Option<&Terms>,
    seen: Timestamp,
    now: Timestamp,
    settings: &SessionSettings,
) -> Option<Refusal> {
    if life.absolute_end(settings).is_some_and(|end| now >= end) {
        return Some(Refusal::AbsoluteExpired);
    }
    let idle = idle_timeout(terms, settings)?;
    (now >= seen.after(idle)).then_some(Refusal::IdleExpired)
}

/// How long the store keeps a record that was used at `now`: to its idle end,
/// and never past its absolute end. `None`: it is over, or has no end to be put off.
pub fn time_to_live(
    life: Life,
    terms: Option<&Terms>,
    now: Timestamp,
    settings: &SessionSettings,
) -> Option<Duration> {
    let left = Timestamp(life.absolute_end).since(now);
    let ttl = left.min(idle_timeout(terms, settings)?);
    (!ttl.is_zero()).then_some(ttl)
}

/// The longest beginning of `text` that has at most `bytes` bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    pub(crate) fn settings() -> SessionSettings {
        SessionSettings {
            secrets: vec![Secret::new("0123456789abcdef0123456789abcdef")],
            idle_timeout: Duration::from_secs(60),
            absolute_timeout: Duration::from_secs(600),
            touch_interval: Duration::from_secs(6),
            max_per_user: 0,
            user: "userId".into(),
            roles: "roles".into(),
        }
    }

    fn head() -> Head {
        Head::new(
            "u1",
            Epoch(5),
            Timestamp(1_000),
            &settings(),
            "::1".into(),
            "curl",
        )
    }

    #[test]
    fn idle_and_absolute_ends_are_exact() {
        let (head, settings) = (head(), settings());
        let seen = Timestamp(500_000);
        assert_eq!(
            expired(head.life(), None, seen, Timestamp(559_999), &settings),
            None
        );
        assert_eq!(
            expired(head.life(), None, seen, Timestamp(560_000), &settings),
            Some(Refusal::IdleExpired)
        );
        assert_eq!(
            expired(
                head.life(),
                None,
                Timestamp(600_999),
                Timestamp(600_999),
                &settings
            ),
            None
        );
        assert_eq!(
            expired(
                head.life(),
                None,
                Timestamp(601_000),
                Timestamp(601_000),
                &settings
            ),
            Some(Refusal::AbsoluteExpired)
        );
    }

    #[test]
    fn a_stricter_absolute_timeout_binds_running_sessions() {
        let mut strict = settings();
        strict.absolute_timeout = Duration::from_secs(10);
        assert_eq!(
            expired(
                head().life(),
                None,
                Timestamp(11_000),
                Timestamp(11_000),
                &strict
            ),
            Some(Refusal::AbsoluteExpired)
        );
    }

    #[test]
    fn the_store_never_keeps_a_record_past_its_absolute_end() {
        let (head, settings) = (head(), settings());
        assert_eq!(
            time_to_live(head.life(), None, Timestamp(1_000), &settings),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            time_to_live(head.life(), None, Timestamp(600_000), &settings),
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            time_to_live(head.life(), None, Timestamp(601_000), &settings),
            None
        );
    }

    #[test]
    fn a_record_must_be_newer_than_its_epoch() {
        assert!(head().life().is_newer_than(None));
        assert!(head().life().is_newer_than(Some(Epoch(4))));
        assert!(!head().life().is_newer_than(Some(Epoch(5))));
    }

    #[test]
    fn user_agents_are_cut_between_characters() {
        assert_eq!(cut("aüb", 2), "a");
        assert_eq!(cut("aüb", 3), "aü");
        assert_eq!(cut("", 3), "");
    }
}
