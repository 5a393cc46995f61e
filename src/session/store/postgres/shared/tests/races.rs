//! What happens at the same time.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::session::store::postgres::prune::Turns;

#[tokio::test]
async fn an_application_that_writes_all_the_time_revives_nothing() {
    let bench = Arc::new(Bench::new().await);
    bench.store.ping().await.unwrap();
    for round in 0..60 {
        let (sid, key) = (format!("s{round}"), format!("sess:s{round}"));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (bench, stop, sid) = (bench.clone(), stop.clone(), sid.clone());
            async move {
                let app = App::at(&bench.server.url()).await;
                while !stop.load(Ordering::SeqCst) {
                    app.set(&sid, &json("u1", 60), HOUR).await;
                }
            }
        });
        while bench.store.load(&key).await.unwrap().is_none() {}
        assert!(bench.store.delete(&key).await.is_ok());
        // Not for a moment, and not for the application either.
        for _ in 0..10 {
            assert_eq!(bench.app.get(&sid).await, None, "round {round}");
        }
        assert_eq!(bench.store.load(&key).await, Ok(None));
        stop.store(true, Ordering::SeqCst);
        writer.await.unwrap();
    }
    assert_eq!(bench.count("session"), "0");
}

/// The trigger looks before the row is written: a save that has passed it already is
/// waited for, and goes with the rest.
#[tokio::test]
async fn a_save_that_is_half_done_is_waited_for() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    // Nothing of this is committed.
    bench.app.client.batch_execute("begin").await.unwrap();
    assert!(bench.app.set("a", &json("u1", 61), HOUR).await);
    let end = bench.store.delete("sess:a");
    let mut end = std::pin::pin!(end);
    let waiting = async {
        let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        while bench.server.sql(waits) == "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut end => panic!("it does not wait: {ended:?}"),
        () = waiting => {}
    }
    bench.app.client.batch_execute("commit").await.unwrap();
    assert_eq!(end.await, Ok(true));
    assert_eq!(bench.count("session"), "0");
    assert!(!bench.app.set("a", &json("u1", 60), HOUR).await);
}

/// A load of many rows takes no more locks than a server has room for, and what has ended
/// stays so in it too.
#[tokio::test]
async fn many_rows_can_be_written_at_once() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.delete("sess:s7").await, Ok(false));
    bench.server.sql(
        "insert into session select 's' || n, '{}', now() + interval '1 hour' \
         from generate_series(1, 30000) as n",
    );
    assert_eq!(bench.count("session"), "29999");
    // Saves of the same lock do not wait for each other.
    bench.app.client.batch_execute("begin").await.unwrap();
    assert!(bench.app.set("x", "{}", HOUR).await);
    let other = App::at(&bench.server.url()).await;
    for n in 0..600 {
        let sid = format!("y{n}");
        let saved = other.set(&sid, "{}", HOUR);
        let saved = tokio::time::timeout(Duration::from_secs(30), saved);
        assert_eq!(saved.await, Ok(true), "y{n}");
    }
    bench.app.client.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn touches_lose_nothing_that_the_application_writes() {
    let bench = Arc::new(Bench::new().await);
    assert!(bench.app.set("a", &json("0", 60), HOUR).await);
    let toucher = tokio::spawn({
        let bench = bench.clone();
        async move {
            for n in 0..300 {
                let ttl = HOUR + Duration::from_secs(n);
                let touched = bench.store.touch("sess:a", Timestamp(1), ttl).await;
                assert_eq!(touched, Ok(true));
            }
        }
    });
    for n in 1..300 {
        let written = json(&n.to_string(), 60);
        assert!(bench.app.set("a", &written, HOUR).await);
        assert_eq!(bench.app.get("a").await, Some(written));
    }
    toucher.await.unwrap();
    assert_eq!(bench.text("a"), json("299", 60));
}

#[tokio::test]
async fn of_all_who_create_a_record_at_once_one_does() {
    let bench = Bench::new().await;
    let url = bench.server.url();
    let store = || SharedPostgresStore::new(target(&url), bench.clock.clone());
    let stores: Vec<_> = (0..8).map(|_| Arc::new(store())).collect();
    for round in 0..20 {
        let key = format!("sess:{round}");
        let mut tasks = Vec::new();
        for (n, store) in stores.iter().enumerate() {
            let record = bench.record(&key, &json(&n.to_string(), 60));
            let store = store.clone();
            tasks.push(tokio::spawn(async move { store.create(record).await }));
        }
        let mut made = 0;
        for task in tasks {
            made += usize::from(task.await.unwrap().unwrap());
        }
        assert_eq!(made, 1, "{key}");
    }
}

#[tokio::test]
async fn what_has_expired_is_removed_and_nothing_that_may_live_in_another_time_zone() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    bench.server.sql(
        "insert into session select 'o' || n, '{}', now() - interval '3 days' \
         from generate_series(1, 600) as n; \
         insert into session values ('zone', '{}', now() - interval '26 hours'); \
         insert into cloakroom_shared select 'session', n, null, now() - interval '1 second' \
         from generate_series(1, 300) as n; \
         insert into cloakroom_epoch values ('sess:', 'x', 0, now() - interval '1 second')",
    );
    let mut target = target(&bench.server.url());
    target.turns = Arc::new(Turns::every(Duration::from_millis(20)));
    let store = SharedPostgresStore::new(target, bench.clock.clone());
    let start = std::time::Instant::now();
    let count = "select (select count(*) from session), \
        (select count(*) from cloakroom_shared), (select count(*) from cloakroom_epoch)";
    while bench.server.sql(count) != "1|0|0" {
        store.ping().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

/// connect-pg-simple works without the index, and removes what has expired by itself.
#[tokio::test]
async fn without_an_index_what_has_expired_is_left_to_the_application() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    bench.server.sql(
        "drop index \"IDX_session_expire\"; create index on session (sid, expire); \
         create index on session (expire) where sid = 'x'; \
         create index on session using hash (expire); \
         insert into session values ('o', '{}', now() - interval '3 days'); \
         insert into cloakroom_shared values ('session', 'o', null, now() - interval '1 s'); \
         insert into cloakroom_epoch values ('sess:', 'x', 0, now() - interval '1 second')",
    );
    let mut target = target(&bench.server.url());
    target.turns = Arc::new(Turns::every(Duration::from_millis(20)));
    let count = "select (select count(*) from session), \
        (select count(*) from cloakroom_shared), (select count(*) from cloakroom_epoch)";
    let start = std::time::Instant::now();
    let store = SharedPostgresStore::new(target.clone(), bench.clock.clone());
    while bench.server.sql(count) != "1|0|0" {
        store.ping().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    // A new connection looks again.
    bench
        .server
        .sql("create index on session (expire) include (sid)");
    let store = SharedPostgresStore::new(target, bench.clock.clone());
    while bench.server.sql(count) != "0|0|0" {
        store.ping().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
