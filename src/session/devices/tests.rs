use std::sync::atomic::Ordering;

use http::HeaderMap;

use super::*;
use crate::session::sessions::tests::{Bench, cookies};
use crate::session::store::SessionStore;

fn limited(max_per_user: usize) -> Bench {
    let mut bench = Bench::new();
    bench.rules.settings.max_per_user = max_per_user;
    bench
}

#[tokio::test]
async fn the_oldest_goes_where_there_are_too_many() {
    let bench = limited(2);
    let first = bench.signed_in("u1").await;
    let stranger = bench.signed_in("u2").await;
    let second = bench.signed_in("u1").await;
    // Use does not make it younger.
    bench.wait(20);
    bench.live(&first).await;
    let third = bench.signed_in("u1").await;
    assert_eq!(bench.reason(&first).await, Refusal::UnknownSession);
    for headers in [&second, &third, &stranger] {
        bench.live(headers).await;
    }
    // A login in the same browser takes the place of its own session.
    let again = bench.login("u1", &third).await.unwrap();
    bench.live(&second).await;
    bench.live(&cookies(&[&again.cookie])).await;
}

#[tokio::test]
async fn a_limit_that_was_lowered_counts_from_the_next_login() {
    let mut bench = limited(0);
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(bench.signed_in("u1").await);
    }
    bench.rules.settings.max_per_user = 1;
    bench.live(&all[0]).await;
    let last = bench.signed_in("u1").await;
    for headers in &all {
        assert_eq!(bench.reason(headers).await, Refusal::UnknownSession);
    }
    bench.live(&last).await;
}

/// Sessions that are over take nobody's place.
#[tokio::test]
async fn what_is_over_does_not_count() {
    let bench = limited(1);
    let one = bench.signed_in("u1").await;
    let session = bench.live(&one).await;
    bench
        .sessions
        .end_all(&bench.rules, &session, &HeaderMap::new())
        .await
        .unwrap();
    assert!(
        bench
            .sessions
            .devices(&bench.rules, "u1")
            .await
            .unwrap()
            .is_empty()
    );
    let two = bench.signed_in("u1").await;
    assert_eq!(bench.reason(&one).await, Refusal::SessionEnded);
    bench.live(&two).await;
}

/// A login that took so long that newer ones have filled the limit is told so,
/// and leaves nothing.
#[tokio::test]
async fn a_login_that_is_overtaken_is_told_so() {
    let bench = limited(1);
    let began = bench.sessions.begin_login().await.unwrap();
    let newer = bench.signed_in("u1").await;
    let late = bench.login_begun_at(began, "u1", &HeaderMap::new()).await;
    assert_eq!(late.unwrap_err().refusal, Refusal::SessionEnded);
    bench.live(&newer).await;
    assert_eq!(bench.store.of_user("u1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_outage_while_counting_leaves_no_session_behind() {
    let bench = limited(1);
    bench.signed_in("u1").await;
    let began = bench.sessions.begin_login().await.unwrap();
    bench.store.down.store(true, Ordering::SeqCst);
    let failed = bench.login_begun_at(began, "u1", &HeaderMap::new()).await;
    assert_eq!(failed.unwrap_err().refusal, Refusal::StoreUnavailable);
    bench.store.down.store(false, Ordering::SeqCst);
    assert_eq!(bench.store.of_user("u1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_user_ends_own_sessions_alone() {
    let bench = limited(0);
    let (own, other) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    let stranger = bench.signed_in("u2").await;
    let (sessions, rules) = (&bench.sessions, &bench.rules);
    let foreign = bench.live(&stranger).await.handle().to_owned();
    assert!(!sessions.revoke(rules, "u1", &foreign).await.unwrap());
    assert!(!sessions.revoke(rules, "u1", "").await.unwrap());
    bench.live(&stranger).await;

    let devices = sessions.devices(rules, "u1").await.unwrap();
    let handles: Vec<_> = devices.iter().map(|d| &*d.handle).collect();
    let newest_first = [bench.live(&other).await, bench.live(&own).await];
    assert_eq!(
        handles,
        newest_first.each_ref().map(|session| session.handle())
    );
    assert!(sessions.revoke(rules, "u1", handles[0]).await.unwrap());
    assert!(!sessions.revoke(rules, "u1", handles[0]).await.unwrap());
    assert_eq!(bench.reason(&other).await, Refusal::UnknownSession);

    let more = [bench.signed_in("u1").await, bench.signed_in("u1").await];
    let key = bench.live(&own).await.key().to_owned();
    assert_eq!(sessions.revoke_others(rules, "u1", &key).await.unwrap(), 2);
    bench.live(&own).await;
    bench.live(&stranger).await;
    for headers in &more {
        assert_eq!(bench.reason(headers).await, Refusal::UnknownSession);
    }
}

#[tokio::test]
async fn ending_a_user_reaches_the_logins_that_are_running() {
    let bench = limited(0);
    let (one, two) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    let stranger = bench.signed_in("u2").await;
    let began = bench.sessions.begin_login().await.unwrap();
    let ended = bench.sessions.revoke_user(&bench.rules, "u1").await;
    assert_eq!(ended.unwrap(), 2);
    let late = bench.login_begun_at(began, "u1", &HeaderMap::new()).await;
    assert_eq!(late.unwrap_err().refusal, Refusal::SessionEnded);
    for headers in [&one, &two] {
        assert_eq!(bench.reason(headers).await, Refusal::UnknownSession);
    }
    bench.live(&stranger).await;
    let (devices, next) = bench
        .sessions
        .everybody(&bench.rules, None, 100)
        .await
        .unwrap();
    assert_eq!(next, None);
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].head.user, "u2");
}
