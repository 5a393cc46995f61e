//! The compiled configuration becomes what requests are served with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::rate::RateLimiter;
use crate::config::Compiled;
use crate::login::page::Pages;
use crate::login::password::Logins;
use crate::policy::Table;
use crate::proxy::access_log::AccessLog;
use crate::proxy::{State, Worker};
use crate::session::SessionRules;
use crate::session::settings::LayoutKind;
use crate::session::store::Opened;
use crate::session::{Sessions, Shared};
use crate::upstream::{Fleet, UpstreamSettings, Upstreams};
use crate::wire::cross_site::CrossSite;

/// What all workers have in common.
pub struct Parts {
    /// The configuration in force.
    pub state: Arc<ArcSwap<State>>,
    /// Where the applications are.
    pub upstreams: Vec<UpstreamSettings>,
    /// What the workers share of the sessions.
    pub shared: Arc<Shared>,
    /// How they are doing.
    pub fleet: Fleet,
    /// The password checks.
    pub logins: Logins,
    /// How often each client may ask, if that is limited.
    pub limiter: Option<Arc<RateLimiter>>,
    /// Where access lines go.
    pub access: AccessLog,
}

/// The immutable part.
///
/// # Errors
///
/// If a built-in page cannot be made.
pub fn state(compiled: &Compiled, metrics: &Metrics) -> Result<Arc<ArcSwap<State>>, String> {
    let login = &compiled.login;
    let pages = Pages::new(&login.title, &login.redirect_hosts).map_err(|e| e.to_string())?;
    let routes = Table::new(compiled.routes.clone());
    let sessions = session_rules(compiled);
    let state = State {
        trust: compiled.trust.clone(),
        public_origin: compiled.public_origin.clone(),
        route_metrics: routes
            .routes()
            .iter()
            .map(|r| metrics.route(&r.label))
            .collect(),
        own_metrics: metrics.route("-"),
        routes,
        identity: sessions.identity.clone(),
        sessions,
        cross_site: CrossSite {
            origins: compiled.cross_site.origins.clone(),
            allow_same_site: compiled.cross_site.allow_same_site,
        },
        cors: compiled.cors.clone(),
        cross_site_forwarded: compiled.cross_site.check,
        endpoints: compiled.prefix.clone(),
        login_page: login.page,
        after_login: login.after_login.clone(),
        after_logout: login.after_logout.clone(),
        redirect_hosts: login.redirect_hosts.clone(),
        pages,
        hsts: hsts(compiled),
        tunnel_idle_timeout: compiled.tunnel_idle_timeout,
        body_idle_timeout: compiled.server.body_idle_timeout,
    };
    Ok(Arc::new(ArcSwap::from_pointee(state)))
}

/// The rules of sessions, in the layout that is configured.
pub fn session_rules(compiled: &Compiled) -> SessionRules {
    let (settings, prefix) = (compiled.session.clone(), compiled.store.prefix.clone());
    let cookie = compiled.cookie.clone();
    let rules = match &compiled.store.layout {
        LayoutKind::Sealed => SessionRules::new(settings, prefix, cookie),
        LayoutKind::Express { .. } => {
            let identity = compiled.identity.iter().map(|(_, path)| path.clone());
            let share = compiled.share_with_app;
            SessionRules::express(settings, prefix, cookie, identity, share)
        }
    };
    rules.with_identity(compiled.identity.clone())
}

/// `Strict-Transport-Security` (RFC 6797 section 6.1), if it is to be sent.
fn hsts(compiled: &Compiled) -> Option<HeaderValue> {
    let seconds = compiled.server.tls.as_ref()?.hsts.as_secs();
    match seconds {
        0 => None,
        seconds => HeaderValue::from_str(&format!("max-age={seconds}")).ok(),
    }
}

/// A worker's live parts. Must be called in the worker's runtime.
pub fn worker(
    parts: &Parts,
    opened: &Opened,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Arc<Worker> {
    Arc::new(Worker {
        state: parts.state.clone(),
        upstreams: Upstreams::new(&parts.upstreams, &parts.fleet),
        sessions: Arc::new(Sessions::new(
            opened.handle(),
            clock.clone(),
            metrics.clone(),
            parts.shared.clone(),
        )),
        logins: parts.logins.clone(),
        limiter: parts.limiter.clone(),
        metrics: metrics.clone(),
        access: parts.access.beside(),
    })
}
