//! Many at once: a flood of logins, and users side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::redis::{Connection, Redis};
use crate::harness::session::{self, only_cookie, over_each_store};
use crate::harness::users::{ALICE, BOB, CAROL};

#[test]
fn a_flood_of_logins_does_not_slow_those_who_are_signed_in() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.throttle.hash_concurrency", 1)
        .set("log.access", false)
        .start();
    let carol = proxy.sign_in(&CAROL);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let slowest = std::sync::Mutex::new(Duration::ZERO);
    let answers: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(proxy.addr());
            while !done.load(Ordering::SeqCst) {
                let sent = Instant::now();
                let response = client.request(&Request::get("/").cookies(&carol));
                assert_eq!(response.status, 200);
                let mut slowest = slowest.lock().unwrap();
                *slowest = sent.elapsed().max(*slowest);
                served.fetch_add(1, Ordering::SeqCst);
            }
        });
        let flood: Vec<_> = (0..48)
            .map(|i| {
                let person = [ALICE, BOB][i % 2];
                let proxy = &proxy;
                scope.spawn(move || (person, proxy.try_sign_in(person.name, person.password)))
            })
            .collect();
        let answers = flood
            .into_iter()
            .map(|login| login.join().unwrap())
            .collect();
        done.store(true, Ordering::SeqCst);
        answers
    });
    let mut tokens = Vec::new();
    for (person, response) in answers {
        match response.status {
            200 => {
                let jar = session::jar(&only_cookie(&response).value);
                assert_eq!(session::state(&proxy, &jar), person.id);
                tokens.push(session::token_of(&jar));
            }
            503 => {
                assert_eq!(response.refusal().as_deref(), Some("login_busy"));
                assert!(response.fields().has("retry-after"));
                assert!(!response.fields().has("set-cookie"));
            }
            other => panic!("{other} {}", response.text()),
        }
    }
    let succeeded = tokens.len();
    assert!(succeeded > 0);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), succeeded);
    let (served, slowest) = (served.into_inner(), slowest.into_inner().unwrap());
    assert!(served > 20, "only {served} requests were served");
    assert!(slowest < Duration::from_secs(5), "one took {slowest:?}");
}

#[test]
fn logins_whose_clients_have_left_cost_nothing() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.throttle.hash_concurrency", 1)
        .start();
    let time = || {
        let sent = Instant::now();
        assert_eq!(proxy.try_sign_in(ALICE.name, ALICE.password).status, 200);
        sent.elapsed()
    };
    let alone = (0..3).map(|_| time()).max().unwrap();
    let body = serde_json::json!({ "username": BOB.name, "password": BOB.password });
    let request = Request::post("/auth/login")
        .json(&body)
        .bytes("app.example.test");
    let mut gone: Vec<_> = (0..100).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut gone {
        client.send(&request);
    }
    for client in gone {
        // A client that only ends its side may wait for its answer.
        client.reset();
    }
    let after = time();
    assert!(
        after < alone * 50,
        "{after:?} behind those who left, {alone:?} alone"
    );
}

#[test]
fn nobody_is_ever_taken_for_somebody_else() {
    let backend = Backend::start();
    let config = Config::to(backend.addr()).set("session.touch_interval", "0s");
    over_each_store(&config, |store, proxy, _| {
        std::thread::scope(|scope| {
            for person in [ALICE, BOB, ALICE, BOB] {
                let proxy = &proxy;
                scope.spawn(move || {
                    let mut client = Client::connect(proxy.addr());
                    let mut jar = proxy.sign_in(&person);
                    for i in 0..120 {
                        // A new session now and then, as the other one leaves.
                        if i % 40 == 39 {
                            assert_eq!(proxy.sign_out(&jar).status, 204);
                            jar = proxy.sign_in(&person);
                        }
                        let mark = format!("{}-{i}", person.id);
                        let request = Request::get("/who").header("x-mark", &mark).cookies(&jar);
                        let response = client.request(&request);
                        assert_eq!(response.status, 200, "{store}");
                        let seen = response.json();
                        let field = |name: &str| {
                            let fields = seen["headers"].as_array().unwrap().iter();
                            let found = fields
                                .filter(|f| f[0].as_str().unwrap().eq_ignore_ascii_case(name));
                            let values: Vec<_> = found.map(|f| f[1].as_str().unwrap()).collect();
                            assert_eq!(values.len(), 1, "{store} {name}");
                            values[0].to_owned()
                        };
                        assert_eq!(field("x-mark"), mark, "{store}");
                        assert_eq!(field("x-user-id"), person.id, "{store}");
                        assert_eq!(field("x-user-email"), person.email, "{store}");
                        let told = client.request(&Request::get("/auth/session").cookies(&jar));
                        assert_eq!(told.json()["user"]["id"], person.id, "{store}");
                        // Between them, nobody in particular asks on the same connection.
                        assert_eq!(client.request(&Request::get("/who")).status, 401, "{store}");
                    }
                });
            }
        });
    });
}

/// A users file of so many, whose hashes cost next to nothing.
fn users(count: usize) -> String {
    let params = Params::new(256, 1, 1, None).unwrap();
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let one = |n: usize| {
        let hash = hasher
            .hash_password_with_salt(format!("password {n}").as_bytes(), &[n as u8; 16])
            .unwrap();
        format!("[[user]]\nname = \"user{n}\"\nid = \"u-{n}\"\npassword = \"{hash}\"\n")
    };
    (0..count).map(one).collect()
}

#[test]
fn a_thousand_users_get_a_thousand_sessions() {
    const USERS: usize = 1_000;
    let redis = Redis::start();
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .file("users.toml", users(USERS))
        .set("session.idle_timeout", "1h")
        .set("log.access", false)
        .start();
    let next = AtomicUsize::new(0);
    let jars = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        // Twice as many at once as may stand in line for their hash.
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= USERS {
                        return;
                    }
                    let jar = loop {
                        let response =
                            proxy.try_sign_in(&format!("user{n}"), &format!("password {n}"));
                        if response.status == 200 {
                            break session::jar(&only_cookie(&response).value);
                        }
                        assert_eq!(response.refusal().as_deref(), Some("login_busy"));
                        std::thread::sleep(Duration::from_millis(5));
                    };
                    jars.lock().unwrap().push((n, jar));
                }
            });
        }
    });
    let jars = jars.into_inner().unwrap();
    let mut keys: Vec<_> = jars
        .iter()
        .map(|(_, jar)| session::key(&session::token_of(jar)))
        .collect();
    keys.sort();
    keys.dedup();
    // As many as users, and exactly those that were told to them.
    assert_eq!(keys.len(), USERS);
    assert!(redis.keys("sess:*") == keys);
    let mut connection = Connection::open(redis.addr()).unwrap();
    for key in &keys {
        let left = connection.run(&["TTL", key]).unwrap().int();
        assert!((3_400..=3_600).contains(&left), "{key}: {left}");
    }
    for key in redis.keys("*") {
        assert!(connection.run(&["TTL", &key]).unwrap().int() > 0, "{key}");
    }
    let mut client = Client::connect(proxy.addr());
    for (n, jar) in &jars {
        let told = client.request(&Request::get("/auth/session").cookies(jar));
        assert_eq!(told.json()["user"]["id"], format!("u-{n}"));
    }
}
