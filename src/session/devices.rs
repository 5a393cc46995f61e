//! The sessions of one user: how many there may be, which there are, and
//! ending them from afar.
//!
//! What is known of them here stands in the clear head of their records. Nobody
//! but a session's own client can open the rest, so nothing here rests on
//! more than that.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Head, Terms, expired, idle_timeout};
use super::rules::SessionRules;
use super::sessions::{EPOCH_MARGIN, Sessions};
use super::store::{Epoch, Found, Listener, Page, StoreError, user_name};
use super::token::handle_of;
use crate::base::BoxFuture;
use crate::base::clock::Timestamp;
use crate::base::metrics::{EndCause, StoreOperation};
use crate::base::refusal::{Failure, Refusal};

/// A live session, as far as others than its client can know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The store's key.
    pub key: Arc<str>,
    /// What logs call it.
    pub handle: Arc<str>,
    /// What its clear head says.
    pub head: Head,
    /// When it was last used, as far as the store knows.
    pub seen: Timestamp,
    /// Its own terms, if applications share it.
    pub terms: Option<Terms>,
}

impl Device {
    /// The session in a record, if that has not expired. Whether the user has
    /// signed out everywhere since is another question.
    fn read(rules: &SessionRules, found: Found, now: Timestamp) -> Option<Self> {
        let (head, terms) = rules.layout.outline(&found.record.value)?;
        let seen = found.record.seen;
        if expired(head.life(), terms.as_ref(), seen, now, &rules.settings).is_some() {
            return None;
        }
        Some(Self {
            handle: handle_of(&found.key, &rules.prefix)?,
            key: found.key,
            head,
            seen,
            terms,
        })
    }

    /// When it ends however much it is used; the end of time: never.
    pub fn absolute_end(&self, rules: &SessionRules) -> Timestamp {
        let end = self.head.life().absolute_end(&rules.settings);
        end.unwrap_or(Timestamp(u64::MAX))
    }

    /// When it ends if it is not used; the end of time: never.
    pub fn idle_end(&self, rules: &SessionRules) -> Timestamp {
        let idle = idle_timeout(self.terms.as_ref(), &rules.settings);
        let end = idle.map_or(Timestamp(u64::MAX), |idle| self.seen.after(idle));
        end.min(self.absolute_end(rules))
    }

    /// The later its login began, by the store's clock, the newer: replicas'
    /// clocks may differ. The key only makes it an order. What an application has
    /// created is of unknown age, and counts as the oldest.
    fn newest_first(&self) -> impl Ord + use<> {
        let began = Some(self.head.epoch).filter(|_| self.head.life().has_epoch());
        Reverse((began, self.key.clone()))
    }
}

impl Sessions {
    /// The user's live sessions, the newest first.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`].
    pub async fn devices(&self, rules: &SessionRules, user: &str) -> Result<Vec<Device>, Failure> {
        self.read_devices(rules, user, self.store.of_user_to_list(user))
            .await
    }

    /// The same, for whoever has to end some of them.
    async fn devices_to_end(
        &self,
        rules: &SessionRules,
        user: &str,
    ) -> Result<Vec<Device>, Failure> {
        self.read_devices(rules, user, self.store.of_user(user))
            .await
    }

    async fn read_devices(
        &self,
        rules: &SessionRules,
        user: &str,
        found: BoxFuture<'_, Result<Vec<Found>, StoreError>>,
    ) -> Result<Vec<Device>, Failure> {
        let found = self.timed(StoreOperation::OfUser, found).await?;
        let epoch = self.epoch_of(user).await?;
        let now = self.now();
        let mut devices: Vec<Device> = found
            .into_iter()
            .filter_map(|found| Device::read(rules, found, now))
            .filter(|device| device.head.user == user && device.head.life().is_newer_than(epoch))
            .collect();
        devices.sort_by_cached_key(Device::newest_first);
        Ok(devices)
    }

    /// A part of everybody's sessions, and where to go on. Those that "sign out
    /// everywhere" has ended are left out.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`].
    pub async fn everybody(
        &self,
        rules: &SessionRules,
        cursor: Option<String>,
        most: usize,
    ) -> Result<(Vec<Device>, Option<String>), Failure> {
        let page = self.store.scan(cursor, most);
        let Page { found, next } = self.timed(StoreOperation::Scan, page).await?;
        let now = self.now();
        let read = |found| Device::read(rules, found, now);
        let mut devices: Vec<Device> = found.into_iter().filter_map(read).collect();
        // One question for each user.
        devices.sort_by(|a, b| a.head.user.cmp(&b.head.user));
        let mut asked: Option<(String, Option<Epoch>)> = None;
        let mut live = Vec::with_capacity(devices.len());
        for device in devices {
            let epoch = match &asked {
                Some((user, epoch)) if *user == device.head.user => *epoch,
                _ => {
                    let epoch = self.epoch_of(&device.head.user).await?;
                    asked = Some((device.head.user.clone(), epoch));
                    epoch
                }
            };
            if device.head.life().is_newer_than(epoch) {
                live.push(device);
            }
        }
        Ok((live, next))
    }

    /// Ends the user's session of this handle. `false` if the user has none of
    /// it, whoever else may.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`]: it may still be alive.
    pub async fn revoke(
        &self,
        rules: &SessionRules,
        user: &str,
        handle: &str,
    ) -> Result<bool, Failure> {
        let devices = self.devices_to_end(rules, user).await?;
        let Some(device) = devices.iter().find(|device| &*device.handle == handle) else {
            return Ok(false);
        };
        self.end_one(&device.key, EndCause::Revoked).await
    }

    /// Ends all of the user's sessions but the one under this key, and says
    /// how many.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`]: some may still be alive.
    pub async fn revoke_others(
        &self,
        rules: &SessionRules,
        user: &str,
        own: &str,
    ) -> Result<usize, Failure> {
        let mut ended = 0;
        for device in self.devices_to_end(rules, user).await? {
            if *device.key != *own && self.end_one(&device.key, EndCause::Revoked).await? {
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Ends all of a user's sessions, including those whose login is running
    /// now, and says how many there were.
    ///
    /// # Errors
    ///
    /// [`Refusal::StoreUnavailable`]: some may still be alive.
    pub async fn revoke_user(&self, rules: &SessionRules, user: &str) -> Result<usize, Failure> {
        let devices = self.devices_to_end(rules, user).await?;
        let raised = self.store.raise_epoch(user, epoch_life(rules));
        let raised = self.timed(StoreOperation::RaiseEpoch, raised).await;
        self.shared.epoch_changed(&user_name(user));
        let epoch = Some(raised?);
        // From here on all are over. The records are removed so that nothing
        // of them stays; a login that began only now keeps its own.
        let found = self.store.of_user(user);
        for found in self.timed(StoreOperation::OfUser, found).await? {
            let outline = rules.layout.outline(&found.record.value);
            let is_newer =
                |head: &Head| head.life().has_epoch() && head.life().is_newer_than(epoch);
            if !outline.is_some_and(|(head, _)| is_newer(&head)) {
                self.end_one(&found.key, EndCause::Revoked).await?;
            }
        }
        Ok(devices.len())
    }

    /// Ends the user's oldest sessions beyond `max_per_user`. `own` is the one
    /// that has just been made.
    ///
    /// Every login counts after it has made its record, and all count in the
    /// same order. So of any that run at once, the last to count sees all, and
    /// what the others have left.
    ///
    /// # Errors
    ///
    /// [`Refusal::SessionEnded`] if it is `own` that had to go, since newer
    /// logins were faster; [`Refusal::StoreUnavailable`].
    pub(super) async fn keep_to_limit(
        &self,
        rules: &SessionRules,
        user: &str,
        own: &str,
    ) -> Result<(), Failure> {
        let limit = rules.settings.max_per_user;
        if limit == 0 {
            return Ok(());
        }
        let mut superseded = false;
        for device in self
            .devices_to_end(rules, user)
            .await?
            .into_iter()
            .skip(limit)
        {
            self.end_one(&device.key, EndCause::Limit).await?;
            superseded |= *device.key == *own;
        }
        match superseded {
            true => Err(Failure::new(
                Refusal::SessionEnded,
                "as many newer logins of this user as session.max_per_user allows were faster",
            )),
            false => Ok(()),
        }
    }

    async fn end_one(&self, key: &str, cause: EndCause) -> Result<bool, Failure> {
        let deleted = self.store.delete(key);
        let deleted = self.timed(StoreOperation::Delete, deleted).await;
        // Here at once, and not when the store tells of it.
        self.shared.record_changed(key);
        let there = deleted?;
        if there {
            self.metrics.ended(cause);
        }
        Ok(there)
    }

    async fn epoch_of(&self, user: &str) -> Result<Option<Epoch>, Failure> {
        self.timed(StoreOperation::Epoch, self.store.epoch(user))
            .await
    }
}

/// How long an epoch is kept: longer than any session that it ends.
fn epoch_life(rules: &SessionRules) -> Duration {
    rules.settings.absolute_timeout.saturating_add(EPOCH_MARGIN)
}

#[cfg(test)]
mod tests;
