//! The rules of sessions, over any store: look up, create, end.
//!
//! One `Sessions` belongs to each worker. What the configuration says comes
//! with each call as [`SessionRules`], so that a reload swaps it as a whole.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::Value;

use super::data::Field;
use super::layout::sealed::SealError;
use super::record::{Head, Opened, Session, expired, time_to_live};
use super::rules::{MOST_LOOKED_UP, Presented, SessionRules};
use super::store::{Epoch, NewRecord, SessionStore, StoreError};
use super::token::Token;
use super::touches::Touches;
use crate::base::clock::{Clock, Timestamp};
use crate::base::identity::Identity;
use crate::base::metrics::{EndCause, Metrics, StoreOperation};
use crate::base::refusal::{Failure, Refusal};

/// How much longer than the longest session a user's epoch is kept.
const EPOCH_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// What is known of a request's session.
#[derive(Debug)]
pub enum Lookup {
    /// The route does not ask.
    NotNeeded,
    /// There is no live session, and why.
    Dead(Refusal),
    /// There is one.
    Live(Box<Session>),
}

/// A session that a login has just created.
#[derive(Debug)]
pub struct Created {
    /// The cookie's value, signed, not yet percent-encoded.
    pub cookie: String,
    /// When it was created.
    pub at: Timestamp,
    /// When the session ends however much it is used.
    pub absolute_end: Timestamp,
    /// What logs call it.
    pub handle: Arc<str>,
    /// Its fields.
    pub data: super::data::Data,
}

/// Where a login comes from, for the record's head.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: String,
    /// The client's user agent.
    pub user_agent: String,
}

/// A worker's access to the sessions.
pub struct Sessions {
    store: Arc<dyn SessionStore>,
    clock: Clock,
    metrics: Arc<Metrics>,
    touches: Arc<Touches>,
}

impl Sessions {
    /// Over a worker's own handle of the store. All workers share `touches`.
    pub fn new(
        store: Arc<dyn SessionStore>,
        clock: Clock,
        metrics: Arc<Metrics>,
        touches: Arc<Touches>,
    ) -> Self {
        Self {
            store,
            clock,
            metrics,
            touches,
        }
    }

    /// The present moment by the proxy's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Finds the request's session and, if `slide`, slides its idle timeout.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`] if the store gave no answer,
    /// [`Refusal::SessionUnreadable`] if it holds a damaged record. Neither
    /// says that the session is over.
    pub async fn lookup(
        self: &Arc<Self>,
        rules: &SessionRules,
        headers: &HeaderMap,
        slide: bool,
    ) -> Result<Lookup, Failure> {
        let tokens = match rules.presented(headers, MOST_LOOKED_UP) {
            Presented::None(reason) => return Ok(Lookup::Dead(reason)),
            Presented::Tokens(tokens) => tokens,
        };
        let mut reason = None;
        let mut found: Option<Session> = None;
        for (token, secret) in tokens {
            match self.load(rules, token, secret).await? {
                Err(refusal) => {
                    reason.get_or_insert(refusal);
                }
                Ok(session) => match &found {
                    Some(other) if other.user != session.user => {
                        return Ok(Lookup::Dead(Refusal::AmbiguousCookie));
                    }
                    Some(other) if other.head.created >= session.head.created => {}
                    _ => found = Some(session),
                },
            }
        }
        let Some(session) = found else {
            return Ok(Lookup::Dead(reason.unwrap_or(Refusal::UnknownSession)));
        };
        if slide {
            self.slide(rules, &session);
        }
        Ok(Lookup::Live(Box::new(session)))
    }

    /// The moment a login begins, by the store's clock. To be read before the
    /// credentials are verified: a "sign out everywhere" that runs meanwhile
    /// then ends the new session too.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`].
    pub async fn begin_login(&self) -> Result<Epoch, Failure> {
        self.timed(StoreOperation::Now, self.store.now()).await
    }

    /// Creates the session of a login, under a new token, and deletes the
    /// sessions that the request presented: nothing of them is taken over.
    ///
    /// # Errors
    ///
    /// [`Refusal::SessionEnded`] if the user signed out everywhere since
    /// `began`; [`Refusal::StoreUnavailable`]. In each case nobody holds a new
    /// session's token; a record that could not be taken back expires.
    pub async fn create(
        &self,
        rules: &SessionRules,
        began: Epoch,
        identity: Identity,
        origin: Origin,
        presented: &HeaderMap,
    ) -> Result<Created, Failure> {
        let settings = &rules.settings;
        let epoch = self
            .timed(StoreOperation::Epoch, self.store.epoch(&identity.user))
            .await?;
        let now = self.clock.now();
        let head = Head::new(
            &identity.user,
            began,
            now,
            settings,
            origin.address,
            &origin.user_agent,
        );
        if !head.is_newer_than(epoch) {
            return Err(Failure::new(
                Refusal::SessionEnded,
                "the user signed out everywhere while this login was running",
            ));
        }
        let ttl = time_to_live(&head, now, settings)
            .ok_or_else(|| Failure::new(Refusal::InternalError, "absolute_timeout is zero"))?;
        let user = Value::String(identity.user);
        let roles = (!identity.roles.is_empty())
            .then(|| (settings.roles.as_str(), Value::from(identity.roles)));
        let placed = roles.into_iter().chain([(settings.user.as_str(), user)]);
        let data = super::data::Data::new(identity.claims, placed);

        let token = Token::random().map_err(|e| Failure::new(Refusal::InternalError, e))?;
        let key = token.key(&rules.prefix);
        let value = rules
            .sealer
            .seal(&key, &token, &head, &data)
            .map_err(|e| Failure::new(Refusal::InternalError, e))?;
        let record = NewRecord {
            key: key.clone(),
            value,
            seen: now,
            ttl,
        };
        if !self
            .timed(StoreOperation::Create, self.store.create(record))
            .await?
        {
            // 192 random bits do not repeat; a broken generator might.
            return Err(Failure::new(
                Refusal::InternalError,
                "a new session id already exists",
            ));
        }
        if let Err(failure) = self
            .delete_presented(rules, presented, EndCause::Replaced)
            .await
        {
            // The old session may be alive, so the login has not succeeded.
            let _ = self.store.delete(&key).await;
            return Err(failure);
        }
        Ok(Created {
            cookie: rules.signer.sign(token.expose()),
            at: now,
            absolute_end: Timestamp(head.absolute_end),
            handle: token.handle(),
            data,
        })
    }

    /// Ends the sessions that the request presents. Answers whether there were
    /// any.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`]: they may still be alive.
    pub async fn end(&self, rules: &SessionRules, headers: &HeaderMap) -> Result<bool, Failure> {
        self.delete_presented(rules, headers, EndCause::Logout)
            .await
    }

    /// Ends all sessions of the user whose session the request presents,
    /// including those whose login is running now.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`]: they may still be alive.
    pub async fn end_all(
        &self,
        rules: &SessionRules,
        session: &Session,
        headers: &HeaderMap,
    ) -> Result<(), Failure> {
        let ttl = rules.settings.absolute_timeout.saturating_add(EPOCH_MARGIN);
        self.timed(
            StoreOperation::RaiseEpoch,
            self.store.raise_epoch(&session.head.user, ttl),
        )
        .await?;
        self.metrics.ended(EndCause::LogoutAll);
        self.delete_presented(rules, headers, EndCause::Logout)
            .await?;
        Ok(())
    }

    /// Re-seals the record with the first secret, if need be, so that the
    /// cookie may be signed with it. `false`: not now, try again on the next
    /// request.
    pub async fn renew(&self, rules: &SessionRules, session: &Session) -> bool {
        let loaded = self
            .timed(StoreOperation::Load, self.store.load(&session.key))
            .await;
        let Ok(Some(stored)) = loaded else {
            return false;
        };
        let Ok(opened) = rules
            .sealer
            .open(&session.key, &session.token, stored.value)
        else {
            return false;
        };
        if opened.sealed_with == 0 {
            return true;
        }
        let Ok(value) = rules
            .sealer
            .seal(&session.key, &session.token, &opened.head, &opened.data)
        else {
            return false;
        };
        let updated = self.store.update(&session.key, opened.stored, value);
        matches!(self.timed(StoreOperation::Update, updated).await, Ok(true))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.timed(StoreOperation::Ping, self.store.ping()).await
    }

    async fn load(
        self: &Arc<Self>,
        rules: &SessionRules,
        token: Token,
        secret: usize,
    ) -> Result<Result<Session, Refusal>, Failure> {
        let key = token.key(&rules.prefix);
        let Some(stored) = self
            .timed(StoreOperation::Load, self.store.load(&key))
            .await?
        else {
            return Ok(Err(Refusal::UnknownSession));
        };
        let Opened { head, data, .. } = match rules.sealer.open(&key, &token, stored.value) {
            Ok(opened) => opened,
            Err(SealError::UnknownSecret) => return Ok(Err(Refusal::BadSignature)),
            Err(error) => return Err(Failure::new(Refusal::SessionUnreadable, error)),
        };
        if let Some(over) = expired(&head, stored.seen, self.clock.now(), &rules.settings) {
            return Ok(Err(over));
        }
        let epoch = self
            .timed(StoreOperation::Epoch, self.store.epoch(&head.user))
            .await?;
        if !head.is_newer_than(epoch) {
            return Ok(Err(Refusal::SessionEnded));
        }
        let user = match data.at(&rules.settings.user) {
            Some(Field::One(user)) if !user.is_empty() => user,
            _ => return Ok(Err(Refusal::NoUser)),
        };
        let roles = data
            .at(&rules.settings.roles)
            .map_or_else(Vec::new, Field::into_values);
        Ok(Ok(Session {
            key,
            handle: token.handle(),
            seen: stored.seen,
            head,
            data,
            user,
            roles,
            token,
            secret,
        }))
    }

    /// Slides the idle timeout, off the request's path, at most once per
    /// `touch_interval`.
    fn slide(self: &Arc<Self>, rules: &SessionRules, session: &Session) {
        let now = self.clock.now();
        let interval = rules.settings.touch_interval;
        if now.since(session.seen) < interval {
            return;
        }
        let Some(ttl) = time_to_live(&session.head, now, &rules.settings) else {
            return;
        };
        let key = session.key.clone();
        if !self.touches.begin(&key, now, interval) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let touch = this.store.touch(&key, now, ttl);
            // An outage costs one slide; the next request tries again.
            let touched = this.timed(StoreOperation::Touch, touch).await;
            this.touches
                .done(&key, touched.is_ok_and(|written| written));
        });
    }

    async fn delete_presented(
        &self,
        rules: &SessionRules,
        headers: &HeaderMap,
        cause: EndCause,
    ) -> Result<bool, Failure> {
        // All of them: one that is left out would outlive the sign-out.
        let Presented::Tokens(tokens) = rules.presented(headers, usize::MAX) else {
            return Ok(false);
        };
        let mut any = false;
        for (token, _) in tokens {
            let key = token.key(&rules.prefix);
            if self
                .timed(StoreOperation::Delete, self.store.delete(&key))
                .await?
            {
                self.metrics.ended(cause);
                any = true;
            }
        }
        Ok(any)
    }

    async fn timed<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let result = work.await;
        self.metrics
            .store(operation, result.is_ok(), start.elapsed());
        result.map_err(|error| match &error {
            StoreError::Timeout(_) | StoreError::Unavailable(_) => {
                Failure::new(Refusal::StoreUnavailable, &error)
            }
            StoreError::Unreadable(_) => Failure::new(Refusal::SessionUnreadable, &error),
        })
    }
}

#[cfg(test)]
mod tests;
