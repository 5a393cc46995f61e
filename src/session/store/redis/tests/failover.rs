//! Masters that are lost or replaced: what is a miss, what an outage, what goes on.

use std::sync::atomic::Ordering;

use super::*;
use crate::session::store::redis::copies::{Copies, Found};
use crate::session::store::redis::server::until;
use crate::session::store::redis::slots::slot;
use crate::session::store::redis::topology::{Nodes, Watched, id};

/// Long enough for a fail-over.
const PATIENCE: Duration = Duration::from_secs(30);
const STALENESS: Duration = Duration::from_secs(1);

/// Asks until the record is there; until then each answer has to be an outage.
async fn comes_back(store: &RedisStore, key: &str) -> usize {
    let start = Instant::now();
    let mut outages = 0;
    loop {
        match store.load(key).await {
            Ok(Some(_)) => return outages,
            Ok(None) => panic!("{key} was lost"),
            Err(StoreError::Unreadable(why)) => panic!("{why}"),
            Err(error) => {
                outages += 1;
                assert!(start.elapsed() < PATIENCE, "still {error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a server has a key, after a command that lets it say so.
fn has(server: &RedisServer, before: &str, key: &str) -> bool {
    let answer = server.obey(&format!("{before}\r\nEXISTS {key}"));
    answer.ends_with(":1\r\n")
}

#[tokio::test]
async fn sessions_survive_the_death_of_a_master_with_sentinels() {
    let mut watched = Watched::start(&Port::Plain);
    let target = target(&watched.url, Duration::from_secs(1)).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    assert_eq!(own.create(record("sess:a")).await, Ok(true));
    until("the record reaches the replica", || {
        has(&watched.replica, "SELECT 1", "sess:a")
    });
    copies.find(&tracked, "sess:a").await.unwrap();

    watched.master.kill();
    copies.lost_soon().await;
    assert!(copies.find(&tracked, "sess:a").await.is_err());
    assert!(comes_back(&own, "sess:a").await > 0, "nothing was noticed");
    assert_eq!(own.touch("sess:a", Timestamp(9), HOUR).await, Ok(true));
    assert_eq!(own.create(record("sess:b")).await, Ok(true));
    copies.proven_after(Instant::now()).await;
    let read = copies.find(&tracked, "sess:a").await.unwrap();
    assert!(matches!(read, Found::Read(Some(_))), "{read:?}");
    assert_eq!(own.delete("sess:a").await, Ok(true));
    copies.told_of("sess:a").await;
}

/// The old master goes on answering, and says that it is one: the Sentinels are not
/// allowed to make it a replica.
#[tokio::test]
async fn an_old_master_that_still_answers_is_left() {
    let watched = Watched::start(&Port::Plain);
    let target = target(&watched.url, Duration::from_secs(2)).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    assert_eq!(own.create(record("sess:a")).await, Ok(true));
    until("the record reaches the replica", || {
        has(&watched.replica, "SELECT 1", "sess:a")
    });
    copies.find(&tracked, "sess:a").await.unwrap();
    assert!(matches!(copies.copy("sess:a"), Some(Some(_))));

    let denied = "ACL SETUSER default -replicaof -slaveof -client|kill -multi";
    watched.master.obey(denied);
    let losses = copies.losses.load(Ordering::SeqCst);
    watched.sentinels[0].obey("SENTINEL FAILOVER mymaster");
    until("the fail-over is announced", || watched.has_failed_over());
    until("the replica is a master", || {
        watched.replica.obey("ROLE").contains("master")
    });
    assert!(watched.master.obey("ROLE").contains("master"));
    // On the new master alone.
    let mut deleter = std::os::unix::net::UnixStream::connect(watched.replica.socket()).unwrap();
    std::io::Write::write_all(&mut deleter, b"SELECT 1\r\nDEL sess:a\r\n").unwrap();
    until("the record is gone from the new master", || {
        !has(&watched.replica, "SELECT 1", "sess:a")
    });

    // The news may still be on its way to us, but no longer than this.
    let start = Instant::now();
    while own.load("sess:a").await != Ok(None) {
        assert!(start.elapsed() < STALENESS, "the old master is still asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while copies.losses.load(Ordering::SeqCst) == losses {
        assert!(start.elapsed() < STALENESS, "the loss was not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    copies.proven_after(Instant::now()).await;
    assert_eq!(copies.find(&tracked, "sess:a").await, Ok(Found::Read(None)));
    // Writes go to the new one as well.
    assert_eq!(own.create(record("sess:b")).await, Ok(true));
    assert!(has(&watched.replica, "SELECT 1", "sess:b"));
}

#[tokio::test]
async fn sentinels_that_are_down_or_know_nothing_are_an_outage() {
    let mut watched = Watched::start(&Port::Plain);
    let unknown = watched.url.replace("master=mymaster", "master=other");
    let error = store(&unknown, TIMEOUT).load("sess:a").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("no Sentinel names a master other")
    );
    let wrong = watched
        .url
        .replace("sentinel_password=watch", "sentinel_password=hunter2");
    let error = store(&wrong, TIMEOUT).load("sess:a").await.unwrap_err();
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");

    let own = store(&watched.url, TIMEOUT);
    assert_eq!(own.create(record("sess:a")).await, Ok(true));
    for sentinel in &mut watched.sentinels {
        sentinel.kill();
    }
    // Whoever is connected needs no Sentinel.
    assert!(own.load("sess:a").await.unwrap().is_some());
    let late = store(&watched.url, TIMEOUT).load("sess:a").await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    watched.sentinels[2].restart();
    let again = store(&watched.url, TIMEOUT);
    recovered(&again, PATIENCE).await;
    assert!(again.load("sess:a").await.unwrap().is_some());
}

/// A key in the slots of the first master, and one in those of the last.
fn keys() -> (String, String) {
    let find = |wanted: fn(u16) -> bool| {
        let mut keys = (0..).map(|n| format!("sess:{n}"));
        keys.find(|key| wanted(slot(key))).unwrap()
    };
    (find(|slot| slot < 5461), find(|slot| slot > 10922))
}

#[tokio::test]
async fn a_lost_node_is_an_outage_for_its_sessions_until_its_replica_takes_over() {
    let mut nodes = Nodes::start(&Port::Plain, 1);
    let target = target(&nodes.url, Duration::from_secs(1)).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    let (first, last) = keys();
    for key in [&first, &last] {
        assert_eq!(own.create(record(key)).await, Ok(true));
        copies.find(&tracked, key).await.unwrap();
    }
    until("the record reaches the replica", || {
        has(&nodes.replicas[0], "READONLY", &first)
    });

    nodes.masters[0].kill();
    copies.lost_soon().await;
    assert!(copies.find(&tracked, &first).await.is_err());
    // The cluster does not yet know, and so the others go on.
    assert!(own.load(&last).await.unwrap().is_some());
    let error = own.load(&first).await.unwrap_err();
    assert!(!matches!(error, StoreError::Unreadable(_)), "{error}");
    comes_back(&own, &first).await;
    comes_back(&own, &last).await;
    assert_eq!(own.touch(&first, Timestamp(9), HOUR).await, Ok(true));
    copies.proven_after(Instant::now()).await;
    let read = copies.find(&tracked, &first).await.unwrap();
    assert!(matches!(read, Found::Read(Some(_))), "{read:?}");
    assert_eq!(own.delete(&first).await, Ok(true));
    copies.told_of(&first).await;
}

#[tokio::test]
async fn sessions_move_with_their_slot() {
    let nodes = Nodes::start(&Port::Plain, 0);
    let target = target(&nodes.url, TIMEOUT).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    let (key, _) = keys();
    // In the same slot.
    let beside = crate::session::store::redis::side_key("sess", &key);
    for key in [&key, &beside] {
        assert_eq!(own.create(record(key)).await, Ok(true));
    }
    copies.find(&tracked, &key).await.unwrap();
    assert!(matches!(copies.copy(&key), Some(Some(_))));

    let (from, to) = (&nodes.masters[0], &nodes.masters[1]);
    let slot = slot(&key);
    to.obey(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
    from.obey(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
    // Half-way: one key is there, the other still here.
    from.obey(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port));
    copies.told_of(&key).await;
    assert_eq!(copies.copy(&key), None);
    for key in [&key, &beside] {
        assert!(own.load(key).await.unwrap().is_some(), "{key}");
        assert_eq!(own.touch(key, Timestamp(9), HOUR).await, Ok(true), "{key}");
    }
    // The tracked handle leaves those that are on their way to the others.
    let found = copies.find(&tracked, &key).await;
    assert!(
        matches!(found, Err(StoreError::Unavailable(_))),
        "{found:?}"
    );
    assert_eq!(own.delete(&key).await, Ok(true));
    assert_eq!(own.create(record(&key)).await, Ok(true));

    from.obey(&format!("MIGRATE 127.0.0.1 {} {beside} 0 5000", to.port));
    for node in [to, from, &nodes.masters[2]] {
        node.obey(&format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
    }
    for key in [&key, &beside] {
        assert!(own.load(key).await.unwrap().is_some(), "{key}");
    }
    // The channel finds out by itself, or by the first read.
    let start = Instant::now();
    while copies.find(&tracked, &key).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the channel does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    copies.records.lock().unwrap().clear();
    assert_eq!(own.delete(&key).await, Ok(true));
    copies.told_of(&key).await;
    assert_eq!(own.load(&key).await, Ok(None));
}

#[tokio::test]
async fn the_race_is_lost_by_none_in_a_cluster_either() {
    let nodes = Nodes::start(&Port::Plain, 0);
    let target = target(&nodes.url, TIMEOUT).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    let mut seen = 0;
    for n in 0..300 {
        let key = format!("sess:{n}");
        assert_eq!(own.create(record(&key)).await, Ok(true));
        let (found, deleted) = tokio::join!(copies.find(&tracked, &key), own.delete(&key));
        assert_eq!(deleted, Ok(true));
        seen += usize::from(matches!(found, Ok(Found::Read(Some(_)))));
    }
    assert!(seen > 0, "no read came before its deletion");
    copies.proven_after(Instant::now()).await;
    for n in 0..300 {
        let copy = copies.copy(&format!("sess:{n}"));
        assert!(!matches!(copy, Some(Some(_))), "sess:{n} came back");
    }
}

/// The walk goes over each of them, and says so where it was begun among others.
#[tokio::test]
async fn all_records_of_a_cluster_are_found_on_all_nodes() {
    let nodes = Nodes::start(&Port::Plain, 0);
    let target = target(&nodes.url, TIMEOUT).unwrap();
    let own = RedisStore::new(target.clone());
    let copies = Copies::new(STALENESS);
    let tracked = RedisStore::following(target, copies.clone());
    copies.proven_after(Instant::now()).await;
    let keys: std::collections::BTreeSet<String> = (0..60).map(|n| format!("sess:{n}")).collect();
    for key in &keys {
        assert_eq!(own.create(record(key)).await, Ok(true));
    }
    for store in [&own, &tracked] {
        let (mut found, mut cursor) = (std::collections::BTreeSet::new(), None);
        let mut pages = 0;
        loop {
            let page = store.scan(cursor, 10).await.unwrap();
            found.extend(page.found.iter().map(|found| found.key.to_string()));
            cursor = page.next;
            pages += 1;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, keys);
        assert!(pages >= 3, "{pages}");
        let elsewhere = store.scan(Some("abcdefgh.1.0".into()), 10).await;
        let error = elsewhere.unwrap_err().to_string();
        assert!(error.contains("begin again"), "{error}");
        assert_eq!(store.of_user("ann").await.unwrap().len(), keys.len());
    }
}
