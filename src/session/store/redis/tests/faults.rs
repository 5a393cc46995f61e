//! One server in trouble: what is a miss, and what an outage.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::session::store::attempt::door::Door;
use crate::session::store::redis::copies::{Copies, Found};
use crate::session::store::redis::relay::Relay;

fn is_outage<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(error @ (StoreError::Unavailable(_) | StoreError::Timeout(_))) => error.to_string(),
        other => panic!("no outage: {other:?}"),
    }
}

#[tokio::test]
async fn with_persistence_a_restart_is_an_outage_and_then_all_is_there() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    assert_eq!(store.create(record("sess:b")).await, Ok(true));
    let epoch = store.raise_epoch("ann", HOUR).await.unwrap();
    assert_eq!(store.delete("sess:b").await, Ok(true));
    server.kill();
    is_outage(store.load("sess:a").await);
    server.restart();
    recovered(&store, TIMEOUT).await;
    assert!(store.load("sess:a").await.unwrap().is_some());
    assert_eq!(store.load("sess:b").await, Ok(None));
    assert_eq!(store.epoch("ann").await, Ok(Some(epoch)));
}

#[tokio::test]
async fn without_persistence_a_restart_ends_sessions_and_no_copy_outlives_it() {
    let mut server = RedisServer::start(&[]);
    let target = target(&server.url(), TIMEOUT).unwrap();
    let copies = Copies::new(HOUR);
    let store = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    copies.find(&store, "sess:a").await.unwrap();
    server.kill();
    copies.lost_soon().await;
    server.restart();
    copies.proven_after(Instant::now()).await;
    assert_eq!(copies.find(&store, "sess:a").await, Ok(Found::Read(None)));
}

#[tokio::test]
async fn what_a_server_evicts_is_unknown_and_its_copy_is_told() {
    let server = RedisServer::start(&["--maxmemory-policy", "volatile-lru"]);
    let target = target(&server.url(), TIMEOUT).unwrap();
    let copies = Copies::new(HOUR);
    let store = RedisStore::following(target.clone(), copies.clone());
    let own = RedisStore::new(target);
    copies.proven_after(Instant::now()).await;
    assert_eq!(own.create(record("sess:a")).await, Ok(true));
    copies.find(&store, "sess:a").await.unwrap();
    server.say("CONFIG SET maxmemory 1").unwrap();
    // Whatever needs memory makes it evict.
    let refused = own.create(record("sess:b")).await;
    assert!(refused.is_err() || refused == Ok(true), "{refused:?}");
    copies.told_of("sess:a").await;
    assert_eq!(copies.copy("sess:a"), None);
    server.say("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(own.load("sess:a").await, Ok(None));
}

#[tokio::test]
async fn a_full_server_that_evicts_nothing_refuses_writes_and_still_deletes() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.say("CONFIG SET maxmemory 1").unwrap();
    let said = is_outage(store.create(record("sess:b")).await);
    assert!(said.contains("OOM"), "{said}");
    is_outage(store.touch("sess:a", Timestamp(2), HOUR).await);
    is_outage(store.raise_epoch("ann", HOUR).await);
    assert!(store.load("sess:a").await.unwrap().is_some());
    assert_eq!(store.delete("sess:a").await, Ok(true));
}

/// The server has a new password, and the configuration the old one.
#[tokio::test]
async fn a_password_that_was_changed_is_an_outage_until_it_is_right_again() {
    let lines = ["user carl on >old ~* +@all".to_owned()];
    let server = RedisServer::listen(Role::Server, &Port::Plain, &lines);
    let url = format!("redis://carl:old@127.0.0.1:{}", server.port);
    let target = target(&url, TIMEOUT).unwrap();
    let copies = Copies::new(HOUR);
    let tracked = RedisStore::following(target.clone(), copies.clone());
    let store = RedisStore::new(target);
    copies.proven_after(Instant::now()).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    copies.find(&tracked, "sess:a").await.unwrap();

    server.obey("ACL SETUSER carl resetpass >new");
    // Who is in stays in, so the connections are closed as well.
    server.obey("CLIENT KILL USER carl");
    copies.lost_soon().await;
    let said = is_outage(store.load("sess:a").await);
    assert!(
        said.contains("WRONGPASS") || said.contains("authentication"),
        "{said}"
    );
    is_outage(copies.find(&tracked, "sess:a").await);
    server.obey("ACL SETUSER carl >old");
    recovered(&store, TIMEOUT).await;
    assert!(store.load("sess:a").await.unwrap().is_some());
    copies.proven_after(Instant::now()).await;
    let read = copies.find(&tracked, "sess:a").await.unwrap();
    assert!(matches!(read, Found::Read(Some(_))), "{read:?}");
}

#[tokio::test]
async fn a_black_hole_is_an_outage_within_the_time_and_heals() {
    let server = RedisServer::start(&[]);
    let relay = Relay::to(server.socket());
    let timeout = Duration::from_millis(300);
    let store = store(&relay.url(), timeout);
    recovered(&store, TIMEOUT).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    relay.swallow(true);
    for _ in 0..3 {
        let start = Instant::now();
        is_outage(store.load("sess:a").await);
        is_outage(store.create(record("sess:b")).await);
        assert!(start.elapsed() < Duration::from_secs(3), "it hangs");
    }
    relay.swallow(false);
    recovered(&store, TIMEOUT).await;
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_of_another_kind_is_unreadable_for_the_tracked_handle_too() {
    let server = RedisServer::start(&[]);
    let copies = Copies::new(HOUR);
    let target = target(&server.url(), TIMEOUT).unwrap();
    let store = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    server.say("SET sess:text hello").unwrap();
    let found = copies.find(&store, "sess:text").await;
    assert!(matches!(found, Err(StoreError::Unreadable(_))), "{found:?}");
    assert_eq!(copies.losses.load(std::sync::atomic::Ordering::SeqCst), 0);
}

/// While a server hangs, requests give up one after the other. What they wait for must
/// not begin anew with each of them: it would never be there.
#[tokio::test]
async fn a_connection_is_made_although_each_request_gives_up_before() {
    let server = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door.sock");
    let door = Door::closed(&path, server.socket());
    let timeout = Duration::from_millis(150);
    let store = Arc::new(store(&format!("redis+unix://{}", path.display()), timeout));
    for _ in 0..10 {
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let store = store.clone();
            crowd.spawn(async move { store.load("sess:a").await });
        }
        for answer in crowd.join_all().await {
            assert_eq!(answer, Err(StoreError::Timeout(timeout)));
        }
    }
    // One more where this took longer than an attempt may.
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
    door.open();
    recovered(&store, TIMEOUT).await;
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
}

/// Those that waited for a connection until just before their deadlines must not throw
/// away what was made at last, for all who come after them.
#[tokio::test]
async fn a_connection_that_took_longer_than_a_request_may_is_kept() {
    let server = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door.sock");
    let timeout = Duration::from_secs(1);
    let (entry, word) = (Duration::from_millis(1100), Duration::from_millis(20));
    let door = Door::slow(&path, server.socket(), entry, word);
    let store = Arc::new(store(&format!("redis+unix://{}", path.display()), timeout));
    let (served, mut crowd) = (
        Arc::new(AtomicBool::new(false)),
        tokio::task::JoinSet::new(),
    );
    let (begun, mut since) = (Instant::now(), None);
    // In this time, one that is thrown away would be made anew twice.
    while since.is_none_or(|at: Instant| at.elapsed() < 3 * timeout) {
        assert!(begun.elapsed() < TIMEOUT, "{} attempts", door.visitors());
        if since.is_none() && served.load(Ordering::SeqCst) {
            since = Some(Instant::now());
        }
        let (store, served) = (store.clone(), served.clone());
        crowd.spawn(async move {
            if store.load("sess:a").await.is_ok() {
                served.store(true, Ordering::SeqCst);
            }
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    crowd.join_all().await;
    // One more where the first took longer than an attempt may.
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
    assert_eq!(store.load("sess:a").await, Ok(None));
}
