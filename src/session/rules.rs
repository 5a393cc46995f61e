//! What the configuration says of sessions, ready for use, and the cookies that
//! a request presents, checked by it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::known::Session;
use super::layout::Layout;
use super::layout::express::ExpressLayout;
use super::layout::sealed::Sealer;
use super::record::Terms;
use super::settings::SessionSettings;
use super::token::Token;
use crate::base::clock::Timestamp;
use crate::base::refusal::Refusal;
use crate::wire::cookie::{self, CookieSpec};
use crate::wire::reserved::IdentityHeaders;
use crate::wire::signature::{Signer, Verdict};

/// Cookies of our name that are looked up at most, if they verify.
pub const MOST_LOOKED_UP: usize = 4;

/// What the configuration says of sessions, ready for use.
pub struct SessionRules {
    /// Timeouts and paths.
    pub settings: SessionSettings,
    /// What the names of session keys begin with.
    pub prefix: String,
    /// Signs and verifies cookies.
    pub signer: Signer,
    /// Writes and reads records.
    pub layout: Layout,
    /// Whether the application has the cookie and the records, too.
    pub share_with_app: bool,
    /// The session cookie.
    pub cookie: CookieSpec,
    /// The identity headers. Their number is that of all that is taken from a record.
    pub identity: Arc<IdentityHeaders>,
    sights: RandomState,
}

/// Session cookies of a request, after their signatures were checked.
pub enum Presented {
    /// None that could name a session, and why.
    None(Refusal),
    /// Tokens that a secret verified, with its number.
    Tokens(Vec<(Token, usize)>),
}

impl SessionRules {
    /// Prepares keys from the settings, for sealed records.
    pub fn new(settings: SessionSettings, prefix: String, cookie: CookieSpec) -> Self {
        Self {
            signer: Signer::new(&settings.secrets),
            layout: Layout::Sealed(Sealer::new(&settings.secrets)),
            share_with_app: false,
            settings,
            prefix,
            cookie,
            identity: Arc::default(),
            sights: RandomState::new(),
        }
        .with_identity(Vec::new())
    }

    /// The same for records as Express has them. `identity`: further dotted paths from
    /// which an identity is made. `share_with_app`: whether the application has the
    /// cookie as well.
    pub fn express(
        settings: SessionSettings,
        prefix: String,
        cookie: CookieSpec,
        identity: impl IntoIterator<Item = String>,
        share_with_app: bool,
    ) -> Self {
        let own = [settings.user.clone(), settings.roles.clone()];
        let layout = ExpressLayout {
            cookie: cookie.clone(),
            idle_timeout: settings.idle_timeout,
            user: settings.user.clone(),
            identity: own.into_iter().chain(identity).collect(),
        };
        Self {
            signer: Signer::new(&settings.secrets),
            layout: Layout::Express(Box::new(layout)),
            share_with_app,
            settings,
            prefix,
            cookie,
            identity: Arc::default(),
            sights: RandomState::new(),
        }
        .with_identity(Vec::new())
    }

    /// The same with identity headers: names, and dotted paths in the record.
    #[must_use]
    pub fn with_identity(mut self, entries: Vec<(HeaderName, String)>) -> Self {
        let own = [self.settings.user.clone(), self.settings.roles.clone()];
        let names = entries.iter().map(|(name, _)| name.to_string());
        let paths = entries.iter().map(|(_, path)| path.clone());
        let shown = match &self.layout {
            Layout::Sealed(_) => None,
            Layout::Express(layout) => Some(layout.identity.join("\n")),
        };
        let taken = own.into_iter().chain(names).chain(paths).chain(shown);
        let number = number_of(taken.collect());
        self.identity = Arc::new(IdentityHeaders::new(entries).numbered(number));
        self
    }

    /// The name of the store's key for a token.
    pub fn key(&self, token: &Token) -> Arc<str> {
        self.key_text(token).into()
    }

    /// The same for one look.
    pub fn key_text(&self, token: &Token) -> String {
        self.layout.key(&self.prefix, token)
    }

    /// Until when the browser keeps the cookie of a session that is used at `now`.
    pub fn cookie_end(&self, now: Timestamp, absolute_end: Timestamp) -> Timestamp {
        match self.layout {
            Layout::Sealed(_) => absolute_end,
            Layout::Express(_) => now.after(self.settings.idle_timeout),
        }
    }

    /// Whether the browser is to keep the cookie of this session for longer: its end was
    /// put off by this use, and the cookie has one.
    pub fn prolongs_cookie(&self, session: &Session) -> bool {
        let lasts = |terms: &Terms| terms.cookie.max_age().is_some();
        session.touched && self.cookie.persistent && session.terms.as_deref().is_some_and(lasts)
    }

    /// The `Set-Cookie` that gives the browser its cookie once more, signed with the first
    /// secret. `secure`: whether its connection is. Of a session that applications share
    /// it has the record's own attributes, so that it replaces whichever they set; it is
    /// `None` where Express would send none. A token that is not the session's is never
    /// signed.
    pub fn cookie_again(
        &self,
        session: &Session,
        now: Timestamp,
        secure: bool,
    ) -> Option<HeaderValue> {
        if self.key_text(&session.token) != session.key() {
            return None;
        }
        let value = cookie::encode(&self.signer.sign(session.token.expose()));
        match &session.terms {
            Some(terms) => terms.cookie.set(
                &self.cookie.name,
                &value,
                now,
                secure,
                self.cookie.persistent,
            ),
            None => {
                let secure = self.cookie.is_secure(secure);
                let end = session.absolute_end(&self.settings)?;
                self.cookie.set(&value, now, end, secure).ok()
            }
        }
    }

    /// The session cookies of a request that may be looked up: a few whose signatures are
    /// right. Where the application has the cookie too, the first of its name counts and
    /// no other, as for express-session.
    pub fn presented(&self, headers: &HeaderMap) -> Presented {
        match self.share_with_app {
            true => self.verified(self.cookie.values(headers).take(1), 1),
            false => self.verified(self.cookie.values(headers), MOST_LOOKED_UP),
        }
    }

    /// The one session cookie of a request, as it was sent, where no other has a say.
    pub fn only<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        match self.share_with_app {
            true => self.cookie.values(headers).next(),
            false => self.cookie.only_value(headers),
        }
    }

    /// What a shortcut to the session of this token is known by: a hash that nobody can
    /// compute elsewhere, and that other rules have of their own. So a shortcut made by
    /// one configuration leads nowhere in the next one.
    pub(super) fn sight(&self, token: &[u8]) -> u64 {
        let mut hasher = self.sights.build_hasher();
        hasher.write(token);
        hasher.finish()
    }

    /// All session cookies of a request whose signatures are right.
    pub fn all_presented(&self, headers: &HeaderMap) -> Presented {
        self.verified(self.cookie.values(headers), usize::MAX)
    }

    fn verified<'h>(&self, values: impl Iterator<Item = &'h [u8]>, most: usize) -> Presented {
        let mut tokens: Vec<(Token, usize)> = Vec::new();
        let mut reason = Refusal::NoCookie;
        for raw in values {
            let decoded = cookie::decode(raw);
            match self.signer.verify(&decoded) {
                Verdict::Verified { token, secret } => match self.layout.token(token) {
                    Some(token) if tokens.iter().all(|(known, _)| *known != token) => {
                        tokens.push((token, secret));
                        if tokens.len() >= most {
                            break;
                        }
                    }
                    Some(_) => {}
                    // Genuine, but no session of ours has such an id.
                    None => reason = Refusal::UnknownSession,
                },
                Verdict::BadSignature if reason != Refusal::UnknownSession => {
                    reason = Refusal::BadSignature;
                }
                Verdict::Malformed if reason == Refusal::NoCookie => {
                    reason = Refusal::MalformedCookie;
                }
                Verdict::BadSignature | Verdict::Malformed => {}
            }
        }
        if tokens.is_empty() {
            Presented::None(reason)
        } else {
            Presented::Tokens(tokens)
        }
    }
}

/// A number for what a configuration takes from records: the same for the same, so that
/// copies survive a change of everything else. Never 0.
fn number_of(taken: Vec<String>) -> u32 {
    static KNOWN: Mutex<Vec<Vec<String>>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = known.iter().position(|other| *other == taken);
    let at = at.unwrap_or_else(|| {
        known.push(taken);
        known.len() - 1
    });
    u32::try_from(at).map_or(u32::MAX, |at| at.saturating_add(1))
}

#[cfg(test)]
pub(in crate::session) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::secret::Secret;
    use crate::wire::cookie::{SameSite, Secure};

    /// Rules of the sealed layout, with short times.
    pub(in crate::session) fn sample() -> SessionRules {
        let settings = SessionSettings {
            secrets: vec![Secret::new("0123456789abcdef0123456789abcdef")],
            idle_timeout: Duration::from_secs(60),
            absolute_timeout: Duration::from_secs(600),
            touch_interval: Duration::from_secs(6),
            max_per_user: 0,
            user: "userId".into(),
            roles: "roles".into(),
        };
        let cookie = CookieSpec {
            name: "sid".into(),
            path: "/".into(),
            domain: None,
            same_site: SameSite::Lax,
            secure: Secure::Auto,
            persistent: true,
            partitioned: false,
        };
        SessionRules::new(settings, "sess:".into(), cookie)
    }
}
