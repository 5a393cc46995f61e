//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::deadlines::{Deadlines, Watchdog};
use super::settings::ServerSettings;
use super::stream::{Protocol, Stream};
use crate::proxy::answer::Answer;
use crate::proxy::{Worker, exchange};
use crate::wire::client::ConnInfo;

/// The most requests at once on an HTTP/2 connection.
const H2_STREAMS: u32 = 100;

/// The least that hyper reads into at once.
const LEAST_BUFFER: usize = 8192;

/// Serves a connection until it ends, a deadline passes, or, once `drain` is
/// true, its requests are done.
pub async fn serve(
    stream: TcpStream,
    info: ConnInfo,
    worker: Arc<Worker>,
    settings: Arc<ServerSettings>,
    mut drain: watch::Receiver<bool>,
) {
    // Small responses must not wait for an acknowledgement. Failing to say so
    // costs time, not correctness.
    let _ = stream.set_nodelay(true);
    let deadlines = Deadlines::new(&settings);
    let accepted = tokio::select! {
        accepted = Stream::accept(stream, deadlines.clone(), settings.http2) => accepted,
        () = tokio::time::sleep(settings.header_timeout) => return,
        // Nothing has been asked, so nothing is owed.
        _ = drain.wait_for(|draining| *draining) => return,
    };
    let Ok((stream, protocol)) = accepted else {
        return;
    };
    let watchdog = Watchdog::new(deadlines.clone());
    let info = Arc::new(info);
    let service = service_fn(move |request| {
        let busy = deadlines.request();
        let (worker, info) = (worker.clone(), info.clone());
        async move {
            let response = exchange(&worker, &info, request).await;
            Ok::<_, Infallible>(response.map(|answer| Ending {
                answer,
                _busy: busy,
            }))
        }
    });
    let io = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                // Our own deadlines tell a slow head from an idle connection.
                .header_read_timeout(None::<Duration>)
                .max_headers(settings.header_count)
                .max_buf_size(settings.header_bytes.max(LEAST_BUFFER))
                .serve_connection(io, service);
            run(
                connection,
                http1::Connection::graceful_shutdown,
                watchdog,
                &mut drain,
            )
            .await;
        }
        Protocol::Http2 => {
            let list = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(H2_STREAMS)
                .max_header_list_size(list)
                .keep_alive_interval(settings.idle_timeout)
                .serve_connection(io, service);
            run(
                connection,
                http2::Connection::graceful_shutdown,
                watchdog,
                &mut drain,
            )
            .await;
        }
    }
}

/// Drives a connection beside its watchdog and the drain signal, in one task.
async fn run<C: Future>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    watchdog: Watchdog,
    drain: &mut watch::Receiver<bool>,
) {
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
        // An error of a client's connection is the client's affair.
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Dropping the connection closes it.
        watchdog.as_mut().poll(context)
    })
    .await;
}

/// A response's body that ends its request when it is dropped.
struct Ending {
    answer: Answer,
    _busy: super::deadlines::Busy,
}

impl http_body::Body for Ending {
    type Data = <Answer as http_body::Body>::Data;
    type Error = <Answer as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.answer).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.answer.size_hint()
    }
}
