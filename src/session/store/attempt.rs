//! An attempt to connect that comes to its end whether or not anybody waits for it.
//!
//! Were it part of the request that needs the connection, it would end with that
//! request's time. Under load, where somebody always waits, a server that takes a
//! little longer than that would then never be connected to again.

#[cfg(test)]
pub(crate) mod door;

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The shortest time that an attempt gets; longer than the time of most requests, so
/// that a slow server is connected to, and short enough to try anew where packets
/// were lost.
const LEAST: Duration = Duration::from_secs(2);

/// After a failure to connect, how long at most everybody gets the same answer
/// without a new attempt. So a server that is down costs nobody any time, and one
/// that comes back is used again at once.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// An attempt under way, or just over. It ends with the last of its handles.
pub(super) struct Attempt {
    began: Instant,
    ended: watch::Receiver<()>,
    task: AbortHandle,
}

impl Attempt {
    /// Begins one in that runtime. It must note by itself what it came to, and must
    /// end by itself ([`limit`]).
    pub(super) fn begin(
        runtime: &Handle,
        connecting: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (ending, ended) = watch::channel(());
        let task = runtime.spawn(async move {
            connecting.await;
            // Also where it does not come here: dropping this is what tells.
            drop(ending);
        });
        Self {
            began: Instant::now(),
            ended,
            task: task.abort_handle(),
        }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended.has_changed().is_err()
    }

    /// Whether it has taken longer than that already. Who comes now need not wait as
    /// well to find out that there is an outage.
    pub(super) fn has_taken(&self, span: Duration) -> bool {
        self.began.elapsed() >= span
    }

    /// Waits for its end.
    pub(super) fn end(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move {
            // Nothing is ever sent, so the only answer is that nobody can.
            while ended.changed().await.is_ok() {}
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long an attempt may take on behalf of requests that have `timeout`.
pub(super) fn limit(timeout: Duration) -> Duration {
    timeout.max(LEAST)
}

/// Between half and all of it, so that replicas do not come back as one.
pub(super) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness, it is merely not jittered.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.5 + f64::from(byte) / 510.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_without_anybody_who_waits_and_ends_with_its_owner() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, tell) = (go.clone(), done.clone());
        let attempt = Attempt::begin(&Handle::current(), async move {
            told.notified().await;
            tell.notify_one();
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(20), attempt.end())
                .await
                .is_err()
        );
        assert!(!attempt.is_over() && attempt.has_taken(Duration::from_millis(20)));
        go.notify_one();
        done.notified().await;
        attempt.end().await;
        assert!(attempt.is_over());

        let endless = Attempt::begin(&Handle::current(), std::future::pending());
        let end = endless.end();
        drop(endless);
        end.await;
    }

    #[test]
    fn pauses_differ() {
        let pauses: Vec<_> = (0..50).map(|_| jittered(PAUSE)).collect();
        assert!(pauses.iter().all(|p| *p <= PAUSE && *p >= PAUSE / 2));
        assert!(pauses.iter().any(|p| p != &pauses[0]));
    }
}
