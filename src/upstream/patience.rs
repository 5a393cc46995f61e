//! How long an answer is waited for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::request::Ending;
use crate::base::alarm::Alarm;
use crate::base::refusal::Refusal;
use crate::wire::body::BodyWatch;

/// What waiting for an answer came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited<T> {
    /// It is there.
    Answered(T),
    /// The time is over.
    InVain,
    /// The session of the request is over, and why.
    Ended(Refusal),
}

/// An answer that is not there by then has its session watched: a part of the second
/// within which an end must arrive.
const UNWATCHED: Duration = Duration::from_millis(250);

/// How long an application may still answer a request whose session is over.
const GRACE: Duration = Duration::from_millis(250);

/// Waits for `answered`, with the help of an alarm, `limit` long from the moment when the
/// request's body has been sent, or the application stopped taking it, more or less; not for
/// longer than the session of the request lives, but for a moment. `start` is a moment ago,
/// from which the time counts.
pub async fn wait<F: Future>(
    start: std::time::Instant,
    limit: Duration,
    alarm: &mut Alarm,
    mut answered: Pin<&mut F>,
    sent: Option<&BodyWatch>,
    ending: Ending<'_>,
) -> Waited<F::Output> {
    let due = Instant::from_std(start) + limit.min(UNWATCHED);
    let early = poll_fn(|context| match answered.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll_until(due, context).map(|()| None),
    });
    match early.await {
        Some(output) => Waited::Answered(output),
        // Rare: not within the future of every request.
        None => Box::pin(wait_on(limit, answered, sent, ending)).await,
    }
}

/// The same for what is long in coming.
async fn wait_on<F: Future>(
    limit: Duration,
    mut answered: Pin<&mut F>,
    sent: Option<&BodyWatch>,
    ending: Ending<'_>,
) -> Waited<F::Output> {
    let progress = || sent.map(|body| (body.bytes(), body.is_complete()));
    let mut ended = ending().unwrap_or_else(|| Box::pin(std::future::pending()));
    let mut left = limit.saturating_sub(UNWATCHED);
    // What was sent before this began has been progress.
    let mut before = sent.map(|_| (0, false));
    loop {
        tokio::select! {
            biased;
            output = answered.as_mut() => return Waited::Answered(output),
            refusal = &mut ended => {
                // It may be this very request that ends it: an application's own logout
                // is to be answered by the application.
                return match timeout(GRACE, answered).await {
                    Ok(output) => Waited::Answered(output),
                    Err(_) => Waited::Ended(refusal),
                };
            }
            () = tokio::time::sleep(left) => {}
        }
        left = limit;
        let now = progress();
        // A body that stops coming has a timeout of its own.
        let is_waiting = sent.is_some_and(|body| !body.is_complete() && body.is_waiting());
        if now == before && !is_waiting {
            return Waited::InVain;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::sleep;

    use super::*;
    use crate::base::BoxFuture;

    const LIMIT: Duration = Duration::from_secs(60);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Waits for an answer that comes after `answer`, of a request whose session ends
    /// after `end`, if it has one. What came of it, and when.
    async fn waited(answer: Duration, end: Option<Duration>) -> (Waited<&'static str>, Duration) {
        let start = Instant::now();
        let answered = pin!(async {
            sleep(answer).await;
            "answer"
        });
        let ending = || -> Option<BoxFuture<'static, Refusal>> {
            let end = start + end?;
            Some(Box::pin(async move {
                tokio::time::sleep_until(end).await;
                Refusal::SessionEnded
            }))
        };
        let waited = wait(
            start.into_std(),
            LIMIT,
            &mut Alarm::default(),
            answered,
            None,
            &ending,
        )
        .await;
        (waited, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_it_may_take() {
        for end in [None, Some(LIMIT * 2)] {
            for answer in [Duration::ZERO, ms(100), ms(1000), LIMIT - ms(10)] {
                let (found, took) = waited(answer, end).await;
                assert_eq!(found, Waited::Answered("answer"));
                assert!(took <= answer + ms(2), "{took:?}");
            }
            let (found, took) = waited(LIMIT + ms(10), end).await;
            assert_eq!(found, Waited::InVain);
            assert!(took >= LIMIT && took < LIMIT + ms(10), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_its_start() {
        let (short, none) = (ms(200), || None);
        for (ago, found) in [(ms(50), Waited::Answered(())), (ms(150), Waited::InVain)] {
            let start = Instant::now();
            sleep(ago).await;
            let answered = pin!(sleep(ms(100)));
            let mut alarm = Alarm::default();
            let waited = wait(start.into_std(), short, &mut alarm, answered, None, &none);
            assert_eq!(waited.await, found);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_session_ends_it_within_a_second() {
        for end in [Duration::ZERO, ms(100), ms(500), ms(700), LIMIT / 2] {
            let (found, took) = waited(LIMIT, Some(end)).await;
            assert_eq!(found, Waited::Ended(Refusal::SessionEnded));
            assert!(took - end < ms(900), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_its_own_session_is_answered() {
        let (found, _) = waited(ms(800), Some(ms(700))).await;
        assert_eq!(found, Waited::Answered("answer"));
    }
}
