//! Where a user is signed in: the list, ending one, ending the others, and how
//! many there may be.

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::{Request, Response};
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{key, over_each_store, state, token_of};
use crate::harness::users::{ALICE, BOB, Person};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn sign_in_with(proxy: &Proxy, person: &Person, user_agent: &str) -> CookieJar {
    let body = serde_json::json!({ "username": person.name, "password": person.password });
    let request = Request::post("/auth/login").json(&body);
    let response = proxy.send(&request.header("user-agent", user_agent));
    assert_eq!(response.status, 200, "{}", response.text());
    let mut jar = CookieJar::new();
    jar.store(&response);
    jar
}

fn listed(proxy: &Proxy, jar: &CookieJar) -> Vec<Value> {
    let response = proxy.get_as("/auth/sessions", jar);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["sessions"].as_array().unwrap().clone()
}

/// The handle of the session that a jar holds.
fn handle(proxy: &Proxy, jar: &CookieJar) -> String {
    let all = listed(proxy, jar);
    let mut own = all.iter().filter(|entry| entry["current"] == true);
    let handle = own.next().unwrap()["handle"].as_str().unwrap().to_owned();
    assert_eq!(own.next(), None);
    handle
}

fn delete(proxy: &Proxy, jar: &CookieJar, handle: &str) -> Response {
    let target = format!("/auth/sessions/{handle}");
    proxy.send(&Request::new("DELETE", &target).cookies(jar))
}

#[test]
fn users_see_their_own_sessions_and_nothing_that_opens_one() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let first = sign_in_with(&proxy, &ALICE, FIREFOX);
        let second = sign_in_with(&proxy, &ALICE, "<b>curl/8\"");
        let bob = proxy.sign_in(&BOB);
        let response = proxy.get_as("/auth/sessions", &second);
        assert_eq!(
            response.header("content-type").as_deref(),
            Some("application/json")
        );
        assert_eq!(
            response.header("cache-control").as_deref(),
            Some("no-store")
        );
        assert!(response.set_cookies().is_empty(), "{store}");
        let all = listed(&proxy, &second);
        assert_eq!(all.len(), 2, "{store}: {all:?}");
        assert_eq!(listed(&proxy, &bob).len(), 1);
        // The newest first.
        assert_eq!(all[0]["current"], true);
        assert_eq!(all[1]["current"], false);
        assert_eq!(all[1]["user_agent"], FIREFOX);
        assert_eq!(all[1]["address"], "127.0.0.1");
        for entry in &all {
            assert_eq!(entry["handle"].as_str().unwrap().len(), 12);
            for moment in ["created", "last_seen"] {
                let moment = entry[moment].as_str().unwrap();
                assert!(
                    moment.starts_with("20") && moment.ends_with('Z'),
                    "{moment}"
                );
            }
            let left = |name: &str| entry[name].as_u64().unwrap();
            assert!(left("idle_expires_in") <= 86_400 && left("idle_expires_in") > 86_000);
            assert!(left("expires_in") <= 7 * 86_400 && left("expires_in") > 6 * 86_400);
        }

        let page = proxy.send(&Request::get("/auth/sessions").cookies(&second).navigation());
        assert_eq!(page.status, 200);
        let html = page.text();
        for wanted in [
            "Firefox on Linux",
            "alice@example.test",
            "127.0.0.1",
            "This one",
            "just now",
        ] {
            assert!(html.contains(wanted), "{wanted}\n{html}");
        }
        assert!(!html.contains("<b>curl"), "{html}");
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(page.header("cache-control").as_deref(), Some("no-store"));
        assert_eq!(page.header("x-frame-options").as_deref(), Some("DENY"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        for said in [response.text(), html] {
            for jar in [&first, &second, &bob] {
                let token = token_of(jar);
                assert!(
                    !said.contains(&token) && !said.contains(&key(&token)),
                    "{said}"
                );
            }
        }
        let head = proxy.send(&Request::new("HEAD", "/auth/sessions").cookies(&first));
        assert_eq!((head.status, head.body.len()), (200, 0));
    });
    assert!(backend.requests().is_empty());
}

#[test]
fn ending_one_session_ends_that_one() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (one, two, three) = (
            proxy.sign_in(&ALICE),
            proxy.sign_in(&ALICE),
            proxy.sign_in(&ALICE),
        );
        let gone = handle(&proxy, &two);
        let response = delete(&proxy, &one, &gone);
        assert_eq!(response.status, 204, "{store}: {}", response.text());
        assert!(response.set_cookies().is_empty());
        assert_eq!(state(&proxy, &two), "unknown_session", "{store}");
        assert_eq!(state(&proxy, &three), ALICE.id);
        assert_eq!(delete(&proxy, &one, &gone).status, 404, "{store}: once");

        // By a form, which comes back to the page.
        let target = format!("/auth/sessions/{}/revoke", handle(&proxy, &three));
        let form = Request::post(&target).form(&[]).cookies(&one).navigation();
        let response = proxy.send(&form);
        assert_eq!(response.status, 303, "{store}");
        assert_eq!(
            response.header("location").as_deref(),
            Some("/auth/sessions")
        );
        assert_eq!(state(&proxy, &three), "unknown_session");
        // By a script.
        let four = proxy.sign_in(&ALICE);
        let target = format!("/auth/sessions/{}/revoke", handle(&proxy, &four));
        assert_eq!(
            proxy.send(&Request::post(&target).cookies(&one)).status,
            204
        );
        assert_eq!(state(&proxy, &four), "unknown_session");

        // One's own too; the cookie stays until a sign-out.
        let own = handle(&proxy, &one);
        let response = delete(&proxy, &one, &own);
        assert_eq!((response.status, response.set_cookies().len()), (204, 0));
        assert_eq!(state(&proxy, &one), "unknown_session");
        let again = delete(&proxy, &one, &own);
        assert_eq!((again.status, again.set_cookies().len()), (401, 0));
    });
}

/// Whether a handle is somebody else's or nobody's looks the same.
#[test]
fn the_sessions_of_others_are_out_of_reach() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let foreign = delete(&proxy, &alice, &handle(&proxy, &bob));
        let unknown = delete(&proxy, &alice, "AAAAAAAAAAAA");
        assert_eq!((foreign.status, unknown.status), (404, 404), "{store}");
        assert_eq!(foreign.body, unknown.body);
        assert_eq!(foreign.refusal().as_deref(), Some("no_such_session"));
        for odd in [
            "x",
            "%2e%2e",
            "..%2f..",
            "*",
            "a:b",
            &token_of(&bob),
            &key(&token_of(&bob)),
        ] {
            let status = delete(&proxy, &alice, odd).status;
            assert!(matches!(status, 400 | 404), "{odd}: {status}");
        }
        let others = Request::post("/auth/sessions/revoke-others").cookies(&alice);
        assert_eq!(proxy.send(&others).status, 204);
        assert_eq!(state(&proxy, &bob), BOB.id, "{store}");
        assert_eq!(state(&proxy, &alice), ALICE.id);
    });
    assert!(backend.requests().is_empty());
}

#[test]
fn ending_the_others_leaves_the_one_that_asks() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let own = proxy.sign_in(&ALICE);
        let others: Vec<_> = (0..3).map(|_| proxy.sign_in(&ALICE)).collect();
        let form = Request::post("/auth/sessions/revoke-others").form(&[]);
        let response = proxy.send(&form.cookies(&own).navigation());
        assert_eq!(response.status, 303);
        assert_eq!(
            response.header("location").as_deref(),
            Some("/auth/sessions")
        );
        assert_eq!(state(&proxy, &own), ALICE.id, "{store}");
        for jar in &others {
            assert_eq!(state(&proxy, jar), "unknown_session", "{store}");
        }
        let metrics = proxy.admin_get("/metrics").text();
        let line = "cloakroom_sessions_ended_total{cause=\"revoked\"} 3";
        assert!(metrics.contains(line), "{metrics}");
    });
}

#[test]
fn who_is_not_signed_in_has_no_sessions() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let get = proxy.get("/auth/sessions");
    assert_eq!(
        (get.status, get.refusal().as_deref()),
        (401, Some("no_cookie"))
    );
    let page = proxy.send(&Request::get("/auth/sessions").navigation());
    assert_eq!(page.status, 303);
    let login = "/auth/login?rd=%2Fauth%2Fsessions";
    assert_eq!(page.header("location").as_deref(), Some(login));
    for (method, target) in [
        ("DELETE", "/auth/sessions/AAAAAAAAAAAA"),
        ("POST", "/auth/sessions/AAAAAAAAAAAA/revoke"),
        ("POST", "/auth/sessions/revoke-others"),
    ] {
        let response = proxy.send(&Request::new(method, target));
        assert_eq!(response.status, 401, "{method} {target}");
        // Never a redirect for what changes something.
        let form = proxy.send(&Request::new(method, target).navigation());
        assert_eq!(form.status, 401, "{method} {target}");
    }
}

#[test]
fn each_path_has_its_methods() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let other = proxy.sign_in(&ALICE);
    let handle = handle(&proxy, &other);
    for (target, allow, methods) in [
        (
            "/auth/sessions".to_owned(),
            "GET, HEAD",
            &["POST", "PUT", "DELETE"][..],
        ),
        (
            format!("/auth/sessions/{handle}"),
            "DELETE",
            &["GET", "HEAD", "POST", "PUT"],
        ),
        (
            format!("/auth/sessions/{handle}/revoke"),
            "POST",
            &["GET", "HEAD", "DELETE"],
        ),
        (
            "/auth/sessions/revoke-others".to_owned(),
            "POST",
            &["GET", "DELETE"],
        ),
    ] {
        for method in methods {
            let response = proxy.send(&Request::new(method, &target).cookies(&alice));
            assert_eq!(response.status, 405, "{method} {target}");
            assert_eq!(
                response.header("allow").as_deref(),
                Some(allow),
                "{method} {target}"
            );
        }
    }
    assert_eq!(state(&proxy, &other), ALICE.id);
    assert!(backend.requests().is_empty());
    // What lies below is the application's.
    assert_eq!(proxy.get_as("/auth/sessions/", &alice).status, 200);
    assert_eq!(proxy.get_as("/auth/sessions/a/b", &alice).status, 200);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn other_sites_end_nothing() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let other = proxy.sign_in(&ALICE);
    let handle = handle(&proxy, &other);
    for (method, target) in [
        ("DELETE", format!("/auth/sessions/{handle}")),
        ("POST", format!("/auth/sessions/{handle}/revoke")),
        ("POST", "/auth/sessions/revoke-others".to_owned()),
    ] {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let request = Request::new(method, &target).cookies(&alice);
            let response = proxy.send(&request.header(name, value));
            assert_eq!(response.status, 403, "{method} {target} {value}");
            assert_eq!(response.refusal().as_deref(), Some("cross_site_request"));
        }
    }
    assert_eq!(state(&proxy, &other), ALICE.id);
}

#[test]
fn an_outage_is_told_and_ends_nothing() {
    let backend = Backend::start();
    let redis = Redis::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "300ms")
        .start();
    let alice = proxy.sign_in(&ALICE);
    let handle = handle(&proxy, &alice);
    let mut redis = redis;
    redis.pause();
    assert_eq!(proxy.get_as("/auth/sessions", &alice).status, 503);
    assert_eq!(delete(&proxy, &alice, &handle).status, 503);
    redis.resume();
    eventually("the store to be back", || {
        (state(&proxy, &alice) == ALICE.id).then_some(())
    });
}

#[test]
fn the_oldest_session_gives_way() {
    let backend = Backend::start();
    let config = Config::to(backend.addr()).set("session.max_per_user", 2);
    over_each_store(&config, |store, proxy, redis| {
        let bob = proxy.sign_in(&BOB);
        let jars: Vec<_> = (0..4).map(|_| proxy.sign_in(&ALICE)).collect();
        for jar in &jars[..2] {
            assert_eq!(state(&proxy, jar), "unknown_session", "{store}");
        }
        for jar in &jars[2..] {
            assert_eq!(state(&proxy, jar), ALICE.id, "{store}");
        }
        assert_eq!(state(&proxy, &bob), BOB.id);
        let metrics = proxy.admin_get("/metrics").text();
        let line = "cloakroom_sessions_ended_total{cause=\"max_per_user\"} 2";
        assert!(metrics.contains(line), "{store}: {metrics}");
        if let Some(redis) = redis {
            assert_eq!(redis.keys("sess:*").len(), 3);
        }
    });
}

/// However many sign in at once, over several replicas: exactly as many stay as
/// may, and whoever was told yes or no was told so by a rule.
#[test]
fn logins_that_race_leave_no_more_than_may_be() {
    const LIMIT: usize = 3;
    let backend = Backend::start();
    let redis = Redis::start();
    let config = Config::to(backend.addr())
        .store(&redis.url())
        .set("session.max_per_user", LIMIT as i64);
    let replicas = [config.clone().start(), config.clone().start()];
    let embedded = [config.store("file:./data").start()];
    for proxies in [&replicas[..], &embedded[..]] {
        for _ in 0..3 {
            let jars: Vec<CookieJar> = std::thread::scope(|scope| {
                let logins: Vec<_> = (0..8)
                    .map(|n| {
                        let proxy = &proxies[n % proxies.len()];
                        scope.spawn(|| proxy.try_sign_in(ALICE.name, ALICE.password))
                    })
                    .collect();
                let answers = logins.into_iter().map(|login| login.join().unwrap());
                let answers: Vec<_> = answers.collect();
                let jar = |response: Response| {
                    if response.status != 200 {
                        assert_eq!(response.refusal().as_deref(), Some("session_ended"));
                        assert!(response.set_cookies().is_empty());
                        return None;
                    }
                    let mut jar = CookieJar::new();
                    jar.store(&response);
                    Some(jar)
                };
                answers.into_iter().filter_map(jar).collect()
            });
            let live = jars
                .iter()
                .filter(|jar| state(&proxies[0], jar) == ALICE.id);
            assert_eq!(live.count(), LIMIT);
            let any = jars.iter().find(|jar| state(&proxies[0], jar) == ALICE.id);
            assert_eq!(listed(&proxies[0], any.unwrap()).len(), LIMIT);
        }
    }
}
