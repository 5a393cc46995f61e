//! Redis is down, hangs, and comes back.

use std::time::{Duration, Instant};

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::{Request, Response};
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session;
use crate::harness::users::{ALICE, BOB};

const TIMEOUT: Duration = Duration::from_secs(1);

fn assert_unavailable(response: &Response, what: &str) {
    assert_eq!(response.status, 503, "{what} {}", response.text());
    assert_eq!(
        response.refusal().as_deref(),
        Some("store_unavailable"),
        "{what}"
    );
    let wait: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{what}");
    assert!(!response.fields().has("set-cookie"), "{what} {response:?}");
    assert_eq!(
        response.header("cache-control").as_deref(),
        Some("no-store"),
        "{what}"
    );
}

/// What holds as long as the store gives no answer.
fn assert_nobody_is_let_in_or_signed_out(proxy: &Proxy, backend: &Backend, alice: &CookieJar) {
    backend.clear();
    let cookie = |request: Request| request.cookies(alice);
    let requests = [
        ("a request", cookie(Request::get("/"))),
        ("an unsafe request", cookie(Request::post("/"))),
        ("an optional session", cookie(Request::get("/optional"))),
        ("a route with roles", cookie(Request::get("/admin"))),
        ("a navigation", cookie(Request::get("/").navigation())),
        ("the session", cookie(Request::get("/auth/session"))),
        ("a logout", cookie(Request::post("/auth/logout"))),
        (
            "a logout by form",
            cookie(Request::post("/auth/logout").form(&[])),
        ),
        (
            "a logout everywhere",
            cookie(Request::post("/auth/logout-all")),
        ),
        (
            "a login",
            Request::post("/auth/login").json(&serde_json::json!({
                "username": ALICE.name, "password": ALICE.password,
            })),
        ),
        (
            "a login by form",
            Request::post("/auth/login")
                .form(&[("username", ALICE.name), ("password", ALICE.password)]),
        ),
    ];
    std::thread::scope(|scope| {
        for (what, request) in &requests {
            scope.spawn(move || {
                let sent = Instant::now();
                assert_unavailable(&proxy.send(request), what);
                // The time of the store, and what a busy machine adds to it.
                let took = sent.elapsed();
                assert!(took < TIMEOUT + Duration::from_secs(2), "{what}: {took:?}");
            });
        }
    });
    assert!(backend.requests().is_empty(), "a request got through");

    // Whoever brings no session is not in need of the store.
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(proxy.get_as("/public", alice).status, 200);
    assert_eq!(proxy.get("/optional").status, 200);
    let anonymous = proxy.get("/");
    assert_eq!(
        (anonymous.status, anonymous.refusal().as_deref()),
        (401, Some("no_cookie"))
    );
    let forged = proxy.get_as("/", &session::jar("s%3Aforged.x"));
    assert_eq!(
        (forged.status, forged.refusal().as_deref()),
        (401, Some("bad_signature"))
    );
    let browser = proxy.send(&Request::get("/").navigation());
    assert_eq!(browser.status, 303);
    assert_eq!(proxy.get("/auth/login").status, 200);
    assert_eq!(proxy.send(&Request::post("/auth/logout")).status, 204);
}

/// Once the store is back, it may still be too slow for its short time now and
/// then; but it never says anything else.
fn assert_settles(proxy: &Proxy, jar: &CookieJar, wanted: &str) {
    let state = eventually("the store settles", || {
        let state = session::state(proxy, jar);
        (state != "store_unavailable").then_some(state)
    });
    assert_eq!(state, wanted);
}

#[test]
fn while_redis_is_stopped_nobody_is_let_in_or_signed_out() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "1s")
        .start();
    let alice = proxy.sign_in(&ALICE);
    redis.stop();
    assert_nobody_is_let_in_or_signed_out(&proxy, &backend, &alice);

    // It comes back empty, and Cloakroom finds it by itself.
    redis.restart();
    let reason = eventually("the store is back", || {
        let response = proxy.get_as("/", &alice);
        (response.status != 503).then(|| response.refusal())
    });
    assert_eq!(reason.as_deref(), Some("unknown_session"));
    let again = eventually("signing in works", || {
        let response = proxy.try_sign_in(BOB.name, BOB.password);
        (response.status == 200).then(|| session::jar(&session::only_cookie(&response).value))
    });
    assert_settles(&proxy, &again, BOB.id);
}

#[test]
fn while_redis_hangs_nobody_is_let_in_or_signed_out() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "1s")
        .start();
    let alice = proxy.sign_in(&ALICE);
    redis.pause();
    assert_nobody_is_let_in_or_signed_out(&proxy, &backend, &alice);
    redis.resume();
    // Some of the commands that went unanswered may have been carried out, as
    // the sign-out; what was told to the client stays true: try again.
    let back = eventually("the store is back", || {
        let response = proxy.get_as("/", &alice);
        (response.status != 503).then_some(response)
    });
    assert!([200, 401].contains(&back.status), "{}", back.text());
    let again = eventually("signing in works", || {
        let response = proxy.try_sign_in(ALICE.name, ALICE.password);
        (response.status == 200).then(|| session::jar(&session::only_cookie(&response).value))
    });
    assert_settles(&proxy, &again, ALICE.id);
}

#[test]
fn a_pause_of_redis_costs_no_session() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "1s")
        .start();
    let alice = proxy.sign_in(&ALICE);
    redis.pause();
    let sent = Instant::now();
    assert_unavailable(&proxy.get_as("/", &alice), "a request");
    assert!(sent.elapsed() >= TIMEOUT - Duration::from_millis(50));
    // A crowd is answered as soon as one.
    std::thread::scope(|scope| {
        let crowd = (0..50).map(|_| scope.spawn(|| proxy.get_as("/", &alice)));
        for visitor in crowd.collect::<Vec<_>>() {
            assert_unavailable(&visitor.join().unwrap(), "one of a crowd");
        }
    });
    assert!(
        sent.elapsed() < Duration::from_secs(5),
        "{:?}",
        sent.elapsed()
    );
    redis.resume();
    eventually("the same session works", || {
        let response = proxy.get_as("/", &alice);
        assert!([200, 503].contains(&response.status), "{}", response.text());
        (response.status == 200).then_some(())
    });
}

#[test]
fn cloakroom_starts_without_redis_and_finds_it_later() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    redis.stop();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    assert_eq!(proxy.get("/public").status, 200);
    assert_unavailable(&proxy.try_sign_in(ALICE.name, ALICE.password), "a login");
    redis.restart();
    eventually("signing in works", || {
        (proxy.try_sign_in(ALICE.name, ALICE.password).status == 200).then_some(())
    });
}

#[test]
fn an_outage_of_the_store_is_part_of_readiness_only_where_asked_for() {
    let backend = Backend::start();
    let mut redis = Redis::start();
    let config = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "1s");
    let lenient = config.clone().start();
    let strict = config.set("admin.ready_requires", vec!["store"]).start();
    let ready = |proxy: &Proxy| proxy.admin_get("/readyz").status;
    assert_eq!(ready(&lenient), 200);
    eventually("it is ready", || (ready(&strict) == 200).then_some(()));
    redis.stop();
    eventually("readiness fails", || (ready(&strict) == 503).then_some(()));
    assert_eq!(ready(&lenient), 200);
    assert_eq!(strict.admin_get("/healthz").status, 200);
    redis.restart();
    eventually("readiness returns", || {
        (ready(&strict) == 200).then_some(())
    });
}
