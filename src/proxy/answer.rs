//! The body of every response: it streams through, and when it ends, the
//! upstream's connection goes back to its pool and the request is recorded.

use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::leash::Leash;
use super::record::Record;
use crate::upstream::http1::{Connection, Inbound};
use crate::upstream::pool::Lease;
use crate::wire::body::{Body, BodyError, Guarded};

/// What is sent to the client.
pub enum Content {
    /// What we say ourselves.
    Own(Body),
    /// What the application says.
    Forwarded(Guarded<Inbound>),
}

impl Content {
    /// The first frame, as [`Guarded::begin`] has it.
    ///
    /// # Errors
    ///
    /// What ended it before it began.
    pub async fn begin(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        match self {
            Self::Own(_) => Ok(None),
            Self::Forwarded(body) => body.begin().await,
        }
    }

    /// The connection that it came over, if that can be used again.
    fn take_connection(&mut self) -> Option<Box<Connection>> {
        match self {
            Self::Own(_) => None,
            Self::Forwarded(body) => body.get_mut().take_connection(),
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Own(body) => Pin::new(body).poll_frame(context),
            Self::Forwarded(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Forwarded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Forwarded(body) => body.size_hint(),
        }
    }
}

/// A response's body with what is to be done at its end. It goes from hand to hand until it
/// is sent, and is not copied with that.
pub struct Answer(Box<Sent>);

struct Sent {
    /// What was read of the body already.
    first: Option<Frame<Bytes>>,
    body: Content,
    lease: Option<Lease>,
    record: Option<Box<Record>>,
    /// The session for which it is sent is over.
    over: bool,
}

/// So many bytes are sent before it is asked whether the session is over, unless the
/// body has to be waited for.
const UNWATCHED: u64 = 64 * 1024;

impl Answer {
    /// A body that belongs to a request, the frame of it that was read already,
    /// and the connection that it comes from.
    /// `is_head`: the request was for the head alone, so the body stays here.
    pub fn new(
        first: Option<Frame<Bytes>>,
        body: Content,
        is_head: bool,
        lease: Option<Lease>,
        record: Box<Record>,
    ) -> Self {
        let lease_less = lease.is_none();
        let mut sent = Box::new(Sent {
            first,
            body,
            lease,
            record: Some(record),
            over: false,
        });
        // A body that is not sent is never polled.
        if sent.is_at_end() || is_head && lease_less {
            sent.finish();
        }
        Self(sent)
    }

    /// The empty body of a 101; the request is the tunnel's to record.
    pub fn of_tunnel() -> Self {
        Self(Box::new(Sent {
            first: None,
            body: Content::Own(Body::Empty),
            lease: None,
            record: None,
            over: false,
        }))
    }

    /// What ties it to the session for which it is sent; nothing where all of it is
    /// there already.
    pub fn leash(&self) -> Option<Weak<Leash>> {
        match self.0.body.is_end_stream() {
            true => None,
            false => self.0.record.as_ref()?.leash(),
        }
    }
}

impl Sent {
    /// Whether all of it was handed over.
    fn is_at_end(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    /// Whether the session for which it is sent is over, in which case it ends here.
    /// That is asked from the first time on that the body has to be waited for:
    /// one that comes in one piece costs nothing.
    fn is_over(&mut self, context: &mut Context<'_>, waits: bool) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        if waits {
            record.settle();
        }
        // Or from so many bytes on: who takes them slowly may never have to wait.
        let watched = waits || record.is_watched() || record.bytes_out > UNWATCHED;
        if self.over {
            return true;
        }
        if !watched || record.poll_over(context).is_pending() {
            return false;
        }
        // A body that is cut cannot be followed by another request.
        drop(self.lease.take());
        self.first = None;
        self.body = Content::Own(Body::Empty);
        self.over = true;
        true
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(self.body.take_connection());
        }
        if let Some(record) = &mut self.record {
            record.complete = true;
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self.0;
        if this.is_over(context, false) {
            return Poll::Ready(Some(Err(BodyError::SessionOver)));
        }
        let polled = match this.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => this.body.poll_frame(context),
        };
        let Poll::Ready(frame) = polled else {
            return match this.is_over(context, true) {
                true => Poll::Ready(Some(Err(BodyError::SessionOver))),
                false => Poll::Pending,
            };
        };
        match &frame {
            None => this.finish(),
            Some(Ok(frame)) => {
                if let (Some(data), Some(record)) = (frame.data_ref(), &mut this.record) {
                    record.bytes_out += u64::try_from(data.len()).unwrap_or(u64::MAX);
                }
                if this.body.is_end_stream() {
                    this.finish();
                    // Before the next head is read: what the notes hold of this one is in
                    // the buffer that the next one could have.
                    drop(this.record.take());
                }
            }
            // A broken body cannot be followed by another request.
            Some(Err(_)) => drop(this.lease.take()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.0.body.size_hint();
        let data = self.0.first.as_ref().and_then(Frame::data_ref);
        let more = data.map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        match hint.exact() {
            Some(rest) => hint.set_exact(rest.saturating_add(more)),
            None => hint.set_lower(hint.lower().saturating_add(more)),
        }
        hint
    }
}
