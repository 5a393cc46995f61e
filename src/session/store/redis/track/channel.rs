//! The connections that Redis tells of changes, and what proves them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::Shared;
use crate::session::store::StoreError;
use crate::session::store::redis::RedisTarget;
use crate::session::store::redis::cluster::slots_command;
use crate::session::store::redis::dial::Wire;
use crate::session::store::redis::link::{is_master, says_master};
use crate::session::store::redis::slots::SlotMap;
use crate::session::store::redis::url::{Address, Servers};

/// The connections that are tracked: one, or with a cluster one to each master. If
/// one of them fails, all of it has failed.
pub(super) struct Channel {
    pub(super) wires: Vec<Wire>,
    /// Which of them has which key, if there are several.
    pub(super) map: Option<SlotMap>,
    pub(super) proof: Proof,
    pub(super) closed: Arc<Closed>,
}

/// What is asked to prove the channel.
#[derive(Clone, Copy)]
pub(super) enum Proof {
    /// Whether it answers.
    Ping,
    /// Whether it is still a master: an old one is no longer told of changes.
    Role,
    /// Whether it is part of the cluster, and the cluster as it was: its epoch rises
    /// with each fail-over.
    Cluster(u64),
}

/// Whether a connection was closed.
#[derive(Default)]
pub(super) struct Closed {
    flag: AtomicBool,
    pub(super) told: Notify,
}

impl Closed {
    pub(super) fn tell(&self) {
        self.flag.store(true, Ordering::Release);
        self.told.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

/// Why there is no channel.
pub(super) enum Trouble {
    /// It may pass.
    Passing(StoreError),
    /// The server cannot tell of changes, or this user may not ask it to.
    Lasting(StoreError),
}

impl Channel {
    pub(super) fn wire(&self, key: &str) -> Option<&Wire> {
        match &self.map {
            None => self.wires.first(),
            Some(map) => self.wires.get(map.owner(key)?),
        }
    }

    /// The wire to the node of this name.
    pub(super) fn node(&self, name: &str) -> Option<&Wire> {
        let Some(map) = &self.map else {
            return self.wires.first();
        };
        let masters = &mut map.masters().iter();
        self.wires
            .get(masters.position(|one| one.to_string() == name)?)
    }
}

impl Shared {
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Channel, Trouble> {
        let closed = Arc::new(Closed::default());
        let (wires, map, proof) = match &*self.target.servers {
            Servers::One(address) => {
                let wire = self.tracked(address, &closed, false).await?;
                (vec![wire], None, Proof::Ping)
            }
            Servers::Sentinel { .. } => {
                let Some(sentinels) = &self.target.sentinels else {
                    return Err(self.passing("no Sentinel is known"));
                };
                let (address, _) = sentinels.locate().await.map_err(Trouble::Passing)?;
                let wire = self.tracked(&address, &closed, true).await?;
                (vec![wire], None, Proof::Role)
            }
            Servers::Cluster(seeds) => {
                let (map, epoch) = self.discover(seeds).await?;
                let mut wires = Vec::new();
                for master in map.masters() {
                    wires.push(self.tracked(master, &closed, false).await?);
                }
                (wires, Some(map), Proof::Cluster(epoch))
            }
        };
        Ok(Channel {
            wires,
            map,
            proof,
            closed,
        })
    }

    /// A connection that is tracked from its beginning.
    async fn tracked(
        self: &Arc<Self>,
        address: &Address,
        closed: &Arc<Closed>,
        master_only: bool,
    ) -> Result<Wire, Trouble> {
        let hear = {
            let (shared, closed) = (Arc::downgrade(self), closed.clone());
            move |push| {
                if let Some(shared) = shared.upgrade() {
                    shared.hear(&push, &closed);
                }
            }
        };
        let connecting = async {
            let wire = self
                .target
                .dialer
                .dial(address, Some(Box::new(hear)))
                .await?;
            let mut connection = wire.connection.clone();
            if master_only && !is_master(&mut connection).await? {
                return Ok(None);
            }
            redis::cmd("CLIENT")
                .arg("TRACKING")
                .arg("ON")
                .exec_async(&mut connection)
                .await?;
            Ok(Some(wire))
        };
        match self.in_time(address, connecting).await? {
            Some(wire) => Ok(wire),
            None => Err(self.passing(&format!("{address} is no master any more"))),
        }
    }

    /// The slots of a cluster and its epoch, from whichever node answers first. The
    /// epoch is older than the slots: if they change meanwhile, that is noticed.
    async fn discover(&self, seeds: &[Address]) -> Result<(SlotMap, u64), Trouble> {
        let mut nodes = {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.clone()
        };
        nodes.extend(seeds.iter().cloned());
        let mut trouble = self.passing("no node of the cluster is known");
        for node in nodes {
            let asking = async {
                let wire = self.target.dialer.dial(&node, None).await?;
                let mut connection = wire.connection.clone();
                let info: String = cluster_info().query_async(&mut connection).await?;
                let slots: Value = slots_command().query_async(&mut connection).await?;
                Ok((info, slots))
            };
            let (info, slots) = match self.in_time(&node, asking).await {
                Ok(told) => told,
                Err(why) => {
                    trouble = why;
                    continue;
                }
            };
            match (cluster_epoch(&info), SlotMap::read(slots, &node)) {
                (Some(epoch), Some(map)) => {
                    let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
                    *nodes = map.nodes().cloned().collect();
                    return Ok((map, epoch));
                }
                _ => trouble = self.passing(&format!("{node} says that the cluster is down")),
            }
        }
        Err(trouble)
    }

    async fn in_time<T>(
        &self,
        address: &Address,
        doing: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Trouble> {
        let timeout = self.target.timeout;
        match tokio::time::timeout(timeout, doing).await {
            Ok(result) => result.map_err(|error| judge(&error, address, &self.target)),
            Err(_) => Err(Trouble::Passing(StoreError::Timeout(timeout))),
        }
    }

    fn passing(&self, why: &str) -> Trouble {
        Trouble::Passing(self.target.unavailable(why))
    }
}

impl Proof {
    pub(super) fn question(self) -> redis::Cmd {
        match self {
            Self::Ping => redis::cmd("PING"),
            Self::Role => redis::cmd("ROLE"),
            Self::Cluster(_) => cluster_info(),
        }
    }

    pub(super) fn is_proven_by(self, answer: &Value) -> bool {
        match self {
            Self::Ping => true,
            Self::Role => says_master(answer),
            Self::Cluster(epoch) => {
                let text = redis::from_redis_value_ref::<String>(answer);
                text.is_ok_and(|text| cluster_epoch(&text) == Some(epoch))
            }
        }
    }
}

fn cluster_info() -> redis::Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    command
}

/// The epoch in an answer to `CLUSTER INFO`, if the cluster is up.
fn cluster_epoch(info: &str) -> Option<u64> {
    let field = |name| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    if field("cluster_state")? != "ok" {
        return None;
    }
    field("cluster_current_epoch")?.trim().parse().ok()
}

/// Whether it is worth trying again soon.
pub(super) fn judge(error: &RedisError, address: &Address, target: &RedisTarget) -> Trouble {
    let explained = target.explain_at(error, address);
    // An answer to `HELLO 3` or `CLIENT TRACKING` that is not about who we are.
    let refused = match error.kind() {
        ErrorKind::RESP3NotSupported => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::ResponseError | ServerErrorKind::NoPerm
        ),
        _ => false,
    };
    match refused {
        true => Trouble::Lasting(explained),
        false => Trouble::Passing(explained),
    }
}
