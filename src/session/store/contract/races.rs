//! What must hold when several workers write at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{LONG, bytes, record, value};
use crate::base::clock::Timestamp;
use crate::session::store::{Epoch, NewRecord, SessionStore};

/// Runs `work` in `count` threads at once, each in a runtime of its own, and
/// gives back what they gave.
fn race<S, F, W, T>(open: &F, count: usize, work: W) -> Vec<T>
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
    W: AsyncFn(usize, &S) -> T + Sync,
    T: Send,
{
    let gate = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (gate, work) = (&gate, &work);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        let store = open();
                        store.ping().await.unwrap();
                        gate.wait();
                        work(n, &store).await
                    })
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

pub(super) fn one_creator_wins<S, F>(open: &F)
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
{
    let wins = race(open, 4, async |n, store: &S| {
        let mut pending = Vec::new();
        for m in 0..50 {
            let mine = format!("{n}-{m}");
            pending.push(store.create(record("sess:contested", mine.as_bytes(), LONG)));
        }
        let mut won = Vec::new();
        for (m, created) in all(pending).await.into_iter().enumerate() {
            if created.unwrap() {
                won.push(format!("{n}-{m}"));
            }
        }
        (won, value(store, "sess:contested").await)
    });
    let winners: Vec<_> = wins.iter().flat_map(|(won, _)| won.clone()).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    for (_, seen) in wins {
        assert_eq!(seen.as_deref(), Some(winners[0].as_bytes()));
    }
}

pub(super) fn one_updater_wins<S, F>(open: &F)
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
{
    let key = "sess:counter";
    let counts = race(open, 4, async |_, store: &S| {
        let _ = store.create(record(key, b"0", LONG)).await.unwrap();
        let mut done = 0;
        while done < 10 {
            let old = value(store, key).await.unwrap();
            let count: usize = std::str::from_utf8(&old).unwrap().parse().unwrap();
            let new = (count + 1).to_string().into();
            if store.update(key, old, new).await.unwrap() {
                done += 1;
            }
        }
        value(store, key).await.unwrap()
    });
    assert!(
        counts.contains(&bytes("40")),
        "an update was lost: {counts:?}"
    );
}

pub(super) fn nothing_comes_back<S, F>(open: &F)
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
{
    const ROUNDS: usize = 20;
    const WRITERS: usize = 3;
    let started = AtomicUsize::new(0);
    let gate = std::sync::Barrier::new(WRITERS);
    race(open, WRITERS, async |n, store: &S| {
        for round in 0..ROUNDS {
            let key = format!("sess:raced-{round}");
            if n == 0 {
                let created = store.create(record(&key, b"one", LONG)).await;
                assert_eq!(created, Ok(true));
                started.fetch_add(1, Ordering::SeqCst);
            }
            gate.wait();
            match n {
                0 => assert_eq!(store.delete(&key).await, Ok(true)),
                1 => {
                    let mut late = Vec::new();
                    for m in 0..20 {
                        late.push(store.touch(&key, Timestamp(m), LONG));
                    }
                    for touched in all(late).await {
                        touched.unwrap();
                    }
                }
                _ => {
                    let mut late = Vec::new();
                    for _ in 0..20 {
                        late.push(store.update(&key, bytes("one"), bytes("one")));
                    }
                    for updated in all(late).await {
                        updated.unwrap();
                    }
                }
            }
            gate.wait();
            assert_eq!(store.load(&key).await, Ok(None), "{key} came back");
        }
    });
    assert_eq!(started.load(Ordering::SeqCst), ROUNDS);
}

pub(super) fn epochs_never_repeat<S, F>(open: &F)
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
{
    let raised: Vec<Vec<Epoch>> = race(open, 4, async |_, store: &S| {
        let mut mine = Vec::new();
        for _ in 0..25 {
            mine.push(store.raise_epoch("raced", LONG).await.unwrap());
        }
        assert!(store.epoch("raced").await.unwrap() >= mine.last().copied());
        mine
    });
    for mine in &raised {
        assert!(mine.is_sorted_by(|a, b| a < b), "{mine:?}");
    }
    let distinct: HashSet<_> = raised.iter().flatten().collect();
    assert_eq!(distinct.len(), 100);
}

/// A login counts the user's sessions after it has made its own: of any that
/// run at once, the last to look must see all of them.
pub(super) fn no_record_is_missed<S, F>(open: &F)
where
    S: SessionStore + ?Sized,
    F: Fn() -> Arc<S> + Sync,
{
    const WRITERS: usize = 4;
    for round in 0..20 {
        let user = format!("raced-{round}");
        let seen = race(open, WRITERS, async |n, store: &S| {
            let key = format!("sess:listed-{round}-{n}");
            let mine = NewRecord {
                user: user.clone(),
                ..record(&key, b"one", LONG)
            };
            assert_eq!(store.create(mine).await, Ok(true));
            let found = store.of_user(&user).await.unwrap();
            assert!(found.iter().any(|found| *found.key == *key), "not its own");
            found.len()
        });
        assert!(seen.contains(&WRITERS), "{seen:?}");
    }
}

/// Drives all futures together and gives their results in order.
async fn all<T>(mut pending: Vec<crate::base::BoxFuture<'_, T>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in pending.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *result = Some(done);
            }
        }
        match results.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    results.into_iter().flatten().collect()
}
