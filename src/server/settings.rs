//! What the configuration says of the listening side, as plain data.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[server]` and `[server.limits]`.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// `[server.tls]`, for the addresses with a port; `None`: plaintext.
    pub tls: Option<TlsSettings>,
    /// Whether trusted proxies must, and nobody else may, begin a connection
    /// with a PROXY header.
    pub proxy_protocol: bool,
    /// Worker threads; 0: one per CPU.
    pub workers: usize,
    /// Whether HTTP/2 with prior knowledge is spoken on plaintext listeners.
    pub http2: bool,
    /// How long readiness fails before connections are drained.
    pub drain_delay: Duration,
    /// How long connections may take to finish.
    pub drain_timeout: Duration,
    /// The longest that a request's head may take, from its first byte or the
    /// connection's beginning.
    pub header_timeout: Duration,
    /// The longest that a kept connection may be idle between requests.
    pub idle_timeout: Duration,
    /// The longest pause between two pieces of a body, in either direction.
    pub body_idle_timeout: Duration,
    /// The largest request head in bytes.
    pub header_bytes: usize,
    /// The most fields in a request head.
    pub header_count: usize,
    /// Connections at once, over all workers.
    pub connections: usize,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address with a port. Port 0 takes a free port.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address, if it has a port.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[server.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// At least one. The first is shown to clients that ask for no name that
    /// is known.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Clients must show a certificate of one of these authorities.
    pub client_ca: Option<PathBuf>,
    /// A plaintext listener that sends clients to https.
    pub redirect_http: Option<SocketAddr>,
    /// The port of https as browsers see it, where that is known.
    pub public_port: Option<u16>,
    /// `max-age` of `Strict-Transport-Security`; zero: not sent.
    pub hsts: Duration,
}

/// A certificate chain and its key, as files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate, then those of the authorities between.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The defaults.
    pub fn settings() -> ServerSettings {
        let second = Duration::from_secs(1);
        ServerSettings {
            listen: Vec::new(),
            tls: None,
            proxy_protocol: false,
            workers: 1,
            http2: true,
            drain_delay: second,
            drain_timeout: second,
            header_timeout: second * 10,
            idle_timeout: second * 75,
            body_idle_timeout: second * 30,
            header_bytes: 65_536,
            header_count: 100,
            connections: 1,
        }
    }
}
