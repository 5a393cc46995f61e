//! Against a real server, with an application played by the statements of
//! connect-pg-simple 10.

mod finds;
mod hears;
mod place;
mod races;

use std::sync::Arc;

use tokio_postgres::{Client, NoTls, Statement};

use super::*;
use crate::session::layout::express::Kept;
use crate::session::record::Head;
use crate::session::settings::{CacheSettings, LayoutKind, StoreLocation, StoreSettings};
use crate::session::store::postgres::server::PostgresServer;
use crate::session::store::postgres::url::PostgresUrl;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// connect-pg-simple's `table.sql`.
pub(in crate::session::store::postgres) const TABLE: &str = r#"
CREATE TABLE "session" (
  "sid" varchar NOT NULL COLLATE "default",
  "sess" json NOT NULL,
  "expire" timestamp(6) NOT NULL
)
WITH (OIDS=FALSE);
ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid") NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE INDEX "IDX_session_expire" ON "session" ("expire");
"#;

/// What it asks. Node's driver sends the record as text and the moment as a number.
const GET: &str =
    r#"SELECT sess::text FROM "session" WHERE sid = $1 AND expire >= to_timestamp($2)"#;
const SET: &str = r#"INSERT INTO "session" (sess, expire, sid) SELECT $1::text::json, to_timestamp($2), $3 ON CONFLICT (sid) DO UPDATE SET sess=$1::text::json, expire=to_timestamp($2) RETURNING sid"#;
const TOUCH: &str =
    r#"UPDATE "session" SET expire = to_timestamp($1) WHERE sid = $2 RETURNING sid"#;
const DESTROY: &str = r#"DELETE FROM "session" WHERE sid = $1"#;

/// A store, and beside it an application's connection to the same server.
struct Bench {
    server: PostgresServer,
    store: SharedPostgresStore,
    clock: Clock,
    app: App,
}

/// An application.
struct App {
    client: Client,
    get: Statement,
    set: Statement,
    touch: Statement,
    destroy: Statement,
}

fn target(url: &str) -> PostgresTarget {
    let url = PostgresUrl::parse(url, |path| path.into()).unwrap();
    let settings = StoreSettings {
        location: StoreLocation::Postgres(Box::new(url.clone())),
        layout: LayoutKind::Express {
            user: "userId".into(),
        },
        prefix: "sess:".into(),
        timeout: Duration::from_secs(10),
        cache: CacheSettings::default(),
    };
    PostgresTarget::new(&url, &settings)
}

impl App {
    async fn at(url: &str) -> Self {
        let (client, wire) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(wire);
        Self {
            get: client.prepare(GET).await.unwrap(),
            set: client.prepare(SET).await.unwrap(),
            touch: client.prepare(TOUCH).await.unwrap(),
            destroy: client.prepare(DESTROY).await.unwrap(),
            client,
        }
    }

    fn after(span: Duration) -> f64 {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        (now + span).as_secs_f64().ceil()
    }

    /// Whether a row was written.
    async fn set(&self, sid: &str, json: &str, span: Duration) -> bool {
        let params: [&(dyn ToSql + Sync); 3] = [&json, &Self::after(span), &sid];
        !self
            .client
            .query(&self.set, &params)
            .await
            .unwrap()
            .is_empty()
    }

    async fn get(&self, sid: &str) -> Option<String> {
        let params: [&(dyn ToSql + Sync); 2] = [&sid, &Self::after(Duration::ZERO)];
        let row = self.client.query_opt(&self.get, &params).await.unwrap();
        row.map(|row| row.get(0))
    }

    async fn touch(&self, sid: &str, span: Duration) {
        let params: [&(dyn ToSql + Sync); 2] = [&Self::after(span), &sid];
        self.client.query(&self.touch, &params).await.unwrap();
    }

    async fn destroy(&self, sid: &str) {
        self.client.execute(&self.destroy, &[&sid]).await.unwrap();
    }
}

impl Bench {
    async fn new() -> Self {
        let server = PostgresServer::start();
        server.sql(TABLE);
        let clock = Clock::fixed(Timestamp(1_800_000_000_000));
        Self {
            store: SharedPostgresStore::new(target(&server.url()), clock.clone()),
            app: App::at(&server.url()).await,
            clock,
            server,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The record of a new session and what is beside it.
    fn record(&self, key: &str, json: &str) -> NewRecord {
        let head = Head {
            user: "u1".into(),
            epoch: 5,
            created: self.now().0,
            absolute_end: self.now().after(DAY * 7).0,
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
            seen: self.now(),
            ttl: HOUR,
        }
    }

    /// How many seconds a row of the application is kept.
    fn left(&self, sid: &str) -> i64 {
        let sql = format!(
            "select extract(epoch from expire::timestamptz - now())::bigint from session where sid = '{sid}'"
        );
        self.server.sql(&sql).parse().unwrap()
    }

    /// How many seconds what lies beside a record is kept.
    fn left_beside(&self, sid: &str) -> i64 {
        let sql = format!(
            "select extract(epoch from expires - now())::bigint from cloakroom_shared where sid = '{sid}'"
        );
        self.server.sql(&sql).parse().unwrap()
    }

    fn text(&self, sid: &str) -> String {
        self.server.sql(&format!(
            "select sess::text from session where sid = '{sid}'"
        ))
    }

    fn count(&self, table: &str) -> String {
        self.server.sql(&format!("select count(*) from {table}"))
    }
}

/// A record whose uses last `seconds`.
fn json(user: &str, seconds: u64) -> String {
    format!(
        r#"{{"cookie":{{"originalMaxAge":{}}},"userId":"{user}"}}"#,
        seconds * 1000
    )
}

fn unpacked(stored: &StoredRecord) -> Kept {
    Kept::unpack(&stored.value).unwrap()
}

#[tokio::test]
async fn a_created_record_is_a_row_with_whole_seconds_and_facts_beside_it() {
    let bench = Bench::new().await;
    let record = bench.record("sess:a", &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    assert_eq!(bench.store.create(record.clone()).await, Ok(false));
    assert_eq!(bench.app.get("a").await, Some(json("u1", 3600)));
    assert!(
        (3595..=3601).contains(&bench.left("a")),
        "{}",
        bench.left("a")
    );
    let whole = "select expire = date_trunc('second', expire) from session";
    assert_eq!(bench.server.sql(whole), "t");
    let facts = bench.left_beside("a");
    assert!((8 * 86_400 - 5..=8 * 86_400).contains(&facts), "{facts}");
    assert_eq!(bench.count("session"), "1");
    assert_eq!(bench.count("cloakroom_session"), "0");

    let loaded = bench.store.load("sess:a").await.unwrap().unwrap();
    assert_eq!(loaded.value, record.value);
    let late = loaded.seen.0.abs_diff(bench.now().0);
    assert!(late < 5000, "{late}");

    // Not over what an application has there, unless that has expired.
    let other = bench.record("sess:b", &json("u1", 3600));
    assert!(bench.app.set("b", "{}", HOUR).await);
    assert_eq!(bench.store.create(other.clone()).await, Ok(false));
    assert_eq!(bench.text("b"), "{}");
    bench
        .server
        .sql("update session set expire = now() where sid = 'b'");
    assert_eq!(bench.store.create(other).await, Ok(true));
    assert_eq!(bench.text("b"), json("u1", 3600));
}

#[tokio::test]
async fn what_an_application_wrote_is_read_as_it_is() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.load("sess:none").await, Ok(None));
    assert_eq!(bench.store.load("none").await, Ok(None));
    assert_eq!(bench.store.load("sess:a\0").await, Ok(None));
    let odd = "{ \"cookie\":{\"originalMaxAge\":null},\"cut\":\"\\ud83d\",\"nul\":\"\\u0000\",\"n\":1.0,\"n\":2e0}";
    assert!(bench.app.set(r"a\b", odd, Duration::from_secs(1800)).await);
    let loaded = bench.store.load(r"sess:a\b").await.unwrap().unwrap();
    let kept = unpacked(&loaded);
    assert_eq!(
        (&kept.json[..], kept.facts, kept.endless),
        (odd.as_bytes(), None, false)
    );
    // A day less half an hour is gone of its day.
    let spent = bench.now().since(loaded.seen);
    let expected = DAY - Duration::from_secs(1800);
    assert!(
        spent.abs_diff(expected) < Duration::from_secs(5),
        "{spent:?}"
    );

    // More than a span is left: the last use lies ahead.
    bench.app.set("long", &json("u1", 10), HOUR).await;
    let loaded = bench.store.load("sess:long").await.unwrap().unwrap();
    assert!(loaded.seen > bench.now().after(HOUR - Duration::from_secs(15)));

    bench
        .server
        .sql("update session set expire = 'infinity' where sid = 'long'");
    let loaded = bench.store.load("sess:long").await.unwrap().unwrap();
    assert!(unpacked(&loaded).endless);
    assert_eq!(loaded.seen, bench.now());

    bench
        .server
        .sql("update session set expire = now() where sid = 'long'");
    assert_eq!(bench.store.load("sess:long").await, Ok(None));
}

/// What the real package stored, recorded.
#[tokio::test]
async fn recorded_rows_are_read_and_stay_byte_for_byte() {
    let bench = Bench::new().await;
    let all: serde_json::Value = serde_json::from_str(include_str!(
        "../../../../../tests/vectors/express-records.json"
    ))
    .unwrap();
    let mut rows = 0;
    for case in all["postgres"].as_array().unwrap() {
        for snapshot in case["snapshots"].as_array().into_iter().flatten() {
            for row in snapshot["rows"].as_array().unwrap() {
                rows += 1;
                let (sid, text) = (
                    format!("{}-{rows}", row["sid"].as_str().unwrap()),
                    row["sess_text"].as_str().unwrap(),
                );
                assert!(bench.app.set(&sid, text, HOUR).await);
                let key = format!("sess:{sid}");
                let loaded = bench.store.load(&key).await.unwrap().unwrap();
                assert_eq!(unpacked(&loaded).json, text);
                assert_eq!(
                    bench.store.touch(&key, Timestamp(1), HOUR * 2).await,
                    Ok(true)
                );
                assert_eq!(bench.text(&sid), text);
                // Written by us, it is the same.
                assert_eq!(bench.store.delete(&key).await, Ok(true));
                let own = format!("sess:own-{rows}");
                assert_eq!(bench.store.create(bench.record(&own, text)).await, Ok(true));
                assert_eq!(bench.app.get(&format!("own-{rows}")).await.unwrap(), text);
            }
        }
    }
    assert_eq!(rows, 18);
}

#[tokio::test]
async fn a_touch_prolongs_and_never_shortens_nor_creates() {
    let bench = Bench::new().await;
    let (store, at) = (&bench.store, Timestamp(1));
    assert_eq!(store.touch("sess:none", at, HOUR).await, Ok(false));
    assert_eq!(bench.count("session"), "0");

    bench
        .app
        .set("a", &json("u1", 3600), Duration::from_secs(60))
        .await;
    assert_eq!(
        store.touch("sess:a", at, Duration::from_millis(1500)).await,
        Ok(true)
    );
    assert!((50..=61).contains(&bench.left("a")));
    assert_eq!(
        store
            .touch("sess:a", at, Duration::from_millis(3_599_001))
            .await,
        Ok(true)
    );
    assert!((3590..=3601).contains(&bench.left("a")));
    let whole = "select expire = date_trunc('second', expire) from session";
    assert_eq!(bench.server.sql(whole), "t");
    assert_eq!(bench.text("a"), json("u1", 3600));
    assert_eq!(store.touch("sess:a", at, Duration::MAX).await, Ok(true));
    assert!(bench.left("a") > 99 * 365 * 86_400);

    bench.server.sql("update session set expire = 'infinity'");
    assert_eq!(store.touch("sess:a", at, HOUR).await, Ok(true));
    assert_eq!(bench.server.sql("select expire from session"), "infinity");
    bench.server.sql("update session set expire = now()");
    assert_eq!(store.touch("sess:a", at, HOUR).await, Ok(false));
    assert_eq!(store.load("sess:a").await, Ok(None));
}

#[tokio::test]
async fn what_has_ended_cannot_be_saved_again() {
    let bench = Bench::new().await;
    let record = bench.record("sess:a", &json("u1", 3600));
    assert_eq!(bench.store.create(record.clone()).await, Ok(true));
    assert_eq!(bench.store.delete("sess:a").await, Ok(true));
    assert_eq!(bench.store.delete("sess:a").await, Ok(false));
    assert_eq!(bench.count("session"), "0");
    let life = bench.left_beside("a");
    assert!((25 * 3600 - 5..=25 * 3600).contains(&life), "{life}");

    assert!(
        !bench.app.set("a", &json("u1", 3600), HOUR).await,
        "passed over"
    );
    bench.app.touch("a", HOUR).await;
    assert_eq!(bench.app.get("a").await, None);
    assert_eq!(bench.store.load("sess:a").await, Ok(None));
    assert_eq!(bench.store.create(record.clone()).await, Ok(false));

    // A month's cookie may be saved again for a month.
    bench.app.set("b", &json("u1", 30 * 86_400), HOUR).await;
    assert_eq!(bench.store.delete("sess:b").await, Ok(true));
    assert!(bench.left_beside("b") > 30 * 86_400);
    // A second end knows less of it, and cuts nothing short.
    assert_eq!(bench.store.delete("sess:b").await, Ok(false));
    assert!(bench.left_beside("b") > 30 * 86_400);

    // An end that comes before the application has stored what it announced.
    assert_eq!(bench.store.delete("sess:early").await, Ok(false));
    assert!(!bench.app.set("early", &json("u1", 60), HOUR).await);

    // Where the trigger is not there, a reader removes what it finds.
    bench
        .server
        .sql("alter table session disable trigger cloakroom_shared_guard");
    assert!(bench.app.set("a", &json("u1", 3600), HOUR).await);
    assert_eq!(
        bench.store.touch("sess:a", Timestamp(1), HOUR).await,
        Ok(false)
    );
    assert_eq!(bench.store.create(record).await, Ok(false));
    assert_eq!(bench.store.of_user("u1").await, Ok(Vec::new()));
    assert_eq!(bench.count("session"), "1");
    assert_eq!(bench.store.load("sess:a").await, Ok(None));
    assert_eq!(bench.count("session"), "0");
    // When it is of no use any more, an end counts no more.
    bench
        .server
        .sql("update cloakroom_shared set expires = now()");
    assert!(bench.app.set("a", &json("u1", 3600), HOUR).await);
    assert!(bench.store.load("sess:a").await.unwrap().is_some());
    // The application goes on without us.
    bench
        .server
        .sql("alter table session enable trigger cloakroom_shared_guard");
    bench.server.sql("drop table cloakroom_shared");
    assert!(bench.app.set("a", &json("u1", 60), HOUR).await);
    let removal = include_str!("../shared.sql")
        .lines()
        .skip_while(|line| !line.contains("remove all"));
    let removal = removal.filter_map(|line| line.strip_prefix("--     drop"));
    for statement in removal {
        let statement = statement.replace("table cloak", "table if exists cloak");
        bench.server.sql(&format!("drop{statement}"));
    }
    assert!(bench.app.set("a", &json("u1", 61), HOUR).await);
    let left = "select count(*) from pg_proc where proname like 'cloakroom%'";
    assert_eq!(bench.server.sql(left), "0");
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
    assert_eq!(bench.count("session"), "1");
}
