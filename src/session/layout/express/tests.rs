//! What real applications stored, and what they did with what others stored.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::session::members::{member, members};
use crate::session::store::Epoch;
use crate::wire::cookie::{SameSite, Secure};

const DAY: Duration = Duration::from_secs(86_400);
/// 2027-01-15T08:00:00.000Z
const NOW: u64 = 1_800_000_000_000;

fn vectors() -> Value {
    serde_json::from_str(include_str!(
        "../../../../tests/vectors/express-records.json"
    ))
    .unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn spec() -> CookieSpec {
    CookieSpec {
        name: "connect.sid".into(),
        path: "/".into(),
        domain: None,
        same_site: SameSite::Lax,
        secure: Secure::Auto,
        persistent: true,
        partitioned: false,
    }
}

fn layout() -> ExpressLayout {
    ExpressLayout {
        cookie: spec(),
        idle_timeout: Duration::from_secs(3600),
        user: "userId".into(),
        identity: vec!["userId".into(), "roles".into(), "email".into()],
    }
}

fn head() -> Head {
    Head {
        user: "u1".into(),
        epoch: Epoch(5).0,
        created: NOW,
        absolute_end: NOW + 7 * 86_400_000,
        address: "::1".into(),
        user_agent: "curl".into(),
    }
}

fn fields(value: Value) -> Data {
    Data::parse(value.to_string()).unwrap()
}

fn read(text: &str) -> Record {
    Record::read(text.as_bytes()).unwrap().unwrap()
}

#[test]
fn a_record_is_what_express_writes() {
    let data = fields(json!({"email": "a@b", "userId": "u1", "cookie": "mine"}));
    let value = layout().compose(&head(), &data, false).unwrap();
    let kept = Kept::unpack(&value).unwrap();
    assert_eq!(
        kept.json,
        r#"{"cookie":{"originalMaxAge":3600000,"expires":"2027-01-15T09:00:00.000Z","httpOnly":true,"path":"/","sameSite":"lax"},"email":"a@b","userId":"u1"}"#
    );
    let opened = layout().open(&value).unwrap().unwrap();
    assert_eq!(opened.head, Some(head()));
    assert_eq!(layout().user_of(&opened.record).as_deref(), Some("u1"));
    assert!(!opened.endless);

    let mut wide = layout();
    wide.cookie = CookieSpec {
        path: "/a\"b".into(),
        domain: Some("example.com".into()),
        same_site: SameSite::None,
        partitioned: true,
        ..spec()
    };
    let value = wide.compose(&head(), &fields(json!({})), true).unwrap();
    assert_eq!(
        Kept::unpack(&value).unwrap().json,
        r#"{"cookie":{"originalMaxAge":3600000,"partitioned":true,"expires":"2027-01-15T09:00:00.000Z","secure":true,"httpOnly":true,"domain":"example.com","path":"/a\"b","sameSite":"none"}}"#
    );
}

#[test]
fn what_applications_stored_is_read() {
    let all = vectors();
    let mut records = 0;
    for sample in list(&all["redis"]) {
        let note = text(&sample["note"]);
        let plain = sample["store_options"] == json!({});
        for snapshot in list(&sample["snapshots"]) {
            for stored in list(&snapshot["records"]) {
                records += 1;
                let value = text(&stored["value"]);
                if note.starts_with("custom serializer") {
                    assert!(Record::read(value.as_bytes()).is_err(), "{note}");
                    continue;
                }
                let record = read(value);
                assert_eq!(record.data().text(), value, "{note}");
                if plain && !note.starts_with("STALE") {
                    // Rounded up, and a moment may have passed.
                    let ttl = stored["ttl"].as_u64().unwrap();
                    let span = record.cookie().span().as_secs_f64().ceil() as u64;
                    assert!(span.abs_diff(ttl) <= 2, "{note}: {span} and {ttl}");
                }
                written_as_read(value, note);
                for path in ["userId", "passport.user", "passport.user.id"] {
                    assert_eq!(record.user(path), expected_user(value, path), "{note}");
                }
            }
        }
    }
    assert_eq!(records, 77);
}

/// What a user id is, by a tree of the value.
fn expected_user(text: &str, path: &str) -> Option<String> {
    let Ok(tree) = serde_json::from_str::<Value>(text) else {
        return member(text, path).map(|user| user.trim_matches('"').to_owned());
    };
    let found = path
        .split('.')
        .try_fold(&tree, |value, step| value.get(step));
    match found? {
        Value::String(user) if !user.is_empty() => Some(user.clone()),
        Value::Number(user) => Some(user.to_string()),
        _ => None,
    }
}

/// A cookie that was read is written in the same bytes, as of the same moment.
fn written_as_read(record: &str, note: &str) {
    let written = member(record, "cookie").unwrap();
    let cookie = StoredCookie::read(written).unwrap();
    if ["secure auto over http", "sameSite true"]
        .iter()
        .any(|odd| note.contains(odd))
    {
        // What we never write: `false` for what is not set, `true` for a word.
        return;
    }
    let expires = member(written, "expires").unwrap().trim_matches('"');
    let at = match (cookie.max_age(), expires.parse::<jiff::Timestamp>()) {
        (Some(age), Ok(expires)) => {
            let expires = u64::try_from(expires.as_millisecond()).unwrap();
            Timestamp(expires - u64::try_from(age.as_millis()).unwrap())
        }
        _ => Timestamp(NOW),
    };
    assert_eq!(cookie.to_json(at), written, "{note}");
}

#[test]
fn what_others_stored_counts_as_it_does_for_express() {
    let all = vectors();
    let samples = list(&all["by_others"]["samples"]);
    assert_eq!(samples.len(), 38);
    for sample in samples {
        let note = text(&sample["note"]);
        let Some(stored) = sample["stored_by_other"].as_str() else {
            assert!(note.contains("WRONGTYPE"), "{note}");
            continue;
        };
        let seen = &sample["read"];
        let found = Record::read(stored.as_bytes());
        if seen["status"] != 200 {
            assert!(found.is_err(), "{note}");
            continue;
        }
        let Some(record) = found.unwrap() else {
            assert_eq!(seen["body"]["same_sid"], false, "{note}");
            continue;
        };
        assert_eq!(seen["body"]["same_sid"], true, "{note}");
        assert_eq!(record.data().text(), stored.trim(), "{note}");
        let user = seen["body"]["session"]["userId"].as_str();
        assert_eq!(record.user("userId").as_deref(), user, "{note}");
        let span = record.cookie().span().as_secs();
        assert_eq!(Some(span), sample["ttl_after_read"].as_u64(), "{note}");

        let set = record
            .cookie()
            .set("connect.sid", "…", Timestamp(NOW), false, true)
            .filter(|_| record.cookie().max_age().is_some());
        let expected = list(&sample["modify"]["set_cookie"]).first().map(|line| {
            let (head, rest) = text(line).split_once("Expires=").unwrap();
            let (_, tail) = rest.split_once(" GMT").unwrap();
            let end = Timestamp(NOW).after(record.cookie().span());
            let end = httpdate::fmt_http_date(end.system());
            format!("{head}Expires={end}{tail}")
        });
        let set = set.map(|line| String::from_utf8(line.as_bytes().to_vec()).unwrap());
        assert_eq!(set, expected, "{note}");
    }
}

#[test]
fn values_that_are_false_are_no_session() {
    for nothing in ["", "null", " null ", "false", "0", "-0.0e9", "\"\""] {
        assert!(
            Record::read(nothing.as_bytes()).unwrap().is_none(),
            "{nothing}"
        );
    }
    for damaged in [
        "true",
        "1",
        "\" \"",
        "[]",
        "{}",
        "{\"cookie\":true}",
        "{\"cookie\":\"x\"}",
        "{\"cookie\":{\"originalMaxAge\":true}}",
        "{\"cookie\":{\"originalMaxAge\":{}}}",
        "{\"cookie\":{\"maxAge\":\"1\"}}",
        "{\"cookie\":{}}x",
        "\u{feff}{\"cookie\":{}}",
    ] {
        assert!(Record::read(damaged.as_bytes()).is_err(), "{damaged}");
    }
    for (odd, span) in [
        ("0", DAY),
        ("\"\"", DAY),
        ("[]", DAY),
        ("{\"originalMaxAge\":\"\"}", DAY),
        ("{\"originalMaxAge\":false}", DAY),
        ("{\"originalMaxAge\":0}", Duration::ZERO),
        ("{\"originalMaxAge\":-5}", Duration::ZERO),
        ("{\"originalMaxAge\":1.5e3}", Duration::from_millis(1500)),
        ("{\"originalMaxAge\":1e999}", Duration::MAX),
        ("{\"original\\u004daxAge\":1}", Duration::from_millis(1)),
    ] {
        let record = read(&format!("{{\"cookie\":{odd}}}"));
        assert_eq!(record.cookie().span(), span, "{odd}");
    }
    // No UTF-8: Node.js reads it with replacement characters.
    let bytes = Record::read(b"{\"cookie\":{},\"userId\":\"a\xff\"}")
        .unwrap()
        .unwrap();
    assert_eq!(bytes.user("userId").as_deref(), Some("a\u{fffd}"));
}

#[test]
fn a_user_is_a_string_or_a_number() {
    let record = read(
        r#"{"cookie":{},"s":"u1","n":42,"z":0,"e":"","t":true,"x":null,"l":["u1"],
            "o":{"id":7},"cut":"\ud83d","passport":{"user":{"id":"u2"}}}"#,
    );
    for (path, user) in [
        ("s", Some("u1")),
        ("n", Some("42")),
        ("z", Some("0")),
        ("o.id", Some("7")),
        ("passport.user.id", Some("u2")),
        ("e", None),
        ("t", None),
        ("x", None),
        ("l", None),
        ("o", None),
        ("cut", None),
        ("passport.user", None),
        ("missing", None),
    ] {
        assert_eq!(record.user(path).as_deref(), user, "{path}");
    }
}

#[test]
fn a_cookie_is_sent_with_the_attributes_that_are_stored() {
    let line = |json: &str, secure| {
        let cookie = StoredCookie::read(json).unwrap();
        let set = cookie.set("n", "v", Timestamp(NOW), secure, true)?;
        Some(set.to_str().unwrap().to_owned())
    };
    assert_eq!(
        line(r#"{"originalMaxAge":60000,"partitioned":true,"priority":"HIGH","secure":1,"httpOnly":true,"domain":"example.com","path":"/x","sameSite":"None"}"#, true).unwrap(),
        "n=v; Domain=example.com; Path=/x; Expires=Fri, 15 Jan 2027 08:01:00 GMT; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None"
    );
    assert_eq!(line("{}", false).unwrap(), "n=v; Path=/; HttpOnly");
    assert_eq!(
        line(r#"{"path":null,"httpOnly":false,"sameSite":true}"#, false).unwrap(),
        "n=v; SameSite=Strict"
    );
    for unsendable in [
        r#"{"secure":true}"#,
        r#"{"path":"/;Secure"}"#,
        r#"{"path":5}"#,
        r#"{"domain":"a\r\nb"}"#,
        r#"{"domain":"\ud83d"}"#,
        r#"{"priority":"soon"}"#,
        r#"{"sameSite":{}}"#,
    ] {
        assert_eq!(line(unsendable, false), None, "{unsendable}");
    }
    // No date has five digits for its year.
    assert!(line(r#"{"originalMaxAge":1e300}"#, false).is_some());
}

#[test]
fn postgres_rounds_up_to_whole_seconds() {
    let all = vectors();
    let mut rows = 0;
    for case in list(&all["postgres"]) {
        let note = text(&case["note"]);
        for snapshot in list(case.get("snapshots").unwrap_or(&json!([]))) {
            for row in list(&snapshot["rows"]) {
                rows += 1;
                let record = read(text(&row["sess_text"]));
                assert_eq!(record.data().text(), text(&row["sess_text"]), "{note}");
                let expire: f64 = text(&row["expire_epoch_in_session_tz"]).parse().unwrap();
                let seen = snapshot["at_epoch"].as_f64().unwrap();
                let whole = expire.fract() == 0.0;
                assert!(whole || note.contains("expired row"), "{note}");
                let with_ttl = case["store_options"].get("ttl").is_some();
                if whole && !(with_ttl && record.cookie().max_age().is_none()) {
                    let left = expire - seen;
                    let span = record.cookie().span().as_secs_f64();
                    assert!((left - span).abs() < 2.0, "{note}: {left} and {span}");
                }
            }
        }
    }
    assert_eq!(rows, 18);
}

#[test]
fn a_login_takes_over_a_cart_and_no_identity() {
    let anonymous = read(r#"{"cookie":{},"cart":["x"],"email":"evil@x","roles":["admin"]}"#);
    let login = fields(json!({"userId": "u1"}));
    let data = layout().take_over(&anonymous, &login).unwrap();
    assert_eq!(data.text(), r#"{"cart":["x"],"userId":"u1"}"#);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            any_object(inner).prop_map(Value::Object),
        ]
    })
}

fn any_object(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let names = prop_oneof!["[a-c]{1,2}", Just("cookie".to_owned()), ".{0,4}"];
    prop::collection::vec((names, values), 0..6).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn what_is_composed_opens(object in any_object(any_json())) {
        let data = fields(Value::Object(object.clone()));
        let value = layout().compose(&head(), &data, true).unwrap();
        let opened = layout().open(&value).unwrap().unwrap();
        let mut tree: Map<String, Value> =
            serde_json::from_str(opened.record.data().text()).unwrap();
        let cookie = tree.shift_remove("cookie").unwrap();
        prop_assert_eq!(&cookie["originalMaxAge"], 3_600_000);
        let mut expected = object;
        expected.shift_remove("cookie");
        prop_assert_eq!(tree, expected);
    }

    #[test]
    fn any_json_is_judged_as_javascript_does(value in any_json()) {
        let text = value.to_string();
        let found = Record::read(text.as_bytes());
        let falsy = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        prop_assert_eq!(matches!(found, Ok(None)), falsy);
        if let Ok(Some(record)) = found {
            prop_assert_eq!(record.data().text(), text);
            prop_assert!(value.get("cookie").is_some_and(|cookie| !cookie.is_null()));
        }
    }

    #[test]
    fn every_value_moves_as_it_is_written(
        old in any_object(any_json()), new in any_object(any_json()), path in "[a-c]{1,2}(\\.[a-c])?",
    ) {
        let (old_text, new_text) = (Value::Object(old.clone()).to_string(), Value::Object(new.clone()).to_string());
        let text = moved(&old_text, &new_text, std::slice::from_ref(&path)).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        for (name, value) in &new {
            if !value.is_object() {
                prop_assert_eq!(&tree[name], value, "{}", name);
            }
        }
        let first = path.split('.').next().unwrap_or_default();
        for found in members(&text).unwrap() {
            let name: String = serde_json::from_str(found.written).unwrap();
            let in_new = new.contains_key(&name);
            prop_assert!(in_new || old.contains_key(&name));
            if !in_new {
                prop_assert!(name != "cookie" && name != path);
                if name != first {
                    prop_assert_eq!(Some(found.value), member(&old_text, &name));
                }
            }
        }
    }
}
