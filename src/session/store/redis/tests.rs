//! Against a real server.

mod failover;
mod faults;
mod topologies;

use std::time::Instant;

use super::server::{Port, RedisServer, Role};
use super::*;
use crate::session::settings::{CacheSettings, LayoutKind, StoreLocation};
use crate::session::store::contract::{self, Time};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn target(url: &str, timeout: Duration) -> Result<RedisTarget, StoreError> {
    let CacheSettings { staleness, .. } = CacheSettings::default();
    target_with(url, "sess:", timeout, staleness)
}

pub(super) fn target_with(
    url: &str,
    prefix: &str,
    timeout: Duration,
    staleness: Duration,
) -> Result<RedisTarget, StoreError> {
    let url = RedisUrl::parse(url).map_err(|fault| StoreError::Unavailable(fault.what))?;
    let settings = StoreSettings {
        location: StoreLocation::Redis(Box::new(url.clone())),
        layout: LayoutKind::Sealed,
        prefix: prefix.into(),
        timeout,
        cache: CacheSettings {
            staleness,
            ..CacheSettings::default()
        },
    };
    RedisTarget::new(&url, &settings)
}

pub(super) fn store(url: &str, timeout: Duration) -> RedisStore {
    RedisStore::new(target(url, timeout).unwrap())
}

pub(super) fn record(key: &str) -> NewRecord {
    NewRecord {
        key: key.into(),
        user: "ann".into(),
        value: Bytes::from_static(b"value"),
        seen: Timestamp(1),
        ttl: HOUR,
    }
}

/// Asks until the store answers.
async fn recovered(store: &RedisStore, within: Duration) {
    let start = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(start.elapsed() < within, "still {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let server = RedisServer::start(&[]);
    let target = target(&server.url(), TIMEOUT).unwrap();
    contract::run(|| Arc::new(RedisStore::new(target.clone())), Time::Own).await;

    // What is left of it: every key has a time to live.
    let Servers::One(address) = &*target.servers else {
        panic!("several servers");
    };
    let wire = target.dialer.dial(address, None).await.unwrap();
    let mut connection = wire.connection.clone();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(keys.iter().any(|key| key.starts_with("sess:")));
    assert!(
        keys.iter()
            .any(|key| key.starts_with("cloakroom:epoch:sess:"))
    );
    for key in keys {
        let mut command = redis::cmd("PTTL");
        let left: i64 = command
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!(left > 0, "{key:?}: {left}");
        let ours = ["sess:", "cloakroom:epoch:sess:", "cloakroom:user:sess:"];
        assert!(ours.iter().any(|start| key.starts_with(start)), "{key}");
    }
}

#[tokio::test]
async fn it_speaks_over_tcp_with_user_password_and_database() {
    let lines = ["user carl on >p%2Fw:x ~* +@all".to_owned()];
    let server = RedisServer::listen(Role::Server, &Port::Plain, &lines);
    let port = server.port;
    let url = format!("redis://carl:p%252Fw%3Ax@127.0.0.1:{port}/3");
    let store = store(&url, TIMEOUT);
    assert_eq!(store.create(record("sess:tcp")).await, Ok(true));
    let listed = server.say("INFO keyspace").unwrap();
    assert!(listed.contains("db3:keys=2,expires=2"), "{listed}");
}

#[tokio::test]
async fn a_dead_server_is_an_error_soon_and_a_returned_one_is_used() {
    let mut server = RedisServer::start(&[]);
    let store = store(&server.url(), Duration::from_secs(2));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.kill();
    for _ in 0..20 {
        let start = Instant::now();
        assert!(matches!(
            store.load("sess:a").await,
            Err(StoreError::Unavailable(_))
        ));
        assert!(store.delete("sess:a").await.is_err());
        assert!(store.create(record("sess:b")).await.is_err());
        assert!(start.elapsed() < Duration::from_secs(2), "it hangs");
    }
    server.restart();
    recovered(&store, Duration::from_secs(2)).await;
    assert_eq!(store.load("sess:a").await, Ok(None));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
}

#[tokio::test]
async fn a_restart_between_two_reads_is_not_noticed() {
    let mut server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.kill();
    server.restart();
    assert_eq!(store.load("sess:a").await, Ok(None));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
}

#[tokio::test]
async fn a_write_after_a_long_pause_finds_out_that_the_connection_is_gone() {
    let mut server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.kill();
    server.restart();
    // Not for something to happen: this is the pause.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
}

#[tokio::test]
async fn a_server_that_hangs_times_out_and_recovers() {
    let server = RedisServer::start(&[]);
    let timeout = Duration::from_millis(200);
    let store = store(&server.url(), timeout);
    recovered(&store, TIMEOUT).await;
    server.signal("STOP");
    for _ in 0..3 {
        assert_eq!(
            store.load("sess:a").await,
            Err(StoreError::Timeout(timeout))
        );
    }
    server.signal("CONT");
    recovered(&store, TIMEOUT).await;
}

#[tokio::test]
async fn a_connection_that_dies_in_silence_is_replaced() {
    let server = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("between.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (silence, upstream) = (Arc::new(tokio::sync::Notify::new()), server.socket());
    let silenced = silence.clone();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("closed"),
            () = silenced.notified() => {}
        }
        // The first connection stays open, and nothing comes through any more.
        let (mut next, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut next, &mut far).await;
        drop(near);
    });
    let timeout = Duration::from_secs(1);
    let store = store(&format!("redis+unix://{}", path.display()), timeout);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    silence.notify_one();
    let late = store.load("sess:a").await;
    assert_eq!(late, Err(StoreError::Timeout(timeout)));
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let server = RedisServer::start(&["--requirepass", "right"]);
    for (query, said) in [("?pass=secret-word", "WRONGPASS"), ("", "NOAUTH")] {
        let store = store(&format!("{}{query}", server.url()), TIMEOUT);
        let error = store.load("sess:a").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(said) || text.contains("uthentication"),
            "{text}"
        );
        assert!(!text.contains("secret-word"), "{text}");
    }
}

#[tokio::test]
async fn a_password_that_is_mended_is_noticed() {
    let server = RedisServer::start(&["--requirepass", "right"]);
    let store = store(&format!("{}?pass=new", server.url()), TIMEOUT);
    assert!(store.ping().await.is_err());
    let mut admin = std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
    std::io::Write::write_all(&mut admin, b"AUTH right\r\nCONFIG SET requirepass new\r\n").unwrap();
    recovered(&store, TIMEOUT).await;
}

#[tokio::test]
async fn what_is_no_record_is_unreadable() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    server.say("SET sess:text hello").unwrap();
    server.say("HSET sess:hash other field").unwrap();
    server.say("HSET sess:seen v x seen -1").unwrap();
    server.say("HSET sess:half v x").unwrap();
    let unreadable = |result: Result<_, StoreError>| {
        assert!(
            matches!(result, Err(StoreError::Unreadable(_))),
            "{result:?}"
        );
    };
    for key in ["sess:text", "sess:hash"] {
        unreadable(store.touch(key, Timestamp(1), HOUR).await);
        let swapped = store.update(key, "x".into(), "y".into()).await;
        unreadable(swapped);
        assert_eq!(store.create(record(key)).await, Ok(false));
    }
    for key in ["sess:text", "sess:hash", "sess:seen", "sess:half"] {
        unreadable(store.load(key).await.map(|_| true));
        assert_eq!(store.delete(key).await, Ok(true));
    }

    let name = store.epoch_key("ann");
    for odd in ["soon", "0x10", "99999999999999999999", "-1", "1e3"] {
        server.say(&format!("SET {name} {odd}")).unwrap();
        unreadable(store.raise_epoch("ann", HOUR).await.map(|_| true));
        unreadable(store.epoch("ann").await.map(|_| true));
    }
    server.say(&format!("DEL {name}")).unwrap();
    server.say(&format!("HSET {name} a b")).unwrap();
    unreadable(store.raise_epoch("ann", HOUR).await.map(|_| true));
    unreadable(store.epoch("ann").await.map(|_| true));
}

#[tokio::test]
async fn an_epoch_rises_above_one_from_the_future() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    let name = store.epoch_key("ann");
    server.say(&format!("SET {name} 4000000000000000")).unwrap();
    assert_eq!(
        store.raise_epoch("ann", HOUR).await,
        Ok(Epoch(4_000_000_000_000_001))
    );
}

#[tokio::test]
async fn refusals_carry_the_servers_words() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let store = store(&server.url(), TIMEOUT);
    server.say("CONFIG SET maxmemory 1").unwrap();
    let error = store.create(record("sess:a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("OOM"), "{error}");
    server.say("CONFIG SET maxmemory 0").unwrap();
    assert_eq!(store.create(record("sess:a")).await, Ok(true));

    server.say("REPLICAOF 127.0.0.1 1").unwrap();
    let error = store.touch("sess:a", Timestamp(2), HOUR).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let words = error.to_string().to_lowercase();
    assert!(
        words.contains("read only") || words.contains("readonly"),
        "{error}"
    );
    assert!(store.delete("sess:a").await.is_err());
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn scripts_survive_their_removal_from_the_server() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.say("SCRIPT FLUSH").unwrap();
    assert_eq!(store.create(record("sess:b")).await, Ok(true));
}

#[tokio::test]
async fn no_error_repeats_the_password() {
    let target = target("redis://carl:hunter%32@localhost", TIMEOUT).unwrap();
    let words = "what is hunter2 to me".to_owned();
    let error = RedisError::from((ErrorKind::Client, "refused", words));
    let text = target.explain(&error).to_string();
    assert!(text.contains("redis at localhost:6379"), "{text}");
    assert!(text.contains("what is … to me"), "{text}");
}
