//! The requests of one connection.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker, ready};
use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::unconstrained;

use super::bare::{Bare, Refuse};
use super::deadlines::{Deadlines, Due, Watchdog};
use super::scan::Scanner;
use super::sending::{Content, Place, Streams, ended_by};
use super::settings::ServerSettings;
use super::stream::{Early, Io, Protocol, Stream};
use crate::base::metrics::Metrics;
use crate::base::refusal::Refusal;
use crate::proxy::tunnel::{Hold, Holds};

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

/// The most fields that hyper takes if nothing else is said. Room for exactly these is
/// on the stack; for a number that is said it is filled for each head.
const HYPERS_FIELDS: usize = 100;

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
    F: Fn(Request<Incoming>, Option<Refusal>) -> R + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Content,
{
    let (peer, metrics) = (serving.peer, serving.metrics.clone());
    let answered = Arc::new(AtomicBool::new(false));
    let holds = Holds::default();
    let ended = match protocol {
        Protocol::Http1 => Box::pin(http1(stream, serving, &holds, &answered, answer)).await,
        Protocol::Http2 => Box::pin(http2(stream, serving, holds.hold(), answer)).await,
    };
    if let Err(error) = ended {
        let counted = answered.load(Ordering::Relaxed);
        note(&error, peer, (!counted).then_some(&metrics));
    }
    // A tunnel on this connection counts as the connection.
    holds.released().await;
}

/// HTTP/1. What hyper holds for a connection, some 17 KiB of buffers most of it,
/// goes when the client asks nothing for a while, and is made anew when it does:
/// between two messages hyper knows nothing that is worth keeping. The stream
/// stays, with its scanner and with what it holds back.
async fn http1<T, F, R, B>(
    stream: Early<T>,
    serving: Serving,
    holds: &Holds,
    answered: &Arc<AtomicBool>,
    answer: F,
) -> hyper::Result<()>
where
    T: Io,
    F: Fn(Request<Incoming>, Option<Refusal>) -> R + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Content,
{
    let (deadlines, settings) = (serving.deadlines, serving.settings);
    let (refuse, mut drain) = (serving.refuse, serving.drain);
    let note_answer = answered.clone();
    let bare = Bare::new(Box::new(move |refusal| {
        note_answer.store(true, Ordering::Relaxed);
        refuse(refusal)
    }));
    let scanner = Scanner::new();
    let findings = scanner.findings();
    let mut stream = Stream::new(stream, deadlines.clone(), Some((scanner, bare)));
    let mut watchdog = Watchdog::new(deadlines.clone());
    let place = Place::default();
    // Of the last request. hyper may have content to hand over that nobody has
    // asked for yet, also when all of it came and the answer is long sent.
    let has_content = AtomicBool::new(false);
    let may_rest =
        || deadlines.is_quiet() && findings.is_settled() && !has_content.load(Ordering::Relaxed);
    loop {
        let service = service_fn(|mut request: Request<Incoming>| {
            let busy = deadlines.request();
            has_content.store(!request.body().is_end_stream(), Ordering::Relaxed);
            // There where another protocol is asked for.
            if request.extensions().get::<OnUpgrade>().is_some() {
                request.extensions_mut().insert(holds.hold());
            }
            // hyper keeps the room for this future between requests.
            let response = answer(request, findings.next_request());
            ended_by(response, busy, Some(&place))
        });
        let mut connection = parsed(&settings, stream, service);
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        let driven = connection.as_mut();
        match run(
            driven,
            shut_down,
            &mut watchdog,
            &mut drain,
            &place,
            || deadlines.is_busy(),
            may_rest,
        )
        .await
        {
            Ended::Over(result) => return result,
            Ended::Quiet => {}
        }
        let Some(parts) = Pin::into_inner(connection).into_parts() else {
            return Ok(());
        };
        stream = parts.io.into_inner();
        // Empty lines at most.
        stream.unread(parts.read_buf);
        if !rest_until_more(&mut stream, &mut watchdog, &drain).await {
            return Ok(());
        }
    }
}

/// hyper's part of a connection, made where it stays: what is large has a place of its own
/// in each future through which it passes, and again in each that waits for that one.
fn parsed<T, S, B>(
    settings: &ServerSettings,
    stream: Stream<T>,
    service: S,
) -> Pin<Box<http1::UpgradeableConnection<TokioIo<Stream<T>>, S>>>
where
    T: Io,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: hyper::body::Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let mut builder = http1::Builder::new();
    if settings.header_count != HYPERS_FIELDS {
        builder.max_headers(settings.header_count);
    }
    let connection = builder
        // Our own deadlines tell a slow head from an idle connection.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(settings.header_bytes.max(LEAST_BUFFER))
        // The stream looks for a client's end by itself while a request is answered;
        // hyper would take a buffer for that, since the head is in the one it has.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    Box::pin(connection)
}

async fn http2<T, F, R, B>(
    stream: Early<T>,
    serving: Serving,
    hold: Hold,
    answer: F,
) -> hyper::Result<()>
where
    T: Io,
    F: Fn(Request<Incoming>, Option<Refusal>) -> R + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Content,
{
    let (deadlines, settings) = (serving.deadlines, serving.settings);
    let mut drain = serving.drain;
    deadlines.watch_streams();
    let mut watchdog = Watchdog::new(deadlines.clone());
    let io = TokioIo::new(Stream::new(stream, deadlines.clone(), None));
    let fields = settings.header_count;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = deadlines.request();
        if request.method() == Method::CONNECT {
            // The connection goes on beside the tunnel, and must not seem idle
            // while that is there.
            let hold = hold.beside(deadlines.request());
            request.extensions_mut().insert(hold);
        } else if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(hold.clone());
        }
        // HTTP/1's parser counts by itself.
        let found = (request.headers().len() > fields).then_some(Refusal::RequestHeaderTooLarge);
        ended_by(answer(request, found), busy, None)
    });
    let list = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(Streams)
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
    let never = || false;
    match run(
        pin!(connection),
        shut_down,
        &mut watchdog,
        &mut drain,
        // Each stream is looked after by itself.
        &Place::default(),
        never,
        never,
    )
    .await
    {
        Ended::Over(result) => result,
        Ended::Quiet => Ok(()),
    }
}

/// Logs what the parser refused, and counts it where no answer of ours did.
/// Anything else that ends a connection is the client's affair.
fn note(error: &hyper::Error, client: IpAddr, metrics: Option<&Arc<Metrics>>) {
    let refusal = if error.is_parse_too_large() {
        Refusal::RequestHeaderTooLarge
    } else if error.is_parse() {
        Refusal::BadFraming
    } else {
        let cause = error.source().map(ToString::to_string);
        tracing::debug!(%client, %error, cause, "a connection ended early");
        return;
    };
    if let Some(metrics) = metrics {
        metrics.refused(refusal);
    }
    let reason = refusal.label();
    tracing::warn!(%client, reason, cause = %error, "refused before it was a request");
}

/// Why a connection is not driven any more.
enum Ended {
    /// It has come to its end.
    Over(hyper::Result<()>),
    /// Nothing is left to be done until the client says more.
    Quiet,
}

/// Drives a connection beside its watchdog and the drain signal, in one task.
/// `need_not_hear`: whether the signal need not wake it, since it is polled before it
/// could end. `may_rest`: whether it may be given up where it has to wait, and taken up
/// again later.
async fn run<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    watchdog: &mut Watchdog,
    drain: &mut watch::Receiver<bool>,
    place: &Place,
    need_not_hear: impl Fn() -> bool,
    may_rest: impl Fn() -> bool,
) -> Ended {
    let news = drain.clone();
    let mut draining = pin!(unconstrained(drained(drain)));
    // Whom it wakes already. It is asked again for a reason only.
    let mut known: Option<Waker> = None;
    let mut told = false;
    poll_fn(|context| {
        if !told && !is_unchanged(&news) && draining.as_mut().poll(context).is_ready() {
            told = true;
            shut_down(connection.as_mut());
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(Ended::Over(ended));
            }
            let waker = context.waker();
            if told || need_not_hear() || known.as_ref().is_some_and(|w| w.will_wake(waker)) {
                break;
            }
            known = Some(waker.clone());
            if draining.as_mut().poll(context).is_pending() {
                break;
            }
            told = true;
            shut_down(connection.as_mut());
        }
        // The client takes nothing, and is not to have the rest: dropping the
        // connection closes it.
        if place.poll_over(context).is_ready() {
            return Poll::Ready(Ended::Over(Ok(())));
        }
        loop {
            match ready!(watchdog.poll(context)) {
                Due::End => return Poll::Ready(Ended::Over(Ok(()))),
                Due::Rest if !told && may_rest() => return Poll::Ready(Ended::Quiet),
                Due::Rest => {}
            }
        }
    })
    .await
}

/// Waits until there is something to do on a connection that rests. Whether
/// there is: false once a deadline has passed.
async fn rest_until_more<T: Io>(
    stream: &mut Stream<T>,
    watchdog: &mut Watchdog,
    drain: &watch::Receiver<bool>,
) -> bool {
    // With eyes of its own: what it sees is still news to whoever drives the connection next.
    let mut drain = drain.clone();
    let mut draining = pin!(drained(&mut drain));
    poll_fn(|context| {
        if draining.as_mut().poll(context).is_ready() || stream.poll_more(context).is_ready() {
            return Poll::Ready(true);
        }
        while ready!(watchdog.poll(context)) != Due::End {}
        Poll::Ready(false)
    })
    .await
}

fn is_unchanged(drain: &watch::Receiver<bool>) -> bool {
    matches!(drain.has_changed(), Ok(false))
}

/// Ends once connections are to end.
async fn drained(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody can signal any more: the process ends.
    let _ = drain.wait_for(|draining| *draining).await;
}

#[cfg(test)]
mod tests;
