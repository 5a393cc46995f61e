//! Redis in the hands of somebody else: what was written there, moved there or
//! damaged there lets nobody in, and signing in anew mends it.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::redis::{Connection, Redis};
use crate::harness::session::{self, COOKIE, key, only_cookie, token_of};
use crate::harness::users::{ALICE, BOB, CAROL};

fn assert_unreadable(proxy: &Proxy, backend: &Backend, jar: &CookieJar, what: &str) {
    for target in ["/", "/optional", "/admin", "/auth/session"] {
        let response = proxy.get_as(target, jar);
        assert_eq!(response.status, 500, "{what} {target} {}", response.text());
        assert_eq!(
            response.refusal().as_deref(),
            Some("session_unreadable"),
            "{what}"
        );
        assert!(!response.fields().has("set-cookie"), "{what} {target}");
    }
    assert!(backend.requests().is_empty(), "{what}");
    // The way out is open.
    assert_eq!(proxy.get_as("/auth/login", jar).status, 200, "{what}");
}

#[test]
fn a_record_that_was_moved_or_changed_lets_nobody_in() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let name = |jar: &CookieJar| key(&token_of(jar));
    // A visitor who can write to Redis puts an administrator's record in the
    // place of her own.
    let (alice, carol) = (proxy.sign_in(&ALICE), proxy.sign_in(&CAROL));
    redis.run(&["COPY", &name(&carol), &name(&alice), "REPLACE"]);
    assert_unreadable(&proxy, &backend, &alice, "a copied record");
    assert_eq!(session::state(&proxy, &carol), CAROL.id);

    // In the clear head she writes another name of the same length.
    let mut connection = Connection::open(redis.addr()).unwrap();
    for (what, change) in [
        (
            "another user",
            "local v = redis.call('HGET', KEYS[1], 'v') v = string.gsub(v, 'u%-alice', 'u-carol') redis.call('HSET', KEYS[1], 'v', v)",
        ),
        (
            "a later end",
            "local v = redis.call('HGET', KEYS[1], 'v') v = string.gsub(v, '\"ends\":1', '\"ends\":9') redis.call('HSET', KEYS[1], 'v', v)",
        ),
        (
            "a flipped bit",
            "local v = redis.call('HGET', KEYS[1], 'v') v = string.sub(v, 1, -2) .. string.char(255 - string.byte(v, -1)) redis.call('HSET', KEYS[1], 'v', v)",
        ),
        (
            "a cut end",
            "local v = redis.call('HGET', KEYS[1], 'v') redis.call('HSET', KEYS[1], 'v', string.sub(v, 1, -9))",
        ),
        ("nothing", "redis.call('HSET', KEYS[1], 'v', '')"),
        ("no value", "redis.call('HDEL', KEYS[1], 'v')"),
        ("no time", "redis.call('HDEL', KEYS[1], 'seen')"),
        (
            "a strange time",
            "redis.call('HSET', KEYS[1], 'seen', '-1')",
        ),
        (
            "an Express session",
            "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], '{\"cookie\":{},\"userId\":\"u-carol\"}')",
        ),
        (
            "a list",
            "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')",
        ),
    ] {
        let alice = proxy.sign_in(&ALICE);
        let changed = connection
            .run(&["EVAL", change, "1", &name(&alice)])
            .unwrap();
        assert_eq!(changed, crate::harness::redis::Value::Nil, "{what}");
        assert_unreadable(&proxy, &backend, &alice, what);

        // Signing in replaces it; signing out removes it.
        let body = serde_json::json!({ "username": BOB.name, "password": BOB.password });
        let login = proxy.send(&Request::post("/auth/login").json(&body).cookies(&alice));
        assert_eq!(login.status, 200, "{what} {}", login.text());
        let bob = session::jar(&only_cookie(&login).value);
        assert_eq!(session::state(&proxy, &bob), BOB.id, "{what}");
        assert_eq!(session::state(&proxy, &alice), "unknown_session", "{what}");
        assert_eq!(
            connection.run(&["EVAL", change, "1", &name(&bob)]).unwrap(),
            changed
        );
        assert_eq!(proxy.sign_out(&bob).status, 204, "{what}");
        assert_eq!(session::state(&proxy, &bob), "unknown_session", "{what}");
    }
}

#[test]
fn who_knows_only_the_store_has_no_session() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    proxy.sign_in(&CAROL);
    let name = redis.keys("sess:*").remove(0);
    let hash = name.strip_prefix("sess:").unwrap();
    for value in [
        hash.to_owned(),
        name.clone(),
        format!("s%3A{hash}."),
        format!("s%3A{hash}.x"),
    ] {
        let jar = session::jar(&value);
        let state = session::state(&proxy, &jar);
        assert!(
            ["malformed_cookie", "bad_signature"].contains(&state.as_str()),
            "{state}"
        );
    }
    // Even the secret does not help.
    assert_eq!(
        session::state(&proxy, &session::signed_jar(hash)),
        "unknown_session"
    );
}

#[test]
fn a_redis_that_takes_no_writes_lets_nobody_in_and_keeps_those_who_are() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.touch_interval", "0s")
        .start();
    let alice = proxy.sign_in(&ALICE);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let login = proxy.try_sign_in(BOB.name, BOB.password);
    assert_eq!(login.status, 503, "{}", login.text());
    assert_eq!(login.refusal().as_deref(), Some("store_unavailable"));
    assert!(!login.fields().has("set-cookie"));
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    // A full Redis can still delete.
    assert_eq!(proxy.sign_out(&alice).status, 204);
    assert_eq!(session::state(&proxy, &alice), "unknown_session");
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let bob = proxy.sign_in(&BOB);
    assert!(bob.get(COOKIE).is_some());
}
