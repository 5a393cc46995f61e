//! Sessions that are shared with a real Express application which keeps them in
//! PostgreSQL, through connect-pg-simple.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::postgres::PostgresServer;
use crate::harness::proxy::Proxy;
use crate::harness::session::{state, token};
use crate::harness::sharing::{COOKIE, Sharing, post, seen};
use crate::harness::users::{ALICE, BOB};

/// The session id in a jar.
fn sid(jar: &CookieJar) -> String {
    token(jar.get(COOKIE).unwrap())
}

/// What the application has under a jar's session id; empty if nothing.
fn stored(server: &PostgresServer, jar: &CookieJar) -> String {
    server.sql(&format!(
        "select sess::text from session where sid = '{}'",
        sid(jar)
    ))
}

fn count(server: &PostgresServer, table: &str) -> String {
    server.sql(&format!("select count(*) from {table}"))
}

/// Waits until a visitor is refused, for a second at most, and gives the reason.
fn refused_soon(proxy: &Proxy, jar: &CookieJar) -> String {
    let begin = Instant::now();
    loop {
        let mut client = Client::connect(proxy.addr());
        client.send(Request::get("/").cookies(jar).bytes("localhost"));
        // An answer that is on its way when the session ends is cut.
        if let Ok(response) = client.try_read("GET")
            && response.status == 401
        {
            return response.refusal().unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "it goes on");
    }
}

#[test]
fn two_proxies_and_the_application_take_each_others_sessions() {
    let server = PostgresServer::start();
    let cookie = r#"{"maxAge":3600000,"sameSite":"lax"}"#;
    let app = Sharing::on_postgres(&server, &[("COOKIE", cookie)]);
    let config = app.config_at(&server.url());
    let proxies = [config.clone().start(), config.start()];
    let addrs = [app.addr(), proxies[0].addr(), proxies[1].addr()];
    assert_eq!(proxies[0].get("/public").status, 200);
    assert_eq!(count(&server, "session"), "0", "nobody leaves anything");

    // Signed in by Cloakroom.
    let alice = proxies[0].sign_in(&ALICE);
    for addr in addrs {
        let seen = seen(addr, "/", &alice);
        assert_eq!(seen["user"], ALICE.id);
        assert_eq!(seen["fields"]["email"], ALICE.email);
        assert_eq!(seen["fields"]["roles"], json!(ALICE.roles));
        assert_eq!(seen["sid"], sid(&alice));
        assert_eq!(seen["age"], 24 * 3_600_000);
        let header = match addr == app.addr() {
            true => Value::Null,
            false => json!(ALICE.id),
        };
        assert_eq!(seen["header"], header);
    }
    let whole = "select expire = date_trunc('second', expire) from session";
    assert_eq!(server.sql(whole), "t");

    // Signed in by the application, wherever it is asked.
    for addr in addrs {
        let user = Sharing::sign_in(addr, &json!("u-theirs"));
        for proxy in &proxies {
            assert_eq!(state(proxy, &user), "u-theirs");
        }
        for addr in addrs {
            assert_eq!(seen(addr, "/", &user)["user"], "u-theirs");
        }
        // The application signs out; its sessions end within a second.
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
    assert_eq!(count(&server, "session"), "0");
    for proxy in &proxies {
        let log = proxy.output().text();
        assert!(!log.contains("time zone"), "{log}");
    }
}

#[test]
fn what_the_application_writes_is_never_overwritten() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[]);
    let config = app.config_at(&server.url());
    let proxy = config.set("session.touch_interval", "0s").start();
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
                let body = json!({ "n": n, "cut": "\u{1f600}" });
                assert_eq!(post(proxy.addr(), "/keep", &alice, &body).status, 200);
                assert_eq!(seen(proxy.addr(), "/", &alice)["fields"]["n"], n);
            }
        });
    });

    // Nor anything that is not ours to understand.
    let odd = r#"{ "cookie":{"originalMaxAge":3600000,"x":1}, "userId":"u1","cut":"\ud83d","nul":"\u0000","n":1.0,"n":2e0}"#;
    server.sql(&format!(
        "update session set sess = '{odd}', expire = now() + interval '60 seconds'"
    ));
    eventually("the change is known", || {
        (state(&proxy, &alice) == "u1").then_some(())
    });
    proxy.send(&Request::get("/admin").cookies(&alice));
    eventually("it is touched", || {
        let later = "select expire > now() + interval '50 minutes' from session";
        (server.sql(later) == "t").then_some(())
    });
    assert_eq!(stored(&server, &alice), odd);
}

#[test]
fn a_request_in_flight_does_not_undo_a_logout() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[]);
    let proxy = app.config_at(&server.url()).start();
    let alice = proxy.sign_in(&ALICE);
    thread::scope(|scope| {
        let held = scope.spawn(|| post(app.addr(), "/hold/one", &alice, &json!({})));
        app.says("held one");
        assert_eq!(proxy.sign_out(&alice).status, 204);
        let release = Request::post("/public/release/one").send(app.addr());
        assert_eq!(release.status, 200);
        assert_eq!(held.join().unwrap().status, 200, "it is told nothing");
    });
    // Neither the proxy nor anybody else has looked at it since.
    assert_eq!(stored(&server, &alice), "");
    assert_eq!(seen(app.addr(), "/", &alice)["user"], Value::Null);
    assert_eq!(refused_soon(&proxy, &alice), "unknown_session");
    let kept = "select expires > now() + interval '24 hours' from cloakroom_shared";
    assert_eq!(server.sql(kept), "t");
}

#[test]
fn signing_out_everywhere_finds_the_sessions_of_the_application() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[]);
    let config = app.config_at(&server.url());
    let proxies = [config.clone().start(), config.start()];
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
    assert_eq!(count(&server, "session"), "1");
}

#[test]
fn a_cart_survives_signing_in() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[]);
    let proxy = app.config_at(&server.url()).start();
    let body = json!({ "cart": ["a"], "roles": ["admin"] });
    let mut visitor = CookieJar::new();
    visitor.store(&post(proxy.addr(), "/public/keep", &visitor, &body));
    let anonymous = visitor.clone();
    let body = json!({ "username": ALICE.name, "password": ALICE.password });
    let response = post(proxy.addr(), "/auth/login", &visitor, &body);
    assert_eq!(response.status, 200, "{}", response.text());
    visitor.store(&response);
    assert_ne!(sid(&visitor), sid(&anonymous));
    assert_eq!(stored(&server, &anonymous), "");
    let seen = seen(proxy.addr(), "/", &visitor);
    assert_eq!(seen["fields"]["cart"], json!(["a"]));
    assert_eq!(seen["fields"]["roles"], json!(ALICE.roles));
}

#[test]
fn passport_and_cloakroom_share_a_user() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[("USER", "passport")]);
    let config = app.config_at(&server.url()).unset("identity");
    let proxy = config.set("session.user", "passport.user").start();
    let theirs = Sharing::sign_in(proxy.addr(), &json!("u-passport"));
    assert_eq!(state(&proxy, &theirs), "u-passport");
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(seen(proxy.addr(), "/", &alice)["user"], ALICE.id);
    for jar in [theirs, alice] {
        let response = post(proxy.addr(), "/public/app-logout", &jar, &json!({}));
        assert_eq!(response.status, 200, "{}", response.text());
        refused_soon(&proxy, &jar);
    }
}

/// Version 0.5 keeps the id at login and leaves the record at logout, without its user.
#[test]
fn old_versions_of_passport_share_a_user_too() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[("USER", "passport-5")]);
    let config = app.config_at(&server.url()).unset("identity");
    let proxy = config.set("session.user", "passport.user").start();
    let mut visitor = CookieJar::new();
    let kept = post(proxy.addr(), "/public/keep", &visitor, &json!({ "n": 1 }));
    visitor.store(&kept);
    assert_eq!(refused_soon(&proxy, &visitor), "no_user");
    let body = json!({ "user": "u-passport" });
    let login = post(proxy.addr(), "/public/app-login", &visitor, &body);
    assert_eq!(login.status, 200, "{}", login.text());
    eventually("the user is known", || {
        (state(&proxy, &visitor) == "u-passport").then_some(())
    });
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(seen(proxy.addr(), "/", &alice)["user"], ALICE.id);
    for jar in [visitor, alice] {
        let response = post(proxy.addr(), "/public/app-logout", &jar, &json!({}));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(refused_soon(&proxy, &jar), "no_user");
        assert!(stored(&server, &jar).contains(r#""passport":{}"#));
    }
}

#[test]
fn a_table_that_the_application_makes_later_is_found() {
    let server = PostgresServer::start();
    let store = r#"{"createTableIfMissing":true,"schemaName":"web","tableName":"sessions"}"#;
    server.sql("create schema web");
    let app = Sharing::on_bare_postgres(&server, &[("PG_STORE", store)]);
    let url = format!("{}&schema=web&table=sessions", server.url());
    let proxy = app.config_at(&url).start();
    let login = proxy.try_sign_in(ALICE.name, ALICE.password);
    assert_eq!(login.refusal().as_deref(), Some("store_unavailable"));
    eventually("the reason is logged", || {
        let log = proxy.output().text();
        log.contains("createTableIfMissing").then_some(())
    });
    let theirs = Sharing::sign_in(app.addr(), &json!("u-theirs"));
    eventually("the table is found", || {
        (state(&proxy, &theirs) == "u-theirs").then_some(())
    });
    assert_eq!(
        seen(app.addr(), "/", &proxy.sign_in(&ALICE))["user"],
        ALICE.id
    );
}

#[test]
fn another_time_zone_of_the_application_is_reported() {
    let server = PostgresServer::start();
    let app = Sharing::on_postgres(&server, &[]);
    // Of new connections; the application has one already.
    let theirs = Sharing::sign_in(app.addr(), &json!("u-theirs"));
    server.sql("alter role keeper set timezone = 'Asia/Kolkata'");
    let proxy = app.config_at(&server.url()).start();
    proxy.sign_in(&ALICE);
    assert!(!proxy.output().text().contains("time zone"));
    let mut number = 0;
    eventually("it is reported", || {
        // Ends are whole seconds: the first changes may write the same one again.
        number += 1;
        let changed = post(app.addr(), "/keep", &theirs, &json!({ "n": number }));
        assert_eq!(changed.status, 200);
        let log = proxy.output().text();
        log.contains("0 s from UTC, and the store's connection is 19800 s from it")
            .then_some(())
    });
}
