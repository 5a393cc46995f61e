//! Finding records without their keys.

use super::*;

#[tokio::test]
async fn the_records_of_a_user_are_found() {
    let bench = Bench::new().await;
    for n in 0..1200 {
        let user = if n % 5 == 0 { "u1" } else { "u2" };
        bench.app.set(&format!("s{n}"), &json(user, 60), HOUR).await;
    }
    // Neither what is no session, nor what SQL could not look into.
    bench.app.set("junk", "[1]", HOUR).await;
    bench.app.set("null", "null", HOUR).await;
    let odd = r#"{"cookie":{},"cut":"\ud83d","userId":"u1"}"#;
    bench.app.set("cut", odd, HOUR).await;
    bench
        .app
        .set("old", &json("u1", 60), Duration::from_secs(60))
        .await;
    bench
        .server
        .sql("update session set expire = now() where sid = 'old'");
    let found = bench.store.of_user("u1").await.unwrap();
    assert_eq!(found.len(), 241);
    for one in found.iter().take(3) {
        let loaded = bench.store.load(&one.key).await.unwrap().unwrap();
        assert_eq!(one.record.value, loaded.value);
        assert!(
            one.ttl > HOUR - Duration::from_secs(60) && one.ttl <= HOUR + Duration::from_secs(1)
        );
    }
    assert_eq!(bench.store.of_user("u3").await, Ok(Vec::new()));

    for most in [1, 100, 5000] {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.scan(cursor, most).await.unwrap();
            all.extend(page.found.into_iter().map(|found| found.key));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(all.len(), 1201);
        all.dedup();
        assert_eq!(all.len(), 1201);
    }
}

/// Whoever looks at lists all the time keeps nobody from signing out or in.
#[tokio::test]
async fn lists_take_no_turn_from_ends() {
    let bench = Bench::new().await;
    assert!(bench.app.set("a", &json("u1", 60), HOUR).await);
    let mut target = target(&bench.server.url());
    bench.store.ping().await.unwrap();
    target.timeout = Duration::from_millis(500);
    let searches = target.searches.clone();
    let store = SharedPostgresStore::new(target, bench.clock.clone());
    store.ping().await.unwrap();
    let list = searches.turn(Purpose::List, HOUR).await.unwrap();
    assert_eq!(store.of_user("u1").await.unwrap().len(), 1);
    let busy = store.of_user_to_list("u1").await;
    assert_eq!(busy, Err(StoreError::Timeout(Duration::from_millis(500))));
    drop(list);
    assert_eq!(store.of_user_to_list("u1").await.unwrap().len(), 1);

    // Two ends at once: one waits for the other.
    let end = searches.turn(Purpose::End, HOUR).await.unwrap();
    assert_eq!(store.of_user_to_list("u1").await.unwrap().len(), 1);
    let release = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        drop(end);
    };
    let (found, ()) = tokio::join!(store.of_user("u1"), release);
    assert_eq!(found.unwrap().len(), 1);
}

/// However many rows have expired, a step of a search is a short one.
#[tokio::test]
async fn expired_rows_make_no_page_long() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    bench.server.sql(
        "insert into session select 'a' || n, '{}', now() - interval '1 hour' \
         from generate_series(1, 1500) as n",
    );
    for sid in ["a15x", "b"] {
        assert!(bench.app.set(sid, &json("u1", 60), HOUR).await);
    }
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let page = bench.store.scan(cursor, 100).await.unwrap();
        let keys = page.found.iter().map(|found| found.key.to_string());
        pages.push(keys.collect::<Vec<_>>());
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages.len(), 16);
    assert_eq!(pages.concat(), ["sess:a15x", "sess:b"]);
    assert_eq!(bench.store.of_user("u1").await.unwrap().len(), 2);
}
