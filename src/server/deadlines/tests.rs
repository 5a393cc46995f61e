use std::future::poll_fn;

use super::*;
use crate::server::settings::tests::settings;

fn fires_after(deadlines: &Deadlines) -> impl Future<Output = Duration> + use<> {
    let mut watchdog = Watchdog::new(deadlines.clone());
    let began = deadlines.0.began;
    async move {
        while poll_fn(|context| watchdog.poll(context)).await != Due::End {}
        began.elapsed()
    }
}

/// Runs on tokio's own clock, which jumps to the next timer.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test)
}

#[test]
fn a_silent_connection_ends_with_the_header_timeout() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        assert_eq!(fires_after(&deadlines).await.as_secs(), 10);
    });
}

#[test]
fn a_head_in_drips_does_not_move_its_deadline() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        tokio::time::advance(Duration::from_secs(9)).await;
        deadlines.received();
        assert_eq!(watch.await.as_secs(), 10);
    });
}

#[test]
fn nothing_is_armed_before_there_is_a_deadline() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let mut watchdog = Watchdog::new(deadlines.clone());
        let busy = deadlines.request();
        let first = poll_fn(|context| Poll::Ready(watchdog.poll(context))).await;
        assert!(first.is_pending() && !watchdog.alarm.is_awaited());
        tokio::time::advance(Duration::from_secs(100)).await;
        drop(busy);
        let since = Instant::now();
        while poll_fn(|context| watchdog.poll(context)).await != Due::End {}
        assert_eq!(since.elapsed().as_secs(), settings().idle_timeout.as_secs());
    });
}

#[test]
fn a_connection_rests_once_after_each_request() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let mut watchdog = Watchdog::new(deadlines.clone());
        for _ in 0..2 {
            let busy = deadlines.request();
            assert!(!deadlines.is_quiet());
            tokio::time::advance(Duration::from_secs(100)).await;
            drop(busy);
            let since = Instant::now();
            let due = poll_fn(|context| watchdog.poll(context)).await;
            assert_eq!(due, Due::Rest);
            assert!(since.elapsed() - RESTLESS < Duration::from_millis(5));
            assert!(deadlines.is_quiet());
        }
        let since = Instant::now();
        let due = poll_fn(|context| watchdog.poll(context)).await;
        assert_eq!((due, since.elapsed().as_secs()), (Due::End, 74));
    });
}

#[test]
fn a_request_may_take_its_time_and_an_idle_connection_too() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        let busy = deadlines.request();
        tokio::time::advance(Duration::from_secs(1000)).await;
        drop(busy);
        assert_eq!(watch.await.as_secs(), 1075);
    });
}

#[test]
fn the_next_head_has_the_header_timeout_again() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        drop(deadlines.request());
        tokio::time::advance(Duration::from_secs(50)).await;
        deadlines.received();
        assert_eq!(watch.await.as_secs(), 60);
    });
}

#[test]
fn the_next_head_in_drips_does_not_move_its_deadline() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let mut watchdog = Watchdog::new(deadlines.clone());
        drop(deadlines.request());
        deadlines.received();
        let since = Instant::now();
        let first = poll_fn(|context| Poll::Ready(watchdog.poll(context))).await;
        assert!(first.is_pending());
        tokio::time::advance(Duration::from_secs(9)).await;
        deadlines.received();
        assert_eq!(poll_fn(|context| watchdog.poll(context)).await, Due::End);
        assert_eq!(since.elapsed().as_secs(), 10);
    });
}

#[test]
fn a_head_that_comes_as_a_whole_has_no_deadline() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        drop(deadlines.request());
        deadlines.received();
        assert_ne!(deadlines.next(), NEVER);
        let _busy = deadlines.request();
        assert_eq!(deadlines.next(), NEVER);
    });
}

#[test]
fn a_client_that_has_shut_down_waits_for_an_answer_not_for_ever() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        let _busy = deadlines.request();
        tokio::time::advance(Duration::from_secs(5)).await;
        deadlines.half_closed();
        assert_eq!(watch.await.as_secs(), 15);
    });
}

#[test]
fn a_client_that_has_shut_down_and_reads_has_time() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        let busy = deadlines.request();
        deadlines.half_closed();
        tokio::time::advance(Duration::from_secs(5)).await;
        deadlines.still_there();
        tokio::time::advance(Duration::from_secs(1000)).await;
        drop(busy);
        assert_eq!(watch.await.as_secs(), 1080);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        let watch = fires_after(&deadlines);
        let _busy = deadlines.request();
        tokio::time::advance(Duration::from_secs(5)).await;
        deadlines.write_blocked();
        deadlines.written();
        tokio::time::advance(Duration::from_secs(100)).await;
        deadlines.write_blocked();
        assert_eq!(watch.await.as_secs(), 135);
    });
}

#[test]
fn an_answer_that_is_not_taken_ends_its_connection_and_a_quiet_one_does_not() {
    run(async {
        let deadlines = Deadlines::new(&settings());
        deadlines.watch_streams();
        let watch = fires_after(&deadlines);
        let quiet = deadlines.request();
        // It is asked for the next piece, and has none.
        quiet.given();
        quiet.taken();
        tokio::time::advance(Duration::from_secs(100)).await;
        let blocked = deadlines.request();
        tokio::time::advance(Duration::from_secs(100)).await;
        blocked.given();
        let end = watch.await.as_secs();
        assert!((230..=260).contains(&end), "{end}");
    });
}
