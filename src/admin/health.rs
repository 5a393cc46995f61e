//! Whether this replica wants traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::session::Sessions;
use crate::upstream::UpstreamAddress;

/// The longest that asking an upstream may take.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(2);

/// What readiness depends on. A store outage is part of it only where the
/// operator asked for that: it would take every replica out at once.
pub struct Health {
    /// Started, and not draining.
    pub serving: Arc<AtomicBool>,
    /// The store, where `ready_requires` names it.
    pub store: Option<Arc<Sessions>>,
    /// The applications, where `ready_requires` names them.
    pub upstreams: Vec<UpstreamAddress>,
}

impl Health {
    /// Whether to send traffic here.
    ///
    /// # Errors
    ///
    /// Why not, in a few words.
    pub async fn ready(&self) -> Result<(), String> {
        if !self.serving.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        if let Some(store) = &self.store {
            store
                .ping()
                .await
                .map_err(|_| "the session store does not answer".to_owned())?;
        }
        for address in &self.upstreams {
            let dial = TcpStream::connect((address.host.as_str(), address.port));
            if !matches!(timeout(UPSTREAM_PATIENCE, dial).await, Ok(Ok(_))) {
                return Err(format!("no connection to upstream {}", address.authority()));
            }
        }
        Ok(())
    }
}
