//! A configuration, compiled: plain data, with every default filled in and
//! every combination checked. No sockets, no open files.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderName;

use super::value::quantity::show;
use crate::base::rate::Rate;
use crate::login::settings::LoginSettings;
use crate::policy::route::{Access, Route};
use crate::server::settings::{ListenAddress, ServerSettings};
use crate::session::settings::{LayoutKind, SessionSettings, StoreSettings};
use crate::upstream::settings::UpstreamSettings;
use crate::wire::client::{Origin, Trust};
use crate::wire::cookie::CookieSpec;
use crate::wire::cors::Cors;

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// `[server]` and `[server.limits]`, without what follows.
    pub server: ServerSettings,
    /// `server.limits.requests_per_ip`; `None`: no limit.
    pub requests_per_ip: Option<Rate>,
    /// `server.limits.tunnel_idle_timeout`.
    pub tunnel_idle_timeout: std::time::Duration,
    /// `server.public_url`.
    pub public_origin: Option<Origin>,
    /// `[trust]`.
    pub trust: Trust,
    /// `[upstreams]`, in the order of their names. Empty only where every
    /// route has `access = "deny"`.
    pub upstreams: Vec<UpstreamSettings>,
    /// `[[routes]]`, in the order of the file. Never empty. The index of a
    /// route's upstream is valid unless its access is `deny`.
    pub routes: Vec<Route>,
    /// `[session]`.
    pub session: SessionSettings,
    /// `session.share_with_app`.
    pub share_with_app: bool,
    /// `[session.cookie]`.
    pub cookie: CookieSpec,
    /// `[store]`.
    pub store: StoreSettings,
    /// `store.url` in words, without a password.
    pub store_shown: String,
    /// `endpoints.prefix`: begins with `/`, does not end with it.
    pub prefix: String,
    /// `[login]`.
    pub login: LoginSettings,
    /// `[identity.headers]`; no two names fold to the same.
    pub identity: Vec<(HeaderName, String)>,
    /// `[csrf]`.
    pub cross_site: CrossSiteSettings,
    /// `[cors]`.
    pub cors: Cors,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// What is worth knowing at start and is no problem: defaults that depend
    /// on the rest of the file. One sentence each.
    pub notes: Vec<String>,
}

/// `[csrf]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossSiteSettings {
    /// Whether requests of other sites are checked for.
    pub check: bool,
    /// Whether requests of other hosts of the same site pass.
    pub allow_same_site: bool,
    /// Origins that pass: those of `cors.origins`, `*` not among them.
    pub origins: Vec<Origin>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where health and metrics are; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether `/readyz` needs the store.
    pub ready_requires_store: bool,
    /// Whether `/readyz` needs the upstreams.
    pub ready_requires_upstream: bool,
    /// Where the control socket is.
    pub control: ControlPlace,
}

/// `admin.control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlace {
    /// There is none, or the store needs none: others can open it as well.
    Nowhere,
    /// Here.
    At {
        /// Where.
        path: PathBuf,
        /// Whether the file names it.
        asked: bool,
    },
    /// Under this name in the runtime folder of the service or the user, if
    /// there is one.
    Runtime(String),
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// `log.level`: the least important messages that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// A part of the installation has failed.
    Error,
    /// Somebody's mistake, or an attack.
    Warn,
    /// What is worth knowing in daily operation.
    Info,
    /// For finding out why.
    Debug,
    /// Everything.
    Trace,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Which messages are logged.
    pub level: LogLevel,
    /// Whether each request is logged.
    pub access: bool,
}

impl Compiled {
    /// What this configuration does, in plain words, one line each: where it
    /// listens, what it protects, which store, the timeouts in force, and the
    /// notes. Holds no secret. Warnings are the caller's to add.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = self.listening();
        lines.extend(self.protecting());
        lines.push(self.storing());
        lines.extend(self.timing());
        lines.push(self.signing_in());
        lines.push(match self.admin.listen {
            Some(address) => format!("admin on http://{address} (/healthz, /readyz, /metrics)"),
            None => {
                "no admin listener, so no health and no metrics (admin.listen is \"off\")".into()
            }
        });
        lines.extend(self.notes.iter().cloned());
        lines
    }

    fn listening(&self) -> Vec<String> {
        let tls = self.server.tls.as_ref();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let after = match self.server.proxy_protocol {
            true => ", where trusted proxies send a PROXY header",
            false => "",
        };
        let listening = self.server.listen.iter().map(|address| match address {
            ListenAddress::Tcp(address) => format!("listening on {scheme}://{address}{after}"),
            ListenAddress::Unix(_) => format!("listening on {address}{after}"),
        });
        let redirect = tls.and_then(|tls| tls.redirect_http);
        let redirecting = redirect.map(|address| format!("redirecting http://{address} to https"));
        listening.chain(redirecting).collect()
    }

    fn protecting(&self) -> Vec<String> {
        self.routes
            .iter()
            .map(|route| {
                let who = match &route.access {
                    Access::Public => "open to everybody".to_string(),
                    Access::Optional => {
                        "open to everybody, with the identity where known".to_string()
                    }
                    Access::Login { roles } if roles.is_empty() => {
                        "for signed-in users".to_string()
                    }
                    Access::Login { roles } => {
                        format!("for signed-in users with the role {}", roles.join(" or "))
                    }
                    Access::Deny => return format!("route {}: closed to everybody", route.label),
                };
                match self.upstreams.get(route.upstream) {
                    Some(upstream) => format!(
                        "route {}: {who}, forwarded to {} at {}",
                        route.label,
                        upstream.name,
                        upstream
                            .addresses
                            .iter()
                            .map(ToString::to_string)
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                    None => format!("route {}: {who}", route.label),
                }
            })
            .collect()
    }

    fn storing(&self) -> String {
        let fate = if self.store_shown == "memory:" {
            ", which are gone when this process ends"
        } else {
            ""
        };
        let shared = match (&self.store.layout, self.share_with_app) {
            (LayoutKind::Express { .. }, true) => {
                ", which the application shares, and their cookie too"
            }
            (LayoutKind::Express { .. }, false) => ", as Express applications keep theirs",
            (LayoutKind::Sealed, _) => "",
        };
        format!("sessions are kept in {}{fate}{shared}", self.store_shown)
    }

    fn timing(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "sessions end after {} without use, and {} after login at the latest",
            show(self.session.idle_timeout),
            show(self.session.absolute_timeout),
        )];
        for upstream in &self.upstreams {
            lines.push(format!(
                "{} has {} to accept a connection and {} to answer",
                upstream.name,
                show(upstream.connect_timeout),
                show(upstream.response_timeout),
            ));
        }
        lines.push(format!(
            "when stopping, requests in flight have {} to finish",
            show(self.server.drain_timeout)
        ));
        lines
    }

    fn signing_in(&self) -> String {
        let files: Vec<String> = self
            .login
            .users_files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let methods = match files.as_slice() {
            [] => "nobody can sign in: there is no login method".to_string(),
            files => format!("users are read from {}", files.join(" and ")),
        };
        match self.login.page {
            true => format!("{methods}; the login page is {}/login", self.prefix),
            false => methods,
        }
    }
}
