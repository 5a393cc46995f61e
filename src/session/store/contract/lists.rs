//! Finding records without their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{LONG, SHORT, Time, bytes, gone, record};
use crate::base::clock::Timestamp;
use crate::session::store::{Found, NewRecord, SessionStore};

/// Users that are easily taken for each other.
const USERS: [&str; 7] = [
    "lists-ann",
    "lists-ann2",
    "lists-an",
    "",
    "*",
    "lists-a b\r\n\0",
    "ä€𝄞",
];

fn owned(key: &str, user: &str) -> NewRecord {
    NewRecord {
        user: user.into(),
        ..record(key, key.as_bytes(), LONG)
    }
}

async fn keys<S: SessionStore + ?Sized>(store: &S, user: &str) -> BTreeSet<String> {
    let found = store.of_user(user).await.unwrap();
    let keys: BTreeSet<_> = found.iter().map(|found| found.key.to_string()).collect();
    assert_eq!(keys.len(), found.len(), "{user:?}: a record comes twice");
    keys
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| key.to_string()).collect()
}

pub(super) async fn of_user<S: SessionStore + ?Sized>(store: &S) {
    for user in USERS {
        assert_eq!(keys(store, user).await, set(&[]), "{user:?}");
        for n in 0..3 {
            let key = format!("sess:of-{user}-{n}");
            assert_eq!(store.create(owned(&key, user)).await, Ok(true));
        }
    }
    for user in USERS {
        let own: Vec<String> = (0..3).map(|n| format!("sess:of-{user}-{n}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        assert_eq!(keys(store, user).await, set(&own), "{user:?}");
    }
    assert_eq!(keys(store, "lists-bob").await, set(&[]));

    // As they are now, and with what is left of their time.
    let (ann, key) = ("lists-ann", "sess:of-lists-ann-0");
    assert_eq!(store.touch(key, Timestamp(42), LONG / 2).await, Ok(true));
    let swapped = store.update(key, bytes(key), bytes("two")).await;
    assert_eq!(swapped, Ok(true));
    let found = store.of_user(ann).await.unwrap();
    let changed: &Found = found.iter().find(|found| &*found.key == key).unwrap();
    assert_eq!(changed.record.value, bytes("two"));
    assert_eq!(changed.record.seen, Timestamp(42));
    assert!(
        changed.ttl <= LONG / 2 && changed.ttl > LONG / 4,
        "{changed:?}"
    );

    // A creation that fails changes nobody's records.
    assert_eq!(store.create(owned(key, "lists-bob")).await, Ok(false));
    assert_eq!(keys(store, "lists-bob").await, set(&[]));
    assert_eq!(keys(store, ann).await.len(), 3);

    assert_eq!(store.delete(key).await, Ok(true));
    let left = ["sess:of-lists-ann-1", "sess:of-lists-ann-2"];
    assert_eq!(keys(store, ann).await, set(&left));
    // A key that has changed hands belongs to the new one alone.
    assert_eq!(store.create(owned(key, "lists-bob")).await, Ok(true));
    assert_eq!(keys(store, "lists-bob").await, set(&[key]));
    assert_eq!(keys(store, ann).await, set(&left));
}

/// Everything that there is, by key, in parts of about `most`.
async fn all<S: SessionStore + ?Sized>(store: &S, most: usize) -> BTreeMap<String, Found> {
    let (mut all, mut cursor) = (BTreeMap::new(), None);
    for _ in 0..10_000 {
        let page = store.scan(cursor, most).await.unwrap();
        for found in page.found {
            all.insert(found.key.to_string(), found);
        }
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
    panic!("the scan does not end");
}

pub(super) async fn scan<S: SessionStore + ?Sized>(store: &S) {
    let names: Vec<String> = (0..200).map(|n| format!("sess:scan-{n}")).collect();
    for name in &names {
        assert_eq!(store.create(owned(name, "lists-scan")).await, Ok(true));
    }
    store.raise_epoch("lists-scan", LONG).await.unwrap();
    for most in [0, 1, 7, 1000] {
        let found = all(store, most).await;
        for name in &names {
            let found = &found[name];
            assert_eq!(found.record.value, bytes(name), "{most}");
            assert!(found.ttl <= LONG && found.ttl > LONG / 2, "{found:?}");
        }
        assert!(found.keys().all(|key| !key.starts_with("cloakroom:")));
    }

    // What goes and comes meanwhile must not hide what stays.
    let (mut seen, mut cursor, mut step) = (BTreeSet::new(), None, 0);
    loop {
        let page = store.scan(cursor, 10).await.unwrap();
        seen.extend(page.found.into_iter().map(|found| found.key.to_string()));
        if step < 100 {
            assert_eq!(store.delete(&names[step]).await, Ok(true));
            let other = format!("sess:scanned-{step}");
            assert_eq!(store.create(owned(&other, "lists-scan")).await, Ok(true));
            step += 1;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for name in &names[100..] {
        assert!(seen.contains(name), "{name} was passed over");
    }
}

pub(super) async fn expiry<S: SessionStore + ?Sized>(store: &S, time: &Time) {
    let user = "lists-brief";
    let short = |key: &str, ttl: Duration| NewRecord {
        ttl,
        ..owned(key, user)
    };
    for key in ["sess:list-brief", "sess:list-touched"] {
        assert_eq!(store.create(short(key, SHORT)).await, Ok(true));
    }
    let touched = store.touch("sess:list-touched", Timestamp(7), LONG).await;
    assert_eq!(touched, Ok(true));
    let witness = "sess:list-witness";
    assert_eq!(store.create(short(witness, SHORT)).await, Ok(true));
    gone(store, witness, time).await;
    assert_eq!(keys(store, user).await, set(&["sess:list-touched"]));
    let listed = all(store, 50).await;
    assert!(listed.contains_key("sess:list-touched"));
    assert!(!listed.contains_key("sess:list-brief") && !listed.contains_key(witness));
}
