//! Neither the store nor the log learns what would let somebody in.

use crate::harness::backend::Backend;
use crate::harness::config::{Config, SECRET};
use crate::harness::http::Request;
use crate::harness::redis::{Redis, Value};
use crate::harness::session::{self, COOKIE, key, token_of};
use crate::harness::users::{self, ALICE, BOB};

/// All bytes of an answer.
fn flatten(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        Value::Bulk(bytes) => into.extend(bytes),
        Value::Simple(text) | Value::Error(text) => into.extend(text.bytes()),
        Value::Nil | Value::Int(_) => {}
    }
    into.push(b'\n');
}

#[test]
fn redis_is_never_told_a_token_or_what_a_session_holds() {
    // Redis notes every command that it was ever sent.
    let redis = Redis::with(&[
        "--slowlog-log-slower-than",
        "0",
        "--slowlog-max-len",
        "9999",
    ]);
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    let name = key(&token_of(&alice));
    assert_eq!(redis.keys("sess:*"), [name.as_str()]);

    // The names of the keys are what everybody sees who may list them.
    let mut known = redis.keys("*").join("\n").into_bytes();
    let listed = String::from_utf8_lossy(&known).into_owned();
    assert!(!listed.contains(ALICE.id), "{listed}");
    for (field, value) in redis.hash(&name) {
        known.extend(field.into_bytes());
        known.extend(value);
    }
    // What it is told in clear is there, so what is looked for would be found.
    let has = |text: &str, known: &[u8]| known.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has(ALICE.id, &known));
    assert!(has("127.0.0.1", &known));

    assert_eq!(proxy.sign_out(&alice).status, 204);
    flatten(&redis.run(&["SLOWLOG", "GET", "-1"]), &mut known);
    assert!(has("HMGET", &known));
    assert!(has(&name, &known));
    let cookie = alice.get(COOKIE).unwrap();
    let signature = cookie.split_once('.').unwrap().1;
    for (what, text) in [
        ("the token", token_of(&alice).as_str()),
        ("the signature", signature),
        ("the secret", SECRET),
        ("the password", ALICE.password),
        ("the e-mail address", ALICE.email),
        ("the field's name", "email"),
        ("the roles", "roles"),
    ] {
        assert!(!has(text, &known), "Redis knows {what}");
    }
}

#[test]
fn the_log_tells_no_secret_at_any_level() {
    let backend = Backend::start();
    let redis = Redis::with(&["--requirepass", "the password of Redis"]);
    let url = format!("redis://:the%20password%20of%20Redis@{}", redis.addr());
    let mut proxy = Config::to(backend.addr())
        .store(&url)
        .set("log.level", "trace")
        .set("session.touch_interval", "0s")
        .start();
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    // Everything that may be worth a line: use, errors, refusals.
    for target in [
        "/",
        "/admin",
        "/auth/session",
        "/auth/login?rd=%2Fx",
        "/nowhere",
    ] {
        proxy.get_as(target, &alice);
    }
    assert_eq!(
        proxy.try_sign_in(ALICE.name, "a wrong password").status,
        401
    );
    let broken = format!(
        "{{\"username\":\"alice\",\"password\":\"{}\"",
        ALICE.password
    );
    let broken = Request::post("/auth/login")
        .header("content-type", "application/json")
        .body(broken);
    assert_eq!(proxy.send(&broken).status, 400);
    let both = format!("{}; {}", alice.header().unwrap(), bob.header().unwrap());
    assert_eq!(
        proxy
            .send(&Request::get("/").header("cookie", &both))
            .status,
        401
    );
    let forged = alice.get(COOKIE).unwrap().replace(".", ".x");
    assert_eq!(
        session::state(&proxy, &session::jar(&forged)),
        "bad_signature"
    );
    proxy.sign_out(&alice);
    assert_eq!(session::state(&proxy, &alice), "unknown_session");
    // A word that the log must have shows that it was looked at.
    assert_eq!(proxy.terminate().code(), Some(0));
    let log = proxy.output().text();
    assert!(
        log.contains("ambiguous_cookie") && log.contains("u-alice"),
        "{log}"
    );

    let hashes = users::file()
        .lines()
        .filter_map(|line| line.split_once("$argon2id$"));
    let hashes: Vec<_> = hashes
        .map(|(_, hash)| hash.trim_matches('"').to_owned())
        .collect();
    assert_eq!(hashes.len(), 3);
    let mut secrets = vec![
        SECRET.to_owned(),
        "the password of Redis".to_owned(),
        "the%20password".to_owned(),
        "a wrong password".to_owned(),
        ALICE.password.to_owned(),
        BOB.password.to_owned(),
    ];
    secrets.extend(hashes);
    for jar in [&alice, &bob] {
        let token = token_of(jar);
        secrets.push(key(&token));
        secrets.push(
            jar.get(COOKIE)
                .unwrap()
                .split_once('.')
                .unwrap()
                .1
                .to_owned(),
        );
        secrets.push(token);
    }
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "the log tells {secret}");
    }
}
