//! What changes is heard, whoever changes it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::session::store::Opened;

/// Writes down what it is told.
struct Ear {
    heard: Mutex<Vec<String>>,
    proven: Mutex<Option<Instant>>,
    used: AtomicBool,
    /// How often somebody wanted to know.
    wondered: AtomicUsize,
}

impl Listener for Ear {
    fn record_changed(&self, key: &str) {
        self.heard.lock().unwrap().push(format!("record {key}"));
    }

    fn epoch_changed(&self, name: &str) {
        self.heard.lock().unwrap().push(format!("epoch {name}"));
    }

    fn lost(&self) {
        self.heard.lock().unwrap().push("lost".into());
        *self.proven.lock().unwrap() = None;
    }

    fn proven(&self, asked: Instant) {
        *self.proven.lock().unwrap() = Some(asked);
    }

    fn is_used(&self) -> bool {
        self.wondered.fetch_add(1, Ordering::SeqCst);
        self.used.load(Ordering::SeqCst)
    }
}

impl Ear {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            heard: Mutex::default(),
            proven: Mutex::default(),
            used: AtomicBool::new(true),
            wondered: AtomicUsize::new(0),
        })
    }

    /// An ear that follows a store and has been told that it hears.
    async fn at(url: &str) -> Arc<Self> {
        let ear = Self::new();
        let opened = Opened::Postgres(Box::new(target_with(url, TIMEOUT, "sess:")));
        let handle = opened.follow(ear.clone()).unwrap();
        assert_eq!(handle.ping().await, Ok(()));
        ear.proven().await;
        ear.forget();
        ear
    }

    fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// Waits until what changed before this moment has been told.
    async fn proven(&self) {
        let now = Instant::now();
        self.until("proven", |ear| {
            ear.proven.lock().unwrap().is_some_and(|asked| asked >= now)
        })
        .await;
    }

    /// What has been told since the last time.
    async fn hears(&self) -> Vec<String> {
        self.proven().await;
        std::mem::take(&mut *self.heard.lock().unwrap())
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(30), "not {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it has been asked so many times whether it is used.
    async fn wonders(&self, times: usize) {
        let wanted = self.wondered.load(Ordering::SeqCst) + times;
        self.until("asked", |ear| ear.wondered.load(Ordering::SeqCst) >= wanted)
            .await;
    }

    async fn loses(&self) {
        self.until("lost", |ear| {
            ear.heard.lock().unwrap().iter().any(|told| told == "lost")
        })
        .await;
    }
}

#[tokio::test]
async fn changes_are_heard_and_touches_are_not() {
    let server = PostgresServer::start();
    let ear = Ear::at(&server.url()).await;
    let store = store(&server.url(), TIMEOUT);
    let other = PostgresStore::new(target_with(&server.url(), TIMEOUT, "other:"));
    for key in ["sess:a", "sess:b\0\\", "sess:c", "sess:d"] {
        assert_eq!(store.create(record(key)).await, Ok(true));
    }
    assert_eq!(
        store.touch("sess:a", Timestamp(2), HOUR * 2).await,
        Ok(true)
    );
    assert_eq!(ear.hears().await, Vec::<String>::new());

    let swapped = store.update("sess:a", "value".into(), "new".into()).await;
    assert_eq!(swapped, Ok(true));
    assert_eq!(ear.hears().await, ["record sess:a"]);
    assert_eq!(store.delete("sess:b\0\\").await, Ok(true));
    assert_eq!(ear.hears().await, ["record sess:b\0\\"]);
    for _ in 0..2 {
        store.raise_epoch("ann", HOUR).await.unwrap();
        let name = format!("epoch {}", user_name("ann"));
        assert_eq!(ear.hears().await, [name]);
    }

    // By hand.
    server.sql("delete from cloakroom_session where key = 'sess:a'");
    assert_eq!(ear.hears().await, ["record sess:a"]);
    server.sql("update cloakroom_session set expires = now() where key = 'sess:c'");
    assert_eq!(ear.hears().await, ["record sess:c"]);
    server.sql("delete from cloakroom_epoch");
    assert_eq!(ear.hears().await, [format!("epoch {}", user_name("ann"))]);
    // A key that takes the place of one that has expired.
    assert_eq!(store.create(record("sess:c")).await, Ok(true));
    let mut anew = record("sess:c");
    anew.value = Bytes::from_static(b"other");
    server.sql("update cloakroom_session set expires = now() where key = 'sess:c'");
    assert_eq!(store.create(anew).await, Ok(true));
    assert!(ear.hears().await.contains(&"record sess:c".to_owned()));

    // Of others.
    assert_eq!(other.create(record("other:a")).await, Ok(true));
    assert_eq!(other.delete("other:a").await, Ok(true));
    other.raise_epoch("ann", HOUR).await.unwrap();
    assert_eq!(ear.hears().await, Vec::<String>::new());

    server.sql("truncate cloakroom_session");
    assert_eq!(ear.hears().await, ["lost"]);
    server.sql("truncate cloakroom_epoch");
    assert_eq!(ear.hears().await, ["lost"]);
    // A key longer than a message can be is not refused, and not kept silent.
    server.sql(
        "insert into cloakroom_session \
         values ('sess:' || repeat('x', 8000), '', 0, now() + interval '1 hour', '')",
    );
    assert_eq!(ear.hears().await, Vec::<String>::new());
    server.sql("delete from cloakroom_session");
    assert_eq!(ear.hears().await, ["lost"]);
}

#[tokio::test]
async fn a_channel_that_is_cut_is_lost_and_found_again() {
    let mut server = PostgresServer::start();
    let ear = Ear::at(&server.url()).await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity \
               where application_name = 'cloakroom'";
    for _ in 0..3 {
        ear.forget();
        server.sql(cut);
        ear.loses().await;
        ear.proven().await;
    }
    ear.forget();
    server.stop();
    ear.loses().await;
    server.restart();
    ear.proven().await;

    // What happens while nobody can hear it is lost, and nothing after that.
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    ear.forget();
    assert_eq!(store.delete("sess:a").await, Ok(true));
    assert_eq!(ear.hears().await, ["record sess:a"]);
}

#[tokio::test]
async fn triggers_that_are_missing_are_noticed_and_made_again() {
    let server = PostgresServer::start();
    let ear = Ear::at(&server.url()).await;
    let store = store(&server.url(), TIMEOUT);
    for harm in [
        "drop trigger cloakroom_session_deleted on cloakroom_session",
        "drop function cloakroom_tell cascade",
        "drop table cloakroom_session",
        "drop table cloakroom_session, cloakroom_epoch",
    ] {
        ear.forget();
        server.sql(harm);
        ear.loses().await;
        ear.proven().await;
        let _ = store.ping().await;
        while !matches!(store.create(record("sess:a")).await, Ok(true)) {}
        ear.forget();
        assert_eq!(store.delete("sess:a").await, Ok(true), "{harm}");
        assert_eq!(ear.hears().await, ["record sess:a"], "{harm}");
    }
    // One that is disabled was meant to be.
    ear.forget();
    server.sql("alter table cloakroom_session disable trigger cloakroom_session_deleted");
    ear.loses().await;
    assert!(ear.proven.lock().unwrap().is_none());
    server.sql("alter table cloakroom_session enable trigger cloakroom_session_deleted");
    ear.proven().await;
}

#[tokio::test]
async fn silence_is_noticed_within_half_a_second_and_some() {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let (silence, upstream) = (Arc::new(AtomicBool::new(false)), server.socket());
    let silenced = silence.clone();
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
            let (near, far) = (near.into_split(), far.into_split());
            for (from, to) in [(near.0, far.1), (far.0, near.1)] {
                tokio::spawn(pass(from, to, silenced.clone()));
            }
        }
    });
    let url = url_at(folder.path(), KEEPER, 5432);
    let ear = Ear::at(&url).await;
    silence.store(true, Ordering::SeqCst);
    let start = Instant::now();
    ear.loses().await;
    // A quarter of a second until the next question, a quarter for its answer,
    // and what a busy machine adds.
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    silence.store(false, Ordering::SeqCst);
    ear.proven().await;
}

/// Passes on what comes; in silence it is swallowed, and the connection broken
/// for good.
async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    silence: Arc<AtomicBool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut buffer, mut broken) = ([0; 4096], false);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        broken |= silence.load(Ordering::SeqCst);
        if !broken && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn nobody_asks_while_nothing_is_used() {
    let server = PostgresServer::start();
    let ear = Ear::at(&server.url()).await;
    ear.used.store(false, Ordering::SeqCst);
    // Between two such looks, a question that was on its way has been answered.
    ear.wonders(2).await;
    let before = *ear.proven.lock().unwrap();
    ear.wonders(3).await;
    assert_eq!(*ear.proven.lock().unwrap(), before);
    // It hears all the same.
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    assert_eq!(store.delete("sess:a").await, Ok(true));
    ear.until("heard", |ear| !ear.heard.lock().unwrap().is_empty())
        .await;
    ear.used.store(true, Ordering::SeqCst);
    ear.proven().await;
}

#[tokio::test]
async fn without_the_right_to_make_triggers_nothing_is_heard_until_the_owner_has() {
    let server = PostgresServer::start();
    server.sql("create role plain login password 'pw'");
    let ear = Ear::new();
    target_with(&server.url_of("plain:pw"), TIMEOUT, "sess:").follow(ear.clone());
    ear.loses().await;
    assert!(ear.proven.lock().unwrap().is_none());
    server.sql(include_str!("../schema.sql"));
    server
        .sql("grant select, insert, update, delete on cloakroom_session, cloakroom_epoch to plain");
    ear.proven().await;
}
