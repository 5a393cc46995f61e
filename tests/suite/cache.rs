//! The local cache: what it spares the store, and what it never hides.

use std::time::{Duration, Instant};

use crate::harness::backend::Backend;
use crate::harness::config::{Config, SECRET};
use crate::harness::http::{Client, Request};
use crate::harness::redis::{Connection, Redis};
use crate::harness::session;
use crate::harness::users::{ALICE, BOB};

/// All commands that Redis has run, but those of the question itself.
fn commands(redis: &Redis) -> u64 {
    let stats = redis.run(&["INFO", "commandstats"]).text();
    let all = stats.lines().filter(|line| line.starts_with("cmdstat_"));
    all.filter(|line| !line.starts_with("cmdstat_info"))
        .filter_map(|line| {
            line.split_once(":calls=")?
                .1
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

#[test]
fn a_thousand_requests_of_known_sessions_cost_the_store_next_to_nothing() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let jars = [proxy.sign_in(&ALICE), proxy.sign_in(&BOB)];
    let mut client = Client::connect(proxy.addr());
    for jar in &jars {
        for _ in 0..20 {
            assert_eq!(client.request(&Request::get("/").cookies(jar)).status, 200);
        }
    }
    let begin = Instant::now();
    let before = commands(&redis);
    for jar in jars.iter().cycle().take(1000) {
        assert_eq!(client.request(&Request::get("/").cookies(jar)).status, 200);
    }
    let spent = commands(&redis) - before;
    // Nothing for the requests; the channel is proven four times a second at most.
    let proofs = begin.elapsed().as_millis() / 250 + 2;
    assert!(
        u128::from(spent) <= proofs,
        "{spent} commands in {:?}",
        begin.elapsed()
    );
    let metrics = proxy.admin_get("/metrics").text();
    let hits = metrics
        .lines()
        .find_map(|line| line.strip_prefix("cloakroom_session_lookups_total{result=\"hit\"} "))
        .unwrap();
    assert!(hits.parse::<u64>().unwrap() >= 1000, "{hits}");
}

/// A connection on which a session was let in many times knows it no better than others do.
#[test]
fn on_one_connection_every_request_is_judged_by_itself() {
    let backend = Backend::start();
    session::over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let mut client = Client::connect(proxy.addr());
        let mut status = |jar| client.request(&Request::get("/").cookies(jar)).status;
        let value = session::sign(&session::token_of(&alice), SECRET);
        let forged = session::jar(&session::sign(&session::token_of(&alice), "another secret"));
        let theirs = session::sign(&session::token_of(&bob), SECRET);
        let mac = |value: &str| value.rsplit_once('.').unwrap().1.to_owned();
        let swapped = session::jar(&value.replace(&mac(&value), &mac(&theirs)));
        for _ in 0..5 {
            assert_eq!((status(&alice), status(&bob)), (200, 200), "{store}");
            assert_eq!((status(&forged), status(&swapped)), (401, 401), "{store}");
        }
        assert_eq!(proxy.sign_out(&alice).status, 204, "{store}");
        assert_eq!((status(&alice), status(&bob)), (401, 200), "{store}");
        let again = proxy.sign_in(&ALICE);
        assert_eq!((status(&again), status(&alice)), (200, 401), "{store}");
    });
}

#[test]
fn without_a_cache_each_request_asks() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.cache.entries", 0)
        .start();
    let alice = proxy.sign_in(&ALICE);
    let before = session::calls(&redis, "hmget");
    for _ in 0..10 {
        assert_eq!(proxy.get_as("/", &alice).status, 200);
    }
    assert_eq!(session::calls(&redis, "hmget") - before, 10);
}

#[test]
fn an_idle_proxy_says_nothing() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    // It falls asleep within twice the time for which copies are believed.
    let quiet = |length: Duration| {
        let before = commands(&redis);
        std::thread::sleep(length);
        commands(&redis) == before
    };
    let patience = Instant::now() + Duration::from_secs(10);
    while !quiet(Duration::from_millis(800)) {
        assert!(Instant::now() < patience, "it never falls asleep");
    }
    // And wakes up at once.
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let before = session::calls(&redis, "hmget");
        assert_eq!(proxy.get_as("/", &alice).status, 200);
        if session::calls(&redis, "hmget") == before {
            break;
        }
        assert!(Instant::now() < patience, "it never caches again");
    }
}

#[test]
fn a_closed_channel_ends_the_copies() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let alice = proxy.sign_in(&ALICE);
    for _ in 0..5 {
        assert_eq!(proxy.get_as("/", &alice).status, 200);
    }
    let key = session::key(&session::token_of(&alice));
    // In one step, so that the deletion cannot be told on the channel.
    let mut connection = Connection::open(redis.addr()).unwrap();
    let steps: [&[&str]; 4] = [
        &["MULTI"],
        &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        &["DEL", &key],
        &["EXEC"],
    ];
    for step in steps {
        connection.run(step).unwrap();
    }
    let begin = Instant::now();
    loop {
        let response = proxy.get_as("/", &alice);
        if response.status == 401 {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "{}",
            response.status
        );
    }
}

#[test]
fn sessions_go_on_without_the_store_where_that_is_wanted() {
    let backend = Backend::start();
    let mut redis = Redis::with(&["--appendonly", "yes"]);
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.cache.serve_stale_for", "1h")
        .start();
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    for _ in 0..5 {
        assert_eq!(proxy.get_as("/", &alice).status, 200);
    }
    redis.stop();
    for _ in 0..5 {
        assert_eq!(proxy.get_as("/", &alice).status, 200);
        // Not seen before.
        assert_eq!(proxy.get_as("/", &bob).status, 503);
    }
    // What must be written cannot be. Whoever wanted to be signed out does not go on.
    assert_eq!(proxy.sign_out(&alice).status, 503);
    assert_eq!(proxy.get_as("/", &alice).status, 503);
    redis.restart();
    let patience = Instant::now() + Duration::from_secs(10);
    while proxy.sign_out(&alice).status != 204 {
        assert!(Instant::now() < patience);
    }
    // Another worker may have found it down a moment ago.
    for (jar, status) in [(&alice, 401), (&bob, 200)] {
        loop {
            let response = proxy.get_as("/", jar);
            if response.status == status {
                break;
            }
            assert_eq!(response.status, 503);
            assert!(Instant::now() < patience);
        }
    }
}
