//! Where a link leads, and the connection that it has to there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::runtime::Handle;

use super::{Failure, Turn, is_master};
use crate::session::store::StoreError;
use crate::session::store::attempt::{Attempt, PAUSE, jittered, limit};
use crate::session::store::redis::RedisTarget;
use crate::session::store::redis::dial::Wire;
use crate::session::store::redis::sentinel::Sentinels;
use crate::session::store::redis::slots::redirected;
use crate::session::store::redis::url::Address;

/// Which server a link leads to.
pub(in crate::session::store::redis) enum Aim {
    /// This one.
    At(Address),
    /// The one that the Sentinels call the master.
    Master,
}

/// Where a link leads, and what it has of it: what an attempt to connect needs.
pub(super) struct Place {
    pub(super) target: RedisTarget,
    pub(super) aim: Aim,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Wire>,
    /// Where it leads.
    address: Option<Address>,
    /// How often the Sentinels had named another master when it was made.
    switches: u64,
    /// Counts connections, so that one is not dropped for what its
    /// predecessor did.
    generation: u64,
    /// When it was last used.
    used: Option<Instant>,
    attempt: Option<Attempt>,
    /// The same when that began.
    aimed: u64,
    /// What the last attempt came to, and until when there is no other one.
    failure: Option<(Instant, StoreError)>,
}

pub(super) struct Held {
    pub(super) wire: Wire,
    pub(super) address: Address,
    pub(super) generation: u64,
}

impl Place {
    pub(super) fn new(target: &RedisTarget, aim: Aim) -> Self {
        Self {
            target: target.clone(),
            aim,
            state: Mutex::default(),
        }
    }

    /// Nobody needs a connection any more.
    pub(super) fn leave(&self) {
        self.state().attempt = None;
    }

    /// The present connection, or a new one. Whoever comes while one is being
    /// made waits for it.
    pub(super) async fn line(self: &Arc<Self>) -> Result<Held, StoreError> {
        loop {
            let end = {
                let mut state = self.state();
                if let (Aim::Master, Some(sentinels)) = (&self.aim, &self.target.sentinels) {
                    sentinels.watch();
                    state.follow(sentinels.switches());
                }
                if let Some(held) = state.held() {
                    return Ok(held);
                }
                match &state.attempt {
                    Some(attempt) if !attempt.is_over() => {
                        let timeout = self.target.timeout;
                        if attempt.has_taken(timeout) {
                            return Err(StoreError::Timeout(timeout));
                        }
                        attempt.end()
                    }
                    _ => self.begin(&mut state)?.end(),
                }
            };
            end.await;
        }
    }

    /// Begins to connect, unless that has failed just now.
    fn begin<'a>(self: &Arc<Self>, state: &'a mut State) -> Result<&'a Attempt, StoreError> {
        if let Some((until, error)) = &state.failure
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let place = self.clone();
        let attempt = Attempt::begin(&Handle::current(), async move {
            let limit = limit(place.target.timeout);
            let connected = tokio::time::timeout(limit, place.connect()).await;
            let connected = connected.unwrap_or(Err(StoreError::Timeout(limit)));
            place.state().note(connected);
        });
        Ok(state.attempt.insert(attempt))
    }

    /// Connects; answers with the connection where it leads, and how often the
    /// Sentinels had named another master before.
    async fn connect(&self) -> Result<(Wire, Address, u64), StoreError> {
        match (&self.aim, &self.target.sentinels) {
            (Aim::Master, Some(sentinels)) => self.connect_to_master(sentinels).await,
            (Aim::At(address), _) => {
                let wire = self.target.dialer.dial(address, None).await;
                wire.map(|wire| (wire, address.clone(), 0))
                    .map_err(|error| self.target.explain_at(&error, address))
            }
            (Aim::Master, None) => Err(self.target.unavailable("no Sentinel is known")),
        }
    }

    async fn connect_to_master(
        &self,
        sentinels: &Sentinels,
    ) -> Result<(Wire, Address, u64), StoreError> {
        let (address, switches) = sentinels.locate().await?;
        let explain = |error: RedisError| self.target.explain_at(&error, &address);
        let mut wire = self
            .target
            .dialer
            .dial(&address, None)
            .await
            .map_err(explain)?;
        if !is_master(&mut wire.connection).await.map_err(explain)? {
            let why = format!("{address} is no master any more");
            return Err(self.target.unavailable(&why));
        }
        Ok((wire, address, switches))
    }

    /// For how long nothing was asked on the present connection.
    pub(super) fn idle(&self) -> Duration {
        let used = self.state().used;
        used.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Lets go of the connection of that generation.
    pub(super) fn drop_connection(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation {
            state.connection = None;
        }
    }

    /// Nothing that runs under the lock can leave it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn judge(&self, error: &RedisError, address: &Address) -> Failure {
        let node = || redirected(error.redirect_node()?.0, address);
        let turn = match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => node().map_or(Turn::None, Turn::Moved),
            ErrorKind::Server(ServerErrorKind::Ask) => node().map_or(Turn::None, Turn::Ask),
            ErrorKind::Server(ServerErrorKind::TryAgain) => Turn::Later,
            // A replica, or a master that was made one.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Turn::Lost,
            _ if error.is_unrecoverable_error() => Turn::Lost,
            _ => Turn::None,
        };
        Failure {
            error: self.target.explain_at(error, address),
            turn,
            undone: error.code().is_some(),
        }
    }
}

impl State {
    /// Lets go of whatever leads to a master that is none any more.
    fn follow(&mut self, switches: u64) {
        if self.switches != switches {
            self.connection = None;
        }
        if self.aimed != switches {
            self.aimed = switches;
            self.attempt = None;
        }
    }

    fn held(&mut self) -> Option<Held> {
        let (wire, address) = (self.connection.clone()?, self.address.clone()?);
        self.used = Some(Instant::now());
        Some(Held {
            wire,
            address,
            generation: self.generation,
        })
    }

    /// Notes what an attempt came to.
    fn note(&mut self, connected: Result<(Wire, Address, u64), StoreError>) {
        match connected {
            Ok((wire, address, switches)) => {
                self.generation += 1;
                self.failure = None;
                self.switches = switches;
                self.connection = Some(wire);
                self.address = Some(address);
                self.used = Some(Instant::now());
            }
            Err(error) => self.failure = Some((Instant::now() + jittered(PAUSE), error)),
        }
    }
}
