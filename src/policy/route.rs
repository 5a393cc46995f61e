//! A route: which requests it covers, who may pass, where they go.

use http::Method;

/// `routes.access` (and `routes.roles`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody; no session is looked up and no identity sent.
    Public,
    /// Everybody; the identity is sent where there is one.
    Optional,
    /// Those who are signed in; with roles, those who have any of them.
    Login {
        /// Any of these; empty: everybody who is signed in.
        roles: Vec<String>,
    },
    /// Nobody.
    Deny,
}

impl Access {
    /// Whether the decision depends on a session.
    pub fn needs_session(&self) -> bool {
        matches!(self, Self::Optional | Self::Login { .. })
    }
}

/// `routes.on_refusal`: what a browser that is not signed in gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefusal {
    /// Navigations go to the login page, everything else gets the status.
    Auto,
    /// Always the status.
    Status,
    /// Every safe request that is not an upgrade goes to the login page.
    Login,
}

/// `routes.ambiguous_paths`: what happens to a target that servers may read
/// differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmbiguousPaths {
    /// Forwarded untouched if every reading of it meets the same route.
    SameRule,
    /// Refused.
    Reject,
    /// Forwarded untouched. Unsafe where another rule guards another path.
    Allow,
}

/// `routes.host`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// This host, in lower case, without port.
    Exact(String),
    /// `*.example.com`: any host below the suffix, which is kept as
    /// `.example.com` in lower case.
    Suffix(String),
}

/// One `[[routes]]` entry, compiled.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which host it is for.
    pub host: HostPattern,
    /// The path, beginning with `/`, as it stands in the configuration.
    pub path: String,
    /// Whether the path must match whole, not as a prefix on a segment
    /// boundary.
    pub exact: bool,
    /// Which methods it is for; empty: all.
    pub methods: Vec<Method>,
    /// Who may pass.
    pub access: Access,
    /// Index into the upstreams.
    pub upstream: usize,
    /// What those who may not pass get.
    pub on_refusal: OnRefusal,
    /// What happens to odd targets.
    pub ambiguous_paths: AmbiguousPaths,
    /// The largest request body in bytes; `None`: any.
    pub body_bytes: Option<u64>,
    /// How it is called in logs and metrics: `GET,POST app.example.com/admin`.
    pub label: String,
}
