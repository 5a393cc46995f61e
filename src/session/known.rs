//! What is known of a session: read from the store once, shared by all requests
//! until it changes.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue};

use super::data::{Data, Field};
use super::pool::Common;
use super::record::{Head, Opened, Terms, expired, idle_timeout};
use super::settings::SessionSettings;
use super::store::Epoch;
use super::token::Token;
use crate::base::clock::Timestamp;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::reserved::{IdentityHeaders, header_value, list_value};
use crate::wire::signature::{Genuine, Signed, Signer};

/// A session's record as it was read.
#[derive(Debug)]
pub struct Known {
    /// The store's key.
    pub key: Arc<str>,
    /// What logs call the session.
    pub handle: Arc<str>,
    /// Its clear head, without what only the list of devices shows.
    pub head: Head,
    /// Its fields.
    pub data: Data,
    /// The user id at `session.user`; empty if there is none.
    pub user: String,
    /// The roles at `session.roles`, if there are any.
    roles: Option<Arc<Vec<String>>>,
    /// Its own terms, if applications share it.
    pub terms: Option<Arc<Terms>>,
    /// When it was last used, in milliseconds.
    seen: AtomicU64,
    /// The epoch of its user; `None`: no epoch binds it.
    epoch: Option<Arc<EpochCopy>>,
    /// The era of the cache in which it was read.
    era: u32,
    /// When it last counted, in milliseconds of the cache's own time.
    confirmed: AtomicU64,
    /// Its identity headers, once a request was forwarded with them.
    identity: OnceLock<IdentityValues>,
    /// The signature of its token, once it was verified.
    signature: OnceLock<Genuine>,
}

/// The values of identity headers, in the order of these; `None`: the session has no
/// such field.
#[derive(Debug)]
struct IdentityValues {
    of: u64,
    values: Box<[Option<HeaderValue>]>,
}

/// A user's epoch as it was read, shared by the user's sessions.
#[derive(Debug)]
pub struct EpochCopy {
    epoch: Option<Epoch>,
    era: u32,
    valid: AtomicBool,
}

/// How a record was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// When it was last used, as the store has it.
    pub seen: Timestamp,
    /// The epoch of its user; `None`: no epoch binds it.
    pub epoch: Option<Arc<EpochCopy>>,
    /// The era of the cache.
    pub era: u32,
}

/// A session that was found alive, for one request.
#[derive(Clone, Debug)]
pub struct Session {
    /// What is known of it.
    pub known: Arc<Known>,
    /// The token, for signing the cookie anew.
    pub token: Token,
    /// Which secret verified the cookie.
    pub secret: usize,
    /// Whether this use of it is being written, so that the browser may be told to
    /// keep its cookie for longer, too.
    pub touched: bool,
}

impl Known {
    /// A record as it was read, and what it has in `common` with others.
    pub fn new(
        key: Arc<str>,
        token: &Token,
        opened: Opened,
        source: Source,
        settings: &SessionSettings,
        common: &Common,
    ) -> Self {
        let Source { seen, epoch, era } = source;
        let Opened {
            mut head,
            mut data,
            terms,
            ..
        } = opened;
        // A hundred thousand of these are kept.
        (head.address, head.user_agent) = (String::new(), String::new());
        head.user.shrink_to_fit();
        data.shrink();
        let user = data.user(&settings.user).unwrap_or_default();
        let roles = data
            .at(&settings.roles)
            .map_or_else(Vec::new, Field::into_values);
        let roles = (!roles.is_empty()).then(|| common.roles.share(roles));
        Self {
            handle: match &terms {
                Some(_) => token.shared_handle(),
                None => token.handle(),
            },
            key,
            head,
            data,
            user,
            roles,
            terms: terms.map(|terms| common.terms.share(terms)),
            seen: AtomicU64::new(seen.0),
            epoch,
            era,
            confirmed: AtomicU64::new(0),
            identity: OnceLock::new(),
            signature: OnceLock::new(),
        }
    }

    /// Index of the secret that signed this session's token so, if one did. A signature
    /// is computed once, and then compared with what was verified.
    pub(super) fn secret_of(&self, signer: &Signer, signed: Signed<'_>) -> Option<usize> {
        let kept = self.signature.get();
        if let Some(secret) = kept.and_then(|kept| kept.secret_of(signer, signed)) {
            return Some(secret);
        }
        let secret = signer.secret_of(signed)?;
        if let Some(genuine) = Genuine::new(signer, signed, secret) {
            // Somebody else may have been faster.
            let _ = self.signature.set(genuine);
        }
        Some(secret)
    }

    /// Writes the identity headers. Their values are made once, since looking through
    /// the record's text costs more than all else that is written.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdentityUnrepresentable`] if a value cannot be sent in its header.
    pub fn write_identity(
        &self,
        identity: &IdentityHeaders,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure> {
        let made;
        let kept = self.identity.get();
        let values = match kept.filter(|kept| kept.of == identity.number()) {
            Some(kept) => kept,
            None if kept.is_some() => {
                // Of another configuration.
                made = self.identity_values(identity)?;
                &made
            }
            None => {
                made = self.identity_values(identity)?;
                self.identity.get_or_init(|| made)
            }
        };
        for ((name, _), value) in identity.entries().iter().zip(&values.values) {
            if let Some(value) = value {
                headers.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    fn identity_values(&self, identity: &IdentityHeaders) -> Result<IdentityValues, Failure> {
        let value = |(name, path): &(_, String)| {
            let value = match self.data.at(path) {
                None => return Ok(None),
                Some(Field::One(value)) => header_value(&value),
                Some(Field::Many(values)) => list_value(values.iter().map(String::as_str)),
            };
            value.map(Some).map_err(|refusal| {
                Failure::new(refusal, format_args!("field {path:?} for header {name}"))
            })
        };
        Ok(IdentityValues {
            of: identity.number(),
            values: identity
                .entries()
                .iter()
                .map(value)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Why it is no live session of a user at `now`, if so.
    pub fn over(&self, now: Timestamp, settings: &SessionSettings) -> Option<Refusal> {
        if let Some(over) = expired(
            &self.head,
            self.terms.as_deref(),
            self.seen(),
            now,
            settings,
        ) {
            return Some(over);
        }
        let epoch = self.epoch.as_ref().and_then(|copy| copy.epoch);
        if !self.head.is_newer_than(epoch) {
            return Some(Refusal::SessionEnded);
        }
        self.user.is_empty().then_some(Refusal::NoUser)
    }

    /// Whether the user has any of these roles.
    pub fn has_any_role(&self, wanted: &[String]) -> bool {
        let roles = self.roles();
        wanted.iter().any(|role| roles.contains(role))
    }

    /// The roles at `session.roles`.
    pub fn roles(&self) -> &[String] {
        self.roles.as_deref().map_or(&[], Vec::as_slice)
    }

    /// When it was last used, as far as is known.
    pub fn seen(&self) -> Timestamp {
        Timestamp(self.seen.load(Ordering::Relaxed))
    }

    /// It was touched at `now`, and the store knows.
    pub fn touched(&self, now: Timestamp) {
        self.seen.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When it ends if it is not used; `None`: never.
    pub fn idle_end(&self, settings: &SessionSettings) -> Option<Timestamp> {
        let idle = idle_timeout(self.terms.as_deref(), settings)?;
        Some(self.seen().after(idle))
    }

    /// When it ends however much it is used; `None`: never.
    pub fn absolute_end(&self, settings: &SessionSettings) -> Option<Timestamp> {
        self.head.absolute_end(settings)
    }

    /// Whether the epoch of its user has not changed since it was read, as far as was
    /// told.
    pub(super) fn has_valid_epoch(&self) -> bool {
        self.epoch.as_ref().is_none_or(|copy| copy.is_valid())
    }

    /// Whether one change of an epoch tells both.
    #[cfg(test)]
    pub(super) fn shares_epoch_with(&self, other: &Self) -> bool {
        let both = self.epoch.as_ref().zip(other.epoch.as_ref());
        both.is_some_and(|(one, two)| Arc::ptr_eq(one, two))
    }

    /// The era of the cache in which it was read.
    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// When it last counted, in milliseconds of the cache's own time.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// It counts at `now`. Seconds are fine enough, and a line of memory that is
    /// not written stays shared between cores.
    pub(super) fn confirm(&self, now: u64) {
        if now.saturating_sub(self.confirmed()) > 250 || self.confirmed() == 0 {
            self.confirmed.store(now, Ordering::Relaxed);
        }
    }
}

impl EpochCopy {
    pub(super) fn new(epoch: Option<Epoch>, era: u32) -> Self {
        Self {
            epoch,
            era,
            valid: AtomicBool::new(true),
        }
    }

    /// A copy that nobody keeps, since nobody would tell of a change.
    pub(super) fn for_once(epoch: Option<Epoch>) -> Self {
        let copy = Self::new(epoch, 0);
        copy.invalidate();
        copy
    }

    /// As it was read.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Whether it has not changed since it was read, as far as was told.
    pub(super) fn is_valid(&self) -> bool {
        self.valid.load(Ordering::SeqCst)
    }

    pub(super) fn invalidate(&self) {
        self.valid.store(false, Ordering::SeqCst);
    }

    /// The era of the cache in which it was read.
    pub(super) fn era(&self) -> u32 {
        self.era
    }
}

impl Deref for Session {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}
