use super::*;
use crate::base::clock::Timestamp;
use crate::session::layout::sealed::tests::sample;
use crate::session::store::memory::MemoryStore;

const HOUR: Duration = Duration::from_secs(3600);

/// Two stores whose clocks a test moves. The sample's login began at epoch 5.
fn stores() -> (MemoryStore, MemoryStore, Clock) {
    let clock = Clock::fixed(Timestamp(1_800_000_000_000));
    let store = || MemoryStore::new(clock.clone(), 5000);
    (store(), store(), clock.clone())
}

fn record(key: &str) -> NewRecord {
    NewRecord {
        key: key.into(),
        user: "u1".into(),
        value: sample(key),
        seen: Timestamp(7),
        ttl: HOUR,
    }
}

#[tokio::test]
async fn everything_is_copied_once_and_nothing_is_overwritten() {
    let (from, to, _) = stores();
    for n in 0..1200 {
        from.create(record(&format!("sess:{n}"))).await.unwrap();
    }
    let odd = NewRecord {
        value: "no head".into(),
        ..record("sess:odd")
    };
    from.create(odd).await.unwrap();
    let other = NewRecord {
        seen: Timestamp(99),
        ..record("sess:7")
    };
    to.create(other.clone()).await.unwrap();

    let first = copy(&from, &to, "sess:").await.unwrap();
    let expected = Tally {
        copied: 1199,
        present: 1,
        ended: 0,
        unreadable: 1,
    };
    assert_eq!(first, expected);
    let kept = to.load("sess:7").await.unwrap().unwrap();
    assert_eq!((kept.value, kept.seen), (other.value, Timestamp(99)));
    let copied = to.of_user("u1").await.unwrap();
    assert_eq!(copied.len(), 1200);
    let one = copied.iter().find(|found| &*found.key == "sess:5").unwrap();
    let source = from.load("sess:5").await.unwrap().unwrap();
    assert_eq!((&one.record, one.ttl), (&source, HOUR));

    let again = copy(&from, &to, "sess:").await.unwrap();
    assert_eq!((again.copied, again.present), (0, 1200));
}

/// What "sign out everywhere" has ended stays ended, also what an earlier run
/// had copied before.
#[tokio::test]
async fn what_an_epoch_has_ended_does_not_come_along() {
    let (from, to, _) = stores();
    from.create(record("sess:a")).await.unwrap();
    assert_eq!(copy(&from, &to, "sess:").await.unwrap().copied, 1);
    from.raise_epoch("u1", HOUR).await.unwrap();
    let tally = copy(&from, &to, "sess:").await.unwrap();
    assert_eq!((tally.copied, tally.ended), (0, 1));
    assert_eq!(to.load("sess:a").await, Ok(None));
}

#[tokio::test]
async fn what_the_target_has_ended_does_not_come_back() {
    let (from, to, _) = stores();
    from.create(record("sess:a")).await.unwrap();
    to.raise_epoch("u1", HOUR).await.unwrap();
    let tally = copy(&from, &to, "sess:").await.unwrap();
    assert_eq!((tally.copied, tally.ended), (0, 1));
    assert_eq!(to.load("sess:a").await, Ok(None));
}

/// Signing out everywhere must reach what was copied.
#[tokio::test]
async fn a_target_whose_clock_is_far_behind_is_refused() {
    let clock = Clock::fixed(Timestamp(0));
    let behind = MemoryStore::new(clock, 10);
    let (from, _, _) = stores();
    from.create(record("sess:a")).await.unwrap();
    let refused = wait_for(&behind, Epoch(3_600_000_000)).await.unwrap_err();
    assert!(refused.contains("clock"), "{refused}");
    // A little behind is waited for.
    assert_eq!(wait_for(&behind, Epoch(5)).await, Ok(()));
}

#[test]
fn no_message_repeats_the_url() {
    for url in [
        "redis://:hunter2@[",
        "hunter2",
        "http://hunter2@x",
        "env:HUNTER_2_IS_NOT_SET",
    ] {
        let error = understand("--to", url).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.starts_with("--to: "), "{error}");
    }
}
