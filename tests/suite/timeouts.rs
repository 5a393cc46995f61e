//! When sessions end by themselves, and what keeps them alive.

use std::time::{Duration, Instant};

use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::redis::Redis;
use crate::harness::session::{self, calls, key, over_each_store, token_of};
use crate::harness::users::{ALICE, BOB};
use crate::harness::{PATIENCE, eventually};

#[test]
fn sessions_end_when_idle_and_at_their_absolute_end() {
    let backend = Backend::with(|_| Reply::ok("here you are"));
    let config = Config::to(backend.addr())
        .set("session.idle_timeout", "2s")
        .set("session.absolute_timeout", "5s");
    over_each_store(&config, |store, proxy, _| {
        let (idle, absolute) = (Duration::from_secs(2), Duration::from_secs(5));
        let begin = Instant::now();
        let used = proxy.sign_in(&ALICE);
        let begun = Instant::now();
        let unused_begun = Instant::now();
        let unused = proxy.sign_in(&BOB);
        let mut idle_ended = None;
        let mut client = Client::connect(proxy.addr());
        // One session is used all the time; of the other it is asked whether
        // it lives, which is no use.
        let (ended, reason) = loop {
            let response = client.request(&Request::get("/").cookies(&used));
            let now = begin.elapsed();
            assert!(now < PATIENCE, "{store}: it never ends");
            if response.status == 401 {
                break (now, response.json()["reason"].as_str().unwrap().to_owned());
            }
            assert_eq!(response.status, 200, "{store}");
            if idle_ended.is_none() {
                let state = session::state(&proxy, &unused);
                if state != BOB.id {
                    let told = ["idle_expired", "unknown_session"];
                    assert!(told.contains(&state.as_str()), "{store}: {state}");
                    idle_ended = Some(unused_begun.elapsed());
                }
            }
        };
        assert!(
            ["absolute_expired", "unknown_session"].contains(&reason.as_str()),
            "{store}: {reason}"
        );
        assert!(
            ended >= absolute && begun.elapsed() < absolute * 2,
            "{store}: {ended:?}"
        );
        let idle_ended = idle_ended.unwrap_or_else(|| panic!("{store}: it never got idle"));
        assert!(idle_ended >= idle, "{store}: {idle_ended:?}");
        assert!(idle_ended < absolute, "{store}: {idle_ended:?}");
    });
}

#[test]
fn what_is_left_is_told_and_asking_does_not_slide() {
    let backend = Backend::start();
    let config = Config::to(backend.addr())
        .set("session.idle_timeout", "100s")
        .set("session.absolute_timeout", "1h")
        .set("session.touch_interval", "0s");
    let redis = Redis::start();
    let proxy = config.store(&redis.url()).start();
    let alice = proxy.sign_in(&ALICE);
    let name = key(&token_of(&alice));
    let told = proxy.get_as("/auth/session", &alice).json();
    assert_eq!(told["authenticated"], true);
    assert_eq!(told["user"]["id"], ALICE.id);
    let seconds = |field: &str| told[field].as_u64().unwrap();
    assert!((3590..=3600).contains(&seconds("expires_in")), "{told}");
    assert!((90..=100).contains(&seconds("idle_expires_in")), "{told}");

    let writes = calls(&redis, "hset");
    for _ in 0..20 {
        assert_eq!(session::state(&proxy, &alice), ALICE.id);
        assert_eq!(proxy.get_as("/public", &alice).status, 200);
        assert_eq!(proxy.get_as("/auth/login", &alice).status, 303);
    }
    assert_eq!(calls(&redis, "hset"), writes);
    // A request that the session lets through does.
    redis.run(&["EXPIRE", &name, "10"]);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    eventually("the session slides", || {
        (redis.ttl(&name) > 90).then_some(())
    });
    assert_eq!(calls(&redis, "hset"), writes + 1);
}

#[test]
fn the_store_keeps_no_session_past_its_absolute_end() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.idle_timeout", "100s")
        .set("session.absolute_timeout", "50s")
        .set("session.touch_interval", "0s")
        .start();
    let alice = proxy.sign_in(&ALICE);
    let name = key(&token_of(&alice));
    assert!((40..=50).contains(&redis.ttl(&name)));
    redis.run(&["EXPIRE", &name, "10"]);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    eventually("the session slides", || {
        (redis.ttl(&name) > 10).then_some(())
    });
    assert!(redis.ttl(&name) <= 50);
}

#[test]
fn a_busy_session_is_touched_once_per_interval() {
    let backend = Backend::with(|_| Reply::ok("here you are"));
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.idle_timeout", "60s")
        .set("session.touch_interval", "500ms")
        .start();
    let begin = Instant::now();
    let alice = proxy.sign_in(&ALICE);
    let writes = calls(&redis, "hset");
    let field = |name: &str| {
        let mut fields = redis.hash(&key(&token_of(&alice))).into_iter();
        fields.find(|(field, _)| field == name).unwrap().1
    };
    let (value, seen) = (field("v"), field("seen"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.addr());
                while begin.elapsed() < Duration::from_millis(2_300) {
                    let response = client.request(&Request::get("/").cookies(&alice));
                    assert_eq!(response.status, 200);
                }
            });
        }
    });
    // The last one may still be on its way.
    let touches = calls(&redis, "hset") - writes;
    let most = u64::try_from(begin.elapsed().as_millis()).unwrap() / 500;
    assert!(
        (2..=most).contains(&touches),
        "{touches} touches, not up to {most}"
    );
    assert!(field("seen") > seen);
    assert!(field("v") == value, "a touch changed the record");
}

#[test]
fn no_touch_brings_a_session_back() {
    let backend = Backend::with(|_| Reply::ok("here you are"));
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.touch_interval", "0s")
        .start();
    for round in 0..10 {
        let alice = proxy.sign_in(&ALICE);
        let name = key(&token_of(&alice));
        std::thread::scope(|scope| {
            let visitors: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Client::connect(proxy.addr());
                        // Until it is told that the session is over.
                        while client.request(&Request::get("/").cookies(&alice)).status == 200 {}
                    })
                })
                .collect();
            let before = calls(&redis, "hset");
            eventually("touches", || (calls(&redis, "hset") > before).then_some(()));
            if round % 2 == 0 {
                redis.run(&["DEL", &name]);
            } else {
                assert_eq!(proxy.sign_out(&alice).status, 204);
            }
            for visitor in visitors {
                visitor.join().unwrap();
            }
        });
        // A touch that is still on its way comes before this answer.
        assert_eq!(session::state(&proxy, &alice), "unknown_session");
        assert_eq!(redis.keys("sess:*"), Vec::<String>::new());
    }
}
