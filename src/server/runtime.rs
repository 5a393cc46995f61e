//! Worker threads: each has a runtime, listening sockets and connections of
//! its own, and shares nothing on the path of a request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listener::{bind, pause_after};
use super::serve::serve;
use super::settings::ServerSettings;
use crate::base::metrics::Metrics;
use crate::proxy::Worker;
use crate::wire::client::ConnInfo;

/// Sockets that are bound and not yet served.
pub struct Bound {
    /// Where clients can connect, with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// For each worker, a socket for each address.
    sockets: Vec<Vec<TcpListener>>,
}

/// Makes a worker's live parts. Called in each worker's thread, inside its
/// runtime.
pub type MakeWorker = dyn Fn() -> Arc<Worker> + Send + Sync;

/// Binds all sockets.
///
/// # Errors
///
/// What is wrong with which address, and how to mend it.
pub fn bind_all(settings: &ServerSettings) -> Result<Bound, String> {
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for address in &settings.listen {
        let bound = bind(*address, workers)?;
        let first = bound.first().and_then(|socket| socket.local_addr().ok());
        addresses.extend(first);
        for (worker, socket) in sockets.iter_mut().zip(bound) {
            worker.push(socket);
        }
    }
    Ok(Bound { addresses, sockets })
}

/// Starts the worker threads. They end once `drain` is true and their
/// connections are done, or `drain_timeout` later.
///
/// # Errors
///
/// If the system gives no thread or no runtime.
pub fn start(
    bound: Bound,
    settings: &Arc<ServerSettings>,
    metrics: &Arc<Metrics>,
    make_worker: &Arc<MakeWorker>,
    drain: &watch::Receiver<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let permits = Arc::new(Semaphore::new(
        settings.connections.min(Semaphore::MAX_PERMITS),
    ));
    let mut threads = Vec::new();
    for (number, sockets) in bound.sockets.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let make_worker = make_worker.clone();
        let shared = Shared {
            settings: settings.clone(),
            metrics: metrics.clone(),
            permits: permits.clone(),
            drain: drain.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("cloakroom-worker-{number}"))
            .spawn(move || runtime.block_on(work(sockets, shared, &*make_worker)))?;
        threads.push(thread);
    }
    Ok(threads)
}

#[derive(Clone)]
struct Shared {
    settings: Arc<ServerSettings>,
    metrics: Arc<Metrics>,
    permits: Arc<Semaphore>,
    drain: watch::Receiver<bool>,
}

async fn work(sockets: Vec<TcpListener>, shared: Shared, make_worker: &MakeWorker) {
    let worker = make_worker();
    let mut listeners = JoinSet::new();
    for socket in sockets {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                listeners.spawn(accept(socket, worker.clone(), shared.clone()));
            }
            Err(error) => tracing::error!(%error, "a listening socket is lost"),
        }
    }
    while listeners.join_next().await.is_some() {}
}

/// Accepts until told to drain, then waits for the connections to end.
async fn accept(socket: tokio::net::TcpListener, worker: Arc<Worker>, shared: Shared) {
    let mut connections = JoinSet::new();
    let mut drain = shared.drain.clone();
    loop {
        tokio::select! {
            biased;
            // An error means that nobody can signal any more: the process ends.
            () = async { let _ = drain.wait_for(|draining| *draining).await; } => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(permit) = shared.permits.clone().acquire_owned().await else {
                        break;
                    };
                    let Ok(local) = stream.local_addr() else {
                        continue;
                    };
                    let info = ConnInfo::new(peer, local, false);
                    let serving = serve(stream, info, worker.clone(), shared.settings.clone(), shared.drain.clone());
                    let connections_gauge = shared.metrics.connections.clone();
                    connections.spawn(async move {
                        connections_gauge.inc();
                        let _open = Open(connections_gauge);
                        serving.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    if let Some(pause) = pause_after(&error) {
                        tracing::error!(%error, "cannot accept connections");
                        tokio::time::sleep(pause).await;
                    }
                }
            },
            // Forget those that have ended, so that they do not pile up.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(socket);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(shared.settings.drain_timeout, finish)
        .await
        .is_err()
    {
        tracing::warn!("connections were still open after drain_timeout and are cut");
    }
}

/// Counts a connection as open until it is dropped, also by a panic.
struct Open(prometheus_client::metrics::gauge::Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
