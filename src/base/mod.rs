//! Layer 0: what every other layer speaks of, with no I/O of its own.

pub mod address;
pub mod alarm;
pub mod clock;
pub mod company;
pub mod crypto;
pub mod gather;
pub mod histogram;
pub mod identity;
pub mod log_queue;
pub mod metrics;
pub mod rate;
pub mod refusal;
pub mod secret;

use std::future::Future;
use std::pin::Pin;

/// The future of an object-safe method (a store, a login method). It costs one
/// allocation beside a network or disk trip; nothing on the path of a request
/// that needs no such trip uses it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
