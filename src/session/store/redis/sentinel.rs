//! Who the master is, as the Sentinels say it.
//!
//! All of them are asked, and the one that knows the latest fail-over is believed:
//! one that is cut off may still name the master of long ago. All of them are
//! listened to as well, so that an old master that still answers is left as soon as
//! there is a new one, not when it fails.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushKind, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::dial::Dialer;
use super::url::Address;
use crate::session::store::StoreError;
use crate::session::store::attempt::limit;

/// How often each Sentinel is asked, beside being listened to, and the longest that
/// an answer may take.
const PERIOD: Duration = Duration::from_secs(1);

/// The Sentinels of one master, for all connections of the process.
pub(super) struct Sentinels {
    dialer: Dialer,
    addresses: Vec<Address>,
    name: String,
    timeout: Duration,
    latest: Mutex<Latest>,
    /// How often another master was named.
    switches: watch::Sender<u64>,
    watchers: Mutex<Vec<AbortHandle>>,
    myself: Weak<Self>,
}

#[derive(Default)]
struct Latest {
    /// The fail-over that made it the master.
    epoch: u64,
    master: Option<Address>,
}

impl Sentinels {
    pub(super) fn new(
        dialer: Dialer,
        addresses: &[Address],
        name: &str,
        timeout: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            dialer,
            addresses: addresses.to_vec(),
            name: name.to_owned(),
            timeout,
            latest: Mutex::default(),
            switches: watch::Sender::new(0),
            watchers: Mutex::default(),
            myself: myself.clone(),
        })
    }

    /// Told whenever another master was named.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.switches.subscribe()
    }

    /// How often another master was named.
    pub(super) fn switches(&self) -> u64 {
        *self.switches.borrow()
    }

    /// Asks all of them who the master is, and how often that has changed. It may
    /// have changed again since: the server itself has to be asked as well.
    pub(super) async fn locate(&self) -> Result<(Address, u64), StoreError> {
        let mut asked = JoinSet::new();
        for address in &self.addresses {
            let (myself, address) = (self.myself.clone(), address.clone());
            asked.spawn(async move {
                let Some(sentinels) = myself.upgrade() else {
                    return Err("closed".to_owned());
                };
                let answer = async {
                    let wire = sentinels.dialer.dial(&address, None).await?;
                    sentinels.master_of(wire.connection.clone()).await
                };
                // One that hangs must not use up the time of the attempt: the master
                // has to be asked as well.
                let limit = limit(sentinels.timeout) / 2;
                match tokio::time::timeout(limit, answer).await {
                    Ok(answer) => answer.map_err(|error| {
                        let text = sentinels.dialer.without_password(error.to_string());
                        format!("{address}: {text}")
                    }),
                    Err(_) => Err(format!("{address}: no answer within {limit:?}")),
                }
            });
        }
        let (mut answers, mut reasons) = (0, Vec::new());
        // More than half know the latest fail-over, since it takes so many to agree
        // on one: the others need not be waited for.
        while answers <= self.addresses.len() / 2
            && let Some(answer) = asked.join_next().await
        {
            match answer {
                Ok(Ok((epoch, master))) => {
                    self.note(epoch, master);
                    answers += 1;
                }
                Ok(Err(reason)) => reasons.push(reason),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let master = match answers {
            0 => None,
            _ => self.lock().master.clone(),
        };
        let switches = self.switches();
        master.map(|master| (master, switches)).ok_or_else(|| {
            StoreError::Unavailable(format!(
                "no Sentinel names a master {}: {}",
                self.name,
                reasons.join("; ")
            ))
        })
    }

    /// Listens to each of them from now on, unless that is being done. The tasks run
    /// in the present runtime; should it end, the next call starts them again.
    pub(super) fn watch(&self) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if !watchers.is_empty() && !watchers.iter().any(AbortHandle::is_finished) {
            return;
        }
        for old in watchers.drain(..) {
            old.abort();
        }
        for address in &self.addresses {
            let listening = tokio::spawn(listen(self.myself.clone(), address.clone()));
            watchers.push(listening.abort_handle());
        }
    }

    /// The master, and the number of the fail-over that made it so.
    async fn master_of(
        &self,
        mut connection: MultiplexedConnection,
    ) -> Result<(u64, Address), RedisError> {
        let reply: Value = redis::cmd("SENTINEL")
            .arg("MASTER")
            .arg(&self.name)
            .query_async(&mut connection)
            .await?;
        read_master(reply).ok_or_else(|| {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            RedisError::from((kind, "a strange answer to SENTINEL MASTER"))
        })
    }

    /// A Sentinel has named a master.
    fn note(&self, epoch: u64, master: Address) {
        let mut latest = self.lock();
        if epoch < latest.epoch || latest.master.as_ref() == Some(&master) {
            latest.epoch = latest.epoch.max(epoch);
            return;
        }
        latest.epoch = epoch;
        if let Some(before) = latest.master.replace(master.clone()) {
            tracing::warn!(master = %self.name, from = %before, to = %master, "the Sentinels name another master");
            self.switches.send_modify(|switches| *switches += 1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        let watchers = self.watchers.get_mut();
        for watcher in watchers.unwrap_or_else(PoisonError::into_inner) {
            watcher.abort();
        }
    }
}

/// Listens to one Sentinel for as long as the others of the process want to know.
async fn listen(sentinels: Weak<Sentinels>, address: Address) {
    loop {
        if let Some(sentinels) = sentinels.upgrade() {
            // Why it failed is told to those who ask for the master, if it matters.
            let _ = sentinels.listen_to(&address).await;
        } else {
            return;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

impl Sentinels {
    async fn listen_to(&self, address: &Address) -> Result<(), RedisError> {
        let news = Arc::new(Notify::new());
        let told = news.clone();
        let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let connecting = async {
            let hear = move |push: redis::PushInfo| {
                if matches!(push.kind, PushKind::Message | PushKind::Disconnection) {
                    told.notify_one();
                }
            };
            let wire = self.dialer.dial(address, Some(Box::new(hear))).await?;
            let mut connection = wire.connection.clone();
            connection.subscribe("+switch-master").await?;
            Ok::<_, RedisError>(wire)
        };
        let wire = tokio::time::timeout(PERIOD, connecting)
            .await
            .map_err(|_| late())??;
        loop {
            // What the message says is asked for, so that it can be told from older
            // news; and asking finds out whether the connection is alive.
            let answer = tokio::time::timeout(PERIOD, self.master_of(wire.connection.clone()));
            let (epoch, master) = answer.await.map_err(|_| late())??;
            self.note(epoch, master);
            let _ = tokio::time::timeout(PERIOD, news.notified()).await;
        }
    }
}

/// Reads an answer to `SENTINEL MASTER`.
fn read_master(reply: Value) -> Option<(u64, Address)> {
    let (mut host, mut port, mut epoch) = (None, None, None);
    for (name, value) in reply.into_map_iter().ok()? {
        let (Value::BulkString(name), Value::BulkString(value)) = (name, value) else {
            continue;
        };
        let value = String::from_utf8(value).ok()?;
        match name.as_slice() {
            b"ip" => host = Some(value),
            b"port" => port = value.parse().ok(),
            b"config-epoch" => epoch = value.parse().ok(),
            _ => {}
        }
    }
    Some((
        epoch?,
        Address::Tcp(host.filter(|host| !host.is_empty())?, port?),
    ))
}
