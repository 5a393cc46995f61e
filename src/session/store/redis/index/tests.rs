//! Against a real server.

use super::super::server::RedisServer;
use super::super::tests::{HOUR, TIMEOUT, record, store, target};
use super::*;
use crate::session::layout::sealed;
use crate::session::store::SessionStore;

/// What the index says of a key: the milliseconds until it forgets it.
fn index_left(server: &RedisServer, user: &str, key: &str) -> Option<i64> {
    let index = format!("cloakroom:user:sess:{}", user_name(user));
    let number = |line: String| -> Option<f64> {
        let line = line.lines().find(|l| l.parse::<f64>().is_ok())?;
        line.parse().ok()
    };
    let score = number(server.say(&format!("ZSCORE {index} {key}")).unwrap())?;
    let time = number(server.say("TIME").unwrap())?;
    Some(score as i64 - (time * 1000.0) as i64)
}

/// A record must never outlive its entry, however it is touched; and a touch
/// that needs no new entry writes none.
#[tokio::test]
async fn the_index_outlasts_the_record() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    let hour = i64::try_from(HOUR.as_millis()).unwrap();
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    let left = index_left(&server, "ann", "sess:a").unwrap();
    assert!(left > 2 * hour && left < 2 * hour + 120_000, "{left}");
    assert_eq!(store.touch("sess:a", Timestamp(2), HOUR).await, Ok(true));
    assert!(index_left(&server, "ann", "sess:a").unwrap() <= left);

    assert_eq!(
        store.touch("sess:a", Timestamp(3), 10 * HOUR).await,
        Ok(true)
    );
    let left = index_left(&server, "ann", "sess:a").unwrap();
    assert!(left > 20 * hour, "{left}");
    // Nor is the whole index shorter than its longest entry.
    assert_eq!(store.create(record("sess:b")).await, Ok(true));
    let index = format!("cloakroom:user:sess:{}", user_name("ann"));
    let whole = server.say(&format!("PTTL {index}")).unwrap();
    let whole: i64 = whole.trim().trim_start_matches(':').parse().unwrap();
    assert!(whole > 20 * hour - 60_000, "{whole}");

    assert_eq!(store.delete("sess:a").await, Ok(true));
    assert_eq!(index_left(&server, "ann", "sess:a"), None);
    assert!(index_left(&server, "ann", "sess:b").is_some());
}

#[tokio::test]
async fn an_index_that_was_lost_or_is_stale_misleads_nobody() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    let index = format!("cloakroom:user:sess:{}", user_name("ann"));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    let bobs = NewRecord {
        user: "bob".into(),
        ..record("sess:b")
    };
    assert_eq!(store.create(bobs).await, Ok(true));
    server.say("SET sess:text hello").unwrap();
    for other in ["sess:b", "sess:gone", "sess:text"] {
        server
            .say(&format!("ZADD {index} 9999999999999 {other}"))
            .unwrap();
    }
    server.say(&format!("ZADD {index} 5 sess:old")).unwrap();
    let found = store.of_user("ann").await.unwrap();
    let keys: Vec<&str> = found.iter().map(|found| &*found.key).collect();
    assert_eq!(keys, ["sess:a"]);
    assert_eq!(index_left(&server, "ann", "sess:old"), None, "pruned");

    server.say(&format!("DEL {index}")).unwrap();
    server.say("HDEL sess:a indexed").unwrap();
    assert_eq!(store.touch("sess:a", Timestamp(2), HOUR).await, Ok(true));
    assert_eq!(store.of_user("ann").await.unwrap().len(), 1);
    server.say(&format!("DEL {index}")).unwrap();
    server.say(&format!("SET {index} text")).unwrap();
    let refused = store.create(record("sess:c")).await;
    assert!(
        matches!(refused, Err(StoreError::Unreadable(_))),
        "{refused:?}"
    );
    assert_eq!(
        store.load("sess:c").await,
        Ok(None),
        "the index comes first"
    );
}

/// Records of the time before the index are entered when they are used.
#[tokio::test]
async fn an_earlier_record_is_entered_by_its_head() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url(), TIMEOUT);
    let value = sealed::tests::sample("sess:a");
    assert_eq!(
        store
            .create(NewRecord {
                value,
                ..record("sess:a")
            })
            .await,
        Ok(true)
    );
    server.say("HDEL sess:a user indexed").unwrap();
    let index = format!("cloakroom:user:sess:{}", user_name("ann"));
    server.say(&format!("DEL {index}")).unwrap();
    assert_eq!(store.of_user("u1").await, Ok(Vec::new()));
    assert_eq!(store.touch("sess:a", Timestamp(2), HOUR).await, Ok(true));
    let found = store.of_user("u1").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].record.seen, Timestamp(2));

    // One that says nothing of its user slides all the same.
    server.say("HSET sess:none v x seen 1").unwrap();
    assert_eq!(store.touch("sess:none", Timestamp(2), HOUR).await, Ok(true));
}

#[tokio::test]
async fn a_prefix_is_no_pattern() {
    let server = RedisServer::start(&[]);
    let mut target = target(&server.url(), TIMEOUT).unwrap();
    target.prefix = "s[e]*?\\:".into();
    let store = RedisStore::new(target);
    for key in ["s[e]*?\\:a", "sexx:b", "se*?:c"] {
        assert_eq!(store.create(record(key)).await, Ok(true));
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan(cursor, 10).await.unwrap();
        found.extend(page.found.into_iter().map(|found| found.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(
        found.iter().map(|k| &**k).collect::<Vec<_>>(),
        ["s[e]*?\\:a"]
    );
}

/// The documented rights of a user of the server are enough.
#[tokio::test]
async fn the_documented_rights_are_enough() {
    let documented = include_str!("../../../../../docs/operations.md");
    let line = documented.lines().map(str::trim);
    let line = line.filter_map(|line| line.strip_prefix("user ")).next();
    let rules: Vec<&str> = line.unwrap().split(' ').collect();
    let server = RedisServer::start(&[&["--user"], &rules[..]].concat());
    let url = format!("{}?user=cloakroom&pass=password", server.url());
    let store = store(&url, TIMEOUT);
    store.ping().await.unwrap();
    store.now().await.unwrap();
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    assert!(store.load("sess:a").await.unwrap().is_some());
    for ttl in [HOUR, 10 * HOUR] {
        assert_eq!(store.touch("sess:a", Timestamp(2), ttl).await, Ok(true));
    }
    let swapped = store.update("sess:a", "value".into(), "other".into()).await;
    assert_eq!(swapped, Ok(true));
    store.raise_epoch("ann", HOUR).await.unwrap();
    assert!(store.epoch("ann").await.unwrap().is_some());
    assert_eq!(store.of_user("ann").await.unwrap().len(), 1);
    assert_eq!(store.scan(None, 1000).await.unwrap().found.len(), 1);
    assert_eq!(store.delete("sess:a").await, Ok(true));
    let refused = store.create(record("other:a")).await;
    assert!(refused.is_err(), "the rights are of no account");
}
