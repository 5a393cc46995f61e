//! Where the store is asked for each request: what it says counts, however often it has
//! said the same.

use super::*;

/// A store that never tells of changes.
fn asking() -> Bench {
    let bench = Bench::unfollowed();
    assert!(bench.sessions.shared.memo().is_some());
    bench
}

#[tokio::test]
async fn the_same_session_is_found_again_and_again() {
    let bench = asking();
    let headers = bench.signed_in("u1").await;
    let first = bench.live(&headers).await;
    let loads = bench.store.loads.load(Ordering::SeqCst);
    for _ in 0..3 {
        let again = bench.live(&headers).await;
        assert!(!Arc::ptr_eq(&again.known, &first.known));
        assert_eq!(again.key(), first.key());
        assert_eq!(again.handle(), first.handle());
        assert_eq!((again.user(), again.owner()), ("u1", "u1"));
        assert_eq!(again.roles(), ["admin"]);
        assert_eq!(again.fields().text(), first.fields().text());
    }
    assert_eq!(bench.store.loads.load(Ordering::SeqCst), loads + 3);
}

#[tokio::test]
async fn another_signature_of_a_noted_token_is_none() {
    let bench = asking();
    let created = bench.login("u1", &HeaderMap::new()).await.unwrap();
    let headers = cookies(&[&created.cookie]);
    bench.live(&headers).await;
    bench.live(&headers).await;
    let other = match created.cookie.strip_suffix('A') {
        Some(start) => format!("{start}B"),
        None => format!("{}A", &created.cookie[..created.cookie.len() - 1]),
    };
    assert_eq!(
        bench.reason(&cookies(&[&other])).await,
        Refusal::BadSignature
    );
    bench.live(&headers).await;
}

#[tokio::test]
async fn every_end_counts_at_once() {
    let bench = asking();
    let (one, other) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    for _ in 0..2 {
        bench.live(&one).await;
        bench.live(&other).await;
    }
    let raised = bench.store.raise_epoch("u1", Duration::from_secs(9999));
    raised.await.unwrap();
    assert_eq!(bench.reason(&one).await, Refusal::SessionEnded);
    assert_eq!(bench.reason(&other).await, Refusal::SessionEnded);

    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    bench.live(&headers).await;
    assert!(bench.store.delete(session.key()).await.unwrap());
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);

    let headers = bench.signed_in("u1").await;
    bench.live(&headers).await;
    bench.wait(60);
    bench.live(&headers).await;
    settle(&bench, |bench| {
        bench.store.touches.load(Ordering::SeqCst) == 1
    })
    .await;
    // It was used a minute ago, as the store says and no note does.
    bench.wait(60);
    bench.live(&headers).await;
    bench.wait(101);
    // The store has dropped it by then.
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn what_was_changed_is_read_anew() {
    let bench = asking();
    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    bench.live(&headers).await;
    let stored = bench.store.load(session.key()).await.unwrap().unwrap();
    let mut bad = stored.value.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let damaged = stored.value.clone();
    let update = bench.store.update(session.key(), damaged, bad.into());
    assert!(update.await.unwrap());
    assert_eq!(bench.reason(&headers).await, Refusal::SessionUnreadable);
}

#[tokio::test]
async fn an_outage_is_none_the_less_one() {
    let bench = asking();
    let headers = bench.signed_in("u1").await;
    bench.live(&headers).await;
    bench.live(&headers).await;
    bench.store.down.store(true, Ordering::SeqCst);
    assert_eq!(bench.reason(&headers).await, Refusal::StoreUnavailable);
    bench.store.down.store(false, Ordering::SeqCst);
    bench.live(&headers).await;
}

#[tokio::test]
async fn an_epoch_that_cannot_be_read_is_an_outage_but_not_for_what_is_gone() {
    let bench = asking();
    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    bench.live(&headers).await;
    bench.store.epochs_down.store(true, Ordering::SeqCst);
    assert_eq!(bench.reason(&headers).await, Refusal::StoreUnavailable);
    assert!(bench.store.delete(session.key()).await.unwrap());
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn what_is_over_is_noted_no_longer() {
    let bench = asking();
    let memo = bench.sessions.shared.memo().unwrap();
    let noted = |session: &Session| {
        let sight = bench.rules.sight(session.token.expose().as_bytes());
        memo.find(sight).is_some()
    };
    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    assert!(noted(&session));
    assert!(bench.store.delete(session.key()).await.unwrap());
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
    assert!(!noted(&session));

    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    assert!(noted(&session));
    assert!(bench.sessions.end(&bench.rules, &headers).await.unwrap());
    assert!(!noted(&session));
}

#[tokio::test]
async fn sessions_of_two_users_are_ambiguous_though_both_are_noted() {
    let bench = asking();
    let one = bench.login("u1", &HeaderMap::new()).await.unwrap().cookie;
    let other = bench.login("u2", &HeaderMap::new()).await.unwrap().cookie;
    bench.live(&cookies(&[&one])).await;
    bench.live(&cookies(&[&other])).await;
    let both = cookies(&[&one, &other]);
    assert_eq!(bench.reason(&both).await, Refusal::AmbiguousCookie);
}

#[tokio::test]
async fn other_rules_know_nothing_of_what_was_noted() {
    let mut bench = asking();
    let headers = bench.signed_in("u1").await;
    bench.live(&headers).await;
    bench.live(&headers).await;
    bench.rules = rules(&["b"]);
    assert_eq!(bench.reason(&headers).await, Refusal::BadSignature);
}
