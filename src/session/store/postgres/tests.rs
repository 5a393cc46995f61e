//! Against a real server.

mod faults;
mod hears;
mod secure;

use std::time::Instant;

use super::server::{KEEPER, PostgresServer, url_at};
use super::*;
use crate::session::settings::{CacheSettings, StoreLocation};
use crate::session::store::contract::{self, Time};

const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(10);

fn target_with(url: &str, timeout: Duration, prefix: &str) -> PostgresTarget {
    let url = PostgresUrl::parse(url, |path| path.into()).unwrap();
    let settings = StoreSettings {
        layout: crate::session::settings::LayoutKind::Sealed,
        location: StoreLocation::Postgres(Box::new(url.clone())),
        prefix: prefix.into(),
        timeout,
        cache: CacheSettings::default(),
    };
    PostgresTarget::new(&url, &settings)
}

fn store(url: &str, timeout: Duration) -> PostgresStore {
    PostgresStore::new(target_with(url, timeout, "sess:"))
}

fn record(key: &str) -> NewRecord {
    NewRecord {
        key: key.into(),
        value: Bytes::from_static(b"value"),
        seen: Timestamp(1),
        ttl: HOUR,
        user: "ann".into(),
    }
}

fn keys(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| &*found.key).collect()
}

/// Asks until the store answers.
async fn recovered(store: &PostgresStore, within: Duration) {
    let start = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(start.elapsed() < within, "still {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let server = PostgresServer::start();
    let target = target_with(&server.url(), TIMEOUT, "sess:");
    contract::run(|| Arc::new(PostgresStore::new(target.clone())), Time::Own).await;
    // It holds in any time zone, and where transactions are stricter by default.
    server.sql(
        "alter role keeper set timezone = 'America/New_York'; \
         alter role keeper set datestyle = 'German'; \
         alter role keeper set default_transaction_isolation = 'serializable'; \
         drop table cloakroom_session, cloakroom_epoch",
    );
    contract::run(|| Arc::new(PostgresStore::new(target.clone())), Time::Own).await;

    let names = server.sql("select distinct prefix || ' ' || length(name) from cloakroom_epoch");
    assert_eq!(names, "sess: 43", "users are not named");
    let owner = server.sql("select user_name from cloakroom_session where key = 'sess:created'");
    let by_hand = "select rtrim(translate(encode(sha256(convert_to('ann', 'UTF8')), 'base64'), '+/', '-_'), '=')";
    assert_eq!(owner, server.sql(by_hand), "as the documentation has it");
}

#[tokio::test]
async fn records_are_found_by_user_and_in_pages_within_one_prefix() {
    let server = PostgresServer::start();
    let mine = store(&server.url(), TIMEOUT);
    let other = PostgresStore::new(target_with(&server.url(), TIMEOUT, "sesst"));
    assert_eq!(mine.of_user("ann").await, Ok(Vec::new()));
    assert_eq!(mine.scan(None, 5).await, Ok(Page::default()));

    let names = ["", "1", "2", "\0", "\\", "\\0", "ä", "\u{10ffff}x", "€"];
    for name in names {
        let created = mine.create(record(&format!("sess:{name}"))).await;
        assert_eq!(created, Ok(true), "{name:?}");
    }
    let mut bobs = record("sess:bob");
    bobs.user = "bob\0".into();
    assert_eq!(mine.create(bobs).await, Ok(true));
    assert_eq!(other.create(record("sesst1")).await, Ok(true));
    assert_eq!(other.create(record("sesst2")).await, Ok(true));
    let mut brief = record("sess:brief");
    brief.ttl = Duration::from_millis(1);
    assert_eq!(mine.create(brief).await, Ok(true));
    while mine.load("sess:brief").await.unwrap().is_some() {}

    let found = mine.of_user("ann").await.unwrap();
    assert_eq!(found.len(), names.len(), "{found:?}");
    for name in names {
        assert!(keys(&found).contains(&&*format!("sess:{name}")), "{name:?}");
    }
    for found in &found {
        assert_eq!(found.record.value, "value");
        assert_eq!(found.record.seen, Timestamp(1));
        assert!(found.ttl <= HOUR && found.ttl > HOUR - Duration::from_secs(60));
    }
    assert_eq!(keys(&mine.of_user("bob\0").await.unwrap()), ["sess:bob"]);
    assert_eq!(mine.of_user("bob").await, Ok(Vec::new()));
    assert_eq!(
        keys(&other.of_user("ann").await.unwrap()),
        ["sesst1", "sesst2"]
    );

    for most in [1, 3, names.len() + 1, 100] {
        let (mut all, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = mine.scan(cursor, most).await.unwrap();
            assert!(page.found.len() <= most);
            all.extend(page.found.iter().map(|found| found.key.to_string()));
            pages += 1;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(pages <= all.len() / most + 1, "{pages}");
        let mut expected: Vec<String> = names.iter().map(|n| format!("sess:{n}")).collect();
        expected.push("sess:bob".into());
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "{most} at a time");
    }

    let everything = PostgresStore::new(target_with(&server.url(), TIMEOUT, ""));
    let page = everything.scan(None, 100).await.unwrap();
    assert_eq!(page.found.len(), names.len() + 3);
    assert_eq!(page.next, None);

    // By hand, a row may be kept for ever.
    server.sql("update cloakroom_session set expires = 'infinity' where key = 'sess:1'");
    let found = mine.of_user("ann").await.unwrap();
    assert!(found.iter().any(|found| found.ttl > HOUR * 24 * 365 * 99));
}

#[tokio::test]
async fn what_has_expired_is_removed_a_few_at_a_time() {
    let server = PostgresServer::start();
    let mut target = target_with(&server.url(), TIMEOUT, "sess:");
    target.turns = Arc::new(Turns::every(Duration::from_millis(20)));
    let idle = store(&server.url(), TIMEOUT);
    assert_eq!(idle.create(record("sess:live")).await, Ok(true));
    idle.raise_epoch("ann", HOUR).await.unwrap();
    server.sql(
        "insert into cloakroom_session select 'sess:' || n, '', 0, now() - interval '1 second', '' \
         from generate_series(1, 1100) as n; \
         insert into cloakroom_epoch select 'sess:', n, 0, now() - interval '1 second' \
         from generate_series(1, 300) as n",
    );
    let count =
        "select (select count(*) from cloakroom_session), (select count(*) from cloakroom_epoch)";
    assert_eq!(server.sql(count), "1101|301");
    // It is its use that does it.
    let store = PostgresStore::new(target);
    let start = Instant::now();
    while server.sql(count) != "1|1" {
        store.ping().await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{}",
            server.sql(count)
        );
    }
    assert!(idle.load("sess:live").await.unwrap().is_some());
    assert!(idle.epoch("ann").await.unwrap().is_some());
}

#[tokio::test]
async fn replicas_that_start_together_make_the_tables_once() {
    let server = PostgresServer::start();
    let target = target_with(&server.url(), TIMEOUT, "sess:");
    for _ in 0..3 {
        let handles: Vec<_> = (0..8).map(|_| PostgresStore::new(target.clone())).collect();
        let tasks: Vec<_> = handles
            .into_iter()
            .map(|store| tokio::spawn(async move { store.create(record("sess:one")).await }))
            .collect();
        let mut created = 0;
        for task in tasks {
            created += usize::from(task.await.unwrap().unwrap());
        }
        assert_eq!(created, 1);
        server.sql("drop table cloakroom_session, cloakroom_epoch; drop function cloakroom_tell");
    }
}

#[tokio::test]
async fn schemas_keep_stores_apart() {
    let server = PostgresServer::start();
    server.sql("create schema \"a b\"\"c\"; create schema other");
    let url = server.url();
    let one = store(&format!("{url}&schema=a%20b%22c"), TIMEOUT);
    let two = store(&format!("{url}&options=-csearch_path%3Dother"), TIMEOUT);
    assert_eq!(one.create(record("sess:a")).await, Ok(true));
    assert_eq!(two.load("sess:a").await, Ok(None));
    assert_eq!(two.create(record("sess:a")).await, Ok(true));
    let places =
        "select schemaname from pg_tables where tablename = 'cloakroom_session' order by 1";
    assert_eq!(server.sql(places), "a b\"c\nother");
    let missing = store(&format!("{url}&schema=nowhere"), TIMEOUT);
    let error = missing.load("sess:a").await.unwrap_err().to_string();
    assert!(error.contains("schema.sql"), "{error}");
}

#[tokio::test]
async fn the_file_for_owners_can_be_run_again() {
    let server = PostgresServer::start();
    let file = include_str!("schema.sql");
    server.sql(file);
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.sql(file);
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn an_epoch_rises_above_one_from_the_future_and_is_a_number() {
    let server = PostgresServer::start();
    let store = store(&server.url(), TIMEOUT);
    store.raise_epoch("ann", HOUR).await.unwrap();
    server.sql("update cloakroom_epoch set epoch = 4000000000000000");
    assert_eq!(
        store.raise_epoch("ann", HOUR).await,
        Ok(Epoch(4_000_000_000_000_001))
    );
    server.sql("update cloakroom_epoch set epoch = -5");
    let read = store.epoch("ann").await;
    assert!(matches!(read, Err(StoreError::Unreadable(_))), "{read:?}");
    // The highest there is has no successor, and nothing wraps around.
    server.sql("update cloakroom_epoch set epoch = 9223372036854775807");
    let raised = store.raise_epoch("ann", HOUR).await;
    assert!(
        matches!(raised, Err(StoreError::Unavailable(_))),
        "{raised:?}"
    );
}
