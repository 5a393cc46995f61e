//! What a request came to, and how it is answered.

use std::time::Duration;

use http::{HeaderValue, Response};

use super::answer::{Answer, Content};
use super::record::Record;
use super::respond::{self, Wish};
use super::state::State;
use super::tunnel::Tunnel;
use crate::base::refusal::Failure;
use crate::upstream::http1::Inbound;
use crate::upstream::pool::Lease;
use crate::wire::body::{Body, Guarded, Trailers};

/// What a request came to: an answer of our own, or the application's.
pub enum Outcome {
    /// Ours.
    Own(Response<Body>),
    /// The application's, with its connection.
    Forwarded(crate::upstream::Answer),
    /// The application's, which ends HTTP on this connection or stream, and
    /// how long it took to come.
    Tunnel(Response<Inbound>, Duration, Tunnel),
}

/// What a request is answered with.
pub(super) enum Answered {
    /// This, which comes over this connection, unless it is ours.
    Sent(Response<Content>, Option<Lease>),
    /// This, and a tunnel, which is to be started.
    Tunnel(Response<Answer>, Tunnel),
}

/// What becomes of what a request came to.
pub(super) fn answered(
    result: Result<Outcome, Failure>,
    record: &mut Record,
    state: &State,
    wish: &Wish,
    id: &HeaderValue,
) -> Answered {
    match result {
        Ok(Outcome::Tunnel(response, took, tunnel)) => {
            record.upstream = Some(took);
            record.status = Some(response.status());
            Answered::Tunnel(response.map(|_| Answer::of_tunnel()), tunnel)
        }
        Ok(Outcome::Own(response)) => Answered::Sent(response.map(Content::Own), None),
        Ok(Outcome::Forwarded(answer)) => {
            record.upstream = Some(answer.took);
            let idle = state.body_idle_timeout;
            let guard = |body| {
                let body = Guarded::new(body).idle(idle).trailers(Trailers::Pass);
                Content::Forwarded(body)
            };
            Answered::Sent(answer.response.map(guard), Some(answer.lease))
        }
        Err(failure) => {
            let refused = refuse(state, record, &failure, wish, id);
            Answered::Sent(refused.map(Content::Own), None)
        }
    }
}

/// The answer to a request that failed, which is logged and noted.
pub(super) fn refuse(
    state: &State,
    record: &mut Record,
    failure: &Failure,
    wish: &Wish,
    id: &HeaderValue,
) -> Response<Body> {
    respond::log(failure, id);
    record.reason = Some(failure.refusal);
    respond::refusal(state, failure.refusal, wish.form(), id)
}
