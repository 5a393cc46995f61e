//! What changes in a store, told to whoever keeps copies of it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

/// Told what changes in a store, whoever changes it: this process, another
/// replica, the operator by hand, or time.
///
/// The promise that a copy rests on: what a follower's handle has read
/// ([`super::Opened::follow`]) and what has changed since is told, no later than a
/// moment after the change, or [`Listener::lost`] is. A change may be told more
/// than once, and without there having been one.
pub trait Listener: Send + Sync {
    /// The record under this key has changed, or is gone.
    fn record_changed(&self, key: &str);

    /// The epoch of the user of this name ([`super::user_name`]) has changed, or is
    /// gone.
    fn epoch_changed(&self, name: &str);

    /// Changes may have been missed, or may be from now on: no copy counts any
    /// more until [`Listener::proven`].
    fn lost(&self);

    /// Everything that changed before `asked` has been told: an answer to a
    /// question that was sent at `asked` came back on the same channel. Copies
    /// count for `store.cache.staleness` from `asked`, if they were read since
    /// the last [`Listener::lost`].
    fn proven(&self, asked: Instant);

    /// Whether a copy was looked for since this was last asked, found or not. While
    /// none is, a store that has to ask for its proofs leaves them out, so that a
    /// proxy that nobody uses is silent; the next use is a read, and wakes it.
    fn is_used(&self) -> bool;
}

/// Where a store of this process tells its listener, once it has one.
#[derive(Default)]
pub struct Announcer(OnceLock<Weak<dyn Listener>>);

impl Announcer {
    /// Tells `listener` from now on, as long as somebody else keeps it: it keeps the
    /// store, which must be able to end. The first one stays.
    pub fn tell(&self, listener: &Arc<dyn Listener>) {
        let _ = self.0.set(Arc::downgrade(listener));
    }

    /// The record under this key has changed, or is gone.
    pub fn record(&self, key: &str) {
        if let Some(listener) = self.0.get().and_then(Weak::upgrade) {
            listener.record_changed(key);
        }
    }

    /// The user's epoch has changed.
    pub fn epoch(&self, user: &str) {
        if let Some(listener) = self.0.get().and_then(Weak::upgrade) {
            listener.epoch_changed(&super::user_name(user));
        }
    }
}
