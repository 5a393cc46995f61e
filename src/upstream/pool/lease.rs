//! What becomes of a connection that was taken from the pool.

use std::future::Future;

use http::{Request, Response};
use hyper::client::conn::TrySendError;

use super::*;
use crate::upstream::head::{copy, may_be_repeated};
use crate::upstream::http1::{self, Inbound};
use crate::wire::body::Body;

/// One of three kinds of what is waited for.
enum Sent<'l, F> {
    Http1(&'l mut Option<Box<http1::Connection>>),
    Http2(F, &'l mut Stream),
    Failed(Box<Unanswered>),
}

/// Why there is no answer. In a box, for it is rare, and large.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(http1::Error),
    /// Over HTTP/2; with the request, where nothing of it was sent.
    #[error("{0}")]
    Http2(#[source] hyper::Error, Option<Box<Request<Body>>>),
}

impl Unanswered {
    fn http2(mut error: TrySendError<Request<Body>>) -> Box<Self> {
        let unsent = error.take_message().map(Box::new);
        Box::new(Self::Http2(error.into_error(), unsent))
    }
}

impl Lease {
    /// Sends a request, which is taken out of its place. It is there again, or still, if
    /// it may be sent once more where the connection ends without an answer.
    ///
    /// # Errors
    ///
    /// The connection's. If nothing of the request was sent, it is in its place, or
    /// within the error.
    pub fn send(
        &mut self,
        slot: &mut Option<Request<Body>>,
    ) -> impl Future<Output = Result<Response<Inbound>, Box<Unanswered>>> {
        let may_be_dead = self.may_be_dead();
        // What there is to be written is made before there is anything to wait for: a
        // future that held the request would be copied with it.
        let sent = match (&mut self.carrier, slot) {
            (Carrier::Http1(place), slot) => match begin(place, slot, may_be_dead) {
                Ok(()) => Sent::Http1(place),
                Err(error) => Sent::Failed(Box::new(Unanswered::Http1(error))),
            },
            (Carrier::Http2(stream), slot) => match slot.take() {
                Some(request) => {
                    if may_be_dead {
                        *slot = copy(&request);
                    }
                    Sent::Http2(stream.sender.try_send_request(request), stream)
                }
                None => Sent::Failed(Box::new(Unanswered::Http1(http1::Error::Stale))),
            },
        };
        async move {
            match sent {
                Sent::Http1(place) => {
                    let answered = http1::Connection::answer(place).await;
                    answered.map_err(|error| Box::new(Unanswered::Http1(error)))
                }
                Sent::Http2(answer, stream) => {
                    let answered = answer.await;
                    stream.answered();
                    let answered = answered.map_err(Unanswered::http2)?;
                    Ok(answered.map(Inbound::Http2))
                }
                Sent::Failed(error) => Err(error),
            }
        }
    }

    /// Whether it is a place on an HTTP/2 connection.
    pub fn is_http2(&self) -> bool {
        self.stream().is_some()
    }

    /// The place on an HTTP/2 connection that it is, if it is one.
    pub fn stream(&self) -> Option<&Stream> {
        match &self.carrier {
            Carrier::Http1(_) => None,
            Carrier::Http2(stream) => Some(stream),
        }
    }

    /// Leaves the connection to a tunnel. What that has to keep is its place
    /// on one of HTTP/2; an HTTP/1.1 connection is the tunnel's own.
    pub fn give_away(self) -> Option<Stream> {
        match self.carrier {
            Carrier::Http1(_) => None,
            Carrier::Http2(stream) => Some(stream),
        }
    }

    /// Whether the other side may have closed it without our knowing yet. On
    /// HTTP/2 it may at any time: a server that has served enough requests
    /// says so while the next ones are under way (RFC 9113 section 6.8).
    fn may_be_dead(&self) -> bool {
        match (&self.carrier, self.idle) {
            (_, None) => false,
            (Carrier::Http2(_), Some(_)) => true,
            (Carrier::Http1(_), Some(idle)) => idle >= TRUSTED,
        }
    }

    /// No other request may use the connection.
    pub fn retire(&mut self) {
        self.may_return = false;
        if let Carrier::Http2(stream) = &self.carrier {
            stream.retire();
        }
    }

    /// Puts the connection back that the answer came over, if another request may
    /// follow on it.
    pub fn give_back(self, connection: Option<Box<http1::Connection>>) {
        if self.may_return
            && let Some(connection) = connection
        {
            self.load.0.keep(connection);
        }
    }
}

/// Begins with the request. It stays in its place if it may be sent again where the
/// connection turns out to be dead.
fn begin(
    place: &mut Option<Box<http1::Connection>>,
    slot: &mut Option<Request<Body>>,
    may_be_dead: bool,
) -> Result<(), http1::Error> {
    let (Some(connection), Some(request)) = (place, slot.as_mut()) else {
        return Err(http1::Error::Stale);
    };
    let may_repeat = may_be_dead && may_be_repeated(request);
    connection.begin(request)?;
    if !may_repeat {
        *slot = None;
    }
    Ok(())
}
