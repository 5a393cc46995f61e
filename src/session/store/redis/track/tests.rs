//! Against a real server, and the simplest cache.

use redis::RedisError;

use super::channel::judge;
use super::*;
use crate::base::clock::Timestamp;
use crate::session::store::contract::{self, Time};
use crate::session::store::redis::RedisStore;
use crate::session::store::redis::copies::{Copies, Found};
use crate::session::store::redis::relay::Relay;
use crate::session::store::redis::server::RedisServer;
use crate::session::store::redis::tests::{HOUR, TIMEOUT, record, target_with};
use crate::session::store::{SessionStore, user_name};

const STALENESS: Duration = Duration::from_secs(1);

struct Setup {
    copies: Arc<Copies>,
    /// The tracked handle.
    store: Arc<RedisStore>,
    /// Somebody else's.
    other: RedisStore,
}

/// The runtime of the process's own tasks, in a thread of its own.
struct Background {
    handle: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    fn start() -> Self {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(ended);
        });
        Self {
            handle,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn setup(&self, server: &RedisServer) -> Setup {
        let _inside = self.handle.enter();
        let setup = unproven(&server.url(), &server.url(), "sess:", STALENESS);
        runtime().block_on(setup.copies.proven_after(Instant::now()));
        setup
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.end.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Connects a cache to the server at `near`, and somebody else to that at `url`.
async fn setup(near: &str, url: &str, prefix: &str, staleness: Duration) -> Setup {
    let setup = unproven(near, url, prefix, staleness);
    setup.copies.proven_after(Instant::now()).await;
    setup
}

fn unproven(near: &str, url: &str, prefix: &str, staleness: Duration) -> Setup {
    let copies = Copies::new(staleness);
    let target = |url| target_with(url, prefix, TIMEOUT, staleness).unwrap();
    Setup {
        store: Arc::new(RedisStore::following(target(near), copies.clone())),
        other: RedisStore::new(target(url)),
        copies,
    }
}

fn commands(server: &RedisServer, name: &str) -> u64 {
    let stats = server.say("INFO commandstats").unwrap();
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |line| {
        line.split(',').next().unwrap().parse().expect("a number")
    })
}

#[test]
fn its_handle_keeps_the_contract() {
    let server = RedisServer::start(&[]);
    let background = Background::start();
    let setup = background.setup(&server);
    let store = setup.store.clone();
    let here = runtime();
    // The runtime that drives the connection is another one than those that ask.
    here.block_on(contract::run(|| store.clone(), Time::Own));
}

#[tokio::test]
async fn whatever_changes_a_record_is_told() {
    let server = RedisServer::start(&[]);
    let Setup {
        copies,
        store,
        other,
    } = setup(&server.url(), &server.url(), "sess:", STALENESS).await;
    let key = "sess:a";
    let ways = [
        "DEL sess:a",
        "UNLINK sess:a",
        "PEXPIRE sess:a 100",
        "PEXPIRE sess:a 0",
        "HSET sess:a v x",
        "RENAME sess:a sess:b",
        "SET sess:a x",
    ];
    for way in ways {
        server.say("DEL sess:a").unwrap();
        assert_eq!(other.create(record(key)).await, Ok(true), "{way}");
        copies.proven_after(Instant::now()).await;
        let read = copies.find(&*store, key).await.unwrap();
        assert!(matches!(read, Found::Read(Some(_))), "{way}: {read:?}");
        let copy = copies.find(&*store, key).await.unwrap();
        assert!(matches!(copy, Found::Copy(Some(_))), "{way}: {copy:?}");
        copies.records.lock().unwrap().clear();
        server.say(way).unwrap();
        copies.told_of(key).await;
        assert_eq!(copies.copy(key), None, "{way}");
    }

    // Time, too.
    server.say("DEL sess:a").unwrap();
    let mut brief = record(key);
    brief.ttl = Duration::from_millis(50);
    assert_eq!(other.create(brief).await, Ok(true));
    copies.find(&*store, key).await.unwrap();
    copies.records.lock().unwrap().clear();
    copies.told_of(key).await;

    // And that there was none before.
    assert_eq!(copies.find(&*store, key).await, Ok(Found::Read(None)));
    assert_eq!(other.create(record(key)).await, Ok(true));
    copies.told_of(key).await;
    for way in [0, 1] {
        copies.find(&*store, key).await.unwrap();
        copies.records.lock().unwrap().clear();
        let changed = match way {
            0 => other.touch(key, Timestamp(9), HOUR).await,
            _ => other.update(key, "value".into(), "new".into()).await,
        };
        assert_eq!(changed, Ok(true));
        copies.told_of(key).await;
    }
}

#[tokio::test]
async fn epochs_and_records_are_told_apart_whatever_the_prefix() {
    let prefixes = ["sess:", "", "cloakroom:", "cloakroom:epoch:", "c"];
    for prefix in prefixes {
        let server = RedisServer::start(&[]);
        let Setup {
            copies,
            store,
            other,
        } = setup(&server.url(), &server.url(), prefix, STALENESS).await;
        assert_eq!(store.epoch("ann").await, Ok(None));
        other.raise_epoch("ann", HOUR).await.unwrap();
        let start = Instant::now();
        let told = || copies.epochs.lock().unwrap().contains(&user_name("ann"));
        while !told() {
            assert!(start.elapsed() < TIMEOUT, "{prefix:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let key = format!("{prefix}a");
        assert_eq!(store.load(&key).await, Ok(None));
        other.create(record(&key)).await.unwrap();
        copies.told_of(&key).await;
        assert_eq!(copies.epochs.lock().unwrap().len(), 1, "{prefix:?}");
    }
}

/// The race for whose sake the redis crate's cache is not used: an answer that is
/// on its way while the record is deleted.
#[test]
fn what_is_deleted_while_it_is_read_is_not_kept() {
    let server = RedisServer::start(&[]);
    let background = Background::start();
    let Setup { copies, store, .. } = background.setup(&server);
    let here = runtime();
    here.block_on(async {
        let other = target_with(&server.url(), "sess:", TIMEOUT, STALENESS).map(RedisStore::new);
        let other = Arc::new(other.unwrap());
        let (mut before, mut kept_before) = (0, 0);
        for batch in 0..8 {
            let mut tasks = Vec::new();
            for n in 0..400 {
                let key = format!("sess:{batch}-{n}");
                assert_eq!(other.create(record(&key)).await, Ok(true));
                let (copies, store, other) = (copies.clone(), store.clone(), other.clone());
                tasks.push(tokio::spawn(async move {
                    let reading = copies.find(&*store, &key);
                    let (found, deleted) = match n % 2 {
                        0 => tokio::join!(reading, other.delete(&key)),
                        _ => {
                            let (deleted, found) = tokio::join!(other.delete(&key), reading);
                            (found, deleted)
                        }
                    };
                    assert_eq!(deleted, Ok(true));
                    (key, found.unwrap())
                }));
            }
            let mut keys = Vec::new();
            for task in tasks {
                let (key, found) = task.await.unwrap();
                before += usize::from(matches!(found, Found::Read(Some(_))));
                keys.push(key);
            }
            copies.proven_after(Instant::now()).await;
            for key in keys {
                match copies.copy(&key) {
                    Some(Some(_)) => panic!("{key} came back"),
                    Some(None) => kept_before += 1,
                    None => {}
                }
            }
        }
        // Both orders happened, or nothing was tried.
        assert!(before > 0, "no read came before its deletion");
        assert!(kept_before > 0, "no read came after its deletion");
    });
}

#[tokio::test]
async fn all_keys_at_once_is_a_loss_that_is_over_soon() {
    let server = RedisServer::start(&[]);
    let Setup {
        copies,
        store,
        other,
    } = setup(&server.url(), &server.url(), "sess:", STALENESS).await;
    assert_eq!(other.create(record("sess:a")).await, Ok(true));
    copies.find(&*store, "sess:a").await.unwrap();
    let losses = copies.losses.load(Ordering::SeqCst);
    server.say("FLUSHALL").unwrap();
    let start = Instant::now();
    while copies.losses.load(Ordering::SeqCst) == losses {
        assert!(start.elapsed() < TIMEOUT, "the loss was not told");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(copies.copy("sess:a"), None);
    copies.proven_after(start).await;
    assert_eq!(copies.find(&*store, "sess:a").await, Ok(Found::Read(None)));
}

#[tokio::test]
async fn a_connection_that_is_closed_is_a_loss_at_once() {
    let mut server = RedisServer::start(&[]);
    let Setup {
        copies,
        store,
        other,
    } = setup(&server.url(), &server.url(), "sess:", HOUR).await;
    assert_eq!(other.create(record("sess:a")).await, Ok(true));
    copies.find(&*store, "sess:a").await.unwrap();
    server.say("CLIENT KILL TYPE normal SKIPME yes").unwrap();
    copies.lost_soon().await;
    assert_eq!(copies.copy("sess:a"), None);
    copies.proven_after(Instant::now()).await;
    let read = copies.find(&*store, "sess:a").await.unwrap();
    assert!(matches!(read, Found::Read(Some(_))), "{read:?}");

    server.kill();
    copies.lost_soon().await;
    let start = Instant::now();
    let down = copies.find(&*store, "sess:a").await;
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    assert!(start.elapsed() < Duration::from_millis(100), "it waits");
    server.restart();
    copies.proven_after(Instant::now()).await;
    assert_eq!(copies.find(&*store, "sess:a").await, Ok(Found::Read(None)));
}

#[tokio::test]
async fn a_connection_that_dies_in_silence_is_a_loss_soon() {
    let server = RedisServer::start(&[]);
    let relay = Relay::to(server.socket());
    let Setup {
        copies,
        store,
        other,
    } = setup(&relay.url(), &server.url(), "sess:", STALENESS).await;
    assert_eq!(other.create(record("sess:a")).await, Ok(true));
    copies.find(&*store, "sess:a").await.unwrap();
    relay.swallow(true);
    assert_eq!(other.delete("sess:a").await, Ok(true));
    // As visitors do who come again and again.
    let start = Instant::now();
    let mut last = None;
    while copies.losses.load(Ordering::SeqCst) == 0 {
        if let Ok(Found::Copy(Some(_))) = copies.find(&*store, "sess:a").await {
            last = Some(Instant::now());
        }
        assert!(start.elapsed() < TIMEOUT, "the loss was not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(last.is_some(), "the copy was never used");
    assert!(start.elapsed() < STALENESS, "it took {:?}", start.elapsed());
    let down = copies.find(&*store, "sess:a").await;
    assert!(down.is_err(), "{down:?}");
    relay.swallow(false);
    copies.proven_after(Instant::now()).await;
    assert_eq!(copies.find(&*store, "sess:a").await, Ok(Found::Read(None)));
}

#[tokio::test]
async fn copies_in_use_are_believed_without_a_gap_and_others_cost_nothing() {
    let server = RedisServer::start(&[]);
    let Setup { copies, store, .. } = setup(&server.url(), &server.url(), "sess:", STALENESS).await;
    copies.find(&*store, "sess:a").await.unwrap();
    let start = Instant::now();
    while start.elapsed() < 2 * STALENESS {
        let found = copies.find(&*store, "sess:a").await;
        assert_eq!(found, Ok(Found::Copy(None)), "after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody asks, until nothing counts any more; and so nobody proves.
    tokio::time::sleep(2 * STALENESS).await;
    assert_eq!(copies.copy("sess:a"), None);
    let pings = commands(&server, "ping");
    tokio::time::sleep(STALENESS).await;
    assert_eq!(commands(&server, "ping"), pings);
    assert_eq!(copies.losses.load(Ordering::SeqCst), 0);
    // The next one who asks wakes it.
    let asked = Instant::now();
    let read = copies.find(&*store, "sess:a").await;
    assert_eq!(read, Ok(Found::Read(None)));
    copies.proven_after(asked).await;
    assert!(asked.elapsed() < Duration::from_millis(200));
    let copy = copies.find(&*store, "sess:a").await;
    assert_eq!(copy, Ok(Found::Copy(None)));
}

#[tokio::test]
async fn servers_that_cannot_tell_prove_nothing_and_work_otherwise() {
    let without_right: &[&str] = &[
        "--user",
        "default",
        "on",
        "nopass",
        "~*",
        "&*",
        "+@all",
        "-client|tracking",
    ];
    let resp2_only: &[&str] = &["--rename-command", "HELLO", ""];
    for options in [without_right, resp2_only] {
        let server = RedisServer::start(options);
        let Setup {
            copies,
            store,
            other,
        } = unproven(&server.url(), &server.url(), "sess:", STALENESS);
        assert_eq!(other.create(record("sess:a")).await, Ok(true));
        let refused = || match options == without_right {
            true => server.say("ACL LOG").unwrap().contains("client|tracking"),
            false => server.say("INFO errorstats").unwrap().contains("ERR"),
        };
        let start = Instant::now();
        while !refused() {
            assert!(start.elapsed() < TIMEOUT, "it did not try");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let down = copies.find(&*store, "sess:a").await;
        assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
        assert_eq!(copies.proofs.load(Ordering::SeqCst), 0);
        assert!(other.load("sess:a").await.unwrap().is_some());
    }
}

#[test]
fn errors_that_do_not_pass_are_told_from_those_that_do() {
    let target = target_with("redis://localhost", "sess:", TIMEOUT, STALENESS).unwrap();
    let address = Address::Tcp("localhost".into(), 6379);
    let lasting = |kind: ErrorKind| {
        let error = RedisError::from((kind, "words"));
        matches!(judge(&error, &address, &target), Trouble::Lasting(_))
    };
    assert!(lasting(ErrorKind::RESP3NotSupported));
    assert!(lasting(ServerErrorKind::NoPerm.into()));
    assert!(lasting(ServerErrorKind::ResponseError.into()));
    assert!(!lasting(ServerErrorKind::BusyLoading.into()));
    assert!(!lasting(ErrorKind::AuthenticationFailed));
    assert!(!lasting(ErrorKind::Io));
}

#[test]
fn pauses_grow_to_a_second() {
    assert_eq!(pause_after(0), FIRST_PAUSE);
    assert_eq!(pause_after(1), 2 * FIRST_PAUSE);
    assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
}
