//! What is noted of a request while it is served, and what becomes of it at
//! the end: one access line and the metrics.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode, Version};

use super::access_log::Line;
use super::leash::Leash;
use super::state::{State, Worker};
use super::times::{Milliseconds, Moment};
use crate::base::refusal::Refusal;
use crate::session::Session;
use crate::wire::body::BodyWatch;
use crate::wire::target::HostName;

/// What is recorded for a client that left before there was a response, as
/// nginx does.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What was asked for, or what is noted in its place.
enum Path {
    /// Only the path is ever written.
    Asked(PathAndQuery),
    Copied(Box<str>),
    Not(&'static str),
}

/// The notes about one request. Whoever drops them ends the request.
pub struct Record {
    worker: Arc<Worker>,
    state: Arc<State>,
    start: Instant,
    time: SystemTime,
    method: Method,
    path: Path,
    version: Version,
    /// The id under which everything about this request is logged.
    pub request_id: HeaderValue,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// For which host.
    pub host: Option<HostName>,
    /// The number of the route it met.
    pub route: Option<usize>,
    /// Who signed in by it.
    pub user: Option<String>,
    /// The handle of the session that it created.
    pub session: Option<Arc<str>>,
    /// The session that it came with.
    of: Option<Session>,
    /// What tells of that session's end, once somebody wants to know.
    leash: OnceLock<Arc<Leash>>,
    /// Why it was refused.
    pub reason: Option<Refusal>,
    /// The status of the response; `None` until there is one.
    pub status: Option<StatusCode>,
    /// Counts the request's body.
    pub request_body: Option<BodyWatch>,
    /// Bytes that were read, where nothing counts a request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body that were sent.
    pub bytes_out: u64,
    /// How long the application took to begin its response.
    pub upstream: Option<Duration>,
    /// Whether the response was sent to its end.
    pub complete: bool,
}

impl Record {
    /// Begins the notes with the request's head.
    pub fn begin(
        worker: &Arc<Worker>,
        state: &Arc<State>,
        request: &http::request::Parts,
        request_id: HeaderValue,
    ) -> Self {
        let path = match request.uri.path_and_query() {
            Some(asked) => Path::Asked(asked.clone()),
            None => Path::Not(""),
        };
        let method = request.method.clone();
        Self::new(worker, state, method, path, request.version, request_id)
    }

    /// Begins the notes about a head that could not be parsed.
    pub fn unparsed(worker: &Arc<Worker>, state: &Arc<State>, request_id: HeaderValue) -> Self {
        // Not a word of it is known for certain.
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let (path, version) = (Path::Not("-"), Version::HTTP_11);
        Self::new(worker, state, method, path, version, request_id)
    }

    fn new(
        worker: &Arc<Worker>,
        state: &Arc<State>,
        method: Method,
        path: Path,
        version: Version,
        request_id: HeaderValue,
    ) -> Self {
        Self {
            worker: worker.clone(),
            state: state.clone(),
            start: Instant::now(),
            time: SystemTime::now(),
            method,
            path,
            version,
            request_id,
            client: None,
            host: None,
            route: None,
            user: None,
            session: None,
            of: None,
            leash: OnceLock::new(),
            reason: None,
            status: None,
            request_body: None,
            bytes_in: 0,
            bytes_out: 0,
            upstream: None,
            complete: false,
        }
    }

    /// The answer takes its time, or is a tunnel: the notes copy what they have of the
    /// head. As long as a piece of it is held, so is the whole buffer that it was read
    /// into.
    pub fn settle(&mut self) {
        let Path::Asked(asked) = &self.path else {
            return;
        };
        self.path = Path::Copied(asked.path().into());
        if let Ok(id) = HeaderValue::from_bytes(self.request_id.as_bytes()) {
            self.request_id = id;
        }
        self.host = self.host.as_ref().map(HostName::detached);
    }

    /// Notes whose request it is.
    pub fn belongs_to(&mut self, session: &Session) {
        self.of = Some(session.clone());
    }

    /// Made for the first who asks: few answers are waited for.
    fn tied(&self) -> Option<&Arc<Leash>> {
        let session = self.of.as_ref()?;
        let shared = self.worker.sessions.shared();
        let made = || Arc::new(Leash::new(session, shared));
        Some(self.leash.get_or_init(made))
    }

    /// Ready with the reason once the session that it came with is over. To be asked
    /// only where the answer has to be waited for: the first time costs something.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        let Some(leash) = self.tied() else {
            return Poll::Pending;
        };
        let why = ready!(leash.poll_over(context));
        self.reason = Some(why);
        Poll::Ready(why)
    }

    /// Whether somebody is told of that session's end already.
    pub fn is_watched(&self) -> bool {
        self.leash.get().is_some_and(|leash| leash.is_watched())
    }

    /// What ties it to that session, for as long as these notes are taken.
    pub fn leash(&self) -> Option<Weak<Leash>> {
        self.tied().map(Arc::downgrade)
    }

    /// The session that it came with is in use still.
    pub fn keep_alive(&self) {
        if let Some(session) = &self.of {
            self.worker.sessions.slide(&self.state.sessions, session);
        }
    }

    /// How often it makes sense to say so.
    pub fn touch_interval(&self) -> Duration {
        self.state.sessions.settings.touch_interval
    }

    /// Ends the notes with an answer that is there as a whole.
    pub fn answered(mut self, response: &Response<Bytes>, reason: Option<Refusal>) {
        self.status = Some(response.status());
        self.reason = reason;
        self.bytes_out = u64::try_from(response.body().len()).unwrap_or(u64::MAX);
        self.complete = true;
    }

    fn status_code(&self) -> u16 {
        self.status
            .map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16())
    }

    fn count(&self, took: Duration) {
        let metrics = &self.worker.metrics;
        metrics.duration.observe(took);
        if let Some(upstream) = self.upstream {
            metrics.upstream.observe(upstream);
        }
        if let Some(reason) = self.reason {
            metrics.refused(reason);
        }
        self.route
            .and_then(|route| self.state.route_metrics.get(route))
            .unwrap_or(&self.state.own_metrics)
            .responded(self.status_code());
    }

    fn write(&self, took: Duration) {
        let route = self.route.and_then(|r| self.state.routes.routes().get(r));
        let of = self.of.as_ref();
        self.worker.access.write(&Line {
            time: Moment::of(self.time),
            kind: "access",
            request_id: self.request_id.as_bytes(),
            client: self.client,
            method: self.method.as_str(),
            host: self.host.as_ref().map(HostName::as_bytes),
            path: match &self.path {
                Path::Asked(asked) => asked.path(),
                Path::Copied(path) => path,
                Path::Not(said) => said,
            },
            protocol: protocol(self.version),
            status: self.status_code(),
            route: route.map(|route| route.label.as_str()),
            user: self.user.as_deref().or(of.map(|of| of.user())),
            session: self.session.as_deref().or(of.map(|of| of.handle())),
            reason: self.reason.map(Refusal::label),
            aborted: !self.complete,
            bytes_in: self
                .request_body
                .as_ref()
                .map_or(self.bytes_in, BodyWatch::bytes),
            bytes_out: self.bytes_out,
            duration_ms: Milliseconds::of(took),
            upstream_ms: self.upstream.map(Milliseconds::of),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        if !self.complete && self.reason.is_none() {
            // Whoever sent the answer was told before its body could be.
            self.reason = self.leash.get().and_then(|leash| leash.why());
        }
        self.count(took);
        if self.worker.access.is_on() {
            self.write(took);
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
