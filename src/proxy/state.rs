//! What requests are served with: the configuration, compiled, and the parts
//! that live on beside it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::access_log::AccessLog;
use crate::base::metrics::{Metrics, RouteMetrics};
use crate::base::rate::RateLimiter;
use crate::login::page::Pages;
use crate::login::password::Logins;
use crate::policy::Table;
use crate::session::SessionRules;
use crate::session::Sessions;
use crate::upstream::Upstreams;
use crate::wire::client::{Origin, Trust};
use crate::wire::cors::Cors;
use crate::wire::cross_site::CrossSite;
use crate::wire::reserved::IdentityHeaders;

/// The configuration, as requests need it. Immutable: a request takes one and
/// keeps it to its end, and a reload puts another in its place.
pub struct State {
    /// Whose forwarding fields count.
    pub trust: Trust,
    /// Scheme and host as browsers see them, where configured.
    pub public_origin: Option<Origin>,
    /// The session cookie, its secrets, and the timeouts.
    pub sessions: SessionRules,
    /// Which requests may pass.
    pub routes: Table,
    /// Counters of each route, by its number.
    pub route_metrics: Vec<RouteMetrics>,
    /// Counters of what Cloakroom answers itself.
    pub own_metrics: RouteMetrics,
    /// The identity headers.
    pub identity: Arc<IdentityHeaders>,
    /// The check of requests from other sites.
    pub cross_site: CrossSite,
    /// Which other origins' pages may read answers.
    pub cors: Cors,
    /// Whether forwarded requests are checked too; our own endpoints always
    /// are.
    pub cross_site_forwarded: bool,
    /// What the paths of our own endpoints begin with: `/auth`.
    pub endpoints: String,
    /// Whether the built-in login page is served.
    pub login_page: bool,
    /// Where to after signing in, where the request does not say.
    pub after_login: String,
    /// Where to after signing out.
    pub after_logout: String,
    /// Hosts that may be returned to, besides our own origin.
    pub redirect_hosts: Vec<String>,
    /// The built-in pages.
    pub pages: Pages,
    /// `Strict-Transport-Security` of secure responses, if it is sent.
    pub hsts: Option<HeaderValue>,
    /// The longest silence on a WebSocket.
    pub tunnel_idle_timeout: Duration,
    /// The longest pause between two pieces of a body.
    pub body_idle_timeout: Duration,
}

/// The live parts that one worker thread serves requests with.
pub struct Worker {
    /// The configuration in force, shared by all workers.
    pub state: Arc<ArcSwap<State>>,
    /// This worker's connections to the applications.
    pub upstreams: Upstreams,
    /// This worker's way to the sessions.
    pub sessions: Arc<Sessions>,
    /// The password checks, shared by all workers.
    pub logins: Logins,
    /// How often each client may ask, if that is limited; shared by all workers.
    pub limiter: Option<Arc<RateLimiter>>,
    /// The counters, shared by all workers.
    pub metrics: Arc<Metrics>,
    /// Where access lines go.
    pub access: AccessLog,
}

impl AsRef<SessionRules> for State {
    fn as_ref(&self) -> &SessionRules {
        &self.sessions
    }
}
