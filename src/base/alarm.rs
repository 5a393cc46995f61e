//! A timer that is looked at often and goes off seldom.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that costs next to nothing to poll while it has not gone off: it knows whom it
/// wakes already.
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes, as it is set now.
    known: Option<Waker>,
}

impl Alarm {
    /// One that goes off at that moment. Needs a tokio timer.
    pub fn new(at: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(at)),
            known: None,
        }
    }

    /// When it goes off.
    pub fn at(&self) -> Instant {
        self.sleep.deadline()
    }

    /// Sets it anew.
    pub fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.known = None;
    }

    /// Ready once it has gone off.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_known = |known: &Waker| known.will_wake(context.waker());
        if self.known.as_ref().is_some_and(is_known) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        // A task that has much to do is late all the same; and whom it did not look at it
        // would not wake.
        let polled = pin!(unconstrained(self.sleep.as_mut())).poll(context);
        self.known = polled.is_pending().then(|| context.waker().clone());
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    const SPAN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_was_set_last() {
        let begin = Instant::now();
        let mut alarm = Alarm::new(begin + SPAN);
        for at in [begin + 3 * SPAN, begin + 2 * SPAN] {
            let waits = poll_fn(|context| alarm.poll(context));
            assert!(tokio::time::timeout(SPAN / 2, waits).await.is_err());
            alarm.set(at);
        }
        poll_fn(|context| alarm.poll(context)).await;
        assert!(begin.elapsed() >= 2 * SPAN && begin.elapsed() < 3 * SPAN);
        assert_eq!(alarm.at(), begin + 2 * SPAN);
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_whoever_looked_last() {
        let mut alarm = Alarm::new(Instant::now() + SPAN);
        let (before, now) = (Arc::<Count>::default(), Arc::<Count>::default());
        for looks in [&before, &now, &now] {
            let waker = Waker::from(looks.clone());
            assert!(alarm.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        tokio::time::sleep(2 * SPAN).await;
        assert_eq!(before.0.load(Ordering::SeqCst), 0);
        assert_eq!(now.0.load(Ordering::SeqCst), 1);
        let waker = Waker::from(now);
        assert!(alarm.poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
