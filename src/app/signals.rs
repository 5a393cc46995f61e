//! What the system asks of a running proxy.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are listened to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them over from the system's defaults. Must be called inside a
    /// runtime.
    ///
    /// # Errors
    ///
    /// If the system refuses a handler.
    pub fn listen() -> Result<Self, String> {
        let open = |kind| signal(kind).map_err(|error| format!("cannot handle signals: {error}"));
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Its default would end the process, which nobody means by it.
                _ = self.hangup.recv() => tracing::warn!(
                    "SIGHUP: reloading the configuration is not available in this version; \
                     users files are followed by themselves"
                ),
            }
        }
    }
}
