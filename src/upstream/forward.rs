//! A permitted request goes out, and the head of its answer comes back.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;

use super::balance::{Tried, choose};
use super::connect::{chain, late, shown};
use super::head::{asks_for_bound, is_bound_to_connection};
use super::http1::{Inbound, Raw};
use super::multiplex::Stream;
use super::patience::{Waited, wait};
use super::pool::{Address, Fitting, Lease, Unanswered, Want};
use super::request::Outbound;
use super::settings::UpstreamSettings;
use super::standing::{Fleet, Group};
use crate::base::company::lets_others_go;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::body::{Body, BodyFate, BodyWatch};
use crate::wire::framing::{check_response_framing, write_length_anew};
use crate::wire::hop::remove_for_next;
use crate::wire::present::{Field, Present};
use crate::wire::upgrade::{Handshake, Over};

/// A worker's connections to all upstreams.
pub struct Upstreams(Vec<Upstream>);

struct Upstream {
    settings: Arc<UpstreamSettings>,
    addresses: Vec<Arc<Address>>,
    group: Arc<Group>,
    turn: AtomicUsize,
}

/// The application's answer, as far as it has come.
pub struct Answer {
    /// Its head, without hop-by-hop fields, and its body, still streaming.
    pub response: Response<Inbound>,
    /// Its connection. To be given back at the end of the body.
    pub lease: Lease,
    /// From sending the request to the head of the answer.
    pub took: Duration,
    /// The WebSocket that was asked for and agreed to.
    pub upgrade: Option<Upgrade>,
}

/// The application's side of a WebSocket that was agreed to.
pub enum Upgrade {
    /// Over HTTP/1.1: it is there.
    Http1(Box<Raw>),
    /// Over HTTP/2.
    Http2(OnUpgrade),
}

impl Upstreams {
    /// Without connections yet. `fleet` holds what all workers together know
    /// of these upstreams.
    pub fn new(settings: &[UpstreamSettings], fleet: &Fleet) -> Self {
        let upstream = |(settings, group): (&UpstreamSettings, &Arc<Group>)| {
            let settings = Arc::new(settings.clone());
            let address = |(number, address): (usize, &_)| {
                let (settings, group) = (settings.clone(), group.clone());
                Arc::new(Address::new(number, settings, Clone::clone(address), group))
            };
            Upstream {
                addresses: settings.addresses.iter().enumerate().map(address).collect(),
                settings: settings.clone(),
                group: group.clone(),
                turn: AtomicUsize::new(0),
            }
        };
        Self(settings.iter().zip(fleet.groups()).map(upstream).collect())
    }

    /// Sends a request that policy let pass.
    ///
    /// Up to `retries` times it is sent again: at another address if no
    /// connection could be made, on a fresh connection if the old one took
    /// nothing of it, or if the old one ended without a response and the
    /// request may be sent twice (see
    /// [`may_be_repeated`](super::head::may_be_repeated)). Nothing else is: the
    /// application may have acted on it.
    ///
    /// The request is taken out of its slot: it has one place while it is sent, since all
    /// that a function that waits is given is copied with it.
    ///
    /// `sent` watches the request's body, if it has one: the time to answer does
    /// not run out while it is still being sent.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](super::connect::connect()),
    /// [`Refusal::UpstreamTimeout`], [`Refusal::UpstreamProtocolError`], and
    /// what rewriting the head refuses.
    pub fn forward<'a>(
        &'a self,
        outbound: &'a Outbound<'a>,
        slot: &'a mut Option<Request<Body>>,
        sent: Option<&'a BodyWatch>,
    ) -> Result<Pin<Box<impl Future<Output = Result<Answer, Failure>> + 'a>>, Failure> {
        let upstream = self
            .0
            .get(outbound.permit.upstream())
            .ok_or_else(|| Failure::new(Refusal::InternalError, "no such upstream"))?;
        // Of all that a request waits in, this is the largest; on the heap it is not copied
        // with the rest.
        Ok(Box::pin(upstream.send(slot, sent, outbound)))
    }
}

/// What one attempt came to, where it was no answer.
enum Lost {
    /// The request can be sent again, and is in its place: nothing of it was, or it
    /// does no harm.
    Again(Box<Unanswered>),
    /// It may have been acted on.
    Gone(Failure),
}

impl Upstream {
    async fn send(
        &self,
        slot: &mut Option<Request<Body>>,
        sent: Option<&BodyWatch>,
        outbound: &Outbound<'_>,
    ) -> Result<Answer, Failure> {
        let handshake = outbound.handshake;
        let mut retries = self.settings.retries;
        let mut tried = Tried::default();
        // No identity header has this name, so none is added on the way.
        let bound = outbound.present.has(Field::Authorization)
            && slot
                .as_ref()
                .is_some_and(|request| is_bound_to_connection(request.headers()));
        let mut want = match bound {
            true => Want::Alone,
            false => Want::Any,
        };
        loop {
            // Before a connection is taken: from then to the first byte nothing is to come
            // between, so that one that ended takes no request.
            let mut asked = false;
            poll_fn(|context| match lets_others_go(&mut asked, 1, context) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            })
            .await;
            let address = self.choose(tried)?;
            let at_hand = match (handshake, want) {
                (None, Want::Any) => address.take(),
                _ => None,
            };
            let leased = match at_hand {
                Some(lease) => Ok(lease),
                // Rare: not within the future of every request. What cannot be sent at all is
                // found out before.
                None => {
                    if let Some(request) = slot {
                        outbound.check(request, &self.settings)?;
                    }
                    Box::pin(address.lease_for(want, handshake.is_some())).await
                }
            };
            let mut lease = match leased {
                Ok(lease) => lease,
                Err(failure) => {
                    self.group.connect_failed(address.number, Instant::now());
                    tried.add(address.number);
                    let others = (0..self.addresses.len()).any(|number| !tried.has(number));
                    if retries == 0 || !others {
                        return Err(failure);
                    }
                    retries = self.retry(retries);
                    continue;
                }
            };
            if bound {
                lease.retire();
            }
            if handshake.is_some()
                && let Some(stream) = lease.stream()
            {
                Box::pin(self.check_takes_sockets(address, stream)).await?;
                lease.begin_now();
            }
            let attempt = self.attempt(address, lease, slot, sent, outbound);
            match attempt.await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Gone(failure)) => return Err(failure),
                Err(Lost::Again(error)) if retries == 0 => {
                    return Err(self.invalid(address, &chain(&error)));
                }
                Err(Lost::Again(_)) => {
                    retries = self.retry(retries);
                    if want == Want::Any {
                        want = Want::Fresh;
                    }
                }
            }
        }
    }

    fn retry(&self, retries: u32) -> u32 {
        self.group.metrics.retries.inc();
        retries.saturating_sub(1)
    }

    fn choose(&self, tried: Tried) -> Result<&Arc<Address>, Failure> {
        let number = match self.addresses.len() {
            0 | 1 => 0,
            count => {
                let now = Instant::now();
                choose(
                    self.settings.balance,
                    count,
                    self.turn.fetch_add(1, Ordering::Relaxed),
                    tried,
                    |member| self.group.is_usable(member, now),
                    |member| self.addresses.get(member).map_or(0, |a| a.in_flight()),
                )
            }
        };
        self.addresses
            .get(number)
            .ok_or_else(|| Failure::new(Refusal::InternalError, "an upstream without address"))
    }

    async fn attempt(
        &self,
        address: &Arc<Address>,
        mut lease: Lease,
        slot: &mut Option<Request<Body>>,
        sent: Option<&BodyWatch>,
        outbound: &Outbound<'_>,
    ) -> Result<Answer, Lost> {
        let fitting = Fitting {
            outbound,
            settings: &self.settings,
        };
        let limit = self.settings.response_timeout;
        let start = lease.began();
        let answered = {
            let (answered, alarm) = lease.send(slot, fitting);
            let answered = pin!(answered);
            wait(start, limit, alarm, answered, sent, outbound.ending).await
        };
        let answered = match answered {
            Waited::Answered(answered) => answered,
            // Its connection is closed, or its stream reset, as it is let go.
            Waited::Ended(refusal) => {
                let what = "the session ended before the application answered";
                return Err(Lost::Gone(Failure::new(refusal, what)));
            }
            Waited::InVain => {
                let failure = self.too_late(address);
                self.group.failed(address.number, Instant::now());
                // On HTTP/2 the whole connection may be dead, which nothing else
                // would tell.
                lease.retire();
                return Err(Lost::Gone(failure));
            }
        };
        let mut error = match answered {
            Ok(response) => {
                let took = start.elapsed();
                self.group.answered(address.number, start + took);
                return self
                    .accept(address, response, lease, took, outbound.handshake)
                    .map_err(Lost::Gone);
            }
            Err(error) => error,
        };
        match *error {
            Unanswered::Refused(failure) => {
                lease.put_back();
                return Err(Lost::Gone(failure));
            }
            Unanswered::Http2(_, ref mut unsent @ Some(_)) => {
                *slot = unsent.take().map(|unsent| *unsent);
                return Err(Lost::Again(error));
            }
            Unanswered::Http1(_) | Unanswered::Http2(..) => {}
        }
        if slot.is_some() && has_ended(&error) {
            return Err(Lost::Again(error));
        }
        // A body that broke off says nothing about the application.
        if sent.is_none_or(|body| body.fate() == BodyFate::Fine) {
            self.group.failed(address.number, Instant::now());
        }
        Err(Lost::Gone(self.invalid(address, &chain(&error))))
    }

    /// Refuses a WebSocket on an HTTP/2 connection whose other side does not
    /// take any (RFC 8441 section 3).
    async fn check_takes_sockets(&self, address: &Address, stream: &Stream) -> Result<(), Failure> {
        let limit = self.settings.connect_timeout;
        match timeout(limit, stream.takes_sockets()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.invalid(
                address,
                "speaks HTTP/2 and does not take WebSockets over it (RFC 8441)",
            )),
            Err(_) => Err(late(
                &self.settings,
                address.address(),
                "did not say whether it takes WebSockets",
                limit,
            )),
        }
    }

    fn too_late(&self, address: &Address) -> Failure {
        let limit = self.settings.response_timeout;
        late(&self.settings, address.address(), "gave no response", limit)
    }

    fn accept(
        &self,
        address: &Address,
        mut response: Response<Inbound>,
        mut lease: Lease,
        took: Duration,
        handshake: Option<&Handshake>,
    ) -> Result<Answer, Failure> {
        let agreed = self.agreed(address, &response, handshake, lease.is_http2())?;
        let upgrade = match agreed {
            None => None,
            Some(_) if lease.is_http2() => Some(Upgrade::Http2(hyper::upgrade::on(&mut response))),
            Some(_) => {
                let raw = response.body_mut().take_raw();
                raw.map(|raw| Upgrade::Http1(Box::new(raw)))
            }
        };
        let present = Present::of(response.headers());
        // Over HTTP/1.1 that was looked at when the head was read.
        if lease.is_http2() && present.any(Field::ContentLength, Field::TransferEncoding) {
            check_response_framing(response.headers(), response.version())
                .map_err(|_| self.invalid(address, "framed its response ambiguously"))?;
            write_length_anew(response.headers_mut());
        }
        if asks_for_bound(&response) {
            lease.retire();
        }
        if response.version() == Version::HTTP_2 {
            // The version of a message is that of its next connection.
            *response.version_mut() = Version::HTTP_11;
        }
        remove_for_next(response.headers_mut(), present);
        if let Some(handshake) = agreed {
            handshake.agree(&mut response);
        }
        Ok(Answer {
            response,
            lease,
            took,
            upgrade,
        })
    }

    /// What the response agrees to, if it opens a WebSocket.
    fn agreed<'h>(
        &self,
        address: &Address,
        response: &Response<Inbound>,
        handshake: Option<&'h Handshake>,
        is_http2: bool,
    ) -> Result<Option<&'h Handshake>, Failure> {
        let status = response.status();
        let Some(handshake) = handshake else {
            return match status {
                StatusCode::SWITCHING_PROTOCOLS => {
                    Err(self.invalid(address, "switched protocols without being asked to"))
                }
                _ => Ok(None),
            };
        };
        match status {
            StatusCode::OK if is_http2 => Ok(Some(handshake)),
            StatusCode::SWITCHING_PROTOCOLS
                if !is_http2 && handshake.is_agreed(response.headers()) =>
            {
                Ok(Some(handshake))
            }
            StatusCode::SWITCHING_PROTOCOLS => {
                Err(self.invalid(address, "switched protocols otherwise than it was asked to"))
            }
            // To a client of HTTP/2 it would open the socket.
            status if status.is_success() && (is_http2 || handshake.over == Over::Connect) => {
                let what = format!("answered a WebSocket handshake with {status}");
                Err(self.invalid(address, &what))
            }
            _ => Ok(None),
        }
    }

    fn invalid(&self, address: &Address, what: &str) -> Failure {
        Failure::new(
            Refusal::UpstreamProtocolError,
            format_args!("{}: {what}", shown(&self.settings, address.address())),
        )
    }
}

/// Whether the connection ended, or the upstream said that it did not look at
/// the request, rather than that it answered badly.
fn has_ended(error: &Unanswered) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let error = match error {
        Unanswered::Refused(_) => return false,
        Unanswered::Http1(error) => return error.has_ended(),
        Unanswered::Http2(error, _) => error,
    };
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return true;
    }
    let Some(source) = std::error::Error::source(error) else {
        return false;
    };
    if let Some(error) = source.downcast_ref::<std::io::Error>() {
        let kind = error.kind();
        return matches!(
            kind,
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        );
    }
    source.downcast_ref::<h2::Error>().is_some_and(|error| {
        error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}
