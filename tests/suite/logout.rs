//! Signing out, here and everywhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::harness::backend::Backend;
use crate::harness::config::{Config, SECRET};
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{self, key, new_token, only_cookie, over_each_store, sign, token_of};
use crate::harness::users::{ALICE, BOB};

fn form(target: &str) -> Request {
    Request::post(target).form(&[])
}

#[test]
fn signing_out_ends_the_session_and_clears_the_cookie() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, redis| {
        for (request, status) in [
            (Request::post("/auth/logout"), 204),
            (
                Request::post("/auth/logout").json(&serde_json::json!({})),
                204,
            ),
            (form("/auth/logout"), 303),
            (
                form("/auth/logout").header("sec-fetch-mode", "navigate"),
                303,
            ),
            (form("/auth/logout").header("sec-fetch-mode", "cors"), 204),
            // As axios does outside of browsers.
            (
                form("/auth/logout").header("accept", "application/json, text/plain, */*"),
                204,
            ),
            (Request::post("/auth/logout").navigation(), 303),
        ] {
            let alice = proxy.sign_in(&ALICE);
            let name = key(&token_of(&alice));
            let response = proxy.send(&request.cookies(&alice));
            assert_eq!(response.status, status, "{store}");
            let location = (status == 303).then(|| "/".to_owned());
            assert_eq!(response.header("location"), location, "{store}");
            assert_eq!(
                response.header("cache-control").as_deref(),
                Some("no-store")
            );
            assert!(response.body.is_empty(), "{store}");
            assert!(only_cookie(&response).removes(), "{store}");
            if let Some(redis) = redis {
                assert_eq!(redis.run(&["EXISTS", &name]).int(), 0);
            }
            // A copy of the cookie is worth nothing.
            let replay = proxy.get_as("/", &alice);
            assert_eq!(replay.status, 401, "{store}");
            assert_eq!(replay.json()["reason"], "unknown_session", "{store}");
        }
    });
}

#[test]
fn signing_out_without_a_session_is_fine() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("login.after_logout", "/bye")
        .start();
    for target in ["/auth/logout", "/auth/logout-all"] {
        let none = proxy.send(&Request::post(target));
        assert_eq!((none.status, none.set_cookies().len()), (204, 0));
        let page = proxy.send(&form(target));
        assert_eq!((page.status, page.set_cookies().len()), (303, 0));
        assert_eq!(page.header("location").as_deref(), Some("/bye"));
        // A cookie that means nothing may go.
        for value in ["x".to_owned(), sign(&new_token(), SECRET)] {
            let response = proxy.send(&Request::post(target).cookies(&session::jar(&value)));
            assert_eq!(response.status, 204);
            assert!(only_cookie(&response).removes());
        }
    }
    assert_eq!(redis.size(), 0);
}

#[test]
fn only_post_signs_out() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    for target in ["/auth/logout", "/auth/logout-all"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let response = proxy.send(&Request::new(method, target).cookies(&alice));
            assert_eq!(response.status, 405, "{method}");
            assert_eq!(
                response.header("allow").as_deref(),
                Some("POST"),
                "{method}"
            );
            assert_eq!(response.refusal().as_deref(), Some("method_not_allowed"));
            assert!(!response.fields().has("set-cookie"), "{method}");
        }
    }
    assert_eq!(session::state(&proxy, &alice), ALICE.id);
    assert!(backend.requests().is_empty());
}

#[test]
fn signing_out_everywhere_ends_the_sessions_of_this_user_alone() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let alices: Vec<CookieJar> = (0..3).map(|_| proxy.sign_in(&ALICE)).collect();
        let bob = proxy.sign_in(&BOB);
        let stranger = proxy.send(&Request::post("/auth/logout-all"));
        assert_eq!(stranger.status, 204, "{store}");
        assert_eq!(session::state(&proxy, &alices[0]), ALICE.id, "{store}");

        let response = proxy.send(&form("/auth/logout-all").cookies(&alices[1]));
        assert_eq!(response.status, 303, "{store}");
        assert!(only_cookie(&response).removes(), "{store}");
        let states = alices.iter().map(|jar| session::state(&proxy, jar));
        let states: Vec<_> = states.collect();
        assert_eq!(
            states,
            ["session_ended", "unknown_session", "session_ended"],
            "{store}"
        );
        assert_eq!(session::state(&proxy, &bob), BOB.id, "{store}");
        // And nobody is locked out.
        let again = proxy.sign_in(&ALICE);
        assert_eq!(session::state(&proxy, &again), ALICE.id, "{store}");
    });
}

#[test]
fn signing_out_everywhere_reaches_every_replica() {
    let backend = Backend::start();
    let redis = Redis::start();
    let config = Config::to(backend.addr())
        .store(&redis.url())
        .set("server.replicas_expected", 2);
    let (one, two) = (config.clone().start(), config.start());
    let (here, there) = (one.sign_in(&ALICE), two.sign_in(&ALICE));
    for jar in [&here, &there] {
        assert_eq!(session::state(&one, jar), ALICE.id);
        assert_eq!(session::state(&two, jar), ALICE.id);
    }
    assert_eq!(
        one.send(&Request::post("/auth/logout-all").cookies(&here))
            .status,
        204
    );
    let refused = two.get_as("/", &there);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["reason"], "session_ended");
    assert_eq!(session::state(&two, &here), "unknown_session");
    // Signing out here alone is seen there as well.
    let again = one.sign_in(&ALICE);
    assert_eq!(session::state(&two, &again), ALICE.id);
    assert_eq!(one.sign_out(&again).status, 204);
    assert_eq!(session::state(&two, &again), "unknown_session");
}

#[test]
fn two_installations_share_a_redis_by_their_prefixes() {
    let backend = Backend::start();
    let redis = Redis::start();
    let with = |prefix: &str| {
        let config = Config::to(backend.addr()).store(&redis.url());
        config.set("store.prefix", prefix).start()
    };
    let (blue, green) = (with("blue:"), with("green:"));
    let here = blue.sign_in(&ALICE);
    let (there, other) = (green.sign_in(&ALICE), green.sign_in(&ALICE));
    // The secret is the same; the sessions are not.
    assert_eq!(session::state(&green, &here), "unknown_session");
    let request = Request::post("/auth/logout-all").cookies(&there);
    assert_eq!(green.send(&request).status, 204);
    assert_eq!(session::state(&green, &other), "session_ended");
    assert_eq!(session::state(&blue, &here), ALICE.id);
    for name in redis.keys("*") {
        let known = ["blue:", "green:", "cloakroom:"];
        assert!(
            known.iter().any(|prefix| name.starts_with(prefix)),
            "{name}"
        );
    }
}

/// How many logins of this process have begun: each asks the store for the time first.
/// (Redis counts that of its scripts as well, of which a login runs some at its end.)
fn logins_begun(proxy: &Proxy) -> u64 {
    let metrics = proxy.admin_get("/metrics").text();
    let series = r#"cloakroom_store_operations_total{operation="now",result="ok"} "#;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_login_that_was_running_does_not_outlive_signing_out_everywhere() {
    let backend = Backend::start();
    let redis = Redis::start();
    let config = Config::to(backend.addr()).store(&redis.url());
    let (one, two) = (config.clone(), config);
    // One password after the other: the second login has begun before the first one ends
    // only if the time is asked for before that.
    let two = two.set("login.throttle.hash_concurrency", 1);
    let (one, two) = (one.start(), two.start());
    let mut all_overtaken = false;
    for _ in 0..12 {
        let alice = one.sign_in(&ALICE);
        let before = logins_begun(&two);
        std::thread::scope(|scope| {
            let logins: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| two.try_sign_in(ALICE.name, ALICE.password)))
                .collect();
            eventually("the logins begin", || {
                (logins_begun(&two) >= before + 2).then_some(())
            });
            let all_run = logins.iter().all(|login| !login.is_finished());
            let request = Request::post("/auth/logout-all").cookies(&alice);
            assert_eq!(one.send(&request).status, 204);
            all_overtaken |= all_run;
            for login in logins {
                let response = login.join().unwrap();
                if response.status == 401 {
                    assert_eq!(response.json()["reason"], "session_ended");
                    assert!(!response.fields().has("set-cookie"));
                    continue;
                }
                assert_eq!(response.status, 200);
                let jar = session::jar(&only_cookie(&response).value);
                for proxy in [&one, &two] {
                    assert_eq!(session::state(proxy, &jar), "session_ended");
                }
            }
        });
    }
    assert!(all_overtaken, "one login of two had always ended");
}

#[test]
fn signing_out_everywhere_parts_the_sessions_into_before_and_after() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let stop = AtomicBool::new(false);
        let sessions = Mutex::new(Vec::new());
        let mut ends = Vec::new();
        let sign_in = || {
            let sent = Instant::now();
            let response = proxy.try_sign_in(ALICE.name, ALICE.password);
            // One that was overtaken is told so.
            if response.status != 200 {
                assert_eq!(response.json()["reason"], "session_ended", "{store}");
                return None;
            }
            let jar = session::jar(&only_cookie(&response).value);
            let session = (sent, Instant::now(), jar.clone());
            sessions.lock().unwrap().push(session);
            Some(jar)
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        sign_in();
                    }
                });
            }
            for _ in 0..6 {
                sign_in();
                let alice = eventually("a session", sign_in);
                let sent = Instant::now();
                let request = Request::post("/auth/logout-all").cookies(&alice);
                assert_eq!(proxy.send(&request).status, 204, "{store}");
                ends.push((sent, Instant::now()));
            }
            // Somebody signs in after all that.
            sign_in();
            stop.store(true, Ordering::SeqCst);
        });
        let (last_sent, last_answered) = *ends.last().unwrap();
        let (mut dead, mut alive) = (0, 0);
        for (sent, answered, jar) in sessions.lock().unwrap().iter() {
            let state = session::state(&proxy, jar);
            if *answered < last_sent {
                // Those that were used for it are deleted as well.
                let over = ["session_ended", "unknown_session"];
                assert!(over.contains(&state.as_str()), "{store}: {state}");
                dead += 1;
            } else if *sent > last_answered {
                assert_eq!(state, ALICE.id, "{store}");
                alive += 1;
            }
        }
        assert!(dead > 0 && alive > 0, "{store}: {dead} dead, {alive} alive");
    });
}
