//! What the configuration says of upstreams, as plain data.

use std::time::Duration;

/// `[upstreams.NAME]`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is. Exactly one in this version.
    pub address: UpstreamAddress,
    /// What the application gets as `Host`.
    pub host: HostHeader,
    /// The longest that making a connection may take.
    pub connect_timeout: Duration,
    /// The longest wait from the end of the request's head to the response's.
    pub response_timeout: Duration,
    /// How often a request may be sent again on a fresh connection, if it
    /// cannot have been acted on.
    pub retries: u32,
    /// Idle connections kept per worker.
    pub pool_idle: usize,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
}

/// Host name or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl UpstreamAddress {
    /// `host:port`, with brackets around an IPv6 address, and without the port
    /// where it is 80.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
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
