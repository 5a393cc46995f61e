//! The suite that every store passes: what the port promises, tried out.
//!
//! Checks that race use threads with a runtime each, as the workers do, and
//! ask `open` for a handle inside each of them.

mod lists;
mod races;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{NewRecord, SessionStore, StoredRecord};
use crate::base::clock::{Clock, Timestamp};

/// How a test reaches the moment at which something has expired.
pub enum Time {
    /// The store reads this clock, which stands still until it is set.
    Fixed(Clock),
    /// The store has a clock of its own; the test asks until it has moved.
    Own,
}

/// Long enough that nothing expires while a test runs.
const LONG: Duration = Duration::from_secs(3600);
/// Short enough to wait for, long enough for the steps that must come before.
const SHORT: Duration = Duration::from_millis(1500);
/// Nothing takes this long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks every promise of the port. `open` gives a handle to one and the same
/// store, which must be empty; it is called once in each runtime.
///
/// # Panics
///
/// Where the store breaks a promise.
pub async fn run<S, F>(open: F, time: Time)
where
    S: SessionStore + ?Sized + 'static,
    F: Fn() -> Arc<S> + Sync,
{
    let store = open();
    let store = &*store;
    store.ping().await.unwrap();
    misses(store).await;
    creation(store).await;
    values_and_keys(store).await;
    compare_and_swap(store).await;
    deletion(store).await;
    epochs(store).await;
    lists::of_user(store).await;
    lists::scan(store).await;
    expiry(store, &time).await;
    lists::expiry(store, &time).await;
    races::one_creator_wins(&open);
    races::one_updater_wins(&open);
    races::nothing_comes_back(&open);
    races::epochs_never_repeat(&open);
    races::no_record_is_missed(&open);
}

fn record(key: &str, value: &[u8], ttl: Duration) -> NewRecord {
    NewRecord {
        key: key.into(),
        user: "ann".into(),
        value: Bytes::copy_from_slice(value),
        seen: Timestamp(1_700_000_000_123),
        ttl,
    }
}

fn bytes(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

async fn value<S: SessionStore + ?Sized>(store: &S, key: &str) -> Option<Bytes> {
    store.load(key).await.unwrap().map(|record| record.value)
}

async fn misses<S: SessionStore + ?Sized>(store: &S) {
    let key = "sess:missing";
    assert_eq!(store.load(key).await, Ok(None));
    assert_eq!(store.touch(key, Timestamp(1), LONG).await, Ok(false));
    assert_eq!(store.update(key, bytes("a"), bytes("b")).await, Ok(false));
    // A record that is absent is not one whose value is empty.
    assert_eq!(store.update(key, Bytes::new(), bytes("b")).await, Ok(false));
    assert_eq!(store.delete(key).await, Ok(false));
    assert_eq!(store.load(key).await, Ok(None), "a miss made a record");
    assert_eq!(store.epoch("nobody").await, Ok(None));
}

async fn creation<S: SessionStore + ?Sized>(store: &S) {
    let key = "sess:created";
    assert_eq!(store.create(record(key, b"one", LONG)).await, Ok(true));
    let first = StoredRecord {
        value: bytes("one"),
        seen: Timestamp(1_700_000_000_123),
    };
    assert_eq!(store.load(key).await, Ok(Some(first.clone())));

    let mut other = record(key, b"two", LONG);
    other.seen = Timestamp(9);
    assert_eq!(store.create(other).await, Ok(false));
    let same = record(key, b"one", LONG);
    assert_eq!(store.create(same).await, Ok(false), "equal is not ours");
    assert_eq!(store.load(key).await, Ok(Some(first)));

    assert_eq!(store.touch(key, Timestamp(42), LONG).await, Ok(true));
    let touched = StoredRecord {
        value: bytes("one"),
        seen: Timestamp(42),
    };
    assert_eq!(store.load(key).await, Ok(Some(touched)));

    // The longest span there is must not overflow into the past.
    let forever = "sess:forever";
    let endless = record(forever, b"x", Duration::MAX);
    assert_eq!(store.create(endless).await, Ok(true));
    assert_eq!(
        store
            .touch(forever, Timestamp(u64::MAX), Duration::MAX)
            .await,
        Ok(true)
    );
    let kept = store.load(forever).await.unwrap().unwrap();
    assert_eq!(kept.seen, Timestamp(u64::MAX));
    // A span too short to be counted is not an error.
    assert_eq!(
        store.touch(forever, Timestamp(1), Duration::ZERO).await,
        Ok(true)
    );
}

async fn values_and_keys<S: SessionStore + ?Sized>(store: &S) {
    let all: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = all.iter().copied().cycle().take(100 * 1024).collect();
    for (n, bytes) in [&all[..], b"", b"\r\n$-1\r\n", b"0", &large]
        .iter()
        .enumerate()
    {
        let key = format!("sess:value-{n}");
        assert_eq!(store.create(record(&key, bytes, LONG)).await, Ok(true));
        assert_eq!(value(store, &key).await.as_deref(), Some(*bytes));
        let old = Bytes::copy_from_slice(bytes);
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(
            store.update(&key, longer.clone().into(), old.clone()).await,
            Ok(false),
            "values are compared to their end"
        );
        assert_eq!(
            store.update(&key, old, longer.clone().into()).await,
            Ok(true)
        );
        assert_eq!(value(store, &key).await.as_deref(), Some(&longer[..]));
    }

    let odd = [
        "sess:",
        "sess:a b",
        "sess:a\0b",
        "sess:a\r\nDEL x\r\n",
        "sess:{x}*?[a-z]\\",
        "sess:ä€𝄞",
        "sess:A",
        "sess:a",
        "",
    ];
    for key in odd {
        assert_eq!(store.load(key).await, Ok(None), "{key:?}");
        let mine = record(key, key.as_bytes(), LONG);
        assert_eq!(store.create(mine).await, Ok(true), "{key:?}");
    }
    for key in odd {
        assert_eq!(value(store, key).await.as_deref(), Some(key.as_bytes()));
        assert_eq!(store.touch(key, Timestamp(7), LONG).await, Ok(true));
        assert_eq!(store.delete(key).await, Ok(true));
        assert_eq!(store.load(key).await, Ok(None));
    }
}

async fn compare_and_swap<S: SessionStore + ?Sized>(store: &S) {
    let key = "sess:swapped";
    store.create(record(key, b"one", LONG)).await.unwrap();
    store.touch(key, Timestamp(77), LONG).await.unwrap();
    let (one, two) = (bytes("one"), bytes("two"));
    let refused = store.update(key, two.clone(), bytes("three")).await;
    assert_eq!(refused, Ok(false));
    assert_eq!(value(store, key).await, Some(one.clone()));
    assert_eq!(store.update(key, one.clone(), two.clone()).await, Ok(true));
    assert_eq!(store.update(key, one, bytes("three")).await, Ok(false));
    let kept = store.load(key).await.unwrap().unwrap();
    assert_eq!(kept.value, two);
    assert_eq!(kept.seen, Timestamp(77), "an update leaves seen");
}

async fn deletion<S: SessionStore + ?Sized>(store: &S) {
    let key = "sess:deleted";
    store.create(record(key, b"one", LONG)).await.unwrap();
    assert_eq!(store.delete(key).await, Ok(true));
    assert_eq!(store.delete(key).await, Ok(false));
    assert_eq!(store.touch(key, Timestamp(1), LONG).await, Ok(false));
    let late = store.update(key, bytes("one"), bytes("two")).await;
    assert_eq!(late, Ok(false));
    assert_eq!(store.load(key).await, Ok(None), "a late write revived it");
    assert_eq!(store.create(record(key, b"new", LONG)).await, Ok(true));
    assert_eq!(value(store, key).await, Some(bytes("new")));
}

async fn epochs<S: SessionStore + ?Sized>(store: &S) {
    for user in ["ann", "", "a b\r\n\0", "ä€𝄞", "sess:swapped"] {
        let before = store.now().await.unwrap();
        let mut last = store.raise_epoch(user, LONG).await.unwrap();
        assert!(last >= before, "{user:?}");
        for _ in 0..20 {
            let next = store.raise_epoch(user, LONG).await.unwrap();
            assert!(next > last, "{next:?} does not follow {last:?}");
            last = next;
        }
        assert_eq!(store.epoch(user).await, Ok(Some(last)));
        assert!(store.now().await.unwrap() >= last);
    }
    assert_eq!(store.epoch("bob").await, Ok(None), "users are apart");
    let session = store.load("sess:swapped").await.unwrap();
    assert!(session.is_some(), "epochs and sessions are apart");
}

async fn expiry<S: SessionStore + ?Sized>(store: &S, time: &Time) {
    let (brief, touched, raised) = ("sess:brief", "sess:touched", "sess:updated");
    for key in [touched, raised, brief] {
        store.create(record(key, b"one", SHORT)).await.unwrap();
    }
    store.raise_epoch("brief", SHORT).await.unwrap();
    let kept = store.raise_epoch("lasting", SHORT).await.unwrap();
    assert!(store.raise_epoch("lasting", LONG).await.unwrap() > kept);
    assert_eq!(store.touch(touched, Timestamp(5), LONG).await, Ok(true));
    let swapped = store.update(raised, bytes("one"), bytes("two")).await;
    assert_eq!(swapped, Ok(true));
    // Written last and for the same time: once it is gone, all that was not
    // prolonged is gone too.
    let witness = "sess:witness";
    store.create(record(witness, b"w", SHORT)).await.unwrap();
    gone(store, witness, time).await;

    assert_eq!(store.load(brief).await, Ok(None));
    assert_eq!(store.load(raised).await, Ok(None), "an update prolonged it");
    assert_eq!(store.touch(brief, Timestamp(9), LONG).await, Ok(false));
    assert_eq!(
        store.update(brief, bytes("one"), bytes("two")).await,
        Ok(false)
    );
    assert_eq!(store.delete(brief).await, Ok(false));
    assert_eq!(store.load(brief).await, Ok(None));
    assert_eq!(store.create(record(brief, b"new", LONG)).await, Ok(true));
    assert_eq!(value(store, brief).await, Some(bytes("new")));
    assert_eq!(value(store, touched).await, Some(bytes("one")));
    assert_eq!(store.epoch("brief").await, Ok(None));
    assert!(store.epoch("lasting").await.unwrap().is_some());

    // A touch may also shorten, and never to nothing.
    assert_eq!(store.touch(touched, Timestamp(6), SHORT).await, Ok(true));
    gone(store, touched, time).await;
}

async fn gone<S: SessionStore + ?Sized>(store: &S, key: &str, time: &Time) {
    match time {
        Time::Fixed(clock) => {
            let almost = clock.now().after(SHORT - Duration::from_millis(1));
            clock.set(almost);
            assert!(store.load(key).await.unwrap().is_some(), "{key} went early");
            clock.set(almost.after(Duration::from_millis(1)));
        }
        Time::Own => {
            let deadline = Instant::now() + PATIENCE;
            while store.load(key).await.unwrap().is_some() {
                assert!(Instant::now() < deadline, "{key} does not expire");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    assert_eq!(store.load(key).await, Ok(None));
}
