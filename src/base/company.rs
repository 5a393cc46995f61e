//! Requests that a thread serves at the same time, and the order of their steps.
//!
//! Where several are under way, a step that wakes another process (sending a request to
//! the application, or an answer to the client) is put off until the other tasks that can
//! run have had their turn. Then many requests do the same step one after the other: whom
//! the first one wakes is still awake for the next ones, and the processor still knows the
//! code. A request that is alone is never put off.

use std::cell::Cell;
use std::task::Context;

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// One request of this thread that has no answer yet, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(());

impl UnderWay {
    /// One more.
    pub fn new() -> Self {
        UNDER_WAY.set(UNDER_WAY.get().saturating_add(1));
        Self(())
    }
}

impl Default for UnderWay {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get().saturating_sub(1));
    }
}

/// Whether the task should let the others go first, in which case it will be polled
/// again. `asked`: whether it did so already for this step; is set. `own`: how many of
/// the requests under way are its own.
pub fn lets_others_go(asked: &mut bool, own: usize, context: &Context<'_>) -> bool {
    if *asked || UNDER_WAY.get() <= own {
        return false;
    }
    *asked = true;
    context.waker().wake_by_ref();
    true
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_request_lets_others_go_once_and_only_if_there_are_any() {
        let polls = async || {
            let (mut asked, mut polls) = (false, 0);
            poll_fn(|context| {
                polls += 1;
                match lets_others_go(&mut asked, 1, context) {
                    true => Poll::Pending,
                    false => Poll::Ready(()),
                }
            })
            .await;
            polls
        };
        let one = UnderWay::new();
        assert_eq!(polls().await, 1);
        let other = UnderWay::default();
        assert_eq!(polls().await, 2);
        drop(one);
        assert_eq!(polls().await, 1);
        drop(other);
        assert_eq!(polls().await, 1);
    }
}
