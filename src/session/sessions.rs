//! The rules of sessions, over any store: look up, create, end.
//!
//! One `Sessions` belongs to each worker. What the configuration says comes
//! with each call as [`SessionRules`], so that a reload swaps it as a whole.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::Value;

use super::data::Data;
use super::known::Session;
use super::layout::Layout;
use super::record::{Head, idle_timeout, time_to_live};
use super::rules::{Presented, SessionRules};
use super::shared::Shared;
use super::store::{Epoch, Listener, NewRecord, SessionStore, StoreError, user_name};
use super::token::Token;
use crate::base::clock::{Clock, Timestamp};
use crate::base::identity::Identity;
use crate::base::metrics::{EndCause, Metrics, StoreOperation};
use crate::base::refusal::{Failure, Refusal};

/// How much longer than the longest session a user's epoch is kept.
pub(super) const EPOCH_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// What is known of a request's session.
#[derive(Debug)]
pub enum Lookup {
    /// The route does not ask.
    NotNeeded,
    /// There is no live session, and why.
    Dead(Refusal),
    /// There is one.
    Live(Session),
}

/// A session that a login has just created.
#[derive(Debug)]
pub struct Created {
    /// The cookie's value, signed, not yet percent-encoded.
    pub cookie: String,
    /// When it was created.
    pub at: Timestamp,
    /// Until when the browser keeps the cookie.
    pub cookie_end: Timestamp,
    /// What logs call it.
    pub handle: Arc<str>,
    /// Its fields.
    pub data: Data,
}

/// Where a login comes from, for the record's head.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's address.
    pub address: String,
    /// The client's user agent.
    pub user_agent: String,
    /// Whether the browser's connection is secure.
    pub secure: bool,
}

/// A worker's access to the sessions.
pub struct Sessions {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: Arc<Shared>,
}

impl Sessions {
    /// Over a worker's own handle of the store.
    pub fn new(
        store: Arc<dyn SessionStore>,
        clock: Clock,
        metrics: Arc<Metrics>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            store,
            clock,
            metrics,
            shared,
        }
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
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
        let now = self.clock.now();
        let (mut session, now) = match self.copied(rules, headers, now) {
            Some(session) => (session, now),
            // Not within the future of those that have a copy.
            None => match Box::pin(self.looked_up(rules, headers)).await? {
                Ok(session) => (session, self.clock.now()),
                Err(reason) => return Ok(Lookup::Dead(reason)),
            },
        };
        if slide {
            session.touched = self.slide_at(rules, &session, now);
        }
        Ok(Lookup::Live(session))
    }

    /// The newest live session of those that a request presents, or why there is none.
    async fn looked_up(
        &self,
        rules: &SessionRules,
        headers: &HeaderMap,
    ) -> Result<Result<Session, Refusal>, Failure> {
        if let Some((key, token, secret)) = self.noted(rules, headers) {
            return self.find(rules, &key, token, secret).await;
        }
        let tokens = match rules.presented(headers) {
            Presented::None(reason) => return Ok(Err(reason)),
            Presented::Tokens(tokens) => tokens,
        };
        let mut reason = None;
        let mut found: Option<Session> = None;
        for (token, secret) in tokens {
            let key = rules.key(&token);
            match self.find(rules, &key, token, secret).await? {
                Err(refusal) => {
                    reason.get_or_insert(refusal);
                }
                Ok(session) => match &found {
                    Some(other) if other.user() != session.user() => {
                        return Ok(Err(Refusal::AmbiguousCookie));
                    }
                    Some(other) if other.life.created >= session.life.created => {}
                    _ => found = Some(session),
                },
            }
        }
        Ok(found.ok_or(reason.unwrap_or(Refusal::UnknownSession)))
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
    /// sessions that the request presented. Nothing of them is taken over, but for the
    /// anonymous session of an application that shares its sessions.
    ///
    /// # Errors
    ///
    /// [`Refusal::SessionEnded`] if the user signed out everywhere since
    /// `began`, or newer logins than `max_per_user` were faster; [`Refusal::StoreUnavailable`]. In each case nobody holds a new
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
            origin.address.clone(),
            &origin.user_agent,
        );
        if !head.life().is_newer_than(epoch) {
            return Err(Failure::new(
                Refusal::SessionEnded,
                "the user signed out everywhere while this login was running",
            ));
        }
        let ttl = time_to_live(head.life(), None, now, settings)
            .ok_or_else(|| Failure::new(Refusal::InternalError, "absolute_timeout is zero"))?;
        let user = Value::String(identity.user);
        let roles = (!identity.roles.is_empty())
            .then(|| (settings.roles.as_str(), Value::from(identity.roles)));
        let placed = roles.into_iter().chain([(settings.user.as_str(), user)]);
        let data = Data::new(identity.claims, placed);

        let data = self.with_anonymous(rules, presented, data).await?;

        let token = Token::random().map_err(|e| Failure::new(Refusal::InternalError, e))?;
        let key = rules.key(&token);
        let value = rules
            .layout
            .compose(&key, &token, &head, &data, origin.secure)
            .map_err(|e| Failure::new(Refusal::InternalError, e))?;
        let record = NewRecord {
            key: key.clone(),
            user: head.user.clone(),
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
        let settled = match self
            .delete_presented(rules, presented, EndCause::Replaced)
            .await
        {
            Ok(_) => self.keep_to_limit(rules, &head.user, &key).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = settled {
            // An old session may be alive, so the login has not succeeded.
            let _ = self.store.delete(&key).await;
            return Err(failure);
        }
        Ok(Created {
            cookie: rules.signer.sign(token.expose()),
            at: now,
            cookie_end: rules.cookie_end(now, Timestamp(head.absolute_end)),
            handle: rules.layout.handle(&token),
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
        let raised = self.store.raise_epoch(session.owner(), ttl);
        let raised = self.timed(StoreOperation::RaiseEpoch, raised).await;
        // Here at once, and not when the store tells of it; also where it is not
        // known whether it was done.
        self.shared.epoch_changed(&user_name(session.owner()));
        raised?;
        if matches!(rules.layout, Layout::Express(_)) {
            // Those of the application have no epoch.
            self.delete_all_of(session.owner()).await?;
        }
        self.metrics.ended(EndCause::LogoutAll);
        self.delete_presented(rules, headers, EndCause::Logout)
            .await?;
        Ok(())
    }

    /// Re-seals the record with the first secret, if need be, so that the
    /// cookie may be signed with it. `false`: not now, try again on the next
    /// request.
    pub async fn renew(&self, rules: &SessionRules, session: &Session) -> bool {
        let Layout::Sealed(sealer) = &rules.layout else {
            // No secret has a part in the record.
            return true;
        };
        let loaded = self
            .timed(StoreOperation::Load, self.store.load(session.key()))
            .await;
        let Ok(Some(stored)) = loaded else {
            return false;
        };
        let Ok(opened) = sealer.open(session.key(), &session.token, stored.value) else {
            return false;
        };
        if opened.sealed_with == 0 {
            return true;
        }
        let Ok(value) = sealer.seal(session.key(), &session.token, &opened.head, &opened.data)
        else {
            return false;
        };
        let updated = self.store.update(session.key(), opened.stored, value);
        let updated = self.timed(StoreOperation::Update, updated).await;
        self.shared.record_changed(session.key());
        matches!(updated, Ok(true))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`].
    pub async fn ping(&self) -> Result<(), Failure> {
        self.timed(StoreOperation::Ping, self.store.ping()).await
    }

    /// Slides the idle timeout, off the request's path, at most once per
    /// `touch_interval`. Answers whether this use of it is being written.
    pub fn slide(self: &Arc<Self>, rules: &SessionRules, session: &Session) -> bool {
        self.slide_at(rules, session, self.clock.now())
    }

    fn slide_at(self: &Arc<Self>, rules: &SessionRules, session: &Session, now: Timestamp) -> bool {
        let (settings, terms) = (&rules.settings, session.terms.as_deref());
        let own = idle_timeout(terms, settings).map_or(Duration::MAX, |idle| idle / 10);
        let interval = settings.touch_interval.min(own);
        if now.since(session.seen()) < interval {
            return false;
        }
        let Some(ttl) = time_to_live(session.life, terms, now, settings) else {
            return false;
        };
        let known = session.known.clone();
        if !self.shared.touches.begin(known.key(), now, interval) {
            return false;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let touch = this.store.touch(known.key(), now, ttl);
            let touched = this.timed(StoreOperation::Touch, touch).await;
            match touched {
                Ok(true) => known.touched(now),
                // It is gone, whatever was told of it.
                Ok(false) => this.shared.record_changed(known.key()),
                // An outage costs one slide; the next request tries again.
                Err(_) => {}
            }
            let written = touched.is_ok_and(|written| written);
            this.shared.touches.done(known.key(), written);
        });
        true
    }

    async fn delete_presented(
        &self,
        rules: &SessionRules,
        headers: &HeaderMap,
        cause: EndCause,
    ) -> Result<bool, Failure> {
        // All of them: one that is left out would outlive the sign-out.
        let Presented::Tokens(tokens) = rules.all_presented(headers) else {
            return Ok(false);
        };
        let mut any = false;
        for (token, _) in tokens {
            let key = rules.key(&token);
            let deleted = self.timed(StoreOperation::Delete, self.store.delete(&key));
            let deleted = deleted.await;
            // As in `end_all`.
            self.shared.record_changed(&key);
            self.forget(rules, &token);
            if deleted? {
                self.metrics.ended(cause);
                any = true;
            }
        }
        Ok(any)
    }

    /// A call of the store, counted, as callers want it.
    pub(super) async fn timed<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        self.measured(operation, work)
            .await
            .map_err(|error| failure(&error))
    }

    /// A call of the store, counted.
    pub(super) async fn measured<T>(
        &self,
        operation: StoreOperation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let result = work.await;
        self.metrics
            .store(operation, result.is_ok(), start.elapsed());
        result
    }
}

/// What a client is told of an error of the store.
pub(super) fn failure(error: &StoreError) -> Failure {
    let refusal = match error {
        StoreError::Timeout(_) | StoreError::Unavailable(_) => Refusal::StoreUnavailable,
        StoreError::Unreadable(_) => Refusal::SessionUnreadable,
    };
    Failure::new(refusal, error)
}

#[cfg(test)]
pub(super) mod tests;
