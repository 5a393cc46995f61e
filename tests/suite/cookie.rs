//! The session cookie on the wire: its attributes, where it cannot be kept,
//! and several of its name.

use std::time::{Duration, SystemTime};

use crate::harness::backend::Backend;
use crate::harness::config::{Config, SECRET};
use crate::harness::cookies::SetCookie;
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::session::{
    self, COOKIE, calls, new_token, only_cookie, over_each_store, sign, state_of_all,
};
use crate::harness::users::{ALICE, BOB};

/// The attributes by which a browser recognises a cookie, in order.
fn attributes(cookie: &SetCookie) -> String {
    let lasting = |(name, _): &&(String, String)| name != "expires" && name != "max-age";
    let parts = cookie.attributes.iter().filter(lasting);
    let parts = parts.map(|(name, value)| match value.as_str() {
        "" => name.clone(),
        value => format!("{name}={value}"),
    });
    parts.collect::<Vec<_>>().join("; ")
}

fn login() -> Request {
    let body = serde_json::json!({ "username": ALICE.name, "password": ALICE.password });
    Request::post("/auth/login").json(&body)
}

/// As a proxy that terminates TLS would send it on.
fn from_https(request: Request) -> Request {
    request
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-forwarded-proto", "https")
}

const WEEK: u64 = 7 * 24 * 3600;

#[test]
fn the_cookie_has_the_attributes_of_the_settings() {
    let backend = Backend::start();
    let trusting = "[trust]\nproxies = [\"loopback\"]\n";
    let cookie = |settings: &str| format!("{trusting}[session.cookie]\n{settings}\n");
    let cases = [
        (String::new(), false, "path=/; httponly; samesite=Lax"),
        // Nobody is believed who was not named.
        (String::new(), true, "path=/; httponly; samesite=Lax"),
        (trusting.to_owned(), false, "path=/; httponly; samesite=Lax"),
        (
            trusting.to_owned(),
            true,
            "path=/; httponly; secure; samesite=Lax",
        ),
        (
            cookie("secure = false"),
            true,
            "path=/; httponly; samesite=Lax",
        ),
        (
            cookie("secure = true"),
            true,
            "path=/; httponly; secure; samesite=Lax",
        ),
        (
            cookie("same_site = \"strict\""),
            false,
            "path=/; httponly; samesite=Strict",
        ),
        (
            cookie("same_site = \"none\""),
            true,
            "path=/; httponly; secure; samesite=None",
        ),
        (
            cookie("domain = \"example.test\""),
            false,
            "domain=example.test; path=/; httponly; samesite=Lax",
        ),
        (
            cookie("path = \"/auth\""),
            false,
            "path=/auth; httponly; samesite=Lax",
        ),
        (
            cookie("partitioned = true"),
            true,
            "path=/; httponly; secure; partitioned; samesite=Lax",
        ),
        (
            "[server]\npublic_url = \"https://app.example.test\"\n".to_owned(),
            false,
            "path=/; httponly; secure; samesite=Lax",
        ),
    ];
    for (settings, https, expected) in cases {
        let proxy = Config::to(backend.addr()).with(&settings).start();
        let send =
            |request: Request| proxy.send(&if https { from_https(request) } else { request });
        let what = format!("{settings} https: {https}");
        let response = send(login());
        assert_eq!(response.status, 200, "{what} {}", response.text());
        let cookie = only_cookie(&response);
        assert_eq!(attributes(&cookie), expected, "{what}");
        assert_eq!(
            cookie.attribute("max-age"),
            Some(&*WEEK.to_string()),
            "{what}"
        );
        let expires = httpdate::parse_http_date(cookie.attribute("expires").unwrap()).unwrap();
        let left = expires.duration_since(SystemTime::now()).unwrap();
        assert!(
            left <= Duration::from_secs(WEEK) && left > Duration::from_secs(WEEK - 60),
            "{what}"
        );

        // It is cleared as it was set, or browsers would keep it.
        let out = send(Request::post("/auth/logout").cookies(&session::jar(&cookie.value)));
        assert_eq!(out.status, 204, "{what}");
        let cleared = only_cookie(&out);
        assert!(
            cleared.removes() && cleared.value.is_empty(),
            "{what} {cleared:?}"
        );
        assert_eq!(attributes(&cleared), expected, "{what}");
        assert_eq!(cleared.attribute("max-age"), Some("0"), "{what}");
        assert!(cleared.has("expires"), "{what}");
    }
}

#[test]
fn a_cookie_that_is_not_persistent_ends_with_the_browser() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("session.cookie.persistent", false)
        .start();
    let cookie = only_cookie(&proxy.send(&login()));
    assert!(
        !cookie.has("expires") && !cookie.has("max-age"),
        "{cookie:?}"
    );
    // Clearing needs a date nevertheless.
    let cleared = only_cookie(&proxy.sign_out(&session::jar(&cookie.value)));
    assert!(cleared.removes(), "{cleared:?}");
}

#[test]
fn a_cookie_with_the_host_prefix_keeps_its_promises() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\"]\n[session.cookie]\nname = \"__Host-sid\"")
        .start();
    let response = proxy.send(&from_https(login()));
    let [cookie] = &response.set_cookies()[..] else {
        panic!("{response:?}")
    };
    assert_eq!(cookie.name, "__Host-sid");
    assert_eq!(attributes(cookie), "path=/; httponly; secure; samesite=Lax");
    let request = Request::get("/").header("cookie", format!("__Host-sid={}", cookie.value));
    assert_eq!(proxy.send(&from_https(request)).status, 200);
}

fn assert_names_the_mismatch(proxy: &Proxy, what: &str) {
    let json = proxy.send(&login());
    assert_eq!(json.status, 400, "{what} {}", json.text());
    assert_eq!(
        json.refusal().as_deref(),
        Some("insecure_connection"),
        "{what}"
    );
    assert_eq!(json.json()["reason"], "insecure_connection", "{what}");
    let form = Request::post("/auth/login")
        .header("accept", "text/html")
        .form(&[("username", ALICE.name), ("password", ALICE.password)]);
    let page = proxy.send(&form);
    assert_eq!(page.status, 400, "{what}");
    assert_eq!(
        page.refusal().as_deref(),
        Some("insecure_connection"),
        "{what}"
    );
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    for response in [&json, &page] {
        let said = response.text();
        for setting in ["trust.proxies", "server.public_url", "session.cookie"] {
            assert!(said.contains(setting), "{what}: {setting} in {said}");
        }
        assert!(!response.fields().has("set-cookie"), "{what} {response:?}");
        assert_eq!(
            response.header("cache-control").as_deref(),
            Some("no-store")
        );
    }
}

#[test]
fn a_login_whose_cookie_would_be_dropped_names_the_mismatch() {
    let backend = Backend::start();
    for settings in [
        "secure = true",
        "same_site = \"none\"",
        "partitioned = true",
        "name = \"__Host-sid\"",
        "name = \"__Secure-sid\"",
        // Browsers do not look at the case of a prefix.
        "name = \"__host-sid\"",
        "name = \"__SECURE-sid\"",
    ] {
        let proxy = Config::to(backend.addr())
            .with("[trust]\nproxies = [\"loopback\"]")
            .with(&format!("[session.cookie]\n{settings}"))
            .start();
        assert_names_the_mismatch(&proxy, settings);
        // Over https it is kept.
        let response = proxy.send(&from_https(login()));
        assert_eq!(response.status, 200, "{settings}");
        let [cookie] = &response.set_cookies()[..] else {
            panic!("{response:?}")
        };
        assert!(cookie.has("secure"), "{settings}");
    }
}

#[test]
fn of_several_sessions_of_one_user_the_newest_counts() {
    let backend = Backend::start();
    // A trusted peer names its requests, by which they are found in the log.
    let config = Config::to(backend.addr()).with("[trust]\nproxies = [\"loopback\"]");
    over_each_store(&config, |store, proxy, _| {
        let (older, newer) = (proxy.sign_in(&ALICE), proxy.sign_in(&ALICE));
        let (older, newer) = (older.get(COOKIE).unwrap(), newer.get(COOKIE).unwrap());
        let chosen = |values: &[&str]| {
            let id = new_token();
            let pairs: Vec<_> = values.iter().map(|v| format!("{COOKIE}={v}")).collect();
            let request = Request::get("/auth/session")
                .header("x-request-id", &id)
                .header("cookie", pairs.join("; "));
            assert_eq!(proxy.send(&request).status, 200, "{store}");
            let line = proxy
                .output()
                .wait_for_json(|line| line["request_id"] == *id);
            line["session"].as_str().unwrap().to_owned()
        };
        let of_newer = chosen(&[newer]);
        assert_ne!(chosen(&[older]), of_newer, "{store}");
        assert_eq!(chosen(&[older, newer]), of_newer, "{store}");
        assert_eq!(chosen(&[newer, older]), of_newer, "{store}");
        // The same one twice is one.
        assert_eq!(chosen(&[newer, newer]), of_newer, "{store}");
    });
}

#[test]
fn sessions_of_different_users_are_ambiguous() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let (alice, bob) = (alice.get(COOKIE).unwrap(), bob.get(COOKIE).unwrap());
        for values in [[alice, bob], [bob, alice]] {
            assert_eq!(state_of_all(&proxy, &values), "ambiguous_cookie", "{store}");
        }
        let both = format!("{COOKIE}={alice}; {COOKIE}={bob}");
        let refused = proxy.send(&Request::get("/").header("cookie", &both));
        assert_eq!(refused.status, 401, "{store}");
        assert_eq!(refused.json()["reason"], "ambiguous_cookie", "{store}");
        assert!(!refused.fields().has("set-cookie"), "{store}");
        // In two fields as well.
        let apart = Request::get("/")
            .header("cookie", format!("{COOKIE}={alice}"))
            .header("cookie", format!("{COOKIE}={bob}"));
        assert_eq!(
            proxy.send(&apart).json()["reason"],
            "ambiguous_cookie",
            "{store}"
        );
        // Where the route does not ask, nobody is anybody.
        let public = proxy.send(&Request::get("/public").header("cookie", &both));
        assert_eq!(public.status, 200, "{store}");
        // Signing out ends both.
        let out = proxy.send(&Request::post("/auth/logout").header("cookie", &both));
        assert_eq!(out.status, 204, "{store}");
        for value in [alice, bob] {
            let state = session::state(&proxy, &session::jar(value));
            assert_eq!(state, "unknown_session", "{store}");
        }
    });
    let anonymous = backend.requests();
    assert!(
        anonymous
            .iter()
            .all(|request| request.header("x-user-id").is_none())
    );
}

#[test]
fn cookies_that_mean_nothing_do_not_hide_the_one_that_does() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let ended = proxy.sign_in(&BOB);
        proxy.sign_out(&ended);
        let alice = proxy.sign_in(&ALICE);
        let alice = alice.get(COOKIE).unwrap();
        let forged = sign(&new_token(), "a secret that the proxy does not have");
        let unknown = sign(&new_token(), SECRET);
        let planted = ["", "x", &forged, &unknown, ended.get(COOKIE).unwrap()];
        for place in 0..=planted.len() {
            let mut values = planted.to_vec();
            values.insert(place, alice);
            assert_eq!(state_of_all(&proxy, &values), ALICE.id, "{store} {place}");
        }
        assert_eq!(state_of_all(&proxy, &planted), "unknown_session", "{store}");
    });
}

#[test]
fn at_most_four_cookies_are_looked_up() {
    let backend = Backend::start();
    let redis = crate::harness::redis::Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let alice = proxy.sign_in(&ALICE);
    let alice = alice.get(COOKIE).unwrap();
    let unknown: Vec<String> = (0..50).map(|_| sign(&new_token(), SECRET)).collect();
    let mut values: Vec<&str> = unknown.iter().map(String::as_str).collect();
    redis.run(&["CONFIG", "RESETSTAT"]);
    values.insert(3, alice);
    assert_eq!(state_of_all(&proxy, &values), ALICE.id);
    values.swap(3, 4);
    assert_eq!(state_of_all(&proxy, &values), "unknown_session");
    assert_eq!(calls(&redis, "hmget"), 8);
}
