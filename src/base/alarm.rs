//! A timer that is looked at often and goes off seldom.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that costs next to nothing to poll while it has not gone off: it knows whom it
/// wakes already.
#[derive(Default)]
pub struct Alarm {
    /// `None`: it was never set.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes, as it is set now.
    known: Option<Waker>,
}

impl Alarm {
    /// One that goes off at that moment. Needs a tokio timer.
    pub fn new(at: Instant) -> Self {
        Self {
            sleep: Some(Box::pin(sleep_until(at))),
            known: None,
        }
    }

    /// When it goes off, or went off; `None`: never.
    pub fn at(&self) -> Option<Instant> {
        Some(self.sleep.as_ref()?.deadline())
    }

    /// Whether it wakes anybody.
    pub fn is_awaited(&self) -> bool {
        self.known.is_some()
    }

    /// Sets it anew.
    pub fn set(&mut self, at: Instant) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
        self.known = None;
    }

    /// Forgets whom it wakes: it is to be used for somebody else. It may wake once more.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Ready at this moment. It stays set where it goes off before, and is set anew when
    /// it does: that is seldom where moments come one after the other.
    pub fn poll_until(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        if self.at().is_none_or(|set| set > at) {
            self.set(at);
        }
        loop {
            ready!(self.poll(context));
            if self.at().is_some_and(|set| set >= at) {
                return Poll::Ready(());
            }
            self.set(at);
        }
    }

    /// Ready once it has gone off.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        let is_known = |known: &Waker| known.will_wake(context.waker());
        if self.known.as_ref().is_some_and(is_known) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        // A task that has much to do is late all the same; and whom it did not look at it
        // would not wake.
        let polled = pin!(unconstrained(sleep.as_mut())).poll(context);
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
        assert_eq!(alarm.at(), Some(begin + 2 * SPAN));
    }

    /// One moment after the other, each later than the one before: the alarm is set when
    /// it goes off, and none of them is missed. An earlier one is not either.
    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_moment_that_is_waited_for() {
        let mut alarm = Alarm::default();
        for wait in [SPAN, 3 * SPAN, SPAN / 10] {
            for _ in 0..5 {
                let due = Instant::now() + wait;
                let waits = poll_fn(|context| alarm.poll_until(due, context));
                assert!(tokio::time::timeout(wait / 3, waits).await.is_err());
            }
            let begin = Instant::now();
            poll_fn(|context| alarm.poll_until(begin + wait, context)).await;
            let took = begin.elapsed();
            assert!(
                took >= wait && took < wait + Duration::from_millis(2),
                "{took:?}"
            );
        }
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
