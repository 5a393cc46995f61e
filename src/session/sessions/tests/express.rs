//! Sessions that Express applications share.

use super::*;
use crate::session::layout::express::{Kept, Record};
use serde_json::Value;

const DAY: u64 = 86_400;

/// A bench whose records are those of Express.
fn bench(share_with_app: bool) -> Bench {
    let mut bench = Bench::new();
    bench.rules = shared(&["a"], "userId", share_with_app);
    bench
}

fn shared(secrets: &[&str], user: &str, share_with_app: bool) -> SessionRules {
    let SessionRules {
        mut settings,
        cookie,
        ..
    } = rules(secrets);
    settings.user = user.into();
    let identity = ["email".to_owned()];
    SessionRules::express(settings, "sess:".into(), cookie, identity, share_with_app)
}

impl Bench {
    /// An application stores a session; gives the request's headers.
    async fn app_stores(&self, token: &str, json: &str) -> HeaderMap {
        let kept = Kept {
            json: Bytes::copy_from_slice(json.as_bytes()),
            facts: None,
            endless: false,
        };
        // Whose it is, as the store of shared records finds out for itself.
        let record = Record::read(json.as_bytes()).ok().flatten();
        let user = record.and_then(|record| record.user("userId"));
        let record = NewRecord {
            key: format!("sess:{token}").into(),
            user: user.unwrap_or_default(),
            value: kept.pack(),
            seen: self.clock.now(),
            ttl: Duration::from_secs(DAY),
        };
        assert_eq!(self.store.inner.create(record).await, Ok(true));
        cookies(&[&self.rules.signer.sign(token)])
    }

    async fn record(&self, key: &str) -> Option<Kept> {
        let stored = self.store.inner.load(key).await.unwrap();
        stored.map(|stored| Kept::unpack(&stored.value).unwrap())
    }

    /// The application replaces what is stored under a key.
    async fn app_changes(&self, key: &str, json: &str) {
        let old = self.store.inner.load(key).await.unwrap().unwrap().value;
        let mut kept = Kept::unpack(&old).unwrap();
        kept.json = Bytes::copy_from_slice(json.as_bytes());
        assert_eq!(
            self.store.inner.update(key, old, kept.pack()).await,
            Ok(true)
        );
    }
}

#[tokio::test]
async fn a_login_writes_what_express_reads() {
    let bench = bench(false);
    let created = bench.login("u1", &HeaderMap::new()).await.unwrap();
    let session = bench.live(&cookies(&[&created.cookie])).await;
    assert_eq!(
        created.cookie_end,
        created.at.after(Duration::from_secs(100))
    );
    assert_eq!(session.user(), "u1");
    let key = format!("sess:{}", session.token.expose());
    assert_eq!(*session.key(), *key);
    let kept = bench.record(&key).await.unwrap();
    let json: Value = serde_json::from_slice(&kept.json).unwrap();
    assert_eq!(json["cookie"]["originalMaxAge"], 100_000);
    assert_eq!(json["userId"], "u1");
    assert!(kept.facts.is_some());
}

#[tokio::test]
async fn of_what_an_application_keeps_a_copy_has_the_identity_alone() {
    let bench = bench(true);
    let headers = bench
        .app_stores(
            "with-a-cart",
            r#"{"cookie":{"originalMaxAge":null},"cart":[1,{"userId":"u2"}],"userId":"u1","email":"a@b"}"#,
        )
        .await;
    let session = bench.live(&headers).await;
    assert_eq!(session.user(), "u1");
    assert_eq!(session.fields().text(), r#"{"userId":"u1","email":"a@b"}"#);
}

#[tokio::test]
async fn sessions_of_an_application_are_honoured() {
    let mut bench = bench(true);
    // A form that Cloakroom does not give its own tokens.
    let headers = bench
        .app_stores(
            "ä.1",
            r#"{"cookie":{"originalMaxAge":null},"userId":42,"roles":["x"]}"#,
        )
        .await;
    let session = bench.live(&headers).await;
    assert_eq!((session.user(), session.roles().len()), ("42", 1));
    assert_eq!(session.absolute_end(&bench.rules.settings), None);
    // A day without use is its own rule, and nothing else ends it.
    for _ in 0..30 {
        bench.wait(DAY - 1);
        bench.live(&headers).await;
        settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    }
    bench.wait(DAY);
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);

    bench.rules = shared(&["a"], "passport.user", true);
    let cookie = r#""cookie":{"originalMaxAge":60000}"#;
    for (n, (json, reason)) in [
        (format!(r#"{{{cookie},"passport":{{"user":"u1"}}}}"#), None),
        (
            format!(r#"{{{cookie},"passport":{{}}}}"#),
            Some(Refusal::NoUser),
        ),
        (
            format!(r#"{{{cookie},"userId":"u1"}}"#),
            Some(Refusal::NoUser),
        ),
        ("null".into(), Some(Refusal::UnknownSession)),
        ("{}".into(), Some(Refusal::SessionUnreadable)),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = bench.app_stores(&format!("t{n}"), &json).await;
        match reason {
            Some(reason) => assert_eq!(bench.reason(&headers).await, reason, "{json}"),
            None => assert_eq!(bench.live(&headers).await.user(), "u1"),
        }
    }
}

#[tokio::test]
async fn a_login_takes_over_an_anonymous_session_and_no_other() {
    let bench = bench(true);
    let data = |json: &str| Data::parse(json.to_owned()).unwrap();
    let cart = r#"{"cookie":{},"cart":["\ud83d", 1.0],"email":"evil@x","roles":["admin"]}"#;
    let anonymous = bench.app_stores("anonymous", cart).await;
    let created = bench.login("u1", &anonymous).await.unwrap();
    assert_eq!(created.data.raw("cart"), Some(r#"["\ud83d", 1.0]"#));
    assert_eq!(created.data.user("email").as_deref(), Some("u@example.com"));
    assert_eq!(bench.record("sess:anonymous").await, None);

    let signed_in = cookies(&[&created.cookie]);
    let again = bench.login("u1", &signed_in).await.unwrap();
    assert_eq!(again.data.raw("cart"), None, "it had an identity");

    // Whose user the application has signed out is not anonymous either.
    let session = bench.live(&cookies(&[&again.cookie])).await;
    bench.app_changes(session.key(), cart).await;
    let headers = cookies(&[&again.cookie]);
    assert_eq!(bench.reason(&headers).await, Refusal::NoUser);
    let next = bench.login("u2", &headers).await.unwrap();
    assert_eq!(next.data.raw("cart"), None);
    assert_eq!(next.data.text(), data(next.data.text()).text());

    // Nobody else shares: nothing is taken over.
    let mut alone = bench;
    alone.rules = shared(&["a"], "userId", false);
    let anonymous = alone.app_stores("other", cart).await;
    let created = alone.login("u1", &anonymous).await.unwrap();
    assert_eq!(created.data.raw("cart"), None);
    assert_eq!(alone.record("sess:other").await, None);
    // What cannot be read does not stand in the way.
    alone.rules = shared(&["a"], "userId", true);
    let damaged = alone.app_stores("damaged", "{}").await;
    alone.login("u1", &damaged).await.unwrap();
    assert_eq!(alone.record("sess:damaged").await, None);
}

#[tokio::test]
async fn the_absolute_timeout_binds_what_cloakroom_created() {
    let bench = bench(true);
    let created = bench.login("u1", &HeaderMap::new()).await.unwrap();
    let headers = cookies(&[&created.cookie]);
    let session = bench.live(&headers).await;
    // The application prolongs it all the time.
    for _ in 0..19 {
        bench.wait(50);
        let ttl = Duration::from_secs(DAY);
        let touched = bench
            .store
            .inner
            .touch(session.key(), bench.clock.now(), ttl);
        assert_eq!(touched.await, Ok(true));
        bench.live(&headers).await;
    }
    bench.wait(50);
    assert_eq!(bench.reason(&headers).await, Refusal::AbsoluteExpired);
    assert_eq!(bench.record(session.key()).await, None, "ended for all");
}

#[tokio::test]
async fn signing_out_everywhere_ends_sessions_of_applications_too() {
    let bench = bench(true);
    let json = |user: &str| format!(r#"{{"cookie":{{}},"userId":"{user}"}}"#);
    let theirs = bench.app_stores("theirs", &json("u1")).await;
    let other = bench.app_stores("other", &json("u2")).await;
    let ours = cookies(&[&bench.login("u1", &HeaderMap::new()).await.unwrap().cookie]);
    let session = bench.live(&ours).await;
    let ended = bench.sessions.end_all(&bench.rules, &session, &ours).await;
    ended.unwrap();
    for headers in [&theirs, &ours] {
        assert_eq!(bench.reason(headers).await, Refusal::UnknownSession);
    }
    bench.live(&other).await;

    // Somebody else's by now: that the first has signed out everywhere is no matter.
    let ours = cookies(&[&bench.login("u3", &HeaderMap::new()).await.unwrap().cookie]);
    let session = bench.live(&ours).await;
    bench.app_changes(session.key(), &json("u4")).await;
    for user in ["u3", "u4"] {
        bench
            .store
            .inner
            .raise_epoch(user, Duration::from_secs(DAY))
            .await
            .unwrap();
    }
    assert_eq!(bench.live(&ours).await.user(), "u4");
    // Back again, it is as old as it is, and ended for the application as well.
    bench.app_changes(session.key(), &json("u3")).await;
    assert_eq!(bench.reason(&ours).await, Refusal::SessionEnded);
    assert_eq!(bench.record(session.key()).await, None);
}

#[tokio::test]
async fn the_first_cookie_counts_where_the_application_has_it_too() {
    let mut bench = bench(true);
    let one = bench.login("u1", &HeaderMap::new()).await.unwrap().cookie;
    let two = bench.login("u2", &HeaderMap::new()).await.unwrap().cookie;
    assert_eq!(bench.live(&cookies(&[&one, &two])).await.user(), "u1");
    assert_eq!(bench.live(&cookies(&[&two, &one])).await.user(), "u2");
    let junk = cookies(&["junk", &one]);
    assert_eq!(bench.reason(&junk).await, Refusal::MalformedCookie);
    bench.rules = shared(&["a"], "userId", false);
    assert_eq!(bench.live(&junk).await.user(), "u1");
    let mixed = cookies(&[&one, &two]);
    assert_eq!(bench.reason(&mixed).await, Refusal::AmbiguousCookie);
    // Signing out leaves none behind, whichever counts.
    bench.rules = shared(&["a"], "userId", true);
    bench.sessions.end(&bench.rules, &mixed).await.unwrap();
    assert_eq!(
        bench.reason(&cookies(&[&two])).await,
        Refusal::UnknownSession
    );
}

/// What express-session reads of the same headers.
#[test]
fn cookies_are_read_as_express_reads_them() {
    let vectors: Value = serde_json::from_str(include_str!(
        "../../../../tests/vectors/express-cookies.json"
    ))
    .unwrap();
    let cases = vectors["unsign"].as_array().unwrap();
    assert_eq!(cases.len(), 62);
    for case in cases {
        let mut rules = shared(&["a"], "userId", true);
        let secrets = case["secrets"].as_array().unwrap().iter();
        let secrets: Vec<Secret> = secrets.map(|s| Secret::new(s.as_str().unwrap())).collect();
        rules.signer = crate::wire::signature::Signer::new(&secrets);
        rules.cookie.name = case["cookie_name"].as_str().unwrap().into();
        let mut headers = HeaderMap::new();
        let lines = match case.get("cookie_headers") {
            Some(lines) => lines.as_array().unwrap().iter().map(text_line).collect(),
            None => {
                let lines = case["cookie_headers_hex"].as_array().unwrap().iter();
                lines.map(hex_line).collect::<Vec<_>>()
            }
        };
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_bytes(&line).unwrap());
        }
        let note = &case["note"];
        match rules.presented(&headers) {
            Presented::Tokens(tokens) => {
                assert_eq!(case["accepted"], true, "{note}");
                assert_eq!(tokens.len(), 1, "{note}");
                assert_eq!(case["sid"], tokens[0].0.expose(), "{note}");
                assert_eq!(case["secret_index"], tokens[0].1, "{note}");
            }
            Presented::None(_) => assert_eq!(case["accepted"], false, "{note}"),
        }
    }
}

fn text_line(line: &Value) -> Vec<u8> {
    line.as_str().unwrap().as_bytes().to_vec()
}

fn hex_line(line: &Value) -> Vec<u8> {
    let line = line.as_str().unwrap();
    (0..line.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
        .collect()
}

#[tokio::test]
async fn the_browsers_cookie_lasts_as_long_as_the_session() {
    let mut bench = bench(true);
    let created = bench.login("u1", &HeaderMap::new()).await.unwrap();
    let headers = cookies(&[&created.cookie]);
    let session = bench.live(&headers).await;
    assert!(!bench.rules.prolongs_cookie(&session));
    bench.wait(20);
    let session = bench.live(&headers).await;
    assert!(bench.rules.prolongs_cookie(&session));
    let again = bench
        .rules
        .cookie_again(&session, bench.clock.now(), false)
        .unwrap();
    let end = bench.clock.now().after(Duration::from_secs(100));
    let end = httpdate::fmt_http_date(end.system());
    let value = cookie::encode(&created.cookie);
    assert_eq!(
        again,
        format!("sid={value}; Path=/; Expires={end}; HttpOnly; SameSite=Lax")
    );
    settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    assert!(
        !bench.rules.prolongs_cookie(&bench.live(&headers).await),
        "once"
    );

    // One that ends with the browser stays so.
    let theirs = bench
        .app_stores(
            "t",
            r#"{"cookie":{"originalMaxAge":null,"secure":true},"userId":"u1"}"#,
        )
        .await;
    bench.wait(DAY / 2);
    let session = bench.live(&theirs).await;
    assert!(session.touched && !bench.rules.prolongs_cookie(&session));
    let plain = bench.rules.cookie_again(&session, bench.clock.now(), false);
    assert_eq!(
        plain, None,
        "Express sends no secure cookie over a plain connection"
    );

    // A newer secret signs the cookie anew, and nothing is written.
    let theirs = bench
        .app_stores("r", r#"{"cookie":{},"userId":"u1"}"#)
        .await;
    bench.rules = shared(&["n", "a"], "userId", true);
    let session = bench.live(&theirs).await;
    assert_eq!(session.secret, 1);
    assert!(bench.sessions.renew(&bench.rules, &session).await);
    let again = bench
        .rules
        .cookie_again(&session, bench.clock.now(), false)
        .unwrap();
    let value = cookie::encode(&bench.rules.signer.sign("r"));
    assert_eq!(again, format!("sid={value}; Path=/; HttpOnly"));
    let kept = bench.record("sess:r").await.unwrap();
    assert_eq!(kept.json, r#"{"cookie":{},"userId":"u1"}"#);
    assert!(Record::read(&kept.json).unwrap().is_some());
}
