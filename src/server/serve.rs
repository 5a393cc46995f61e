//! The requests of one connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;

use super::bare::{Bare, Refuse};
use super::deadlines::{Busy, Deadlines, Watchdog};
use super::scan::Scanner;
use super::settings::ServerSettings;
use super::stream::{Early, Io, Protocol, Stream};
use crate::base::metrics::Metrics;
use crate::base::refusal::Refusal;
use crate::proxy::tunnel::Hold;

/// The most requests at once on an HTTP/2 connection.
const H2_STREAMS: u32 = 100;

/// Streams that the client opened and reset before they were looked at; with
/// more the connection ends (CVE-2023-44487).
const H2_RESETS_BEFORE: usize = 20;

/// Streams that we reset because of the client's errors; with more the
/// connection ends (CVE-2025-8671).
const H2_RESETS_PROVOKED: usize = 100;

/// What a client may send ahead on each stream, and on all together.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is kept of a response that the client does not take, per stream.
const H2_SEND_BUFFER: usize = 256 * 1024;

/// The least that hyper reads into at once.
const LEAST_BUFFER: usize = 8192;

/// What a connection is served with.
pub struct Serving {
    /// Its deadlines.
    pub deadlines: Deadlines,
    /// Who is at the other end.
    pub peer: IpAddr,
    /// `[server]`.
    pub settings: Arc<ServerSettings>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// What a head gets that the HTTP/1 parser refuses.
    pub refuse: Refuse,
    /// True once connections are to end.
    pub drain: watch::Receiver<bool>,
}

/// Serves a connection's requests until it ends, a deadline passes, or, once
/// `drain` is true, its requests are done. `answer` gets each request, and why
/// it must be refused if its bytes gave that away.
pub async fn serve<T, F, R, B>(stream: Early<T>, protocol: Protocol, serving: Serving, answer: F)
where
    T: Io,
    F: Fn(Request<Incoming>, Option<Refusal>) -> R,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let Serving {
        deadlines,
        peer,
        settings,
        metrics,
        refuse,
        mut drain,
    } = serving;
    let watchdog = Watchdog::new(deadlines.clone());
    let scanner = (protocol == Protocol::Http1).then(Scanner::new);
    let findings = scanner.as_ref().map(Scanner::findings);
    let answered = Arc::new(AtomicBool::new(false));
    let note_answer = answered.clone();
    let bare = Bare::new(Box::new(move |refusal| {
        note_answer.store(true, Ordering::Relaxed);
        refuse(refusal)
    }));
    let http1 = scanner.map(|scanner| (scanner, bare));
    let stream = Stream::new(stream, deadlines.clone(), http1);
    if protocol == Protocol::Http2 {
        deadlines.watch_streams();
    }
    let fields = settings.header_count;
    let (hold, released) = Hold::new();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = deadlines.request();
        if protocol == Protocol::Http2 && request.method() == Method::CONNECT {
            // The connection goes on beside the tunnel, and must not seem idle
            // while that is there.
            let hold = hold.beside(deadlines.request());
            request.extensions_mut().insert(hold);
        } else if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(hold.clone());
        }
        let found = match &findings {
            Some(findings) => findings.next_request(),
            // HTTP/1's parser counts by itself.
            None if request.headers().len() > fields => Some(Refusal::RequestHeaderTooLarge),
            None => None,
        };
        let response = answer(request, found);
        async move {
            let response = response.await;
            // A client without room in its window is not asked for any piece.
            busy.given();
            Ok::<_, Infallible>(response.map(|body| Ending { body, busy }))
        }
    });
    let io = TokioIo::new(stream);
    let ended = match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                // Our own deadlines tell a slow head from an idle connection.
                .header_read_timeout(None::<Duration>)
                .max_headers(settings.header_count)
                .max_buf_size(settings.header_bytes.max(LEAST_BUFFER))
                .serve_connection(io, service)
                .with_upgrades();
            let shut_down = http1::UpgradeableConnection::graceful_shutdown;
            run(connection, shut_down, watchdog, &mut drain).await
        }
        Protocol::Http2 => {
            let list = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(H2_STREAMS)
                .max_pending_accept_reset_streams(H2_RESETS_BEFORE)
                .max_local_error_reset_streams(H2_RESETS_PROVOKED)
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .max_send_buf_size(H2_SEND_BUFFER)
                .max_header_list_size(list)
                .keep_alive_interval(settings.idle_timeout)
                .enable_connect_protocol()
                .serve_connection(io, service);
            let shut_down = http2::Connection::graceful_shutdown;
            run(connection, shut_down, watchdog, &mut drain).await
        }
    };
    if let Err(error) = ended {
        let counted = answered.load(Ordering::Relaxed);
        note(&error, peer, (!counted).then_some(&metrics));
    }
    // A tunnel on this connection counts as the connection.
    released.wait().await;
}

/// Logs what the parser refused, and counts it where no answer of ours did.
/// Anything else that ends a connection is the client's affair.
fn note(error: &hyper::Error, client: IpAddr, metrics: Option<&Arc<Metrics>>) {
    let refusal = if error.is_parse_too_large() {
        Refusal::RequestHeaderTooLarge
    } else if error.is_parse() {
        Refusal::BadFraming
    } else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::debug!(%client, %error, cause, "a connection ended early");
        return;
    };
    if let Some(metrics) = metrics {
        metrics.refused(refusal);
    }
    let reason = refusal.label();
    tracing::warn!(%client, reason, cause = %error, "refused before it was a request");
}

/// Drives a connection beside its watchdog and the drain signal, in one task.
async fn run<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    watchdog: Watchdog,
    drain: &mut watch::Receiver<bool>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let mut watchdog = pin!(watchdog);
    let mut draining = pin!(async {
        // An error means that nobody can signal any more: the process ends.
        let _ = drain.wait_for(|draining| *draining).await;
    });
    let mut told = false;
    poll_fn(|context| {
        if !told && draining.as_mut().poll(context).is_ready() {
            told = true;
            shut_down(connection.as_mut());
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        // Dropping the connection closes it.
        watchdog.as_mut().poll(context).map(Ok)
    })
    .await
}

/// A response's body that ends its request when it is dropped.
struct Ending<B> {
    body: B,
    busy: Busy,
}

impl<B: http_body::Body + Unpin> http_body::Body for Ending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.busy.taken();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            self.busy.given();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
