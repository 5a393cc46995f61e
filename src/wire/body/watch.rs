//! What becomes of a body that somebody else consumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use super::BodyError;

/// What became of a body, told apart from whoever it was handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFate {
    /// Nothing has gone wrong so far.
    Fine,
    /// More bytes than allowed.
    TooLarge,
    /// No byte for the idle time.
    Idle,
    /// It broke off, or ended too early.
    Broken,
}

/// The far end of a [`Guarded`](super::Guarded) body that somebody else consumes.
#[derive(Clone, Debug, Default)]
pub struct BodyWatch(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    fate: AtomicU8,
    bytes: AtomicU64,
    ended: AtomicBool,
    waiting: AtomicBool,
}

impl BodyWatch {
    /// What has gone wrong, if anything.
    pub fn fate(&self) -> BodyFate {
        match self.0.fate.load(Ordering::Acquire) {
            1 => BodyFate::TooLarge,
            2 => BodyFate::Idle,
            3 => BodyFate::Broken,
            _ => BodyFate::Fine,
        }
    }

    /// The bytes of data that have passed.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether the body has been passed on whole.
    pub fn is_complete(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Whether the next piece is being waited for: whoever consumes the body
    /// has taken all that came.
    pub fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn passed(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn complete(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    pub(super) fn wait(&self, waiting: bool) {
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, error: &BodyError) {
        let fate = match error {
            BodyError::TooLarge => 1,
            BodyError::Idle => 2,
            BodyError::Short | BodyError::Broken(_) | BodyError::SessionOver => 3,
        };
        self.0.fate.store(fate, Ordering::Release);
    }
}
