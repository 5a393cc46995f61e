//! What becomes of a connection that was taken from the pool.

use std::future::Future;
use std::pin::Pin;

use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::*;
use crate::upstream::head::may_be_repeated;
use crate::upstream::http1::{self, Inbound};
use crate::upstream::request::Outbound;
use crate::wire::body::Body;
use crate::wire::fields::Sink as _;

/// One of two kinds of what is waited for.
enum Sent<'l, F> {
    Http1(&'l mut Option<Box<http1::Connection>>),
    Http2 {
        // In a box: every request has room for the larger one of both.
        answer: Pin<Box<F>>,
        stream: &'l mut Stream,
        /// What was sent, but for its content, where it must not be sent twice.
        original: Option<Box<Request<Body>>>,
    },
}

/// How a request is made to fit.
#[derive(Clone, Copy)]
pub struct Fitting<'a> {
    /// What it becomes.
    pub outbound: &'a Outbound<'a>,
    /// For which upstream.
    pub settings: &'a UpstreamSettings,
}

/// Why there is no answer. In a box, for it is rare, and large.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The request cannot be made to fit.
    #[error("{0}")]
    Refused(Failure),
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(http1::Error),
    /// Over HTTP/2; with the request, where nothing of it was sent.
    #[error("{0}")]
    Http2(#[source] hyper::Error, Option<Box<Request<Body>>>),
}

impl Unanswered {
    fn refused(failure: impl Into<Failure>) -> Box<Self> {
        Box::new(Self::Refused(failure.into()))
    }
}

impl Lease {
    /// Sends what becomes of a request, which is taken out of its place. It is there
    /// still if nothing of it was sent, or if it may be sent again where the connection
    /// ends without an answer.
    ///
    /// # Errors
    ///
    /// The connection's, which holds the request where HTTP/2 sent nothing of it. The alarm
    /// is for whoever waits.
    pub fn send(
        &mut self,
        slot: &mut Option<Request<Body>>,
        fitting: Fitting<'_>,
    ) -> (
        impl Future<Output = Result<Response<Inbound>, Box<Unanswered>>>,
        &mut Alarm,
    ) {
        // What there is to be written is made before there is anything to wait for: a
        // future that held the request would be copied with it.
        let may_be_dead = self.may_be_dead();
        let (carrier, dress) = (&mut self.carrier, &self.load.0.dress);
        let sent = carrier.begin(slot, fitting, dress, may_be_dead);
        (answered(sent), &mut self.alarm)
    }

    /// Sends a request of our own as it is.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub async fn ask(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Inbound>, Box<Unanswered>> {
        let sent = match &mut self.carrier {
            Carrier::Http1(place) => {
                if let Some(connection) = place {
                    begin_as_it_is(connection, &mut request).map_err(Unanswered::refused)?;
                }
                Sent::Http1(place)
            }
            Carrier::Http2(stream) => Sent::Http2 {
                answer: Box::pin(stream.sender.try_send_request(request)),
                stream,
                original: None,
            },
        };
        answered(Ok(sent)).await
    }

    /// When its use began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Its use begins only now, since something had to be waited for before.
    pub fn begin_now(&mut self) {
        self.began = Instant::now();
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

    /// Puts the connection back of which no use was made.
    pub fn put_back(mut self) {
        if let Carrier::Http1(place) = &mut self.carrier {
            let connection = place.take();
            self.give_back(connection);
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
            self.load.0.keep(connection, self.alarm);
        }
    }
}

impl Carrier {
    fn begin(
        &mut self,
        slot: &mut Option<Request<Body>>,
        Fitting { outbound, settings }: Fitting<'_>,
        dress: &Dress,
        may_be_dead: bool,
    ) -> Result<Sent<'_, impl Future<Output = Answered> + use<>>, Box<Unanswered>> {
        let Some(request) = slot else {
            return Err(Unanswered::refused(Refusal::InternalError));
        };
        let may_repeat = may_be_dead && may_be_repeated(request);
        let own_host = outbound.wants_own_host(settings);
        let handshake = outbound.handshake;
        let place = match self {
            Carrier::Http1(place) => place,
            Carrier::Http2(stream) => {
                let prepared = outbound.prepared(request, settings);
                let mut prepared = prepared.map_err(Unanswered::refused)?;
                let fits = dress.put_on(&mut prepared, true, own_host, handshake);
                fits.map_err(Unanswered::refused)?;
                let original = match may_repeat {
                    true => None,
                    false => slot.take().map(Box::new),
                };
                return Ok(Sent::Http2 {
                    answer: Box::pin(stream.sender.try_send_request(prepared)),
                    stream,
                    original,
                });
            }
        };
        let Some(connection) = place.as_mut() else {
            return Err(Box::new(Unanswered::Http1(http1::Error::Taken)));
        };
        let begun = match handshake {
            None => {
                let host = own_host.then(|| dress.host()).transpose();
                let host = host.map_err(Unanswered::refused)?;
                let target = outbound.path_and_query(request);
                connection.begin(request, target.as_str(), |request, lines| {
                    outbound.write_fields(request, settings, host, lines)
                })
            }
            // What asks for a WebSocket is written into a map.
            Some(_) => outbound
                .prepared(request, settings)
                .and_then(|mut prepared| {
                    dress.put_on(&mut prepared, false, own_host, handshake)?;
                    begin_as_it_is(connection, &mut prepared)
                }),
        };
        begun.map_err(Unanswered::refused)?;
        if !may_repeat {
            *slot = None;
        }
        Ok(Sent::Http1(place))
    }
}

type Answered = Result<Response<Incoming>, TrySendError<Request<Body>>>;

async fn answered<F: Future<Output = Answered>>(
    sent: Result<Sent<'_, F>, Box<Unanswered>>,
) -> Result<Response<Inbound>, Box<Unanswered>> {
    match sent? {
        Sent::Http1(place) => {
            let answered = http1::Connection::answer(place).await;
            answered.map_err(|error| Box::new(Unanswered::Http1(error)))
        }
        Sent::Http2 {
            answer,
            stream,
            original,
        } => {
            let answered = answer.await;
            stream.answered();
            match answered {
                Ok(response) => Ok(response.map(Inbound::Http2)),
                Err(mut error) => {
                    let unsent = error.take_message().and_then(|unsent| {
                        let mut original = original?;
                        *original.body_mut() = unsent.into_body();
                        Some(original)
                    });
                    let error = error.into_error();
                    Err(Box::new(Unanswered::Http2(error, unsent)))
                }
            }
        }
    }
}

/// Begins with a request whose head is what is sent.
fn begin_as_it_is(
    connection: &mut http1::Connection,
    request: &mut Request<Body>,
) -> Result<(), Failure> {
    let target = request.uri().path_and_query().cloned();
    let target = target.as_ref().map_or("/", PathAndQuery::as_str);
    connection.begin(request, target, |request, lines| {
        for (name, value) in request.headers() {
            lines.pass(name, value);
        }
        Ok(())
    })
}
