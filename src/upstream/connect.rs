//! Making a connection to an upstream, and what can go wrong with it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::http1;
use super::multiplex::{STREAMS, Shared, UNKNOWN};
use super::opening::Opening;
use super::settings::{Place, Scheme, TlsClient, UpstreamAddress, UpstreamSettings};
use super::tls;
use crate::base::metrics::Gauge;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::body::Body;

/// The largest head of an application's response over HTTP/2, in bytes.
const RESPONSE_HEAD_BYTES: u32 = 256 * 1024;

/// What one stream of HTTP/2 may send ahead, in bytes. A client that reads
/// slowly holds back its own stream only, since the connection's window has
/// room for every stream's.
const STREAM_WINDOW: u32 = 256 * 1024;

/// A connection that was just made.
pub enum Connection {
    /// HTTP/1.1: one request at a time, which drives it.
    Http1(Box<http1::Connection>),
    /// HTTP/2: many at once. A task of its own drives it.
    Http2 {
        /// Takes the requests; can be cloned.
        sender: http2::SendRequest<Body>,
        /// What the pool knows of it.
        shared: Arc<Shared>,
    },
}

/// What may be spoken on a connection, where TLS lets the upstream choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 or HTTP/1.1.
    Both,
    /// HTTP/1.1 alone.
    Http1,
}

/// Opens a connection and starts driving it.
///
/// A name is resolved anew for each connection. Its addresses are tried in
/// turn, beginning with number `turn`, within `connect_timeout` all together.
///
/// # Errors
///
/// [`Refusal::UpstreamConnectFailed`], [`Refusal::UpstreamTlsFailed`],
/// [`Refusal::UpstreamCertificateInvalid`] or [`Refusal::UpstreamTimeout`],
/// with the address and the reason; [`Refusal::UpstreamProtocolError`] if it
/// speaks no HTTP/1.1 and nothing else was offered.
pub async fn connect(
    settings: &UpstreamSettings,
    address: &UpstreamAddress,
    offer: Offer,
    turn: usize,
    open: &Gauge,
) -> Result<Connection, Failure> {
    let limit = settings.connect_timeout;
    let deadline = Instant::now() + limit;
    let establish = establish(settings, address, offer, turn, deadline, open);
    match timeout_at(deadline, establish).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let refusal = match offer {
                Offer::Http1 if error.is_no_protocol() => Refusal::UpstreamProtocolError,
                _ => error.refusal(),
            };
            let shown = shown(settings, address);
            let cause = chain(error.source.as_ref());
            Err(Failure::new(refusal, format_args!("{shown}: {cause}")))
        }
        Err(_) => Err(late(settings, address, "accepted no connection", limit)),
    }
}

/// Whether a connection can be made to one of the addresses, all of which are
/// tried at once. What is spoken there is not looked at.
pub async fn is_reachable(settings: &UpstreamSettings) -> bool {
    let mut attempts = JoinSet::new();
    for address in &settings.addresses {
        let deadline = Instant::now() + settings.connect_timeout;
        let place = address.place.clone();
        attempts.spawn(timeout_at(deadline, async move {
            match place {
                Place::Tcp { host, port } => dial(&host, port, 0, deadline).await.is_ok(),
                Place::Unix(path) => UnixStream::connect(path).await.is_ok(),
            }
        }));
    }
    while let Some(attempt) = attempts.join_next().await {
        if matches!(attempt, Ok(Ok(true))) {
            return true;
        }
    }
    false
}

/// The failure of an upstream that took longer than it may.
pub fn late(
    settings: &UpstreamSettings,
    address: &UpstreamAddress,
    what: &str,
    limit: Duration,
) -> Failure {
    Failure::new(
        Refusal::UpstreamTimeout,
        format_args!("{} {what} within {limit:?}", shown(settings, address)),
    )
}

/// How messages call an address of an upstream.
pub fn shown<'a>(
    settings: &'a UpstreamSettings,
    address: &'a UpstreamAddress,
) -> impl fmt::Display + 'a {
    Shown(&settings.name, address)
}

struct Shown<'a>(&'a str, &'a UpstreamAddress);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {:?} at {}", self.0, self.1)
    }
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why there is no connection.
struct ConnectError {
    step: Step,
    source: Box<dyn StdError + Send + Sync>,
}

enum Step {
    Transport,
    Tls,
    Http,
}

impl ConnectError {
    fn tls_error(&self) -> Option<&rustls::Error> {
        let io_error = self.source.downcast_ref::<io::Error>();
        io_error.and_then(io::Error::get_ref)?.downcast_ref()
    }

    /// Whether the upstream speaks none of the protocols that it was offered.
    fn is_no_protocol(&self) -> bool {
        let alert = AlertDescription::NoApplicationProtocol;
        self.tls_error() == Some(&rustls::Error::AlertReceived(alert))
    }

    fn refusal(&self) -> Refusal {
        let io_error = self.source.downcast_ref::<io::Error>();
        match (&self.step, self.tls_error()) {
            (Step::Tls, Some(rustls::Error::InvalidCertificate(_))) => {
                Refusal::UpstreamCertificateInvalid
            }
            (Step::Tls, _) => Refusal::UpstreamTlsFailed,
            // The last address's share of the time ends with the whole.
            (Step::Transport, _)
                if io_error.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) =>
            {
                Refusal::UpstreamTimeout
            }
            (Step::Transport | Step::Http, _) => Refusal::UpstreamConnectFailed,
        }
    }
}

/// Marks an error with the step in which it happened.
fn at<E: Into<Box<dyn StdError + Send + Sync>>>(step: Step) -> impl FnOnce(E) -> ConnectError {
    |source| ConnectError {
        step,
        source: source.into(),
    }
}

async fn establish(
    settings: &UpstreamSettings,
    address: &UpstreamAddress,
    offer: Offer,
    turn: usize,
    deadline: Instant,
    open: &Gauge,
) -> Result<Connection, ConnectError> {
    let (host, port) = match &address.place {
        Place::Tcp { host, port } => (host, *port),
        Place::Unix(path) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(at(Step::Transport))?;
            return Ok(http1(stream, open));
        }
    };
    let stream = dial(host, port, turn, deadline)
        .await
        .map_err(at(Step::Transport))?;
    // Small requests must not wait for an acknowledgement. Failing to say so
    // costs time, not correctness.
    let _ = stream.set_nodelay(true);
    match (address.scheme, &settings.tls) {
        (Scheme::Http, _) => Ok(http1(stream, open)),
        (Scheme::H2c, _) => http2(stream, open).await.map_err(at(Step::Http)),
        (Scheme::Https, None) => Err(at(Step::Tls)("no settings for TLS")),
        (Scheme::Https, Some(tls)) => {
            let name = server_name(tls, host)?;
            let config = match offer {
                Offer::Both => &tls.config,
                Offer::Http1 => &tls.http1,
            };
            let stream = TlsConnector::from(config.clone())
                .connect(name, stream)
                .await
                .map_err(at(Step::Tls))?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => http2(stream, open).await.map_err(at(Step::Http)),
                _ => Ok(http1(stream, open)),
            }
        }
    }
}

fn server_name(settings: &TlsClient, host: &str) -> Result<ServerName<'static>, ConnectError> {
    match &settings.server_name {
        Some(name) => Ok(name.clone()),
        None => tls::server_name(host)
            .ok_or_else(|| at(Step::Tls)("the host is no name that a certificate can hold")),
    }
}

/// Resolves a name and tries its addresses in turn. None of them may take all
/// the time that is left for the others.
async fn dial(host: &str, port: u16, turn: usize, deadline: Instant) -> io::Result<TcpStream> {
    let mut found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if !found.is_empty() {
        let first = turn % found.len();
        found.rotate_left(first);
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for address in found {
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        left = left.saturating_sub(1).max(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn http1(stream: impl http1::Pipe, open: &Gauge) -> Connection {
    let connection = http1::Connection::new(stream, Some(Open::new(open)));
    Connection::Http1(Box::new(connection))
}

async fn http2<S>(stream: S, open: &Gauge) -> hyper::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection_window = STREAM_WINDOW.saturating_mul(u32::try_from(STREAMS).unwrap_or(1));
    let shared = Arc::new(Shared::default());
    let stream = Opening::new(stream, shared.clone());
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window)
        .initial_max_send_streams(UNKNOWN)
        .max_header_list_size(RESPONSE_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let (open, known) = (Open::new(open), shared.clone());
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                _ = connection.as_mut() => break,
                () = known.asked() => {
                    known.learn(connection.current_max_send_streams());
                    known.hear(connection.is_extended_connect_protocol_enabled());
                }
            }
        }
        known.end();
        drop(open);
    });
    Ok(Connection::Http2 { sender, shared })
}

/// Counts an open connection.
pub struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
