//! Idle connections to one upstream, kept by one worker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::wire::body::Body;

/// A worker's idle connections to one upstream. Only that worker's thread
/// takes the lock, so it is never waited for.
#[derive(Clone)]
pub struct Pool {
    idle: Arc<Mutex<VecDeque<Idle>>>,
    most: usize,
    longest: Duration,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection on loan. It goes back with [`Lease::give_back`] when its
/// response has been read to the end; dropped before, it is closed.
pub struct Lease {
    sender: Option<SendRequest<Body>>,
    pool: Pool,
}

impl Pool {
    /// An empty pool for at most `most` connections, each for `longest`.
    pub fn new(most: usize, longest: Duration) -> Self {
        Self {
            idle: Arc::default(),
            most,
            longest,
        }
    }

    /// The connection that was used last and can take a request at once.
    /// Drops those that have been closed or are too old.
    pub fn take(&self) -> Option<Lease> {
        let mut idle = self.lock();
        let now = Instant::now();
        while let Some(oldest) = idle.front() {
            if !oldest.sender.is_closed() && now.duration_since(oldest.since) < self.longest {
                break;
            }
            idle.pop_front();
        }
        // From the back: the warmest first, so that the others may grow old.
        let at = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        let found = idle.remove(at)?;
        drop(idle);
        if now.duration_since(found.since) >= self.longest {
            return None;
        }
        Some(self.lend(found.sender))
    }

    /// A fresh connection, which may come back to this pool.
    pub fn lend(&self, sender: SendRequest<Body>) -> Lease {
        Lease {
            sender: Some(sender),
            pool: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The connection; `None` only after it was given back.
    pub fn sender(&mut self) -> Option<&mut SendRequest<Body>> {
        self.sender.as_mut()
    }

    /// Puts the connection back, if it is open and there is room.
    pub fn give_back(&mut self) {
        let Some(sender) = self.sender.take() else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let mut idle = self.pool.lock();
        if idle.len() >= self.pool.most {
            idle.pop_front();
        }
        if self.pool.most > 0 {
            idle.push_back(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}
