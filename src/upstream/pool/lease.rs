//! What becomes of a connection that was taken from the pool.

use std::future::Future;

use super::*;

/// One of two kinds of what is waited for.
enum Either<A, B> {
    Http1(A),
    Http2(B),
}

/// Why there is no answer. In a box, for it is rare, and large.
pub struct Unanswered {
    /// What happened.
    pub error: hyper::Error,
    /// The request, where nothing of it was sent.
    pub unsent: Option<Request<Body>>,
}

impl Unanswered {
    fn new(mut error: TrySendError<Request<Body>>) -> Box<Self> {
        Box::new(Self {
            unsent: error.take_message(),
            error: error.into_error(),
        })
    }
}

impl Lease {
    /// Sends a request, whose body is watched if it has one.
    ///
    /// # Errors
    ///
    /// The connection's, with the request where nothing of it was sent.
    pub fn send(
        &mut self,
        request: Request<Body>,
        body: Option<&BodyWatch>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<Unanswered>>> {
        self.body = body.cloned();
        // The request is handed over before there is anything to wait for: a future that
        // held it would be copied with it.
        let answer = match &mut self.carrier {
            Carrier::Http1 { sender, meter } => {
                meter.begin();
                Either::Http1((sender.try_send_request(request), meter))
            }
            Carrier::Http2(stream) => {
                Either::Http2((stream.sender.try_send_request(request), stream))
            }
        };
        async move {
            let answered = match answer {
                Either::Http1((answer, meter)) => {
                    let answered = answer.await;
                    meter.end();
                    answered
                }
                Either::Http2((answer, stream)) => {
                    let answered = answer.await;
                    stream.answered();
                    answered
                }
            };
            answered.map_err(Unanswered::new)
        }
    }

    /// Whether it is a place on an HTTP/2 connection.
    pub fn is_http2(&self) -> bool {
        self.stream().is_some()
    }

    /// The place on an HTTP/2 connection that it is, if it is one.
    pub fn stream(&self) -> Option<&Stream> {
        match &self.carrier {
            Carrier::Http1 { .. } => None,
            Carrier::Http2(stream) => Some(stream),
        }
    }

    /// Leaves the connection to a tunnel. What that has to keep is its place
    /// on one of HTTP/2; an HTTP/1.1 connection is the tunnel's own.
    pub fn give_away(self) -> Option<Stream> {
        match self.carrier {
            Carrier::Http1 { .. } => None,
            Carrier::Http2(stream) => Some(stream),
        }
    }

    /// Whether the other side may have closed it without our knowing yet. On
    /// HTTP/2 it may at any time: a server that has served enough requests
    /// says so while the next ones are under way (RFC 9113 section 6.8).
    pub fn may_be_dead(&self) -> bool {
        match (&self.carrier, self.idle) {
            (_, None) => false,
            (Carrier::Http2(_), Some(_)) => true,
            (Carrier::Http1 { .. }, Some(idle)) => idle >= TRUSTED,
        }
    }

    /// No other request may use the connection.
    pub fn retire(&mut self) {
        self.may_return = false;
        if let Carrier::Http2(stream) = &self.carrier {
            stream.retire();
        }
    }

    /// Puts the connection back, if it is open, its request was sent whole,
    /// and there is room. What a client has still to send of a request that
    /// was answered early would reach the next one's place.
    pub fn give_back(self) {
        let Carrier::Http1 { sender, meter } = self.carrier else {
            return;
        };
        let is_whole = self.body.is_none_or(|body| body.is_complete());
        if !self.may_return || !is_whole || sender.is_closed() {
            return;
        }
        let address = &self.load.0;
        let most = address.settings.pool_idle;
        let mut idle = address.lock();
        if idle.len() >= most {
            idle.pop_front();
        }
        if most > 0 {
            idle.push_back(Idle {
                sender,
                meter,
                since: Instant::now(),
            });
            drop(idle);
            address.look_after();
        }
    }
}
