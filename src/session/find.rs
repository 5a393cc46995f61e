//! From a token to what is known of its session: the copy in this process, or the
//! store.

use std::pin::pin;
use std::sync::Arc;

use http::HeaderMap;

use super::flights::Read;
use super::known::{EpochCopy, Known, Session, Source};
use super::layout::Layout;
use super::memo::Noted;
use super::rules::SessionRules;
use super::sessions::{Sessions, failure};
use super::store::{Listener, SessionStore, StoreError, StoredRecord, user_name};
use super::token::Token;
use crate::base::BoxFuture;
use crate::base::clock::Timestamp;
use crate::base::metrics::{CacheResult, StoreOperation};
use crate::base::refusal::{Failure, Refusal};
use crate::wire::cookie;
use crate::wire::signature::{Signed, Usual};

const IDLE: Refusal = Refusal::IdleExpired;

impl Sessions {
    /// The live session, at `now`, of a request with one session cookie, where this process
    /// has a copy of it. Whatever else the cookie is or was, `None` does not say.
    pub(super) fn copied(
        &self,
        rules: &SessionRules,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Option<Session> {
        if !self.shared.cache.keeps_copies() {
            return None;
        }
        let value = rules.only(headers)?;
        let usual = Usual::of(value);
        let short = usual.as_ref().and_then(|usual| self.by_sight(rules, usual));
        let session = match short {
            Some(session) => session,
            None => self.by_key(rules, value, usual.as_ref())?,
        };
        let known = &session.known;
        if !known.is_read_for(&rules.identity) || known.over(now, &rules.settings).is_some() {
            return None;
        }
        self.metrics.cached(CacheResult::Hit);
        Some(session)
    }

    /// The session of a cookie that these rules have verified before, by a shortcut to its
    /// copy: what leads to the store's key, a SHA-256 above all, is not done again.
    ///
    /// What lets somebody in is the signature, which is compared as a whole, in constant
    /// time, with the one that was verified for this copy: 256 bits that are nobody's but
    /// the client's who has the token. That they come with the same token says its sight,
    /// a hash of 64 bits with a key that nobody knows. Whoever has the signature and
    /// wants to be known by another token had to guess one with this sight, and would be
    /// in his own session then; nor would that token be signed
    /// ([`SessionRules::cookie_again`]).
    fn by_sight(&self, rules: &SessionRules, usual: &Usual<'_>) -> Option<Session> {
        let mut secret = None;
        let sight = rules.sight(usual.token());
        let known = self.shared.cache.fresh_by_sight(sight, |known| {
            secret = known.verified_secret_of(&rules.signer, usual.mac());
            secret.is_some()
        })?;
        Some(Session {
            known,
            token: Token::usual(usual)?,
            secret: secret?,
            touched: false,
        })
    }

    /// The session of whatever cookie, by the store's key.
    fn by_key(
        &self,
        rules: &SessionRules,
        value: &[u8],
        usual: Option<&Usual<'_>>,
    ) -> Option<Session> {
        let decoded = cookie::decode(value);
        let signed = Signed::split(&decoded)?;
        let token = rules.layout.token(signed.token)?;
        // Only a copy may be looked for by what is not verified: the store may not.
        let known = self.shared.cache.fresh(&rules.key_text(&token))?;
        let secret = known.secret_of(&rules.signer, signed)?;
        if let Some(usual) = usual {
            let sight = rules.sight(usual.token());
            self.shared.cache.note_sight(sight, &known);
        }
        Some(Session {
            known,
            token,
            secret,
            touched: false,
        })
    }

    /// The one token that a request presents, with its store's key and the number of the
    /// secret that signed it, where the store was asked for it before and is asked each
    /// time: neither the key nor the signature is computed again. As in
    /// [`Self::by_sight`], it is the signature that proves whose token it is.
    pub(super) fn noted(
        &self,
        rules: &SessionRules,
        headers: &HeaderMap,
    ) -> Option<(Arc<str>, Token, usize)> {
        let memo = self.shared.memo()?;
        let value = rules.only(headers)?;
        let usual = Usual::of(value)?;
        let noted = memo.find(rules.sight(usual.token()))?;
        let token = Token::usual(&usual)?;
        let known = &noted.known;
        let secret = match known.verified_secret_of(&rules.signer, usual.mac()) {
            Some(secret) => secret,
            None if rules.key_text(&token) == known.key() => {
                let decoded = cookie::decode(value);
                known.secret_of(&rules.signer, Signed::split(&decoded)?)?
            }
            None => return None,
        };
        Some((noted.key.clone(), token, secret))
    }

    /// The session of a token whose signature was verified by the secret of this
    /// number, and whose key this is, or why there is none.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`] and [`Refusal::SessionUnreadable`].
    pub(super) async fn find(
        &self,
        rules: &SessionRules,
        key: &Arc<str>,
        token: Token,
        secret: usize,
    ) -> Result<Result<Session, Refusal>, Failure> {
        let over = |known: &Known| known.over(self.clock.now(), &rules.settings);
        let copy = self.shared.cache.fresh(key);
        let copy = copy.filter(|known| known.is_read_for(&rules.identity));
        // A copy need not know of its use elsewhere: not every store tells of touches,
        // and none of for how long an application has prolonged its record.
        let (copy, idle) = match copy {
            Some(known) if over(&known) == Some(IDLE) => (None, true),
            copy => (copy, false),
        };
        let known = match copy {
            Some(known) => {
                self.metrics.cached(CacheResult::Hit);
                known
            }
            // Not within the future of those that have a copy.
            None => match Box::pin(self.read(rules, &token, key)).await? {
                Ok(known) => known,
                Err(Refusal::UnknownSession) if idle => return Ok(Err(IDLE)),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        if let Some(over) = over(&known) {
            if over != Refusal::NoUser {
                // What is over is no copy, least of all one that an outage brings back.
                self.shared.cache.record_changed(key);
                self.forget(rules, &token);
            }
            if matches!(over, Refusal::AbsoluteExpired | Refusal::SessionEnded) {
                self.end_for_applications(&known).await?;
            }
            return Ok(Err(over));
        }
        Ok(Ok(Session {
            known,
            token,
            secret,
            touched: false,
        }))
    }

    /// Asks the store, together with whoever else wants the same now.
    async fn read(
        &self,
        rules: &SessionRules,
        token: &Token,
        key: &Arc<str>,
    ) -> Result<Result<Arc<Known>, Refusal>, Failure> {
        let shared = &self.shared;
        let load = || async {
            self.load(rules, token, key)
                .await
                .unwrap_or_else(Read::from)
        };
        let join = || shared.flights.join(key, shared.cache.begin(key), load);
        let told = shared.cache.is_believed();
        let (mut read, own) = join().await;
        if !own && !counts_for_others(rules, &read, told) {
            // That one may have begun before us. What is joined now has begun since.
            (read, _) = join().await;
        }
        if matches!(&read, Read::Known(known) if !known.is_read_for(&rules.identity)) {
            // By somebody who has another configuration: there are two for a moment.
            read = load().await;
        }
        if let Read::Failed(Refusal::StoreUnavailable, _) = &read
            && let Some(known) = shared.cache.stale(key, shared.serve_stale_for)
            && known.is_read_for(&rules.identity)
        {
            self.metrics.cached(CacheResult::Stale);
            return Ok(Ok(known));
        }
        if matches!(read, Read::Dead(_)) {
            // No outage is to bring back what this process knows to be gone.
            shared.cache.record_changed(key);
        }
        self.metrics.cached(CacheResult::Miss);
        read.into_result()
    }

    async fn load(
        &self,
        rules: &SessionRules,
        token: &Token,
        key: &Arc<str>,
    ) -> Result<Read, Failure> {
        let cache = &self.shared.cache;
        let memo = self.shared.memo();
        let sight = memo.map_or(0, |_| rules.sight(token.expose().as_bytes()));
        let is_same =
            |noted: &Arc<Noted>| noted.key == *key && noted.known.is_read_for(&rules.identity);
        let noted = memo.and_then(|memo| memo.find(sight)).filter(is_same);
        let reading = cache.begin(key);
        let question = |store| SessionStore::load(store, key);
        let question = self.ask(StoreOperation::Load, question);
        // Whose it is will hardly have changed, so that both are asked at once.
        let bound = noted.as_ref().filter(|noted| noted.known.life.has_epoch());
        let (answer, early) = match bound {
            Some(noted) => both(question, self.load_epoch(noted.known.owner())).await,
            None => (question.await, None),
        };
        let (stored, followed) = answer?;
        let Some(StoredRecord { value, seen }) = stored else {
            self.forget(rules, token);
            return Ok(Read::Dead(Refusal::UnknownSession));
        };
        let owner = noted.as_ref().map(|noted| noted.known.clone());
        if let Some(noted) = noted.filter(|noted| noted.is_of(&value)) {
            let epoch = early.transpose()?.and_then(|copy| copy.epoch());
            let source = Source {
                seen,
                epoch: Some(Arc::new(EpochCopy::for_once(epoch))),
                era: reading.era(),
            };
            return Ok(Read::Known(Arc::new(noted.known.read_again(source))));
        }
        let opened = match rules.layout.open(key, token, value.clone()) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Read::Dead(Refusal::UnknownSession)),
            Err(error) if error.is_of_unknown_secret() => {
                return Ok(Read::Dead(Refusal::BadSignature));
            }
            Err(error) => return Err(Failure::new(Refusal::SessionUnreadable, error)),
        };
        let user = &opened.head.user;
        let early = early.filter(|_| owner.is_some_and(|noted| noted.owner() == user));
        let epoch = match (opened.head.life().has_epoch(), early) {
            (true, Some(early)) => Some(early?),
            (true, None) => Some(self.load_epoch(user).await?),
            (false, _) => None,
        };
        let epoch = match followed {
            true => epoch,
            false => {
                let epoch = epoch.and_then(|copy| copy.epoch());
                Some(Arc::new(EpochCopy::for_once(epoch)))
            }
        };
        let source = Source {
            seen,
            epoch,
            era: reading.era(),
        };
        let known = Known::new(key, token, opened, source, rules, cache.common());
        let known = Arc::new(known);
        // What may change without this process being told is not kept.
        if followed {
            cache.keep(reading, &known);
        } else if let Some(memo) = memo
            && !known.has_no_user()
        {
            memo.note(sight, key, value, known.clone());
        }
        Ok(Read::Known(known))
    }

    /// The session of this token is over: nothing of it is noted any more.
    pub(super) fn forget(&self, rules: &SessionRules, token: &Token) {
        if let Some(memo) = self.shared.memo() {
            memo.forget(rules.sight(token.expose().as_bytes()));
        }
    }

    /// The user's epoch: the copy, or as the store has it.
    async fn load_epoch(&self, user: &str) -> Result<Arc<EpochCopy>, Failure> {
        let cache = &self.shared.cache;
        let question = |store| SessionStore::epoch(store, user);
        if self.shared.memo().is_some() {
            // No store is followed, so that no copies were kept.
            let (epoch, _) = self.ask(StoreOperation::Epoch, question).await?;
            return Ok(Arc::new(EpochCopy::for_once(epoch)));
        }
        let name = user_name(user);
        if let Some(copy) = cache.epoch(&name) {
            return Ok(copy);
        }
        let reading = cache.begin(&name);
        let (epoch, followed) = self.ask(StoreOperation::Epoch, question).await?;
        Ok(match followed {
            true => cache.keep_epoch(reading, &name, epoch),
            false => {
                cache.note_epoch(&name, epoch);
                Arc::new(EpochCopy::for_once(epoch))
            }
        })
    }

    /// Asks the handle whose answers may be copied, or, where its channel is
    /// closed, this worker's own. Also answers which of them it was: `true` for the
    /// former.
    async fn ask<'a, T>(
        &'a self,
        operation: StoreOperation,
        question: impl Fn(&'a dyn SessionStore) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<(T, bool), Failure> {
        if let Some(followed) = self.shared.followed() {
            match self.measured(operation, question(followed)).await {
                Ok(answer) => return Ok((answer, true)),
                // Not within the same deadline again.
                Err(error @ (StoreError::Timeout(_) | StoreError::Unreadable(_))) => {
                    return Err(failure(&error));
                }
                Err(StoreError::Unavailable(_)) => {}
            }
        }
        let answer = self.measured(operation, question(&*self.store)).await;
        Ok((answer.map_err(|error| failure(&error))?, false))
    }
}

/// A record and the epoch of the user that it had the last time, asked for at once. Where
/// there is no record, or no answer, nobody waits for the other.
async fn both<T, E>(
    record: impl Future<Output = Result<(Option<T>, bool), Failure>>,
    epoch: impl Future<Output = E>,
) -> (Result<(Option<T>, bool), Failure>, Option<E>) {
    let (mut record, mut epoch) = (pin!(record), pin!(epoch));
    let mut early = None;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut record => break answer,
            found = &mut epoch, if early.is_none() => early = Some(found),
        }
    };
    if early.is_none() && matches!(&answer, Ok((Some(_), _))) {
        early = Some(epoch.await);
    }
    (answer, early)
}

/// Whether what somebody else has read is good for those who came while it was being
/// read. `told`: whether changes were told when they came.
fn counts_for_others(rules: &SessionRules, read: &Read, told: bool) -> bool {
    match read {
        // Nobody tells of an end, or it has been told that the user has signed out
        // everywhere: then it may have ended before they came.
        Read::Known(known) => told && known.has_valid_epoch(),
        // What is gone does not come back, unless an application has written it back:
        // of a miss nobody is told, and whoever looks now must find it, so that it goes.
        Read::Dead(_) => !matches!(rules.layout, Layout::Express(_)),
        // An outage is not to be waited for twice.
        Read::Failed(..) => true,
    }
}
