//! Worker threads: each has a runtime, listening sockets and connections of
//! its own, and shares nothing on the path of a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{self, Purpose, Shared, Socket};
use super::listener::{SocketFile, bind, bind_unix, pause_after};
use super::settings::{ListenAddress, ServerSettings};
use super::tls::Tls;
use crate::base::metrics::Metrics;
use crate::proxy::Worker;

/// How often a lasting failure to accept is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Sockets that are bound and not yet served.
pub struct Bound {
    /// Where clients can connect, with the real ports.
    pub addresses: Vec<ListenAddress>,
    /// Where clients are sent to https.
    pub redirect: Option<SocketAddr>,
    /// The files of Unix sockets. Dropping them removes them: to be kept until
    /// the end.
    pub files: Vec<SocketFile>,
    /// For each worker, a socket for each address.
    sockets: Vec<Vec<(Bind, Purpose)>>,
}

enum Bind {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
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
    let mut bound = Bound {
        addresses: Vec::new(),
        redirect: None,
        files: Vec::new(),
        sockets: (0..workers).map(|_| Vec::new()).collect(),
    };
    for address in &settings.listen {
        match address {
            ListenAddress::Tcp(address) => {
                let purpose = match settings.tls {
                    Some(_) => Purpose::Tls,
                    None => Purpose::Plain,
                };
                let address = bound.tcp(*address, workers, purpose)?;
                bound.addresses.extend(address.map(ListenAddress::Tcp));
            }
            ListenAddress::Unix(path) => {
                let (sockets, file) = bind_unix(path, workers)?;
                bound.files.push(file);
                bound.add(sockets.into_iter().map(Bind::Unix), Purpose::Plain);
                bound.addresses.push(address.clone());
            }
        }
    }
    if let Some(tls) = &settings.tls
        && let Some(address) = tls.redirect_http
    {
        let port = tls
            .public_port
            .or_else(|| {
                bound
                    .addresses
                    .iter()
                    .find_map(ListenAddress::tcp)
                    .map(|a| a.port())
            })
            .unwrap_or(443);
        bound.redirect = bound.tcp(address, workers, Purpose::Redirect(port))?;
    }
    Ok(bound)
}

impl Bound {
    fn tcp(
        &mut self,
        address: SocketAddr,
        workers: usize,
        purpose: Purpose,
    ) -> Result<Option<SocketAddr>, String> {
        let sockets = bind(address, workers)?;
        let address = sockets.first().and_then(|socket| socket.local_addr().ok());
        self.add(sockets.into_iter().map(Bind::Tcp), purpose);
        Ok(address)
    }

    fn add(&mut self, sockets: impl Iterator<Item = Bind>, purpose: Purpose) {
        for (worker, socket) in self.sockets.iter_mut().zip(sockets) {
            worker.push((socket, purpose));
        }
    }
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
    tls: Option<&Arc<Tls>>,
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
            tls: tls.cloned(),
            metrics: metrics.clone(),
            drain: drain.clone(),
        };
        let permits = permits.clone();
        let thread = std::thread::Builder::new()
            .name(format!("cloakroom-worker-{number}"))
            .spawn(move || runtime.block_on(work(sockets, shared, permits, &*make_worker)))?;
        threads.push(thread);
    }
    Ok(threads)
}

async fn work(
    sockets: Vec<(Bind, Purpose)>,
    shared: Shared,
    permits: Arc<Semaphore>,
    make_worker: &MakeWorker,
) {
    let worker = make_worker();
    let mut listeners = JoinSet::new();
    for (socket, purpose) in sockets {
        match Listener::new(socket) {
            Ok(socket) => {
                let (worker, shared) = (worker.clone(), shared.clone());
                listeners.spawn(accept(socket, purpose, worker, shared, permits.clone()));
            }
            Err(error) => tracing::error!(%error, "a listening socket is lost"),
        }
    }
    while listeners.join_next().await.is_some() {}
}

enum Listener {
    /// With its address, unless it stands for several.
    Tcp(TcpListener, Option<SocketAddr>),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: Bind) -> io::Result<Self> {
        Ok(match socket {
            Bind::Tcp(socket) => {
                let address = socket.local_addr()?;
                let only = (!address.ip().is_unspecified()).then_some(address);
                Self::Tcp(TcpListener::from_std(socket)?, only)
            }
            Bind::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket, address) => {
                let (stream, peer) = socket.accept().await?;
                Ok(Socket::Tcp(stream, peer, *address))
            }
            Self::Unix(socket) => Ok(Socket::Unix(socket.accept().await?.0)),
        }
    }
}

/// Accepts until told to drain, then waits for the connections to end.
async fn accept(
    socket: Listener,
    purpose: Purpose,
    worker: Arc<Worker>,
    shared: Shared,
    permits: Arc<Semaphore>,
) {
    // Each connection has a sender: all have ended when there is none.
    let (open, mut ended) = mpsc::channel::<()>(1);
    let mut drain = shared.drain.clone();
    // An error means that nobody can signal any more: the process ends.
    let drained = async { _ = drain.wait_for(|draining| *draining).await };
    tokio::pin!(drained);
    let mut complained: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = &mut drained => break,
            accepted = socket.accept() => match accepted {
                Ok(stream) => {
                    let permit = tokio::select! {
                        biased;
                        () = &mut drained => break,
                        permit = permits.clone().acquire_owned() => permit,
                    };
                    let (worker, shared) = (worker.clone(), shared.clone());
                    let connections_gauge = shared.metrics.connections.clone();
                    let served = connection::serve(stream, purpose, worker, shared);
                    let open = open.clone();
                    tokio::spawn(async move {
                        connections_gauge.inc();
                        let _counted = Open(connections_gauge);
                        served.await;
                        drop((permit, open));
                    });
                }
                Err(error) => {
                    if let Some(pause) = pause_after(&error) {
                        if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                            complained = Some(Instant::now());
                            tracing::error!(%error, "cannot accept connections; trying on");
                        }
                        tokio::select! {
                            () = &mut drained => break,
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                }
            },
        }
    }
    drop(socket);
    drop(open);
    // Those that are left then end with this thread's runtime.
    if timeout(shared.settings.drain_timeout, ended.recv())
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
