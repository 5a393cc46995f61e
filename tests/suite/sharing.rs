//! Sessions that are shared with a real Express application, behind the proxy and
//! beside it.

use std::thread;

use serde_json::{Value, json};

use crate::harness::config::SECRET;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{sign, state, token};
use crate::harness::sharing::{COOKIE, Sharing, post, seen};
use crate::harness::users::{ALICE, BOB};

/// The key of the session in a jar.
fn key(jar: &CookieJar) -> String {
    format!("sess:{}", token(jar.get(COOKIE).unwrap()))
}

/// Why a visitor is refused.
fn refused(proxy: &Proxy, jar: &CookieJar) -> String {
    let response = proxy.get_as("/", jar);
    assert_eq!(response.status, 401, "{}", response.text());
    response.refusal().unwrap()
}

/// The same of a session that has ended elsewhere, which is told within a moment.
fn refused_soon(proxy: &Proxy, jar: &CookieJar) -> String {
    eventually("the end is known", || {
        (proxy.get_as("/", jar).status == 401).then_some(())
    });
    refused(proxy, jar)
}

#[test]
fn two_proxies_and_the_application_take_each_others_sessions() {
    let versions = ["current", "7", "6"];
    thread::scope(|scope| {
        for version in versions {
            scope.spawn(move || interchangeable(version));
        }
    });
}

fn interchangeable(version: &str) {
    let redis = Redis::start();
    let cookie = r#"{"maxAge":3600000,"sameSite":"lax"}"#;
    let app = Sharing::start(&redis, &[("CONNECT", version), ("COOKIE", cookie)]);
    let proxies = [app.config(&redis).start(), app.config(&redis).start()];
    let addrs = [app.addr(), proxies[0].addr(), proxies[1].addr()];

    // Signed in by Cloakroom.
    let alice = proxies[0].sign_in(&ALICE);
    for addr in addrs {
        let seen = seen(addr, "/", &alice);
        assert_eq!(seen["user"], ALICE.id, "{version}");
        assert_eq!(seen["fields"]["email"], ALICE.email);
        assert_eq!(seen["fields"]["roles"], json!(ALICE.roles));
        assert_eq!(seen["sid"], token(alice.get(COOKIE).unwrap()));
        assert_eq!(seen["age"], 24 * 3_600_000);
        let header = if addr == app.addr() {
            Value::Null
        } else {
            json!(ALICE.id)
        };
        assert_eq!(seen["header"], header);
    }
    let ttl = redis.ttl(&key(&alice));
    assert!((86_390..=86_400).contains(&ttl), "{ttl}");

    // Signed in by the application, wherever it is asked.
    for addr in addrs {
        let user = Sharing::sign_in(addr, &json!("u-theirs"));
        for proxy in &proxies {
            assert_eq!(state(proxy, &user), "u-theirs", "{version}");
        }
        for addr in addrs {
            assert_eq!(seen(addr, "/", &user)["user"], "u-theirs");
        }
        // The application signs out; its sessions end at once.
        let gone = post(addr, "/public/app-logout", &user, &json!({}));
        assert_eq!(gone.status, 200);
        for proxy in &proxies {
            assert_eq!(refused_soon(proxy, &user), "unknown_session");
        }
    }

    // The proxy signs out.
    let theirs = Sharing::sign_in(app.addr(), &json!("u-theirs"));
    for (user, proxy) in [(&alice, &proxies[1]), (&theirs, &proxies[0])] {
        assert_eq!(proxy.sign_out(user).status, 204);
        for proxy in &proxies {
            assert_eq!(refused_soon(proxy, user), "unknown_session");
        }
        assert_eq!(seen(app.addr(), "/", user)["user"], Value::Null);
    }
}

#[test]
fn what_the_application_writes_is_never_overwritten() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let config = app.config(&redis).set("session.touch_interval", "0s");
    let proxy = config.start();
    let alice = proxy.sign_in(&ALICE);

    // Each request touches, while others write.
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..40).for_each(|_| assert_eq!(state(&proxy, &alice), ALICE.id)));
            scope.spawn(|| {
                (0..40).for_each(|_| assert_eq!(proxy.get_as("/", &alice).status, 200));
            });
        }
        scope.spawn(|| {
            for n in 0..40 {
                let kept = post(
                    proxy.addr(),
                    "/keep",
                    &alice,
                    &json!({ "n": n, "cut": "\u{1f600}" }),
                );
                assert_eq!(kept.status, 200);
                assert_eq!(seen(proxy.addr(), "/", &alice)["fields"]["n"], n);
            }
        });
    });

    // Nor anything that is not ours to understand.
    let odd = r#"{ "cookie":{"originalMaxAge":3600000,"x":1}, "userId":"u1","cut":"\ud83d","n":1.0,"n":2e0}"#;
    let key = key(&alice);
    redis.run(&["SET", &key, odd, "EX", "60"]);
    eventually("the change is known", || {
        (state(&proxy, &alice) == "u1").then_some(())
    });
    assert_eq!(proxy.get_as("/auth/session", &alice).status, 200);
    proxy.send(&Request::get("/admin").cookies(&alice));
    eventually("it is touched", || (redis.ttl(&key) > 3000).then_some(()));
    assert_eq!(redis.value(&key).unwrap(), odd.as_bytes());
}

#[test]
fn a_request_in_flight_does_not_undo_a_logout() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxy = app.config(&redis).start();
    for (name, by_public_page) in [("one", false), ("two", true)] {
        let alice = proxy.sign_in(&ALICE);
        thread::scope(|scope| {
            let hold = format!("/hold/{name}");
            // Beside the proxy, which would cut it off with the session.
            let held = scope.spawn({
                let (addr, alice) = (app.addr(), &alice);
                move || post(addr, &hold, alice, &json!({}))
            });
            app.says(&format!("held {name}"));
            assert_eq!(proxy.sign_out(&alice).status, 204);
            let release = format!("/public/release/{name}");
            assert_eq!(Request::post(&release).send(app.addr()).status, 200);
            assert_eq!(held.join().unwrap().status, 200);
        });
        assert!(
            redis.value(&key(&alice)).is_some(),
            "the application wrote it back"
        );
        if by_public_page {
            // The application looks at the session by itself there.
            assert_eq!(seen(proxy.addr(), "/public", &alice)["user"], Value::Null);
        } else {
            assert_eq!(refused(&proxy, &alice), "unknown_session");
        }
        assert_eq!(redis.value(&key(&alice)), None);
        assert_eq!(seen(app.addr(), "/", &alice)["user"], Value::Null);
        let tombstone = format!("cloakroom:ended:{{{}}}", key(&alice));
        assert!(redis.ttl(&tombstone) >= 86_400, "{}", redis.ttl(&tombstone));
    }
}

#[test]
fn signing_out_everywhere_finds_the_sessions_of_the_application() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxies = [app.config(&redis).start(), app.config(&redis).start()];
    let theirs = Sharing::sign_in(app.addr(), &json!(ALICE.id));
    let other = Sharing::sign_in(app.addr(), &json!(BOB.id));
    let ours = [proxies[0].sign_in(&ALICE), proxies[1].sign_in(&ALICE)];
    let done = post(proxies[1].addr(), "/auth/logout-all", &ours[0], &json!({}));
    assert_eq!(done.status, 204);
    for proxy in &proxies {
        for jar in [&theirs, &ours[0], &ours[1]] {
            refused_soon(proxy, jar);
        }
        assert_eq!(state(proxy, &other), BOB.id);
    }
    assert_eq!(redis.keys("sess:*").len(), 1);
}

#[test]
fn a_cart_survives_signing_in() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxy = app.config(&redis).start();
    assert_eq!(proxy.get("/public").set_cookies().len(), 0);
    assert_eq!(redis.size(), 0, "an anonymous request stores nothing");

    let body = json!({ "cart": ["a"], "email": "evil@example.test", "roles": ["admin"] });
    let mut visitor = CookieJar::new();
    let kept = post(proxy.addr(), "/public/keep", &visitor, &body);
    visitor.store(&kept);
    assert_eq!(refused(&proxy, &visitor), "no_user");
    let anonymous = key(&visitor);
    let body = json!({ "username": ALICE.name, "password": ALICE.password });
    let response = post(proxy.addr(), "/auth/login", &visitor, &body);
    assert_eq!(response.status, 200);
    assert_eq!(
        response.json()["user"]["cart"],
        Value::Null,
        "the cart is the application's"
    );
    visitor.store(&response);
    assert_ne!(key(&visitor), anonymous, "a login makes a new token");
    assert_eq!(redis.value(&anonymous), None);
    let seen = seen(proxy.addr(), "/", &visitor);
    assert_eq!(seen["fields"]["cart"], json!(["a"]));
    assert_eq!(seen["fields"]["email"], ALICE.email);
    assert_eq!(seen["fields"]["roles"], json!(ALICE.roles));
    assert_eq!(proxy.get_as("/admin", &visitor).status, 403);
}

#[test]
fn passport_and_cloakroom_share_a_user() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[("USER", "passport")]);
    let config = app.config(&redis).unset("identity");
    for (path, user, id) in [
        ("passport.user", json!("u-passport"), "u-passport"),
        ("passport.user", json!(42), "42"),
        ("passport.user.id", json!({"id": 7, "name": "Ann"}), "7"),
    ] {
        let proxy = config.clone().set("session.user", path).start();
        let theirs = Sharing::sign_in(proxy.addr(), &user);
        assert_eq!(state(&proxy, &theirs), id);
        let seen_there = seen(proxy.addr(), "/", &theirs);
        assert_eq!(
            (&seen_there["user"], &seen_there["header"]),
            (&user, &json!(id))
        );

        let alice = proxy.sign_in(&ALICE);
        let found = &seen(proxy.addr(), "/", &alice)["user"];
        let ours = if found.is_object() {
            &found["id"]
        } else {
            found
        };
        assert_eq!(*ours, ALICE.id);

        for jar in [theirs, alice] {
            let response = post(proxy.addr(), "/public/app-logout", &jar, &json!({}));
            assert_eq!(response.status, 200, "{}", response.text());
            refused_soon(&proxy, &jar);
            // Passport goes on with an empty session of a new id.
            let mut after = jar.clone();
            after.store(&response);
            assert_ne!(key(&after), key(&jar));
            refused(&proxy, &after);
        }
    }
}

#[test]
fn nobody_signs_in_again_when_the_proxy_comes() {
    let redis = Redis::start();
    let old = "the secret of the application for years, 0bd1";
    let cookie = r#"{"maxAge":2592000000}"#;
    let app = Sharing::start(
        &redis,
        &[("SECRETS", &json!([old]).to_string()), ("COOKIE", cookie)],
    );
    let theirs = Sharing::sign_in(app.addr(), &json!(4711));
    let stored = redis.value(&key(&theirs)).unwrap();

    // With the application's secret behind a new one, which the application learns, too.
    let secrets = vec![SECRET.to_owned(), old.to_owned()];
    let both = json!(secrets).to_string();
    let app = Sharing::start(&redis, &[("SECRETS", &both), ("COOKIE", cookie)]);
    let proxy = app.config(&redis).set("session.secrets", secrets).start();
    let response = proxy.get_as("/", &theirs);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["header"], "4711");
    assert_eq!(response.json()["user"], 4711);
    assert_eq!(
        redis.value(&key(&theirs)).unwrap(),
        stored,
        "nothing is written anew"
    );

    // The cookie is signed anew, and lasts for as long as the application's.
    let set = response.set_cookies();
    assert_eq!(set.len(), 1, "{response:?}");
    assert_eq!(
        set[0].value,
        sign(&token(theirs.get(COOKIE).unwrap()), SECRET)
    );
    let end = httpdate::parse_http_date(set[0].attribute("expires").unwrap()).unwrap();
    let left = end.duration_since(std::time::SystemTime::now()).unwrap();
    assert!((29..=30).contains(&(left.as_secs() / 86_400)), "{left:?}");
    let mut renewed = theirs.clone();
    renewed.store(&response);
    assert_eq!(seen(app.addr(), "/", &renewed)["user"], 4711);
    assert!(proxy.get_as("/", &renewed).set_cookies().is_empty());
}

#[test]
fn the_browsers_cookie_is_prolonged_once_with_each_touch() {
    let redis = Redis::start();
    for (options, attributes) in [("{}", 4), (r#"{"rolling":true}"#, 4)] {
        let app = Sharing::start(&redis, &[("OPTIONS", options)]);
        let config = app.config(&redis).set("session.touch_interval", "0s");
        let proxy = config.start();
        let alice = proxy.sign_in(&ALICE);
        let response = proxy.get_as("/", &alice);
        let set = response.set_cookies();
        assert_eq!(set.len(), 1, "{options}: {response:?}");
        assert_eq!(
            (set[0].name.as_str(), set[0].value.as_str()),
            (COOKIE, alice.get(COOKIE).unwrap())
        );
        assert_eq!(set[0].attributes.len(), attributes, "{set:?}");
        assert_eq!(set[0].attribute("samesite").unwrap().to_lowercase(), "lax");
        assert!(set[0].has("httponly") && set[0].has("expires") && !set[0].removes());
        // What is refused sets nothing.
        assert!(proxy.get_as("/admin", &alice).set_cookies().is_empty());
    }
}

#[test]
fn the_first_of_several_cookies_counts() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxy = app.config(&redis).start();
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    let (alice, bob) = (alice.get(COOKIE).unwrap(), bob.get(COOKIE).unwrap());
    for (first, second, user) in [
        (alice, bob, Some(ALICE.id)),
        (bob, alice, Some(BOB.id)),
        ("s%3Ax.y", bob, None),
    ] {
        let lines = |request: Request| {
            request
                .header("cookie", format!("{COOKIE}={first}"))
                .header("cookie", format!("a=1; {COOKIE}={second}"))
        };
        let response = proxy.send(&lines(Request::get("/")));
        assert_eq!(response.status, if user.is_some() { 200 } else { 401 });
        let public = proxy.send(&lines(Request::get("/public"))).json();
        assert_eq!(public["user"], json!(user), "the application agrees");
    }
}

#[test]
fn the_layout_alone_shares_the_store_and_not_the_cookie() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxy = app.config(&redis).unset("session.share_with_app").start();
    let alice = proxy.sign_in(&ALICE);
    let response = proxy.get_as("/", &alice);
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["header"], ALICE.id);
    assert_eq!(response.json()["user"], Value::Null, "it has no cookie");
    // The application cannot set one either.
    let kept = post(proxy.addr(), "/keep", &alice, &json!({ "n": 1 }));
    assert_eq!(kept.status, 200);
    assert!(kept.set_cookies().is_empty());
    // Whoever has the cookie is known to it: it reads the record.
    assert_eq!(seen(app.addr(), "/", &alice)["user"], ALICE.id);
}

#[test]
fn a_record_that_express_cannot_serve_is_no_sign_out() {
    let redis = Redis::start();
    let app = Sharing::start(&redis, &[]);
    let proxy = app.config(&redis).start();
    let alice = proxy.sign_in(&ALICE);
    for (broken, status) in [("no json", 500), ("{}", 500), ("null", 200), ("", 200)] {
        redis.run(&["SET", &key(&alice), broken, "EX", "60"]);
        assert_eq!(
            Request::get("/").cookies(&alice).send(app.addr()).status,
            status
        );
        let expected = if status == 500 {
            "session_unreadable"
        } else {
            "unknown_session"
        };
        eventually(expected, || {
            let response = proxy.get_as("/", &alice);
            assert!(response.set_cookies().is_empty());
            (response.refusal().as_deref() == Some(expected)).then_some(())
        });
    }
}
