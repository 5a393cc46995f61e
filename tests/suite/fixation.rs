//! Signing in always gives a new token, and whatever was there before is over.

use crate::harness::backend::Backend;
use crate::harness::config::{Config, SECRET};
use crate::harness::cookies::CookieJar;
use crate::harness::http::{Request, Response};
use crate::harness::proxy::Proxy;
use crate::harness::session::{self, COOKIE, key, new_token, only_cookie, over_each_store, sign};
use crate::harness::users::{ALICE, BOB, Person};

fn sign_in_with(proxy: &Proxy, cookie: &str, person: &Person, form: bool) -> Response {
    let request = Request::post("/auth/login").header("cookie", cookie);
    let pairs = [("username", person.name), ("password", person.password)];
    proxy.send(&if form {
        request.form(&pairs)
    } else {
        request.json(&serde_json::json!({ "username": person.name, "password": person.password }))
    })
}

#[test]
fn no_cookie_that_was_there_before_survives_a_login() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, redis| {
        let live = |person| proxy.sign_in(person).get(COOKIE).unwrap().to_owned();
        let presets = [
            ("unsigned", new_token()),
            (
                "unsigned, with the mark of a signed one",
                format!("s%3A{}", new_token()),
            ),
            (
                "badly signed",
                sign(&new_token(), "a secret that the proxy does not have"),
            ),
            ("well signed, but unknown", sign(&new_token(), SECRET)),
            ("a live one of another user", live(&BOB)),
            ("a live one of the same user", live(&ALICE)),
        ];
        for (i, (what, preset)) in presets.iter().enumerate() {
            let what = format!("{store}: {what}");
            let response = sign_in_with(&proxy, &format!("{COOKIE}={preset}"), &ALICE, i % 2 == 0);
            assert_eq!(
                response.status,
                if i % 2 == 0 { 303 } else { 200 },
                "{what}"
            );
            let cookie = only_cookie(&response);
            let fresh = session::jar(&cookie.value);
            let token = session::token(&cookie.value);
            assert!(!preset.contains(&token), "{what}: the token was adopted");
            assert_eq!(token.len(), 32, "{what}");
            assert_eq!(session::state(&proxy, &fresh), ALICE.id, "{what}");
            let before = session::state(&proxy, &session::jar(preset));
            let dead = ["malformed_cookie", "bad_signature", "unknown_session"];
            assert!(dead.contains(&before.as_str()), "{what}: {before}");
            if let Some(redis) = redis {
                let keys = redis.keys("sess:*");
                assert!(keys.contains(&key(&token)), "{what}");
                let old = preset.strip_prefix("s%3A").unwrap_or(preset);
                let old = old.split('.').next().unwrap();
                assert!(!keys.contains(&key(old)), "{what}");
            }
        }
    });
}

#[test]
fn a_login_ends_every_session_that_the_request_names() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let old = [
            proxy.sign_in(&BOB),
            proxy.sign_in(&ALICE),
            proxy.sign_in(&BOB),
        ];
        let field: Vec<_> = old.iter().map(|jar| jar.header().unwrap()).collect();
        let response = sign_in_with(&proxy, &field.join("; "), &ALICE, false);
        assert_eq!(response.status, 200, "{store}");
        for jar in &old {
            assert_eq!(session::state(&proxy, jar), "unknown_session", "{store}");
        }
        let fresh = session::jar(&only_cookie(&response).value);
        assert_eq!(session::state(&proxy, &fresh), ALICE.id, "{store}");
    });
}

#[test]
fn a_failed_login_ends_nothing_and_sets_nothing() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let wrong = Person {
        password: "wrong",
        ..ALICE
    };
    for form in [true, false] {
        let response = sign_in_with(&proxy, &alice.header().unwrap(), &wrong, form);
        assert_eq!(response.status, 401);
        assert!(!response.fields().has("set-cookie"), "{response:?}");
    }
    assert_eq!(session::state(&proxy, &alice), ALICE.id);
}

#[test]
fn tokens_do_not_repeat() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut tokens: Vec<String> = (0..20)
        .map(|_| session::token_of(&proxy.sign_in(&ALICE)))
        .collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 20);
}

#[test]
fn the_sessions_of_one_user_live_side_by_side() {
    let backend = Backend::start();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let jars: Vec<CookieJar> = (0..3).map(|_| proxy.sign_in(&ALICE)).collect();
        assert_eq!(proxy.sign_out(&jars[1]).status, 204, "{store}");
        let states = jars.iter().map(|jar| session::state(&proxy, jar));
        let states: Vec<_> = states.collect();
        assert_eq!(states, [ALICE.id, "unknown_session", ALICE.id], "{store}");
    });
}
