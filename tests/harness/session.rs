//! Session cookies and store keys, made and taken apart by the documented
//! rules and without the code under test.

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::config::{Config, SECRET};
use super::cookies::{CookieJar, SetCookie};
use super::http::{Request, Response};
use super::proxy::Proxy;
use super::redis::Redis;

/// The name of the session cookie, unless set otherwise.
pub const COOKIE: &str = "cloakroom.sid";

/// A token as good as any that the proxy makes.
pub fn new_token() -> String {
    let mut bytes = [0; 24];
    rand::fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The cookie value of a token, signed and percent-encoded.
pub fn sign(token: &str, secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = STANDARD_NO_PAD.encode(hmac::sign(&key, token.as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    format!("s%3A{token}.{signature}")
}

/// The token in a cookie value.
///
/// # Panics
/// If it has no signature.
pub fn token(value: &str) -> String {
    let signed = value
        .strip_prefix("s%3A")
        .unwrap_or_else(|| panic!("not signed: {value}"));
    signed.split_once('.').unwrap().0.to_owned()
}

/// The store's key of a token, with the default prefix.
pub fn key(token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    format!("sess:{}", URL_SAFE_NO_PAD.encode(hash))
}

/// The token that a jar holds.
pub fn token_of(jar: &CookieJar) -> String {
    token(jar.get(COOKIE).expect("no session cookie"))
}

/// A jar with this value of the session cookie.
pub fn jar(value: &str) -> CookieJar {
    let mut jar = CookieJar::new();
    jar.set(COOKIE, value);
    jar
}

/// A jar with a well-signed cookie of this token.
pub fn signed_jar(token: &str) -> CookieJar {
    jar(&sign(token, SECRET))
}

/// What the proxy says of the session in a jar: the id of the user, or the
/// reason why there is none. It does not slide the session.
pub fn state(proxy: &Proxy, jar: &CookieJar) -> String {
    verdict(&proxy.get_as("/auth/session", jar))
}

/// The same of several cookies of the name, in one field.
pub fn state_of_all(proxy: &Proxy, values: &[&str]) -> String {
    let pairs: Vec<_> = values.iter().map(|v| format!("{COOKIE}={v}")).collect();
    verdict(&proxy.send(&Request::get("/auth/session").header("cookie", pairs.join("; "))))
}

fn verdict(response: &Response) -> String {
    let body = response.json();
    let said = match response.status {
        200 => &body["user"]["id"],
        _ => &body["reason"],
    };
    said.as_str()
        .unwrap_or_else(|| panic!("{response:?}"))
        .to_owned()
}

/// The one cookie that a response sets.
///
/// # Panics
/// If it sets none, or several, or one of another name.
pub fn only_cookie(response: &Response) -> SetCookie {
    let mut cookies = response.set_cookies();
    assert_eq!(cookies.len(), 1, "{response:?}");
    let cookie = cookies.remove(0);
    assert_eq!(cookie.name, COOKIE);
    cookie
}

/// Does the same over each kind of store, at the same time: memory, file and
/// Redis.
pub fn over_each_store(config: &Config, test: impl Fn(&str, Proxy, Option<&Redis>) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        scope.spawn(move || test("memory", config.clone().store("memory:").start(), None));
        scope.spawn(move || test("file", config.clone().store("file:./data").start(), None));
        scope.spawn(move || {
            let redis = Redis::start();
            let proxy = config.clone().store(&redis.url()).start();
            test("redis", proxy, Some(&redis));
        });
    });
}

/// How often Redis has run a command.
pub fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.run(&["INFO", "commandstats"]).text();
    let line = format!("cmdstat_{command}:calls=");
    let found = stats.lines().find_map(|l| l.strip_prefix(&line));
    found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn cookies_are_signed_as_express_does_it() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../vectors/express-cookies.json")).unwrap();
    let text = |field: &serde_json::Value| field.as_str().unwrap().to_owned();
    let mut checked = 0;
    for case in vectors["sign"].as_array().unwrap() {
        // Values that need more escapes than a signature are no tokens.
        let (value, secret) = (text(&case["value"]), text(&case["secret"]));
        if value.len() == 32 {
            let signed = sign(&value, &secret);
            assert_eq!(signed, text(&case["cookie_value_encoded"]));
            assert_eq!(token(&signed), value);
            checked += 1;
        }
    }
    assert!(checked > 0);
}
