//! The beginning of a request: what its head alone says.

use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;

use super::exchange::Exchange;
use super::record::Record;
use super::request_id;
use super::respond::{self, Wish};
use super::state::{State, Worker};
use crate::base::refusal::Refusal;
use crate::upstream::request::VIA_PSEUDONYM;
use crate::wire::client::{Client, ConnInfo};
use crate::wire::cors::Grant;
use crate::wire::framing;
use crate::wire::hop;
use crate::wire::present::{Field, Present};
use crate::wire::target::Target;
use crate::wire::upgrade::Handshake;

/// What is known of a request before anything has to be waited for.
pub struct Begun {
    /// The configuration, the same to the request's end.
    pub state: Arc<State>,
    /// Its id.
    pub id: HeaderValue,
    /// In which form it is refused, if it is.
    pub wish: Wish,
    /// What pages of other origins may do with the answer.
    pub grant: Option<Grant>,
    /// Whether it is for the head alone.
    pub is_head: bool,
    /// Whether the browser's connection is secure.
    pub secure: bool,
    /// Whether the connection ends with the answer.
    pub closes: bool,
    /// How long the client has to wait, if this is one request too many of it.
    pub wait: Option<Duration>,
    /// The request, or why it is refused.
    pub read: Result<(Box<Exchange>, Incoming), (Box<Record>, Refusal)>,
}

impl Begun {
    /// Reads a request's head. `found` is why it must be refused, where its bytes gave
    /// away what its parsed head does not.
    pub fn of(
        worker: Arc<Worker>,
        conn: Arc<ConnInfo>,
        request: Request<Incoming>,
        found: Option<Refusal>,
    ) -> Self {
        let state = worker.state.load_full();
        let (mut head, body) = request.into_parts();
        let id = request_id::of(&conn, &state, &head.headers);
        let mut record = Box::new(Record::begin(&worker, &state, &head, id.clone()));
        let mut present = Present::of(&head.headers);
        let wish = Wish::of(&head.method, &head.headers, present);
        let handshake = take_handshake(&mut head, &mut present);
        let grant = state.cors.grant(&head.headers);
        let is_head = head.method == Method::HEAD;
        // On HTTP/2 a stream has an end of its own.
        let closes = found.is_some() && head.version != Version::HTTP_2;
        let client = match found {
            Some(refusal) => Err(refusal),
            None => read_client(&conn, &state, &head, present),
        };
        let known = match &client {
            Ok(client) => Some(client.ip),
            // What a trusted proxy sends is somebody else's.
            Err(_) => (!state.trust.trusts_peer(&conn)).then_some(conn.peer.ip()),
        };
        record.client = Some(known.unwrap_or(conn.peer.ip()));
        let mut wait = known.and_then(|ip| worker.limiter.as_ref()?.count(ip).err());
        let read = client.and_then(|client| {
            let target = read_target(&head, present, &mut record)?;
            Ok((client, target))
        });
        let mut secure = conn.tls;
        let read = match read {
            Err(refusal) => {
                // A refusal that ends the connection is not to be another one.
                wait = wait.filter(|_| found.is_none() && !respond::ends_connection(refusal));
                Err((record, wait.map_or(refusal, |_| Refusal::RateLimited)))
            }
            Ok((client, target)) => {
                secure = client.secure(state.public_origin.as_ref());
                let exchange = Box::new(Exchange {
                    worker,
                    state: state.clone(),
                    conn,
                    head,
                    present,
                    handshake,
                    client,
                    target,
                    record,
                });
                Ok((exchange, body))
            }
        };
        Self {
            state,
            id,
            wish,
            grant,
            is_head,
            secure,
            closes,
            wait,
            read,
        }
    }
}

/// The WebSocket that is asked for, which may change the head.
fn take_handshake(head: &mut Parts, present: &mut Present) -> Option<Handshake> {
    let protocol = head.extensions.remove::<Protocol>();
    if head.version != Version::HTTP_2 && !present.has(Field::SecWebSocketKey) {
        return None;
    }
    let handshake = Handshake::take(head, protocol.as_ref().map(Protocol::as_str));
    if handshake.is_some() {
        *present = Present::of(&head.headers);
    }
    handshake
}

/// The first fact: who asks.
fn read_client(
    conn: &ConnInfo,
    state: &State,
    head: &Parts,
    present: Present,
) -> Result<Client, Refusal> {
    if present.any(Field::TransferEncoding, Field::ContentLength) {
        framing::check_request_framing(&head.headers, head.version)?;
    }
    Client::resolve(conn, &head.headers, &state.trust)
}

/// The second: for what.
fn read_target(head: &Parts, present: Present, record: &mut Record) -> Result<Target, Refusal> {
    let target = Target::parse(&head.method, &head.uri, &head.headers, head.version)?;
    record.host = Some(target.host_name());
    if present.has(Field::Via) && hop::is_looping(&head.headers, VIA_PSEUDONYM) {
        return Err(Refusal::LoopDetected);
    }
    let expects_more =
        |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let expects = present.has(Field::Expect);
    if expects && head.headers.get_all(EXPECT).iter().any(expects_more) {
        return Err(Refusal::ExpectationFailed);
    }
    Ok(target)
}
