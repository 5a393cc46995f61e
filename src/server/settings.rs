//! What the configuration says of the listening side, as plain data.

use std::net::SocketAddr;
use std::time::Duration;

/// `[server]` and `[server.limits]`.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where to listen. Port 0 takes a free port.
    pub listen: Vec<SocketAddr>,
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
