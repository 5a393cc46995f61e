//! The path of a request, from its head to the head of its response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::answer::{Answer, Content};
use super::begun::Begun;
use super::endpoints::{self, Endpoint};
use super::outcome::{Answered, Outcome, answered, refuse};
use super::record::Record;
use super::respond::{self, Wish};
use super::set_cookie;
use super::state::{State, Worker};
use super::tunnel::{Hold, Tunnel};
use crate::base::BoxFuture;
use crate::base::refusal::{Failure, Refusal};
use crate::policy::{self, Asker, Decision, OnRefusal, Route};
use crate::session::Lookup;
use crate::upstream::request::{Outbound, REQUEST_ID};
use crate::wire::body::{Body, BodyFate, BodyWatch, Guarded, Trailers};
use crate::wire::caching::is_for_all;
use crate::wire::client::{Client, ConnInfo, Origin};
use crate::wire::present::Present;
use crate::wire::target::Target;
use crate::wire::upgrade::{Handshake, Over};
use crate::wire::{hop, negotiate};

/// Everything that is known of one request beside its body.
pub struct Exchange {
    /// The live parts.
    pub worker: Arc<Worker>,
    /// The configuration, the same to the request's end.
    pub state: Arc<State>,
    /// The connection.
    pub conn: Arc<ConnInfo>,
    /// The request's head, as it came; that of a WebSocket handshake over
    /// HTTP/2 as it would be over HTTP/1.1.
    pub head: Parts,
    /// Which fields stand in it.
    pub present: Present,
    /// What it says of a WebSocket, if it asks for one.
    pub handshake: Option<Handshake>,
    /// Who asks.
    pub client: Client,
    /// For what.
    pub target: Target,
    /// What is noted of it.
    pub record: Box<Record>,
}

/// How a request goes on.
enum Way<'s> {
    /// It has its answer.
    Own(Box<Response<Body>>),
    /// To one of our own endpoints.
    Endpoint(Endpoint),
    /// By this route.
    Route(&'s Route),
}

/// Serves one request. There is always an answer. `found` is why the request
/// must be refused, where its bytes gave away what its parsed head does not.
///
/// What needs no waiting is done at once: whatever is known then has its place in the
/// future, which is copied for each request.
pub fn exchange(
    worker: Arc<Worker>,
    conn: Arc<ConnInfo>,
    request: Request<Incoming>,
    found: Option<Refusal>,
) -> Pin<Box<impl Future<Output = Response<Answer>> + Send>> {
    let mut begun = Begun::of(worker, conn, request, found);
    // Not a function with an argument, which would have two places; and made where it stays.
    Box::pin(async move {
        let state = &begun.state;
        let (result, mut record) = match begun.read {
            Err((record, refusal)) => (Err(refusal.into()), record),
            Ok((mut exchange, body)) => {
                let result = match begun.wait {
                    Some(_) => Err(Refusal::RateLimited.into()),
                    None => match exchange.way(state, &mut begun.wish) {
                        Err(refusal) => Err(refusal.into()),
                        Ok(Way::Own(response)) => Ok(Outcome::Own(*response)),
                        // Not within this future, which is copied for each request.
                        Ok(Way::Endpoint(endpoint)) => {
                            let form = begun.wish.form();
                            let served = endpoints::serve(endpoint, &mut exchange, body, form);
                            Box::pin(served).await.map(Outcome::Own)
                        }
                        Ok(Way::Route(route)) => exchange.route(route, body).await,
                    },
                };
                (result, exchange.record)
            }
        };
        // What has to be waited for next has only this to live beside it.
        let (wish, id) = (&begun.wish, &begun.id);
        let (mut response, mut lease) = match answered(result, &mut record, state, wish, id) {
            Answered::Sent(response, lease) => (response, lease),
            Answered::Tunnel(response, tunnel) => {
                tunnel.start(record);
                return response;
            }
        };
        let mut first = None;
        if lease.is_some() {
            match response.body_mut().begin().await {
                Ok(frame) => first = frame,
                // Nothing of it was sent yet: the client can be told.
                Err(error) => {
                    let failure = Failure::new(Refusal::UpstreamProtocolError, &error);
                    let refused = refuse(state, &mut record, &failure, wish, id);
                    response = refused.map(Content::Own);
                    lease = None;
                }
            }
        }
        let headers = response.headers_mut();
        if lease.is_none() {
            headers.insert(REQUEST_ID, id.clone());
        }
        // An application that answers preflights does the rest of CORS as well.
        if let Some(grant) = begun
            .grant
            .filter(|_| lease.is_none() || !state.cors.forward)
        {
            if lease.is_some() {
                state.cors.strip(headers);
            }
            state.cors.write(&grant, headers);
        }
        if let Some(wait) = begun.wait {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if begun.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(hsts) = state.hsts.as_ref().filter(|_| begun.secure) {
            let entry = headers.entry(STRICT_TRANSPORT_SECURITY);
            entry.or_insert_with(|| hsts.clone());
        }
        record.status = Some(response.status());
        response.map(|body| Answer::new(first, body, begun.is_head, lease, record))
    })
}

/// Whole seconds, and enough of them.
fn seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(begun).max(1)
}

impl Exchange {
    /// What is known of a request without waiting decides how it goes on.
    fn way<'s>(&mut self, state: &'s State, wish: &mut Wish) -> Result<Way<'s>, Refusal> {
        if let Some(response) = self.preflight() {
            return Ok(Way::Own(Box::new(response)));
        }
        if hop::max_forwards(&self.head.method, &self.head.headers) == Some(0) {
            return Ok(Way::Own(Box::new(respond::no_content())));
        }
        if let Some(endpoint) = Endpoint::find(&self.state, self.target.path()) {
            return Ok(Way::Endpoint(endpoint));
        }
        let (number, route) = state.routes.resolve(&self.target, &self.head.method)?;
        self.record.route = Some(number);
        if route.on_refusal == OnRefusal::Status {
            wish.no_page();
        }
        self.check_cross_site()?;
        Ok(Way::Route(route))
    }

    /// One function from here to the application: each that waits within another is
    /// copied into that.
    async fn route(&mut self, route: &Route, body: Incoming) -> Result<Outcome, Failure> {
        let lookup = if route.access.needs_session() {
            self.lookup(true).await?
        } else {
            if self.state.sessions.share_with_app {
                Box::pin(self.end_what_is_over()).await;
            }
            Lookup::NotNeeded
        };
        // Nobody needs to know who asks where there is a session.
        let is_dead = matches!(lookup, Lookup::Dead(_));
        let asker = Asker {
            can_follow: is_dead && negotiate::can_follow(&self.head.method, &self.head.headers),
            navigates: is_dead && negotiate::navigates(&self.head.headers),
            has_page: self.state.login_page,
        };
        let permit = match policy::decide(route, asker, lookup) {
            Decision::Forward(permit) => permit,
            Decision::Login(reason) => {
                self.record.reason = Some(reason);
                let back = self.target.path_and_query();
                return Ok(Outcome::Own(respond::to_login(&self.state, back, reason)));
            }
            Decision::Refuse(refusal) => return Err(refusal.into()),
        };
        let renewed = match permit.session() {
            Some(session) if self.may_renew(session) => {
                Box::pin(self.renewed_cookie(session)).await
            }
            _ => None,
        };
        let (body, watch) = self.guard(route, body)?;
        self.record.request_body.clone_from(&watch);
        let ending = || -> Option<BoxFuture<'static, Refusal>> {
            // An application that makes and ends sessions itself may be doing so with this
            // request, and its answer says what came of it.
            if self.state.sessions.share_with_app {
                return None;
            }
            let session = permit.session()?.clone();
            let (sessions, state) = (self.worker.sessions.clone(), self.state.clone());
            let mut watch = sessions.shared().watch(&session);
            Some(Box::pin(async move {
                let why = watch.ended().await;
                // Who waits for an answer is not idle, though the store has no way to know.
                let idle_end = session.idle_end(&state.sessions.settings);
                if idle_end.is_some_and(|end| end <= sessions.now()) {
                    std::future::pending::<()>().await;
                }
                why
            }))
        };
        let outbound = Outbound {
            permit: &permit,
            client: &self.client,
            conn: &self.conn,
            target: &self.target,
            trust: &self.state.trust,
            cookie: &self.state.sessions.cookie,
            share_cookie: self.state.sessions.share_with_app,
            identity: &self.state.identity,
            request_id: &self.record.request_id,
            present: self.present,
            handshake: self.handshake.as_ref(),
            ending: &ending,
        };
        let client = self.head.extensions.remove::<OnUpgrade>();
        let hold = self.head.extensions.remove::<Hold>();
        let head = std::mem::replace(&mut self.head, Request::new(()).into_parts().0);
        let mut request = Some(Request::from_parts(head, body));
        let upstreams = &self.worker.upstreams;
        let forwarding = upstreams.forward(&outbound, &mut request, watch.as_ref())?;
        let forwarded = forwarding.await;
        let mut answer = forwarded.map_err(|failure| blame(failure, watch.as_ref()))?;
        self.complete(answer.response.headers_mut(), renewed);
        let (Some(client), Some(upstream)) = (client, answer.upgrade.take()) else {
            return Ok(Outcome::Forwarded(answer));
        };
        let crate::upstream::Answer {
            response,
            lease,
            took,
            ..
        } = answer;
        let tunnel = Tunnel {
            client,
            upstream,
            hold,
            place: lease.give_away(),
            idle: self.state.tunnel_idle_timeout,
            websocket: self.handshake.is_some(),
        };
        Ok(Outcome::Tunnel(response, took, tunnel))
    }

    /// What is to be said of the session in an application's response.
    fn complete(&self, headers: &mut HeaderMap, renewed: Option<HeaderValue>) {
        let (rules, id) = (&self.state.sessions, &self.record.request_id);
        if !rules.share_with_app {
            set_cookie::drop_ours(&rules.cookie, headers, id);
        }
        // The next answer will do where this one may be kept for others. What the
        // application says of the cookie counts (S-45: one line of a name).
        if let Some(cookie) = renewed
            && !is_for_all(headers)
            && !set_cookie::is_ours_set(&rules.cookie, headers)
        {
            headers.append(SET_COOKIE, cookie);
        }
    }

    /// The answer to a preflight: before any route or session, since browsers
    /// send no cookie with it.
    fn preflight(&self) -> Option<Response<Body>> {
        let (cors, headers) = (&self.state.cors, &self.head.headers);
        if !cors.answers(&self.head.method, headers) {
            return None;
        }
        let mut response = respond::no_content();
        if let Some(grant) = cors.grant(headers) {
            cors.write_preflight(&grant, response.headers_mut());
        }
        Some(response)
    }

    /// Finds the request's session, and notes whose it is.
    pub async fn lookup(&mut self, slide: bool) -> Result<Lookup, Failure> {
        let sessions = &self.worker.sessions;
        let lookup = sessions
            .lookup(&self.state.sessions, &self.head.headers, slide)
            .await?;
        if let Lookup::Live(session) = &lookup {
            self.record.belongs_to(session);
        }
        Ok(lookup)
    }

    /// Whether the browser's connection is secure, as far as can be known.
    pub fn is_secure(&self) -> bool {
        self.client.secure(self.state.public_origin.as_ref())
    }

    /// Our own origin, as this client's browser sees it.
    pub fn own_origin(&self) -> Option<Origin> {
        let public = self.state.public_origin.as_ref();
        self.client.own_origin(&self.target, public)
    }

    /// Requests that could do harm with our cookie must not come from another
    /// site.
    fn check_cross_site(&self) -> Result<(), Refusal> {
        let acts = self.state.cross_site_forwarded && !self.head.method.is_safe();
        // Scripts of any site may open WebSockets and read what comes.
        let guarded = (acts || self.handshake.is_some())
            && self
                .state
                .sessions
                .cookie
                .values(&self.head.headers)
                .next()
                .is_some();
        if guarded {
            self.state
                .cross_site
                .check(&self.head.headers, self.own_origin().as_ref())?;
        }
        Ok(())
    }

    /// Whether the client takes every 2xx for an open tunnel.
    pub fn is_connect(&self) -> bool {
        let over = self.handshake.as_ref().map(|handshake| handshake.over);
        over == Some(Over::Connect)
    }

    /// The request's body with its limits, and what watches it, if there is one.
    fn guard(&self, route: &Route, body: Incoming) -> Result<(Body, Option<BodyWatch>), Refusal> {
        if http_body::Body::is_end_stream(&body) {
            return Ok((Body::Empty, None));
        }
        let mut body = Guarded::new(body)
            .limit(route.body_bytes)
            .idle(self.state.body_idle_timeout)
            .trailers(Trailers::PassExcept(self.state.identity.clone()));
        if self.head.version == Version::HTTP_2 {
            body = body.explicit_end();
        }
        if body.is_declared_too_large() {
            return Err(Refusal::BodyTooLarge);
        }
        let watch = body.watch();
        Ok((body.into(), Some(watch)))
    }
}

/// A request that failed because of its own body is not the application's
/// fault.
fn blame(failure: Failure, sent: Option<&BodyWatch>) -> Failure {
    let refusal = match sent.map(BodyWatch::fate) {
        None | Some(BodyFate::Fine) => return failure,
        Some(BodyFate::TooLarge) => Refusal::BodyTooLarge,
        Some(BodyFate::Idle) => Refusal::BodyTimeout,
        Some(BodyFate::Broken) => Refusal::BadRequestBody,
    };
    Failure { refusal, ..failure }
}
