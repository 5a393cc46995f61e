//! Checking passwords, away from the threads that proxy.
//!
//! Hashing a password takes tens of milliseconds and megabytes by design, so
//! it runs on threads of its own behind a [`queue`] that is fair between
//! networks. A login flood fills its own line and cannot slow proxied traffic.
//!
//! One login costs exactly one hash, whatever is wrong with it, so the time of
//! the answer does not tell whether a user exists; see [`directory`].

pub mod directory;
pub mod hash;
pub mod queue;

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::directory::Directory;
use self::queue::{Network, PLACES, PLACES_PER_NETWORK, Queue};
use super::method::{CredentialVerifier, Credentials, LoginError, Outcome};
use super::settings::LoginSettings;
use crate::base::BoxFuture;

/// How long a login waits for a hash thread.
const PATIENCE: Duration = Duration::from_secs(10);

/// The verifier over the users files, with its hash threads. Clones share
/// them; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Logins(Arc<Handle>);

/// Ends the threads when dropped; the threads themselves hold only `Shared`.
struct Handle(Arc<Shared>);

struct Shared {
    queue: Queue<Job>,
    directory: Mutex<Directory>,
    hashes: AtomicU64,
    /// How long a login waits in line.
    patience: Duration,
}

/// One login that waits for its verdict.
struct Job {
    credentials: Credentials,
    started: Arc<AtomicBool>,
    verdict: oneshot::Sender<Result<Outcome, LoginError>>,
}

impl Logins {
    /// Reads the users files and starts the hash threads, named
    /// `cloakroom-hash-N`.
    ///
    /// # Errors
    ///
    /// What is wrong with the users files, one problem a line, or that a
    /// thread cannot be started.
    pub fn start(settings: &LoginSettings) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            queue: Queue::new(PLACES, PLACES_PER_NETWORK),
            directory: Mutex::new(Directory::open(&settings.users_files)?),
            hashes: AtomicU64::new(0),
            patience: PATIENCE,
        });
        // Made first, so that threads that did start end if another does not.
        let logins = Self(Arc::new(Handle(shared.clone())));
        for number in 0..settings.hash_concurrency.max(1) {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("cloakroom-hash-{number}"))
                .spawn(move || shared.work())
                .map_err(|e| format!("cannot start a thread for password checks: {e}"))?;
        }
        Ok(logins)
    }

    /// How many hashes were computed so far: one for each login that was
    /// decided.
    pub fn hashes(&self) -> u64 {
        self.0.0.hashes.load(Ordering::Relaxed)
    }
}

impl CredentialVerifier for Logins {
    fn verify(
        &self,
        credentials: Credentials,
        from: IpAddr,
    ) -> BoxFuture<'_, Result<Outcome, LoginError>> {
        Box::pin(self.0.0.verify(credentials, from))
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins")
            .field("hashes", &self.hashes())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Shared {
    /// Waits in line and for the verdict. The time in line is bounded, the
    /// hash itself is not: once it runs, it will end soon.
    async fn verify(&self, credentials: Credentials, from: IpAddr) -> Result<Outcome, LoginError> {
        let deadline = Instant::now() + self.patience;
        let place = timeout_at(deadline, self.queue.place(Network::from(from)))
            .await
            .ok()
            .flatten()
            .ok_or(LoginError::Busy)?;
        let started = Arc::new(AtomicBool::new(false));
        let (verdict, mut answer) = oneshot::channel();
        self.queue.push(
            place,
            Job {
                credentials,
                started: started.clone(),
                verdict,
            },
        );
        let answered = match timeout_at(deadline, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if started.load(Ordering::Acquire) => answer.await,
            Err(_) => return Err(LoginError::Busy),
        };
        answered.unwrap_or_else(|_| {
            Err(LoginError::Unavailable(
                "the password check was broken off".to_owned(),
            ))
        })
    }

    /// What a hash thread does until the queue is closed.
    fn work(&self) {
        // A login whose request is gone needs no verdict.
        while let Some(job) = self.queue.next(|job| !job.verdict.is_closed()) {
            job.started.store(true, Ordering::Release);
            // A defect in checking one login must not end the thread, of
            // which there may be no other.
            let verdict = catch_unwind(AssertUnwindSafe(|| self.decide(&job.credentials)));
            let verdict = verdict.unwrap_or_else(|_| {
                Err(LoginError::Unavailable(
                    "the password check failed".to_owned(),
                ))
            });
            // The request may have gone away meanwhile; then nobody listens.
            drop(job.verdict.send(verdict));
        }
    }

    fn decide(&self, credentials: &Credentials) -> Result<Outcome, LoginError> {
        let users = self
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current();
        let candidate = users.candidate(&credentials.username);
        self.hashes.fetch_add(1, Ordering::Relaxed);
        let right = candidate
            .hash
            .verify(&credentials.password)
            .map_err(|e| LoginError::Unavailable(format!("a password check failed: {e}")))?;
        Ok(match candidate.identity {
            Some(identity) if right => Outcome::Accepted(identity.clone()),
            _ => Outcome::Rejected,
        })
    }
}

#[cfg(test)]
mod tests;
