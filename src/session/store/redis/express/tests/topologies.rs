//! Shared records on everything that `store.url` may name, with no more rights than the
//! documentation asks for. On a cluster, a record and what lies beside it are in one slot,
//! whatever the application calls its sessions; so each script runs on one node.

use super::*;
use crate::session::store::redis::copies::{Copies, Found};
use crate::session::store::redis::pki::Pki;
use crate::session::store::redis::server::Port;
use crate::session::store::redis::topology::{Nodes, Watched, single};

const MORE_RIGHTS: &str = "+expire";

/// The answer of the node to which the key of a command belongs.
fn say(servers: &[&RedisServer], command: &str) -> String {
    let mut answers = servers.iter().map(|server| server.say(command).unwrap());
    answers
        .find(|answer| !answer.starts_with("-MOVED"))
        .unwrap()
}

async fn shared_records(url: &str, servers: &[&RedisServer]) {
    for server in servers {
        server.obey(&format!("ACL SETUSER cloakroom {MORE_RIGHTS}"));
    }
    let target = target_at(url);
    let clock = Clock::fixed(Timestamp(1_800_000_000_000));
    let copies = Copies::new(CacheSettings::default().staleness);
    let followed = SharedRedisStore::following(target.clone(), clock.clone(), copies.clone());
    let stores = [(); 2].map(|()| SharedRedisStore::new(target.clone(), clock.clone()));
    copies.proven_after(Instant::now()).await;
    let names: Vec<String> = (0..24)
        .map(|n| format!("sess:{n}"))
        .chain(["sess:{tag}1", "sess:{2", "sess:{a{b}3"].map(str::to_owned))
        .collect();
    for name in &names {
        let record = record_at(clock.now(), name, &json("u1", 3600));
        assert_eq!(stores[0].create(record.clone()).await, Ok(true), "{name}");
        assert_eq!(stores[1].create(record.clone()).await, Ok(false), "{name}");
        let loaded = stores[1].load(name).await.unwrap().unwrap();
        assert_eq!(loaded.value, record.value);
        let touched = stores[1].touch(name, Timestamp(1), HOUR * 2).await;
        assert_eq!(touched, Ok(true), "{name}");
        assert!(say(servers, &format!("TTL {name}")).trim() > ":7000");
    }
    // Wherever they are, all of a user's are found, and all that there are.
    assert_eq!(stores[0].of_user("u1").await.unwrap().len(), names.len());
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = stores[1].scan(cursor, 5).await.unwrap();
        all.extend(page.found.into_iter().map(|found| found.key.to_string()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), names.len());
    let epoch = stores[0].raise_epoch("u1", HOUR).await.unwrap();
    assert_eq!(stores[1].epoch("u1").await, Ok(Some(epoch)));

    for name in &names {
        assert!(followed.load(name).await.unwrap().is_some());
        say(servers, &format!("SET {name} '{}' EX 60", json("u2", 60)));
        copies.told_of(name).await;
        assert_eq!(stores[0].delete(name).await, Ok(true), "{name}");
        let back = say(servers, &format!("SET {name} '{}' EX 60", json("u2", 60)));
        assert_eq!(back.trim(), "+OK");
        assert_eq!(stores[1].load(name).await, Ok(None), "{name}");
        assert_eq!(say(servers, &format!("EXISTS {name}")).trim(), ":0");
        let again = record_at(clock.now(), name, &json("u1", 3600));
        assert_eq!(stores[1].create(again).await, Ok(false), "{name}");
    }
    assert_eq!(
        copies.find(&followed, "sess:0").await,
        Ok(Found::Read(None))
    );
}

#[tokio::test]
async fn one_server_with_tls_and_client_certificates() {
    let port = Port::Tls(Arc::new(Pki::new()));
    let (server, url) = single(&port);
    shared_records(&url_of(&url), &[&server]).await;
}

#[tokio::test]
async fn the_master_of_sentinels() {
    let watched = Watched::start(&Port::Plain);
    shared_records(&url_of(&watched.url), &[&watched.master]).await;
}

#[tokio::test]
async fn a_cluster() {
    let nodes = Nodes::start(&Port::Plain, 0);
    let masters: Vec<_> = nodes.masters.iter().collect();
    shared_records(&nodes.url, &masters).await;

    // A name with which nothing can share a slot is an outage, and no miss.
    let store = SharedRedisStore::new(target_at(&nodes.url), Clock::system());
    for name in ["sess:a}b", "sess:{}a"] {
        let error = store.load(name).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
}

#[tokio::test]
async fn a_cluster_with_tls() {
    let port = Port::Tls(Arc::new(Pki::new()));
    let nodes = Nodes::start(&port, 0);
    let masters: Vec<_> = nodes.masters.iter().collect();
    shared_records(&nodes.url, &masters).await;
}

/// In database 0, which is the one that is asked here.
fn url_of(url: &str) -> String {
    url.replace("/1?", "/0?")
}

#[test]
fn the_rights_are_those_that_are_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let documented = std::fs::read_to_string(path).unwrap();
    assert!(documented.contains(&format!("`{MORE_RIGHTS}`")));
}
