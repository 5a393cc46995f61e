//! What the configuration says of upstreams, as plain data.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use super::tls::TlsClient;

/// The most addresses of one upstream. The addresses that a request was tried
/// at are kept in the bits of one number.
pub const MOST_ADDRESSES: usize = 64;

/// `[upstreams.NAME]`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is: at least one address, at most [`MOST_ADDRESSES`].
    pub addresses: Vec<UpstreamAddress>,
    /// How requests are spread over the addresses.
    pub balance: Balance,
    /// What the application gets as `Host`.
    pub host: HostHeader,
    /// The longest that making a connection may take: resolving the name, the
    /// transport, and TLS together.
    pub connect_timeout: Duration,
    /// The longest wait from the end of the request's head to the response's.
    pub response_timeout: Duration,
    /// How often a request may be sent again on a fresh connection, if it
    /// cannot have been acted on, or not twice.
    pub retries: u32,
    /// Idle connections kept per address and worker.
    pub pool_idle: usize,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
    /// `[upstreams.NAME.health]`; `None`: no active checks.
    pub health: Option<HealthCheck>,
    /// `[upstreams.NAME.tls]`; there wherever an address is `https`.
    pub tls: Option<TlsClient>,
}

/// `upstreams.NAME.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The address with the fewest requests of this worker in flight.
    LeastRequests,
    /// One after the other.
    RoundRobin,
}

/// `[upstreams.NAME.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path that is asked.
    pub path: String,
    /// The time between two checks of one address.
    pub interval: Duration,
}

/// One entry of `upstreams.NAME.urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// What is spoken there.
    pub scheme: Scheme,
    /// Where it is.
    pub place: Place,
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS, as the upstream chooses (ALPN).
    Https,
    /// HTTP/2 in the clear, with prior knowledge (RFC 9113 section 3.3).
    H2c,
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a TCP port.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// On a Unix socket.
    Unix(PathBuf),
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }

    /// The port where a URL names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http | Self::H2c => 80,
        }
    }
}

impl UpstreamAddress {
    /// An address on a TCP port.
    pub fn tcp(scheme: Scheme, host: impl Into<String>, port: u16) -> Self {
        Self {
            scheme,
            place: Place::Tcp {
                host: host.into(),
                port,
            },
        }
    }

    /// `host:port`, with brackets around an IPv6 address, and without the port
    /// where it is the scheme's own. A Unix socket has no name; it is
    /// `localhost`.
    pub fn authority(&self) -> String {
        let Place::Tcp { host, port } = &self.place else {
            return "localhost".to_owned();
        };
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        match *port == self.scheme.default_port() {
            true => host,
            false => format!("{host}:{port}"),
        }
    }
}

/// As it stands in the configuration.
impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => write!(f, "{}://{}", self.scheme.as_str(), self.authority()),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `upstreams.NAME.host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for.
    Preserve,
    /// The upstream's own address.
    Upstream,
    /// This.
    Literal(String),
}
