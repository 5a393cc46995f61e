//! A new secret comes, the old one goes, and nobody is signed out by it.

use toml::Value;

use crate::harness::backend::{Answer, Backend};
use crate::harness::config::Config;
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{self, COOKIE, key, only_cookie, sign, token_of};
use crate::harness::users::ALICE;

const OLD: &str = "the secret of last year, 0a1b2c3d4e5f";
const NEW: &str = "the secret of this year, f5e4d3c2b1a0";

fn secrets(config: Config, secrets: &[&str]) -> Config {
    let secrets = secrets.iter().map(|s| Value::from(*s)).collect::<Vec<_>>();
    config.set("session.secrets", secrets)
}

fn restart_with(proxy: &mut Proxy, list: &[&str]) {
    proxy.rewrite(|config| secrets(config, list));
    proxy.restart();
}

/// The record without what a touch changes.
fn record(redis: &Redis, name: &str) -> Vec<u8> {
    let fields = redis.hash(name);
    let value = fields.into_iter().find(|(field, _)| field == "v");
    value.expect("no record").1
}

#[test]
fn a_session_outlives_the_secret_that_it_began_with() {
    let backend = Backend::with(|_| Answer::new(200).header("set-cookie", "theirs=1").into());
    let redis = Redis::start();
    for store in [redis.url().as_str(), "file:./data"] {
        let config = Config::to(backend.addr()).store(store);
        let mut proxy = secrets(config, &[OLD]).start();
        let alice = proxy.sign_in(&ALICE);
        let token = token_of(&alice);
        assert_eq!(alice.get(COOKIE), Some(&*sign(&token, OLD)), "{store}");
        let forgotten = proxy.sign_in(&ALICE);
        let name = key(&token);
        let is_redis = store.starts_with("redis");
        let before = is_redis.then(|| record(&redis, &name));
        let ttl = is_redis.then(|| redis.ttl(&name));

        restart_with(&mut proxy, &[NEW, OLD]);
        // No cookie comes with a refusal, or where the session is not asked for.
        for (target, status) in [("/admin", 403), ("/denied", 403), ("/public", 200)] {
            let response = proxy.get_as(target, &alice);
            assert_eq!(response.status, status, "{store} {target}");
            let cookies = response.set_cookies();
            assert!(cookies.iter().all(|c| c.name != COOKIE), "{store} {target}");
        }
        let response = proxy.get_as("/", &alice);
        assert_eq!(response.status, 200, "{store}");
        let names: Vec<_> = response.set_cookies().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["theirs", COOKIE], "{store}");
        let renewed = response.set_cookies().remove(1);
        assert_eq!(renewed.value, sign(&token, NEW), "{store}");
        assert_eq!(renewed.attribute("path"), Some("/"), "{store}");
        assert!(renewed.has("httponly") && renewed.has("max-age"), "{store}");
        let renewed = session::jar(&renewed.value);
        if let (Some(before), Some(ttl)) = (before, ttl) {
            let after = record(&redis, &name);
            assert_ne!(after, before, "the record was not sealed anew");
            assert!((ttl - 60..=ttl).contains(&redis.ttl(&name)));
        }
        // Whoever has the new one gets no further one; the old one still works.
        assert!(
            !proxy
                .get_as("/auth/session", &renewed)
                .fields()
                .has("set-cookie")
        );
        let once_more = only_cookie(&proxy.get_as("/auth/session", &alice));
        assert_eq!(once_more.value, sign(&token, NEW), "{store}");
        assert_eq!(session::state(&proxy, &renewed), ALICE.id, "{store}");

        restart_with(&mut proxy, &[NEW]);
        assert_eq!(session::state(&proxy, &renewed), ALICE.id, "{store}");
        assert_eq!(session::state(&proxy, &alice), "bad_signature", "{store}");
        // Who did not come by meanwhile has to sign in again, even with a
        // cookie that the new secret has signed.
        assert_eq!(
            session::state(&proxy, &forgotten),
            "bad_signature",
            "{store}"
        );
        let forgotten = session::jar(&sign(&token_of(&forgotten), NEW));
        assert_eq!(
            session::state(&proxy, &forgotten),
            "bad_signature",
            "{store}"
        );
        assert_eq!(proxy.get_as("/", &forgotten).status, 401, "{store}");
    }
}

#[test]
fn many_requests_at_once_renew_a_session_without_harm() {
    let backend = Backend::start();
    let redis = Redis::start();
    let config = Config::to(backend.addr()).store(&redis.url());
    let mut proxy = secrets(config, &[OLD]).start();
    let jars: Vec<_> = (0..3).map(|_| proxy.sign_in(&ALICE)).collect();
    restart_with(&mut proxy, &[NEW, OLD]);
    for jar in &jars {
        let wanted = sign(&token_of(jar), NEW);
        let renewed = std::thread::scope(|scope| {
            let visits: Vec<_> = (0..12)
                .map(|_| scope.spawn(|| proxy.send(&Request::get("/").cookies(jar))))
                .collect();
            let mut renewed = 0;
            for visit in visits {
                let response = visit.join().unwrap();
                assert_eq!(response.status, 200, "{}", response.text());
                for cookie in response.set_cookies() {
                    assert_eq!((cookie.name.as_str(), &cookie.value), (COOKIE, &wanted));
                    renewed += 1;
                }
            }
            renewed
        });
        assert!(renewed > 0);
    }
    restart_with(&mut proxy, &[NEW]);
    for jar in &jars {
        let renewed = session::jar(&sign(&token_of(jar), NEW));
        assert_eq!(session::state(&proxy, &renewed), ALICE.id);
    }
}

#[test]
fn a_new_login_is_signed_with_the_first_secret() {
    let backend = Backend::start();
    let proxy = secrets(Config::to(backend.addr()), &[NEW, OLD]).start();
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(alice.get(COOKIE), Some(&*sign(&token_of(&alice), NEW)));
    assert!(!proxy.get_as("/", &alice).fields().has("set-cookie"));
}
