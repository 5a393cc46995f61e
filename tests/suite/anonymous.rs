//! Who does not sign in leaves nothing behind.

use crate::harness::backend::{Backend, Reply};
use crate::harness::config::{Config, SECRET};
use crate::harness::http::{Client, Request};
use crate::harness::redis::Redis;
use crate::harness::session::{COOKIE, key, new_token, sign, token_of};
use crate::harness::users::{ALICE, BOB};

/// Commands that change nothing in Redis: what a proxy may ask on behalf of a
/// visitor whom it does not know, and what the tests ask.
const HARMLESS: [&str; 10] = [
    "client", "command", "config", "dbsize", "exists", "get", "hello", "hmget", "info", "ping",
];

/// The commands that were run, by their names without subcommands.
fn commands(redis: &Redis) -> Vec<String> {
    let stats = redis.run(&["INFO", "commandstats"]).text();
    let names = stats.lines().filter_map(|line| {
        let name = line.strip_prefix("cmdstat_")?.split_once(':')?.0;
        Some(name.split('|').next()?.to_owned())
    });
    names.collect()
}

fn assert_nothing_was_written(redis: &Redis) {
    assert_eq!(redis.size(), 0, "{:?}", redis.keys("*"));
    for command in commands(redis) {
        assert!(HARMLESS.contains(&command.as_str()), "{command} was run");
    }
}

#[test]
fn ten_thousand_anonymous_requests_leave_no_key_and_set_no_cookie() {
    let redis = Redis::start();
    let backend = Backend::with(|_| Reply::ok("here you are"));
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("log.access", false)
        .start();
    let targets = [
        ("/public/page", 200),
        ("/optional", 200),
        ("/private", 401),
        ("/admin", 401),
        ("/auth/session", 401),
    ];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.addr());
                for i in 0..2_500 {
                    let (target, status) = targets[i % targets.len()];
                    let response = client.request(&Request::get(target));
                    assert_eq!(response.status, status, "{target}");
                    assert!(!response.fields().has("set-cookie"), "{response:?}");
                }
            });
        }
    });
    assert_nothing_was_written(&redis);
}

#[test]
fn strangers_with_cookies_of_all_kinds_leave_no_key_and_get_no_cookie() {
    let redis = Redis::start();
    let backend = Backend::with(|_| Reply::ok("here you are"));
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let mut client = Client::connect(proxy.addr());
    let other_secret = "another secret, which the proxy never had";
    for (value, reason) in [
        ("".to_owned(), "malformed_cookie"),
        ("x".to_owned(), "malformed_cookie"),
        (new_token(), "malformed_cookie"),
        (format!("s%3A{}", new_token()), "malformed_cookie"),
        (sign(&new_token(), other_secret), "bad_signature"),
        (format!("s%3A{}.", new_token()), "malformed_cookie"),
        (format!("s%3A{}.AAAA", new_token()), "bad_signature"),
        (sign(&new_token(), SECRET), "unknown_session"),
        (sign("short", SECRET), "unknown_session"),
        (sign("cloakroom:epoch", SECRET), "unknown_session"),
    ] {
        for target in ["/private", "/auth/session"] {
            let request = Request::get(target).header("cookie", format!("{COOKIE}={value}"));
            let response = client.request(&request);
            assert_eq!(response.status, 401, "{target} {value}");
            assert_eq!(response.json()["reason"], reason, "{target} {value}");
            assert!(!response.fields().has("set-cookie"), "{response:?}");
        }
        for (target, status) in [("/public", 200), ("/optional", 200), ("/auth/login", 200)] {
            let request = Request::get(target).header("cookie", format!("{COOKIE}={value}"));
            let response = client.request(&request);
            assert_eq!(response.status, status, "{target} {value}");
            assert!(!response.fields().has("set-cookie"), "{response:?}");
        }
    }
    assert_nothing_was_written(&redis);
}

#[test]
fn a_wrong_password_leaves_no_key() {
    let redis = Redis::start();
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    for name in [ALICE.name, "nobody"] {
        assert_eq!(proxy.try_sign_in(name, "wrong").status, 401);
    }
    assert_eq!(redis.keys("*"), Vec::<String>::new());
}

#[test]
fn anonymous_requests_do_not_change_the_embedded_store() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).store("file:./data").start();
    let file = proxy.folder().join("data/sessions.redb");
    let before = std::fs::read(&file).unwrap();
    let mut client = Client::connect(proxy.addr());
    let stranger = format!("{COOKIE}={}", sign(&new_token(), SECRET));
    for _ in 0..100 {
        assert_eq!(client.request(&Request::get("/")).status, 401);
        let request = Request::get("/").header("cookie", &stranger);
        assert_eq!(client.request(&request).status, 401);
    }
    assert!(std::fs::read(&file).unwrap() == before, "the file changed");
}

#[test]
fn every_key_expires_and_none_but_a_sessions_has_the_prefix() {
    let redis = Redis::start();
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.idle_timeout", "1h")
        .set("session.absolute_timeout", "5h")
        .start();
    let alice = proxy.sign_in(&ALICE);
    let bob = proxy.sign_in(&BOB);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    assert_eq!(proxy.try_sign_in(ALICE.name, "wrong").status, 401);
    proxy.sign_in(&ALICE);
    let everywhere = Request::post("/auth/logout-all").cookies(&alice);
    assert_eq!(proxy.send(&everywhere).status, 204);

    let keys = redis.keys("*");
    assert!(keys.contains(&key(&token_of(&bob))), "{keys:?}");
    assert!(!keys.contains(&key(&token_of(&alice))), "{keys:?}");
    for name in &keys {
        let ttl = redis.ttl(name);
        if name.starts_with("sess:") {
            assert!((3590..=3600).contains(&ttl), "{name}: {ttl}");
        } else if name.starts_with("cloakroom:user:") {
            // An index has to outlive what it lists.
            assert!((7190..7300).contains(&ttl), "{name}: {ttl}");
        } else {
            // What ends sessions has to outlive the longest of them.
            assert!(name.starts_with("cloakroom:"), "{name}");
            assert!(ttl > 5 * 3600, "{name}: {ttl}");
        }
    }
    for kind in ["cloakroom:user:sess:", "cloakroom:epoch:sess:"] {
        assert!(keys.iter().any(|name| name.starts_with(kind)), "{kind}");
    }
}
