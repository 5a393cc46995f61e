use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::session::data::Data;
use crate::session::record::Head;
use crate::session::rules::tests::sample;

fn rules(headers: &[(&'static str, &str)]) -> SessionRules {
    let entry = |(name, path): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), (*path).to_owned())
    };
    let entries = headers.iter().map(entry).collect();
    sample().with_identity(entries)
}

fn known(json: &str, rules: &SessionRules) -> Known {
    let opened = Opened {
        head: Head::new(
            "u1",
            Epoch(5),
            Timestamp(1_000),
            &rules.settings,
            "::1".into(),
            "curl",
        ),
        data: Data::parse(json.into()).unwrap(),
        sealed_with: 0,
        stored: Bytes::new(),
        terms: None,
    };
    let source = Source {
        seen: Timestamp(1_000),
        epoch: None,
        era: 0,
    };
    let token = Token::verified("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_").unwrap();
    Known::new("sess:k", &token, opened, source, rules, &Common::default())
}

/// With its short texts in it.
#[test]
fn it_stays_small() {
    // With the two counts of what shares it.
    let size = size_of::<Known>() + 2 * size_of::<usize>();
    assert!(size <= 320, "{size}");
}

#[test]
fn its_texts_are_found() {
    let json = r#"{"userId":"u2","roles":["a","b"]}"#;
    let rules = rules(&[]);
    let known = known(json, &rules);
    assert_eq!(known.key(), "sess:k");
    assert_eq!(known.handle().len(), 12);
    assert_eq!((known.user(), known.owner()), ("u2", "u1"));
    assert_eq!(known.fields().text(), json);
    assert_eq!(known.roles(), ["a", "b"]);
    assert!(known.has_any_role(&["c".into(), "b".into()]));
    assert!(!known.has_any_role(&["c".into()]) && !known.has_any_role(&[]));
}

#[test]
fn identity_headers_are_written_as_they_were_read() {
    let rules = rules(&[
        ("x-none", "gone"),
        ("x-user", "userId"),
        ("x-empty", "empty"),
        ("x-roles", "roles"),
        ("x-name", "name.full"),
        ("x-deep", "name"),
    ]);
    let json = r#"{"userId":7,"empty":"","roles":["a","ü"],"name":{"full":"Zo\u00eb \"Z\""}}"#;
    let known = known(json, &rules);
    for _ in 0..2 {
        let mut headers = HeaderMap::new();
        known.write_identity(&rules.identity, &mut headers).unwrap();
        let written: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), str::from_utf8(value.as_bytes()).unwrap()))
            .collect();
        assert_eq!(
            written,
            [
                ("x-user", "7"),
                ("x-empty", ""),
                ("x-roles", "a,ü"),
                ("x-name", "Zoë \"Z\""),
            ]
        );
    }
}

#[test]
fn without_identity_headers_none_is_written() {
    let rules = rules(&[]);
    let mut headers = HeaderMap::new();
    let known = known(r#"{"userId":"u1"}"#, &rules);
    known.write_identity(&rules.identity, &mut headers).unwrap();
    assert!(headers.is_empty());
}

#[test]
fn what_no_header_can_hold_is_refused() {
    let rules = rules(&[("x-user", "userId"), ("x-name", "name")]);
    for bad in [
        r#""a\nb""#,
        r#""\u0000""#,
        r#""\u0001""#,
        r#""\u0002""#,
        r#"["a,b"]"#,
        r#"" ""#,
    ] {
        let known = known(&format!(r#"{{"userId":"u1","name":{bad}}}"#), &rules);
        let refused = known.write_identity(&rules.identity, &mut HeaderMap::new());
        let failure = refused.unwrap_err();
        assert_eq!(failure.refusal, Refusal::IdentityUnrepresentable, "{bad}");
        assert!(failure.cause.unwrap().contains("x-name"));
    }
}

#[test]
fn it_counts_for_the_configuration_for_which_it_was_read() {
    let (one, other) = (
        rules(&[("x-user", "userId")]),
        rules(&[("x-user", "email")]),
    );
    let known = known(r#"{"userId":"u1","email":"e"}"#, &one);
    assert!(!known.is_read_for(&other.identity));
    let refused = known.write_identity(&other.identity, &mut HeaderMap::new());
    assert_eq!(refused.unwrap_err().refusal, Refusal::InternalError);
    // Of everything else a change does not matter.
    let mut later = rules(&[("x-user", "userId")]);
    later.settings.idle_timeout = Duration::from_secs(5);
    assert!(known.is_read_for(&later.identity));
}
