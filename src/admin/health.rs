//! Whether this replica wants traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::session::Sessions;
use crate::upstream::UpstreamSettings;
use crate::upstream::connect::is_reachable;

/// What readiness depends on. A store outage is part of it only where the
/// operator asked for that: it would take every replica out at once.
pub struct Health {
    /// Started, and not draining.
    pub serving: Arc<AtomicBool>,
    /// The store, where `ready_requires` names it.
    pub store: Option<Arc<Sessions>>,
    /// The applications, where `ready_requires` names them.
    pub upstreams: Vec<UpstreamSettings>,
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
        for upstream in &self.upstreams {
            if !is_reachable(upstream).await {
                return Err(format!("no connection to upstream {}", upstream.name));
            }
        }
        Ok(())
    }
}
