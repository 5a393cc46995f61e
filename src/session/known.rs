//! What is known of a session: read from the store once, shared by all requests
//! until it changes.
//!
//! A hundred thousand copies are kept, so each takes one piece of memory, unless its texts
//! are long. What many have in common is kept once.

use std::fmt;
use std::hint::black_box;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::data::{Field, Fields};
use super::pool::Common;
use super::record::{Life, Opened, Terms, expired, idle_timeout};
use super::rules::SessionRules;
use super::settings::SessionSettings;
use super::standing::Standing;
use super::store::Epoch;
use super::texts::{Ends, Joined, Part, Texts};
use super::token::Token;
use crate::base::clock::Timestamp;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::fields::Sink;
use crate::wire::reserved::{IdentityHeaders, header_value, list_value};
use crate::wire::signature::{Genuine, Signed, Signer};

/// In place of the value of an identity header: the session has no such field, or one
/// that no header can hold. Neither can be a value.
const ABSENT: u8 = 0;
const REFUSED: u8 = 1;

/// In place of a value that is the user id, as one mostly is.
const USER: u8 = 2;

/// Between values of identity headers, none of which can hold it.
const BETWEEN: u8 = b'\n';

/// About so much of its text a request looks at, in bytes.
const LOOKED_AT: usize = 48;

/// A session's record as it was read.
pub struct Known {
    /// When it began, and when it ends however much it is used.
    pub life: Life,
    /// Its own terms, if applications share it.
    pub terms: Option<Arc<Terms>>,
    /// The roles at `session.roles`, if there are any.
    roles: Option<Arc<Vec<String>>>,
    /// The epoch of its user; `None`: no epoch binds it.
    epoch: Option<Arc<EpochCopy>>,
    text: Joined,
    ends: Ends,
    /// When it was last used, in milliseconds.
    seen: AtomicU64,
    /// The era of the cache in which it was read.
    era: u32,
    /// What the cache notes in it.
    standing: Standing,
    /// For which configuration it was read: [`IdentityHeaders::number`].
    read_for: u32,
    /// The signature of its token, once it was verified.
    signature: OnceLock<Genuine>,
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
        key: &str,
        token: &Token,
        opened: Opened,
        source: Source,
        rules: &SessionRules,
        common: &Common,
    ) -> Self {
        let Source { seen, epoch, era } = source;
        let (settings, fields) = (&rules.settings, opened.data.fields());
        let user = fields.user(&settings.user).unwrap_or_default();
        let roles = fields
            .at(&settings.roles)
            .map_or_else(Vec::new, Field::into_values);
        let handle = match &opened.terms {
            Some(_) => token.shared_handle(),
            None => token.handle(),
        };
        let texts = Texts {
            handle: &handle,
            key,
            user: &user,
            owner: &opened.head.user,
            identity: &identity_values(fields, &user, &rules.identity),
            fields: fields.text(),
        };
        let (text, ends) = texts.join();
        Self {
            life: opened.head.life(),
            terms: opened.terms.map(|terms| common.terms.share(terms)),
            roles: (!roles.is_empty()).then(|| common.roles.share(roles)),
            epoch,
            text,
            ends,
            seen: AtomicU64::new(seen.0),
            era,
            standing: Standing::default(),
            read_for: rules.identity.number(),
            signature: OnceLock::new(),
        }
    }

    /// The same record, which the store has just told once more.
    pub(super) fn read_again(&self, source: Source) -> Self {
        let Source { seen, epoch, era } = source;
        Self {
            life: self.life,
            terms: self.terms.clone(),
            roles: self.roles.clone(),
            epoch,
            text: self.text.clone(),
            ends: self.ends,
            seen: AtomicU64::new(seen.0),
            era,
            standing: Standing::default(),
            read_for: self.read_for,
            signature: self.signature.clone(),
        }
    }

    /// Index of the secret that signed this session's token so, if one did. A signature
    /// is computed once, and then compared with what was verified.
    pub(super) fn secret_of(&self, signer: &Signer, signed: Signed<'_>) -> Option<usize> {
        if let Some(secret) = self.verified_secret_of(signer, signed.mac) {
            return Some(secret);
        }
        let secret = signer.secret_of(signed)?;
        if let Some(genuine) = Genuine::new(signer, signed, secret) {
            // Somebody else may have been faster.
            let _ = self.signature.set(genuine);
        }
        Some(secret)
    }

    /// The same where this very signature was verified by this signer before.
    pub(super) fn verified_secret_of(&self, signer: &Signer, mac: &[u8]) -> Option<usize> {
        self.signature.get()?.secret_of(signer, mac)
    }

    /// The store's key.
    pub fn key(&self) -> &str {
        self.part(Part::Key)
    }

    /// What logs call the session.
    pub fn handle(&self) -> &str {
        self.part(Part::Handle)
    }

    /// The user id at `session.user`; empty if there is none.
    pub fn user(&self) -> &str {
        self.part(Part::User)
    }

    /// The user id in its head, by which its epoch is found.
    pub fn owner(&self) -> &str {
        self.ends.owner(&self.text)
    }

    /// Its fields, as far as the configuration looks at them.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of(self.part(Part::Fields))
    }

    /// Whether it was read for this configuration: with another one, other fields count.
    pub fn is_read_for(&self, identity: &IdentityHeaders) -> bool {
        self.read_for == identity.number()
    }

    /// Writes the identity headers of the configuration for which it was read. Their
    /// values were made then, since looking through the record's text costs more than all
    /// else that is written.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdentityUnrepresentable`] if a value cannot be sent in its header.
    pub fn write_identity(
        &self,
        identity: &IdentityHeaders,
        head: &mut impl Sink,
    ) -> Result<(), Failure> {
        if !self.is_read_for(identity) {
            let cause = "the session was read for another configuration";
            return Err(Failure::new(Refusal::InternalError, cause));
        }
        let values = self.part(Part::Identity).as_bytes();
        let values = values.split(|byte| *byte == BETWEEN);
        for ((name, path), value) in identity.entries().iter().zip(values) {
            let is_written = match value {
                [ABSENT] => continue,
                [REFUSED] => false,
                [USER] => head.put_bytes(name, self.user().as_bytes()),
                value => head.put_bytes(name, value),
            };
            if !is_written {
                let cause = format_args!("field {path:?} for header {name}");
                return Err(Failure::new(Refusal::IdentityUnrepresentable, cause));
            }
        }
        Ok(())
    }

    /// Why it is no live session of a user at `now`, if so.
    pub fn over(&self, now: Timestamp, settings: &SessionSettings) -> Option<Refusal> {
        if let Some(over) = expired(self.life, self.terms.as_deref(), self.seen(), now, settings) {
            return Some(over);
        }
        let epoch = self.epoch.as_ref().and_then(|copy| copy.epoch);
        if !self.life.is_newer_than(epoch) {
            return Some(Refusal::SessionEnded);
        }
        self.ends.has_no_user().then_some(Refusal::NoUser)
    }

    /// Whether it is the session of nobody.
    pub(super) fn has_no_user(&self) -> bool {
        self.ends.has_no_user()
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
        self.life.absolute_end(settings)
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

    /// What the cache notes in it.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Looks at every line of memory that a request needs of it, so that the processor fetches
    /// them together, and not each when its turn has come.
    pub(super) fn fetch(&self) {
        let text = self.text.as_bytes();
        let texts = (text.first().copied(), text.get(LOOKED_AT).copied());
        let signed = (self.signature.get().is_some(), self.ends, self.era);
        let times = (self.life, self.seen());
        let stands = (self.standing.is_kept(), self.has_valid_epoch());
        black_box((texts, signed, times, stands));
    }

    fn part(&self, part: Part) -> &str {
        self.ends.part(&self.text, part)
    }
}

/// The values of identity headers as a copy keeps them, in the order of these.
fn identity_values(fields: Fields<'_>, user: &str, identity: &IdentityHeaders) -> String {
    let mut values = String::new();
    for (at, (_, path)) in identity.entries().iter().enumerate() {
        if at > 0 {
            values.push(char::from(BETWEEN));
        }
        let value = match fields.at(path) {
            None => {
                values.push(char::from(ABSENT));
                continue;
            }
            Some(Field::One(value)) => header_value(&value),
            Some(Field::Many(values)) => list_value(values.iter().map(String::as_str)),
        };
        match value.as_ref().map(|value| str::from_utf8(value.as_bytes())) {
            Ok(Ok(value)) if value == user && !user.is_empty() => values.push(char::from(USER)),
            Ok(Ok(value)) => values.push_str(value),
            _ => values.push(char::from(REFUSED)),
        }
    }
    values
}

impl fmt::Debug for Known {
    /// Of its texts only what logs call it: with the key and the signature somebody could
    /// sign in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("handle", &self.handle())
            .field("life", &self.life)
            .finish_non_exhaustive()
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

#[cfg(test)]
mod tests;
