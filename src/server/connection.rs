//! One connection, from its first byte to its first request: the PROXY header,
//! TLS, the protocol. All of it together has `header_timeout`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http_body_util::Full;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use super::bare::Refuse;
use super::deadlines::Deadlines;
use super::proxy_protocol::{self, Proxied};
use super::redirect;
use super::serve::{self, Serving};
use super::settings::ServerSettings;
use super::stream::{Early, Io, Protocol};
use super::tls::Tls;
use crate::base::BoxFuture;
use crate::base::metrics::Metrics;
use crate::base::refusal::Refusal;
use crate::proxy::{Worker, exchange, unparsed};
use crate::wire::client::ConnInfo;

/// How much is read at once to see whether a PROXY header comes.
const PIECE: usize = 256;

/// Where a Unix socket's peer is said to be: on this machine.
const UNIX_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Requests, over plaintext.
    Plain,
    /// Requests, over TLS.
    Tls,
    /// Sending clients to https at this port.
    Redirect(u16),
}

/// A connection that was accepted.
pub enum Socket {
    /// Over TCP, from this address, to this one, where the listener has but one.
    Tcp(TcpStream, SocketAddr, Option<SocketAddr>),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// What all connections of a worker have in common.
#[derive(Clone)]
pub struct Shared {
    /// `[server]`.
    pub settings: Arc<ServerSettings>,
    /// The certificates, if TLS is spoken.
    pub tls: Option<Arc<Tls>>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// True once connections are to end.
    pub drain: watch::Receiver<bool>,
}

/// Serves a connection until it ends, a deadline passes, or, once `drain` is
/// true, its requests are done.
///
/// What is made here stays where it is: a task copies its future into its place, and out of
/// it as a whole when it ends.
pub fn serve(
    socket: Socket,
    purpose: Purpose,
    worker: Arc<Worker>,
    shared: Shared,
) -> BoxFuture<'static, ()> {
    match socket {
        Socket::Tcp(stream, peer, local) => {
            let Ok(local) = local.map_or_else(|| stream.local_addr(), Ok) else {
                return Box::pin(std::future::ready(()));
            };
            let tls = purpose == Purpose::Tls;
            let info = ConnInfo::new(peer, local, tls);
            Box::pin(begin(stream, info, purpose, worker, shared))
        }
        Socket::Unix(stream) => {
            let info = ConnInfo::over_unix(UNIX_PEER, UNIX_PEER);
            Box::pin(begin(stream, info, purpose, worker, shared))
        }
    }
}

/// A connection whose first request can be read.
enum Opened<T> {
    Plain(Early<T>, Protocol),
    // On the heap, so that plaintext connections do not take its room.
    Tls(Box<TlsStream<Early<T>>>),
}

async fn begin<T: Io>(
    stream: T,
    mut info: ConnInfo,
    purpose: Purpose,
    worker: Arc<Worker>,
    shared: Shared,
) {
    let deadlines = Deadlines::new(&shared.settings);
    let mut drain = shared.drain.clone();
    let opened = tokio::select! {
        // What many have sent by now needs no timer.
        biased;
        opened = open(stream, &mut info, purpose, &worker, &shared) => opened,
        () = tokio::time::sleep(shared.settings.header_timeout) => return,
        // Nothing has been asked, so nothing is owed.
        _ = drain.wait_for(|draining| *draining) => return,
    };
    let info = Arc::new(info);
    let refuse: Refuse = {
        let (worker, info) = (worker.clone(), info.clone());
        match purpose {
            Purpose::Redirect(_) => {
                Box::new(move |refusal| redirect::unparsed(&worker, &info, refusal))
            }
            Purpose::Plain | Purpose::Tls => {
                Box::new(move |refusal| unparsed(&worker, &info, refusal))
            }
        }
    };
    let serving = Serving {
        deadlines,
        peer: info.peer.ip(),
        settings: shared.settings,
        metrics: shared.metrics,
        refuse,
        drain,
    };
    match opened {
        Err(_) => {}
        Ok(Opened::Plain(stream, protocol)) => {
            if let Purpose::Redirect(port) = purpose {
                let answer = move |request, found| {
                    let response = redirect::answer(&worker, &info, request, found, port);
                    std::future::ready(response.map(Full::new))
                };
                serve::serve(stream, protocol, serving, answer).await;
                return;
            }
            let answer =
                move |request, found| exchange(worker.clone(), info.clone(), request, found);
            serve::serve(stream, protocol, serving, answer).await;
        }
        Ok(Opened::Tls(stream)) => {
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            let answer =
                move |request, found| exchange(worker.clone(), info.clone(), request, found);
            let stream = Early::new(stream);
            serve::serve(stream, protocol, serving, answer).await;
        }
    }
}

async fn open<T: Io>(
    stream: T,
    info: &mut ConnInfo,
    purpose: Purpose,
    worker: &Worker,
    shared: &Shared,
) -> io::Result<Opened<T>> {
    let mut stream = Early::new(stream);
    if shared.settings.proxy_protocol {
        let trusted = worker.state.load().trust.trusts_peer(info);
        // On the heap, like all that few connections need, or only for a while: the room
        // of its task stays taken to its end.
        Box::pin(proxied(&mut stream, info, trusted, shared)).await?;
    }
    if purpose == Purpose::Tls
        && let Some(tls) = &shared.tls
    {
        let accepted = Box::pin(tls.acceptor().accept(stream)).await;
        return match accepted {
            Ok(stream) => Ok(Opened::Tls(Box::new(stream))),
            Err(error) => {
                shared.metrics.failed_handshakes.inc();
                tracing::debug!(client = %info.peer.ip(), %error, "a TLS handshake failed");
                Err(error)
            }
        };
    }
    let protocol = match shared.settings.http2 {
        true => stream.detect().await?,
        false => Protocol::Http1,
    };
    Ok(Opened::Plain(stream, protocol))
}

/// Takes the PROXY header of a trusted proxy, which must be there; from anyone
/// else it must not.
async fn proxied<T: Io>(
    stream: &mut Early<T>,
    info: &mut ConnInfo,
    trusted: bool,
    shared: &Shared,
) -> io::Result<()> {
    let refuse = |refusal: Refusal| {
        shared.metrics.refused(refusal);
        tracing::warn!(peer = %info.peer.ip(), reason = refusal.label(), "a connection was refused");
    };
    if trusted {
        match proxy_protocol::read(stream).await {
            Ok(Proxied::Client(source, destination)) => {
                *info = ConnInfo::new(source, destination, info.tls);
            }
            Ok(Proxied::Own) => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    refuse(Refusal::BadProxyHeader);
                }
                return Err(error);
            }
        }
        return Ok(());
    }
    loop {
        match proxy_protocol::looks_like_one(&stream.pending) {
            Some(false) => return Ok(()),
            Some(true) => {
                refuse(Refusal::UntrustedProxyHeader);
                return Err(io::ErrorKind::InvalidData.into());
            }
            None if stream.read_more(PIECE).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
}
