//! The body of every response: it streams through, and when it ends, the
//! upstream's connection goes back to its pool and the request is recorded.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::record::Record;
use crate::upstream::pool::Lease;
use crate::wire::body::{Body, BodyError};

/// A response's body with what is to be done at its end.
pub struct Answer {
    body: Body,
    lease: Option<Lease>,
    record: Option<Box<Record>>,
}

impl Answer {
    /// A body that belongs to a request, and the connection that it comes from.
    /// `is_head`: the request was for the head alone, so the body stays here.
    pub fn new(body: Body, is_head: bool, lease: Option<Lease>, record: Box<Record>) -> Self {
        let lease_less = lease.is_none();
        let mut answer = Self {
            body,
            lease,
            record: Some(record),
        };
        // A body that is not sent is never polled.
        if answer.body.is_end_stream() || is_head && lease_less {
            answer.finish();
        }
        answer
    }

    /// The empty body of a 101; the request is the tunnel's to record.
    pub fn of_tunnel() -> Self {
        Self {
            body: Body::Empty,
            lease: None,
            record: None,
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
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
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.finish(),
            Some(Ok(frame)) => {
                if let (Some(data), Some(record)) = (frame.data_ref(), &mut self.record) {
                    record.bytes_out += u64::try_from(data.len()).unwrap_or(u64::MAX);
                }
                if self.body.is_end_stream() {
                    self.finish();
                }
            }
            // A broken body cannot be followed by another request.
            Some(Err(_)) => drop(self.lease.take()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
