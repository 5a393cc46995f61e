//! Bodies on their way through: limited, watched, never gathered.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::base::refusal::Refusal;

mod trailers;
mod watch;

pub use trailers::Trailers;
pub use watch::{BodyFate, BodyWatch};

/// The body of a request to an upstream, or of a response of our own.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// What we say ourselves.
    Full(Bytes),
    /// What the client says.
    Incoming(Guarded),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// No byte for the idle time.
    #[error("the body did not go on in time")]
    Idle,
    /// The stream ended before the declared length.
    #[error("the body ended before its declared length")]
    Short,
    /// The connection broke, or what came was not HTTP.
    #[error("the body broke off")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// The session for which it was sent is over.
    #[error("the session is over")]
    SessionOver,
}

impl BodyError {
    /// What a client is told whose request body failed.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::TooLarge => Refusal::BodyTooLarge,
            Self::Idle => Refusal::BodyTimeout,
            Self::Short | Self::Broken(_) => Refusal::BadRequestBody,
            Self::SessionOver => Refusal::SessionEnded,
        }
    }
}

/// A body from outside: with a limit on its size, a limit on its silence, a
/// count, and no field in its trailers that must not travel.
///
/// Everything is pay-as-you-go: the timer exists once a read has had to wait,
/// the shared watch once somebody asks for it.
#[derive(Debug)]
pub struct Guarded<B = Incoming> {
    inner: B,
    limit: u64,
    bytes: u64,
    idle: Option<Duration>,
    /// Since when the current read waits.
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Option<BodyWatch>,
    trailers: Trailers,
    explicit_end: bool,
    over: bool,
}

impl<B> Guarded<B> {
    /// Without any limit; trailers are dropped.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            limit: u64::MAX,
            bytes: 0,
            idle: None,
            waiting: None,
            timer: None,
            watch: None,
            trailers: Trailers::Drop,
            explicit_end: false,
            over: false,
        }
    }

    /// At most this many bytes of data; `None`: any number.
    pub fn limit(mut self, bytes: Option<u64>) -> Self {
        self.limit = bytes.unwrap_or(u64::MAX);
        self
    }

    /// The longest that one read may wait. Needs a tokio timer where it is
    /// polled. Time in which nobody reads does not count.
    pub fn idle(mut self, longest: Duration) -> Self {
        self.idle = Some(longest);
        self
    }

    /// What happens to trailers.
    pub fn trailers(mut self, trailers: Trailers) -> Self {
        self.trailers = trailers;
        self
    }

    /// For requests over HTTP/2: the body is whole only if its stream ended by
    /// `END_STREAM`. A reset with `NO_ERROR` looks like an end otherwise
    /// (RFC 9113 section 8.1 gives it that meaning for responses alone).
    pub fn explicit_end(mut self) -> Self {
        self.explicit_end = true;
        self
    }

    /// A view of what becomes of this body. Asking again gives the same view.
    pub fn watch(&mut self) -> BodyWatch {
        let bytes = self.bytes;
        let watch = self.watch.get_or_insert_with(BodyWatch::default);
        watch.passed(bytes);
        watch.clone()
    }

    /// The bytes of data that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is guarded.
    pub fn get_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    fn fail<T>(&mut self, error: BodyError) -> Poll<Option<Result<T, BodyError>>> {
        self.over = true;
        if let Some(watch) = &self.watch {
            watch.fail(&error);
        }
        Poll::Ready(Some(Err(error)))
    }

    fn complete(&self) {
        if let Some(watch) = &self.watch {
            watch.complete();
        }
    }

    fn count(&mut self, data: &Bytes) -> Result<(), BodyError> {
        let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes > self.limit {
            return Err(BodyError::TooLarge);
        }
        if let Some(watch) = &self.watch {
            watch.passed(self.bytes);
        }
        Ok(())
    }

    /// Ready if the current read has waited too long. The timer is moved only
    /// when it fires: most reads that wait are answered long before.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle) = self.idle else {
            return Poll::Pending;
        };
        let due = *self.waiting.get_or_insert_with(Instant::now) + idle;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

impl<B: HttpBody> Guarded<B> {
    /// Whether the declared length alone is over the limit, so that nothing
    /// need be read to refuse it.
    pub fn is_declared_too_large(&self) -> bool {
        self.inner.size_hint().lower() > self.limit
    }

    /// Whether the inner body has ended, but not where it should. An answer to
    /// HEAD may declare a length that never comes: its stream ends all the same.
    fn is_short(&self) -> bool {
        (self.explicit_end || self.inner.size_hint().lower() > 0) && !self.inner.is_end_stream()
    }
}

impl<B> Guarded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The first frame, if it is there, or comes as soon as somebody wants it:
    /// whoever drives the connection gets one turn. `None`: it is not, or there
    /// is none.
    ///
    /// # Errors
    ///
    /// What ended the body before it began.
    pub async fn begin(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let mut turns = 0;
        poll_fn(|context| {
            if self.is_end_stream() {
                return Poll::Ready(Ok(None));
            }
            match Pin::new(&mut *self).poll_frame(context) {
                Poll::Ready(frame) => Poll::Ready(frame.transpose()),
                Poll::Pending if turns == 0 => {
                    turns = 1;
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(Ok(None)),
            }
        })
        .await
    }
}

impl<B> HttpBody for Guarded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        loop {
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            if let Some(watch) = &this.watch {
                watch.wait(polled.is_pending());
            }
            let Poll::Ready(next) = polled else {
                ready!(this.poll_idle(cx));
                return this.fail(BodyError::Idle);
            };
            this.waiting = None;
            let frame = match next {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return this.fail(BodyError::Broken(error.into())),
                None if this.is_short() => return this.fail(BodyError::Short),
                None => {
                    this.over = true;
                    this.complete();
                    return Poll::Ready(None);
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Err(error) = this.count(&data) {
                        return this.fail(error);
                    }
                    // A consumer that knows the length stops here.
                    if this.inner.is_end_stream() {
                        this.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(frame) => {
                    let kept: Option<HeaderMap> = frame
                        .into_trailers()
                        .ok()
                        .and_then(|fields| this.trailers.filter(fields));
                    if let Some(fields) = kept {
                        return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            this @ Self::Full(_) => match std::mem::take(this) {
                Self::Full(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                _ => Poll::Ready(None),
            },
            Self::Incoming(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_empty(),
            Self::Incoming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(u64::try_from(data.len()).unwrap_or(u64::MAX)),
            Self::Incoming(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(data: Bytes) -> Self {
        match data.is_empty() {
            true => Self::Empty,
            false => Self::Full(data),
        }
    }
}

impl From<Guarded> for Body {
    fn from(body: Guarded) -> Self {
        Self::Incoming(body)
    }
}

/// A whole request body for one of our own endpoints: at most `max` bytes, no
/// longer than `idle` between two of them. Trailers are dropped. A body that
/// arrives in one piece is not copied.
///
/// # Errors
/// [`Refusal::BodyTooLarge`] (at once if the declared length says so),
/// [`Refusal::BodyTimeout`], [`Refusal::BadRequestBody`].
pub async fn collect_limited<B>(incoming: B, max: u64, idle: Duration) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut body = Guarded::new(incoming).limit(Some(max)).idle(idle);
    if body.is_declared_too_large() {
        return Err(Refusal::BodyTooLarge);
    }
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.refusal())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() {
            first = data;
            continue;
        }
        rest.get_or_insert_with(|| BytesMut::from(first.as_ref()))
            .extend_from_slice(&data);
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

#[cfg(test)]
mod tests;
