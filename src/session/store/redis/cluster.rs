//! Sessions on a Redis Cluster: each key on the node that has its slot.
//!
//! The cluster client of the redis crate is not used: while a master is down its
//! calls hang for seconds, and its connections cannot be told of changes one by
//! one. All that is needed here is a command with one key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Value;

use super::RedisTarget;
use super::link::{Aim, Limit, Link, Request, Turn};
use super::slots::SlotMap;
use super::url::Address;
use crate::session::store::StoreError;
use crate::session::store::attempt::PAUSE;

/// How often one request is sent on before that is an error.
const MOST_TURNS: usize = 8;
/// How long to wait where a node asks to be asked again.
const MOMENT: Duration = Duration::from_millis(10);

/// A worker's connections to the nodes, made when they are needed.
pub(super) struct Cluster {
    target: RedisTarget,
    seeds: Vec<Address>,
    map: Mutex<Option<SlotMap>>,
    /// The map may be wrong.
    doubtful: AtomicBool,
    links: Mutex<HashMap<Address, Arc<Link>>>,
    /// When the map was last asked for, and what came of it.
    asked: tokio::sync::Mutex<Option<(Instant, Result<(), StoreError>)>>,
}

/// A round among the nodes for a new map. Its end is noted, also where that is the end
/// of the time of the request that it is for: else each of those that wait behind it
/// would begin one in turn, with less and less time for it. Where only a client has
/// left, nothing was found out.
struct Round<'a> {
    asked: tokio::sync::MutexGuard<'a, Option<(Instant, Result<(), StoreError>)>>,
    result: Result<(), StoreError>,
    finished: bool,
    deadline: Instant,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.finished || now >= self.deadline {
            *self.asked = Some((now, self.result.clone()));
        }
    }
}

impl Cluster {
    pub(super) fn new(target: &RedisTarget, seeds: &[Address]) -> Self {
        Self {
            target: target.clone(),
            seeds: seeds.to_vec(),
            map: Mutex::default(),
            doubtful: AtomicBool::new(true),
            links: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        }
    }

    /// Asks the node that has the key's slot.
    pub(super) async fn call(&self, key: &str, request: &Request<'_>) -> Result<Value, StoreError> {
        let timeout = self.target.timeout;
        let limit = Limit::from_now(timeout);
        let asking = self.ask(key, request, limit);
        match tokio::time::timeout_at(limit.deadline.into(), asking).await {
            Ok(result) => result,
            Err(_) => {
                // The node may be gone, and its slots with another one.
                self.doubt();
                Err(StoreError::Timeout(timeout))
            }
        }
    }

    /// The masters by name, always in one order.
    pub(super) async fn nodes_by_name(&self) -> Result<Vec<String>, StoreError> {
        let timeout = self.target.timeout;
        let deadline = Instant::now() + timeout;
        if self.doubtful.load(Ordering::Acquire) {
            let refreshed = tokio::time::timeout_at(deadline.into(), self.refresh(deadline));
            refreshed
                .await
                .map_err(|_| StoreError::Timeout(timeout))??;
        }
        let map = self.map();
        let masters = map.as_ref().map(SlotMap::names);
        masters.ok_or_else(|| self.target.unavailable("no node of the cluster is known"))
    }

    /// Asks one node, whatever it has.
    pub(super) async fn call_node(
        &self,
        node: &str,
        request: &Request<'_>,
    ) -> Result<Value, StoreError> {
        let address = {
            let map = self.map();
            let masters = map.as_ref().map_or(&[][..], SlotMap::masters);
            masters.iter().find(|one| one.to_string() == node).cloned()
        };
        let Some(address) = address else {
            return Err(self.target.unavailable("a node has left the cluster"));
        };
        let result = self.link(&address).call(request).await;
        if result.is_err() {
            self.doubt();
        }
        result
    }

    async fn ask(
        &self,
        key: &str,
        request: &Request<'_>,
        limit: Limit,
    ) -> Result<Value, StoreError> {
        let mut once = None;
        for _ in 0..MOST_TURNS {
            let asking = once.is_some();
            let node = match once.take() {
                Some(node) => node,
                None => self.master(key, limit.deadline).await?,
            };
            let failure = match self.link(&node).ask(request, asking, limit).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            match failure.turn {
                Turn::Moved(to) => {
                    if let Some(map) = &mut *self.map() {
                        map.moved(key, to);
                    }
                    // Seldom does one slot move alone.
                    self.doubt();
                }
                Turn::Ask(to) => once = Some(to),
                Turn::Later => tokio::time::sleep(MOMENT).await,
                Turn::Lost => {
                    self.doubt();
                    let again = failure.undone || request.may_repeat();
                    // Somebody else may have the slot by now.
                    if !again || self.master(key, limit.deadline).await? == node {
                        return Err(failure.error);
                    }
                }
                Turn::None => return Err(failure.error),
            }
        }
        let why = "the nodes of the cluster send the request around in circles";
        Err(self.target.unavailable(why))
    }

    /// The node that has a key, by a new map if the present one is in doubt.
    async fn master(&self, key: &str, deadline: Instant) -> Result<Address, StoreError> {
        if self.doubtful.load(Ordering::Acquire) {
            let refreshed = self.refresh(deadline).await;
            // An old map is better than none.
            if self.map().is_none() {
                refreshed?;
            }
        }
        let map = self.map();
        let master = map.as_ref().and_then(|map| map.master(key));
        master.cloned().ok_or_else(|| {
            self.doubt();
            self.target
                .unavailable("no node of the cluster has the slot of the key")
        })
    }

    /// Asks node after node for a new map, unless that was done just now.
    async fn refresh(&self, deadline: Instant) -> Result<(), StoreError> {
        let asked = self.asked.lock().await;
        if let Some((at, result)) = &*asked
            && at.elapsed() < PAUSE
        {
            return result.clone();
        }
        let mut round = Round {
            asked,
            result: Err(self.target.unavailable("no node answers")),
            finished: false,
            deadline,
        };
        let nodes = self.nodes();
        // One that hangs must leave time for the next.
        let span = self.target.timeout / 4;
        for node in &nodes {
            let question = Request::Command(slots_command());
            let link = self.link(node);
            let mut limit = Limit::from_now(span);
            limit.deadline = limit.deadline.min(deadline);
            let answer = link.ask(&question, false, limit);
            match tokio::time::timeout_at(limit.deadline.into(), answer).await {
                Ok(Ok(reply)) => match SlotMap::read(reply, node) {
                    Some(map) if !map.masters().is_empty() => {
                        self.adopt(map);
                        round.result = Ok(());
                        break;
                    }
                    _ => {
                        let why = format!("{node} knows of no slots");
                        round.result = Err(self.target.unavailable(&why));
                    }
                },
                Ok(Err(failure)) => round.result = Err(failure.error),
                Err(_) => round.result = Err(StoreError::Timeout(span)),
            }
        }
        round.finished = true;
        round.result.clone()
    }

    fn adopt(&self, map: SlotMap) {
        self.links().retain(|address, _| {
            self.seeds.contains(address) || map.nodes().any(|node| node == address)
        });
        *self.map() = Some(map);
        self.doubtful.store(false, Ordering::Release);
    }

    /// Whom to ask for the map: the nodes of the last one, then those of the
    /// configuration; each time beginning with another one.
    fn nodes(&self) -> Vec<Address> {
        let mut nodes: Vec<Address> = match &*self.map() {
            Some(map) => map.nodes().cloned().collect(),
            None => Vec::new(),
        };
        let mut byte = [0];
        let _ = aws_lc_rs::rand::fill(&mut byte);
        let [byte] = byte;
        let turn = usize::from(byte).checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(turn);
        for seed in &self.seeds {
            if !nodes.contains(seed) {
                nodes.push(seed.clone());
            }
        }
        nodes
    }

    fn doubt(&self) {
        self.doubtful.store(true, Ordering::Release);
    }

    fn link(&self, node: &Address) -> Arc<Link> {
        let mut links = self.links();
        let link = links
            .entry(node.clone())
            .or_insert_with(|| Arc::new(Link::new(&self.target, Aim::At(node.clone()))));
        link.clone()
    }

    fn map(&self) -> MutexGuard<'_, Option<SlotMap>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<Address, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the slots of each node.
pub(super) fn slots_command() -> redis::Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::store::redis::tests::{TIMEOUT, target};
    use crate::session::store::redis::url::Servers;

    /// A cluster of nodes that take connections and never say a word.
    async fn silent(timeout: Duration) -> (Cluster, Vec<tokio::net::TcpListener>) {
        let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
        // So many that their shares of the time are more than all of it.
        for _ in 0..6 {
            let node = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(node.local_addr().unwrap().to_string());
            nodes.push(node);
        }
        let url = format!("redis+cluster://{}", addresses.join(","));
        let target = target(&url, timeout).unwrap();
        let Servers::Cluster(seeds) = &*target.servers else {
            panic!("no cluster");
        };
        (Cluster::new(&target, seeds), nodes)
    }

    /// Those that waited behind a request that gave up must not begin where it began.
    #[tokio::test]
    async fn a_round_counts_that_ends_with_the_time_of_its_request() {
        let timeout = Duration::from_millis(100);
        let (cluster, _nodes) = silent(timeout).await;
        let ping = Request::Command(redis::cmd("PING"));
        let late = cluster.call("sess:a", &ping).await;
        assert!(late.is_err(), "{late:?}");
        let asked = cluster.asked.lock().await;
        assert!(matches!(&*asked, Some((_, Err(_)))), "{asked:?}");
    }

    /// Who is still there must not be told of an outage because somebody has left.
    #[tokio::test]
    async fn a_round_does_not_count_whose_client_has_left() {
        let (cluster, _nodes) = silent(TIMEOUT).await;
        let ping = Request::Command(redis::cmd("PING"));
        {
            let mut call = std::pin::pin!(cluster.call("sess:a", &ping));
            let waker = std::task::Waker::noop();
            let mut context = std::task::Context::from_waker(waker);
            assert!(call.as_mut().poll(&mut context).is_pending());
            assert!(cluster.asked.try_lock().is_err(), "the round has begun");
        }
        let asked = cluster.asked.lock().await;
        assert!(asked.is_none(), "{asked:?}");
    }
}
