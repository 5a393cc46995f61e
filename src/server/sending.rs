//! Answers on their way to a client: each is its request until it ends, and ends with
//! the session that it is sent for, also where the client takes nothing of it.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::Full;
use hyper::rt::Executor;

use super::deadlines::Busy;
use crate::base::company::UnderWay;
use crate::proxy::answer::Answer;
use crate::proxy::leash::Leash;

/// The body of a response.
pub trait Content:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
    /// What ties it to a session, if its end is to be the end of this as well.
    fn leash(&self) -> Option<Weak<Leash>> {
        None
    }
}

impl Content for Full<Bytes> {}

impl Content for Answer {
    fn leash(&self) -> Option<Weak<Leash>> {
        Answer::leash(self)
    }
}

/// The leash of the answer that is being sent: on a connection of HTTP/1, or on a
/// stream of HTTP/2.
#[derive(Clone, Default)]
pub(super) struct Place(Arc<Cells>);

#[derive(Default)]
struct Cells {
    /// Whether there is one: few answers are waited for, and this is asked for each.
    taken: AtomicBool,
    leash: Mutex<Option<Weak<Leash>>>,
}

impl Place {
    /// Ready once the session of the answer that is being sent is over. To be asked
    /// after whatever sends it, where that has to wait: if it is for the client's sake,
    /// the answer's body is not asked for more and can not tell.
    pub(super) fn poll_over(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.0.taken.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let mut place = self.leash();
        let Some(leash) = place.as_ref().and_then(Weak::upgrade) else {
            // All of it is sent.
            *place = None;
            self.0.taken.store(false, Ordering::Relaxed);
            return Poll::Pending;
        };
        ready!(leash.poll_over(context));
        Poll::Ready(())
    }

    fn put(&self, leash: Option<Weak<Leash>>) {
        if leash.is_none() && !self.0.taken.load(Ordering::Relaxed) {
            return;
        }
        self.0.taken.store(leash.is_some(), Ordering::Relaxed);
        *self.leash() = leash;
    }

    fn leash(&self) -> MutexGuard<'_, Option<Weak<Leash>>> {
        self.0.leash.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

tokio::task_local! {
    /// That of the stream whose task this is.
    static STREAM: Place;
}

/// Runs the streams of HTTP/2, each in a task of its own. One whose session is over is
/// dropped, which resets it.
#[derive(Clone, Copy)]
pub(super) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let place = Place::default();
        tokio::spawn(STREAM.scope(place.clone(), async move {
            let mut stream = pin!(stream);
            poll_fn(|context| match stream.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => place.poll_over(context),
            })
            .await;
        }));
    }
}

/// A response whose end is that of its request. `place`: the connection's; without
/// one, it is the stream's.
pub(super) async fn ended_by<B: Content>(
    response: impl Future<Output = Response<B>>,
    busy: Busy,
    place: Option<&Place>,
) -> Result<Response<Ending<B>>, Infallible> {
    let response = {
        let _under_way = UnderWay::new();
        response.await
    };
    // A client without room in its window is not asked for any piece.
    busy.given();
    let leash = response.body().leash();
    match place {
        Some(place) => place.put(leash),
        // Outside of such a task there is nothing that could be dropped.
        None => drop(STREAM.try_with(|place| place.put(leash))),
    }
    Ok(response.map(|body| Ending { body, busy }))
}

/// A response's body that ends its request when it is dropped.
pub(super) struct Ending<B> {
    body: B,
    busy: Busy,
}

impl<B: http_body::Body + Unpin> http_body::Body for Ending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
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
