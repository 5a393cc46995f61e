//! The contract over everything that `store.url` may name, with no more rights than
//! the documentation asks for.

use std::sync::Arc;

use super::*;
use crate::session::store::redis::copies::Copies;
use crate::session::store::redis::pki::Pki;
use crate::session::store::redis::server::Port;
use crate::session::store::redis::topology::{
    MORE_RIGHTS, Nodes, RIGHTS, SENTINEL_RIGHTS, Watched, single,
};

fn tls() -> Port {
    Port::Tls(Arc::new(Pki::new()))
}

/// For a worker's handle and for the tracked one.
async fn contract(url: &str, servers: &[&RedisServer]) {
    let target = target(url, TIMEOUT).unwrap();
    contract::run(|| Arc::new(RedisStore::new(target.clone())), Time::Own).await;
    let copies = Copies::new(CacheSettings::default().staleness);
    let store = Arc::new(RedisStore::following(target, copies.clone()));
    copies.proven_after(Instant::now()).await;
    for server in servers {
        server.obey("FLUSHALL");
    }
    // Its connections are driven here, and the races ask from threads of their own.
    let done = tokio::task::spawn_blocking(move || {
        let here = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        here.block_on(contract::run(|| store.clone(), Time::Own));
    });
    done.await.unwrap();
}

#[tokio::test]
async fn one_server_with_tls_and_client_certificates_keeps_the_contract() {
    let port = tls();
    let (server, url) = single(&port);
    contract(&url, &[&server]).await;
}

#[tokio::test]
async fn the_master_of_sentinels_keeps_the_contract() {
    let watched = Watched::start(&Port::Plain);
    contract(&watched.url, &[&watched.master]).await;
}

#[tokio::test]
async fn the_master_of_sentinels_with_tls_keeps_the_contract() {
    let port = tls();
    let watched = Watched::start(&port);
    contract(&watched.url, &[&watched.master]).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_contract() {
    let nodes = Nodes::start(&Port::Plain, 0);
    contract(&nodes.url, &nodes.masters.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_cluster_with_tls_keeps_the_contract() {
    let port = tls();
    let nodes = Nodes::start(&port, 0);
    contract(&nodes.url, &nodes.masters.iter().collect::<Vec<_>>()).await;
}

#[test]
fn the_rights_are_those_that_are_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let documented = std::fs::read_to_string(path).unwrap();
    for rights in [RIGHTS, MORE_RIGHTS, SENTINEL_RIGHTS] {
        assert!(documented.contains(rights), "{rights}");
    }
}

#[tokio::test]
async fn certificates_are_verified_and_must_be_shown() {
    let pki = Arc::new(Pki::new());
    let (server, url) = single(&Port::Tls(pki.clone()));
    assert_eq!(store(&url, TIMEOUT).ping().await, Ok(()));
    let at = |query: String| {
        let port = server.port;
        format!("rediss://cloakroom:word@127.0.0.1:{port}/1?{query}")
    };
    let stranger = Pki::new();
    let (ca, cert, key) = (pki.ca(), pki.cert(), pki.key());
    for (query, said) in [
        (stranger.query(), "certificate"),
        (format!("ca={}", ca.display()), ""),
        (
            format!(
                "ca={}&cert={}&key={}",
                ca.display(),
                stranger.cert().display(),
                stranger.key().display()
            ),
            "",
        ),
        (
            format!(
                "ca={}&cert={}&key={}&server_name=redis.internal",
                ca.display(),
                cert.display(),
                key.display()
            ),
            "certificate",
        ),
    ] {
        let error = store(&at(query.clone()), TIMEOUT).ping().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains(said), "{query}: {error}");
        assert!(!error.to_string().contains("word"), "{error}");
    }
    let named = at(format!("{}&server_name=localhost", pki.query()));
    assert_eq!(store(&named, TIMEOUT).ping().await, Ok(()));
}

#[tokio::test]
async fn new_certificates_are_used_and_bad_ones_are_not() {
    let pki = Arc::new(Pki::new());
    let (server, url) = single(&Port::Tls(pki.clone()));
    let good = std::fs::read(pki.cert()).unwrap();
    let store = store(&url, TIMEOUT);
    assert_eq!(store.ping().await, Ok(()));
    let reconnected = async || {
        server.obey("CLIENT KILL TYPE normal SKIPME yes");
        recovered(&store, TIMEOUT).await;
    };
    // The server has read its own when it started.
    std::fs::write(pki.cert(), "not a certificate").unwrap();
    reconnected().await;
    std::fs::write(pki.cert(), good).unwrap();
    reconnected().await;
    // One of another authority takes the place of ours.
    let stranger = Pki::new();
    std::fs::copy(stranger.cert(), pki.cert()).unwrap();
    std::fs::copy(stranger.key(), pki.key()).unwrap();
    server.obey("CLIENT KILL TYPE normal SKIPME yes");
    let start = Instant::now();
    while store.ping().await.is_ok() {
        assert!(start.elapsed() < TIMEOUT, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let (ca, cert, key) = (pki.ca(), pki.cert(), pki.key());
    for (query, said) in [
        (
            "ca=/nowhere/ca.pem".to_owned(),
            "/nowhere/ca.pem cannot be read: there is no such file",
        ),
        (
            format!("ca={}", key.display()),
            "key.pem holds no certificate",
        ),
        (
            format!("cert={}&key={}", cert.display(), cert.display()),
            "cert.pem holds no private key",
        ),
        (
            format!(
                "ca={}&cert={}&key={}",
                ca.display(),
                cert.display(),
                stranger.key().display()
            ),
            "cannot be used together",
        ),
    ] {
        let url = RedisUrl::parse(&format!("rediss://h?{query}")).unwrap();
        let why = url.check_files().unwrap_err();
        assert!(why.contains(said), "{query}: {why}");
    }
}
