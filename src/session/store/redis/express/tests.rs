//! Against a real server, with an application played by plain commands.

mod topologies;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use redis::aio::MultiplexedConnection;

use super::*;
use crate::session::layout::express::Kept;
use crate::session::record::Head;
use crate::session::settings::{CacheSettings, LayoutKind, StoreLocation, StoreSettings};
use crate::session::store::redis::RedisUrl;
use crate::session::store::redis::server::RedisServer;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A store, and beside it an application's connection to the same server.
struct Bench {
    server: RedisServer,
    store: SharedRedisStore,
    clock: Clock,
    app: MultiplexedConnection,
}

fn target(server: &RedisServer) -> RedisTarget {
    target_at(&server.url())
}

fn target_at(url: &str) -> RedisTarget {
    let url = RedisUrl::parse(url).unwrap();
    let settings = StoreSettings {
        location: StoreLocation::Redis(Box::new(url.clone())),
        layout: LayoutKind::Express {
            user: "userId".into(),
        },
        prefix: "sess:".into(),
        timeout: Duration::from_secs(10),
        cache: CacheSettings::default(),
    };
    RedisTarget::new(&url, &settings).unwrap()
}

impl Bench {
    async fn new() -> Self {
        let server = RedisServer::start(&[]);
        let clock = Clock::fixed(Timestamp(1_800_000_000_000));
        let target = target(&server);
        let client = redis::Client::open(server.url()).unwrap();
        let app = client.get_multiplexed_async_connection().await;
        Self {
            store: SharedRedisStore::new(target, clock.clone()),
            app: app.unwrap(),
            clock,
            server,
        }
    }

    async fn say(&self, words: &[&str]) -> Value {
        let mut words = words.iter();
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(*word);
        });
        command.query_async(&mut self.app.clone()).await.unwrap()
    }

    async fn number(&self, words: &[&str]) -> i64 {
        match self.say(words).await {
            Value::Int(number) => number,
            other => panic!("{other:?}"),
        }
    }

    /// What connect-redis writes.
    async fn save(&self, key: &str, json: &str, seconds: &str) {
        self.say(&["SET", key, json, "EX", seconds]).await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The record of a new session and what is beside it.
    fn record(&self, key: &str, json: &str) -> NewRecord {
        record_at(self.now(), key, json)
    }
}

fn record_at(now: Timestamp, key: &str, json: &str) -> NewRecord {
    let head = Head {
        user: "u1".into(),
        epoch: 5,
        created: now.0,
        absolute_end: now.after(DAY * 7).0,
        address: "::1".into(),
        user_agent: "curl".into(),
    };
    let kept = Kept {
        json: Bytes::copy_from_slice(json.as_bytes()),
        facts: Some(serde_json::to_vec(&head).unwrap().into()),
        endless: false,
    };
    NewRecord {
        key: key.into(),
        user: "u1".into(),
        value: kept.pack(),
        seen: now,
        ttl: HOUR,
    }
}

/// A record whose uses last `seconds`.
fn json(user: &str, seconds: u64) -> String {
    format!(
        r#"{{"cookie":{{"originalMaxAge":{}}},"userId":"{user}"}}"#,
        seconds * 1000
    )
}

#[tokio::test]
async fn a_created_record_is_a_string_with_whole_seconds_and_facts_beside_it() {
    let bench = Bench::new().await;
    let record = bench.record("sess:a", &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    assert_eq!(bench.store.create(record.clone()).await, Ok(false));
    assert_eq!(
        bench.say(&["GET", "sess:a"]).await,
        Value::BulkString(json("u1", 3600).into_bytes())
    );
    assert_eq!(bench.number(&["TTL", "sess:a"]).await, 3600);
    let facts = bench.number(&["TTL", "cloakroom:facts:{sess:a}"]).await;
    assert!((8 * 86_400 - 5..=8 * 86_400).contains(&facts), "{facts}");
    assert_eq!(bench.number(&["DBSIZE"]).await, 2);

    let loaded = bench.store.load("sess:a").await.unwrap().unwrap();
    assert_eq!(loaded.value, record.value);
    let late = loaded.seen.0.abs_diff(bench.now().0);
    assert!(late < 5000, "{late}");

    // Not over what an application has there.
    bench.save("sess:b", "{}", "10").await;
    let other = bench.record("sess:b", &json("u1", 3600));
    assert_eq!(bench.store.create(other).await, Ok(false));
    assert_eq!(
        bench.say(&["GET", "sess:b"]).await,
        Value::BulkString(b"{}".to_vec())
    );
}

#[tokio::test]
async fn what_an_application_wrote_is_read_as_it_is() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.load("sess:none").await, Ok(None));
    let odd = "{\"cookie\":{\"originalMaxAge\":null},\"cut\":\"\\ud83d\",\"n\":1.0}";
    bench.save("sess:a", odd, "1800").await;
    let loaded = bench.store.load("sess:a").await.unwrap().unwrap();
    let kept = Kept::unpack(&loaded.value).unwrap();
    assert_eq!(
        (&kept.json[..], kept.facts, kept.endless),
        (odd.as_bytes(), None, false)
    );
    // A day less half an hour is gone of its day.
    let spent = bench.now().since(loaded.seen);
    let expected = DAY - Duration::from_secs(1800);
    assert!(
        spent >= expected && spent < expected + Duration::from_secs(5),
        "{spent:?}"
    );

    // More than a span is left: the last use lies ahead.
    bench.save("sess:long", &json("u1", 10), "60").await;
    let loaded = bench.store.load("sess:long").await.unwrap().unwrap();
    assert!(loaded.seen > bench.now().after(Duration::from_secs(45)));

    bench.say(&["SET", "sess:endless", &json("u1", 10)]).await;
    let loaded = bench.store.load("sess:endless").await.unwrap().unwrap();
    assert!(Kept::unpack(&loaded.value).unwrap().endless);
    assert_eq!(loaded.seen, bench.now());

    bench.save("sess:empty", "", "10").await;
    assert_eq!(bench.store.load("sess:empty").await, Ok(None));
    bench.say(&["HSET", "sess:hash", "a", "b"]).await;
    let error = bench.store.load("sess:hash").await.unwrap_err();
    assert!(matches!(error, StoreError::Unreadable(_)), "{error}");
    assert_eq!(bench.store.delete("sess:hash").await, Ok(true));
    assert_eq!(bench.store.load("sess:hash").await, Ok(None));
}

#[tokio::test]
async fn a_touch_prolongs_and_never_shortens_nor_creates() {
    let bench = Bench::new().await;
    let (store, at) = (&bench.store, Timestamp(1));
    assert_eq!(store.touch("sess:none", at, HOUR).await, Ok(false));
    assert_eq!(bench.number(&["DBSIZE"]).await, 0);

    bench.save("sess:a", &json("u1", 3600), "10").await;
    assert_eq!(
        store.touch("sess:a", at, Duration::from_millis(1500)).await,
        Ok(true)
    );
    assert_eq!(bench.number(&["TTL", "sess:a"]).await, 10);
    assert_eq!(
        store
            .touch("sess:a", at, Duration::from_millis(3_599_001))
            .await,
        Ok(true)
    );
    assert_eq!(bench.number(&["TTL", "sess:a"]).await, 3600);
    assert_eq!(
        bench.say(&["GET", "sess:a"]).await,
        Value::BulkString(json("u1", 3600).into_bytes())
    );
    bench.say(&["PERSIST", "sess:a"]).await;
    assert_eq!(store.touch("sess:a", at, HOUR).await, Ok(true));
    assert_eq!(bench.number(&["TTL", "sess:a"]).await, -1);
    assert_eq!(store.touch("sess:a", at, Duration::MAX).await, Ok(true));
}

#[tokio::test]
async fn what_is_written_back_after_its_end_goes_again() {
    let bench = Bench::new().await;
    let record = bench.record("sess:a", &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    assert_eq!(bench.store.delete("sess:a").await, Ok(true));
    assert_eq!(bench.store.delete("sess:a").await, Ok(false));
    assert_eq!(bench.number(&["DBSIZE"]).await, 1, "the tombstone is left");
    let tombstone = "cloakroom:ended:{sess:a}";
    let life = bench.number(&["TTL", tombstone]).await;
    assert!((25 * 3600 - 5..=25 * 3600).contains(&life), "{life}");

    bench.save("sess:a", &json("u1", 3600), "3600").await;
    assert_eq!(bench.store.load("sess:a").await, Ok(None));
    assert_eq!(bench.number(&["EXISTS", "sess:a"]).await, 0);
    assert_eq!(bench.store.create(record).await, Ok(false));

    // A month's cookie may be written back for a month.
    bench.save("sess:b", &json("u1", 30 * 86_400), "60").await;
    assert_eq!(bench.store.delete("sess:b").await, Ok(true));
    let life = bench.number(&["TTL", "cloakroom:ended:{sess:b}"]).await;
    assert!(life > 30 * 86_400, "{life}");
    // A second end knows less of it, and cuts nothing short.
    assert_eq!(bench.store.delete("sess:b").await, Ok(false));
    let later = bench.number(&["TTL", "cloakroom:ended:{sess:b}"]).await;
    assert!(later > 30 * 86_400, "{later}");

    // An end that comes before the application has stored what it announced.
    assert_eq!(bench.store.delete("sess:early").await, Ok(false));
    bench.save("sess:early", &json("u1", 60), "60").await;
    assert_eq!(bench.store.load("sess:early").await, Ok(None));
}

#[tokio::test]
async fn the_records_of_a_user_are_found() {
    let bench = Bench::new().await;
    for n in 0..250 {
        let user = if n % 5 == 0 { "u1" } else { "u2" };
        bench
            .save(&format!("sess:{n}"), &json(user, 60), "60")
            .await;
    }
    bench.save("other:1", &json("u1", 60), "60").await;
    bench.save("sess:junk", "no json", "60").await;
    bench.say(&["HSET", "sess:hash", "a", "b"]).await;
    bench
        .say(&["SET", b_text(b"sess:\xff").as_str(), "x"])
        .await;
    let mut found = bench.store.of_user("u1").await.unwrap();
    assert_eq!(found.len(), 50);
    let one = found.pop().unwrap();
    let loaded = bench.store.load(&one.key).await.unwrap().unwrap();
    assert_eq!(one.record.value, loaded.value);
    assert!(one.ttl > Duration::from_secs(50) && one.ttl <= Duration::from_secs(60));
    assert_eq!(bench.store.of_user("u3").await, Ok(Vec::new()));

    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = bench.store.scan(cursor, 20).await.unwrap();
        all.extend(page.found.into_iter().map(|found| found.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 250);
}

fn b_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn shared_records_are_never_rewritten() {
    let bench = Bench::new().await;
    let record = bench.record("sess:a", &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    let updated = bench
        .store
        .update("sess:a", record.value.clone(), Bytes::new());
    assert_eq!(updated.await, Ok(false));
    let loaded = bench.store.load("sess:a").await.unwrap().unwrap();
    assert_eq!(loaded.value, record.value);
    // What is no pair of record and facts is not created.
    for value in [Bytes::new(), Bytes::from_static(b"{}")] {
        let bad = NewRecord {
            key: "sess:bad".into(),
            value,
            ..record.clone()
        };
        assert!(bench.store.create(bad).await.is_err());
    }
    assert_eq!(bench.server.say("EXISTS sess:bad").unwrap(), ":0\r\n");
}

#[tokio::test]
async fn an_application_that_writes_all_the_time_revives_nothing() {
    let bench = Arc::new(Bench::new().await);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (bench, stop) = (bench.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                bench.save("sess:a", &json("u1", 60), "60").await;
            }
        }
    });
    while bench.store.load("sess:a").await.unwrap().is_none() {}
    bench.store.delete("sess:a").await.unwrap();
    for _ in 0..300 {
        assert_eq!(bench.store.load("sess:a").await, Ok(None));
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert_eq!(bench.store.load("sess:a").await, Ok(None));
    assert_eq!(bench.number(&["EXISTS", "sess:a"]).await, 0);
}

#[tokio::test]
async fn every_key_but_those_of_the_application_expires() {
    let bench = Bench::new().await;
    for n in 0..3 {
        let record = bench.record(&format!("sess:{n}"), &json("u1", 3600));
        assert_eq!(bench.store.create(record).await, Ok(true));
    }
    bench.store.delete("sess:0").await.unwrap();
    bench.say(&["SET", "sess:endless", &json("u1", 10)]).await;
    bench.store.delete("sess:endless").await.unwrap();
    bench.store.raise_epoch("u1", HOUR).await.unwrap();
    let keys: Vec<String> = redis::from_redis_value(bench.say(&["KEYS", "*"]).await).unwrap();
    assert_eq!(keys.len(), 7, "{keys:?}");
    for key in keys {
        assert!(bench.number(&["TTL", &key]).await > 0, "{key}");
    }
}

/// Notes what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Listener for Notes {
    fn record_changed(&self, key: &str) {
        self.0.lock().unwrap().push(key.to_owned());
    }
    fn epoch_changed(&self, _: &str) {}
    fn lost(&self) {}
    fn proven(&self, _: Instant) {}
    fn is_used(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn whatever_an_application_does_to_a_record_that_was_read_is_told() {
    let bench = Bench::new().await;
    let notes = Arc::new(Notes::default());
    let (clock, target) = (bench.clock.clone(), target(&bench.server));
    let follower = SharedRedisStore::following(target, clock, notes.clone());
    let key = "sess:a";
    let deadline = Instant::now() + Duration::from_secs(30);
    while follower.ping().await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.save(key, &json("u1", 60), "60").await;
    for change in [
        vec!["EXPIRE", key, "50"],
        vec!["SET", key, "{}", "EX", "60"],
        vec!["DEL", key],
    ] {
        assert!(follower.load(key).await.unwrap().is_some());
        notes.0.lock().unwrap().clear();
        bench.say(&change).await;
        while notes.0.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "{change:?} is not told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(notes.0.lock().unwrap()[0], key);
    }
    // Nothing is copied of a miss, so nothing has to be told of one.
    assert_eq!(follower.load(key).await, Ok(None));
    let mut record = bench.record(key, &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    assert!(follower.load(key).await.unwrap().is_some());
    notes.0.lock().unwrap().clear();
    bench.store.delete(key).await.unwrap();
    while notes.0.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "an end is not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    record.key = "sess:b".into();
    assert_eq!(bench.store.create(record).await, Ok(true));
}
