//! Tests of the session cookie on the wire.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn spec() -> CookieSpec {
    CookieSpec {
        name: "sid".to_owned(),
        path: "/".to_owned(),
        domain: None,
        same_site: SameSite::Lax,
        secure: Secure::Auto,
        persistent: true,
        partitioned: false,
    }
}

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

fn stripped(lines: &[&str]) -> Option<String> {
    let mut headers = headers(lines);
    spec().strip(&mut headers);
    assert!(headers.get_all(COOKIE).iter().count() <= 1);
    headers
        .get(COOKIE)
        .map(|line| String::from_utf8(line.as_bytes().to_vec()).unwrap())
}

#[test]
fn every_occurrence_is_found_in_order() {
    let headers = headers(&[
        "sid=1; a=b;sid =\t2 ; Sid=3; xsid=4; sid",
        "sid=\"5\"; sid=6=7; sid=",
    ]);
    let values: Vec<_> = spec()
        .values(&headers)
        .map(|value| std::str::from_utf8(value).unwrap())
        .collect();
    assert_eq!(values, ["1", "2", "\"5\"", "6=7", ""]);
}

/// Cookie chaos (2025): names are compared byte by byte, quotes protect
/// nothing, `$Version` is a cookie like any other. S-47.
#[test]
fn s47_tricks_with_names_and_quotes() {
    let headers = headers(&["\u{2000}sid=1; $Version=1; x=\"; sid=2; \"; $sid=3"]);
    let values: Vec<_> = spec().values(&headers).collect();
    assert_eq!(values, [b"2"]);
}

#[test]
fn decoding_is_that_of_express() {
    for (raw, decoded) in [
        (&b"abc"[..], &b"abc"[..]),
        (b"s%3Aabc", b"s:abc"),
        (b"\"s%3aabc\"", b"s:abc"),
        (b"\"", b""),
        (b"\"\"", b""),
        (b"\"a", b"\"a"),
        (b"a+b", b"a+b"),
        (b"%253A", b"%3A"),
        (b"a%3Ab%", b"a%3Ab%"),
        (b"a%3Ab%2", b"a%3Ab%2"),
        (b"a%3Ab%ZZ", b"a%3Ab%ZZ"),
        (b"%FF%3A", b"%FF%3A"),
        (b"%C3", b"%C3"),
        (b"%C3%BC", "ü".as_bytes()),
        (b"%C0%AF", b"%C0%AF"),
        (b"%ED%A0%80", b"%ED%A0%80"),
        (b"%F0%9F%94%91", "🔑".as_bytes()),
        (b"\xfc", "ü".as_bytes()),
        (b"\xfc%3A", "ü:".as_bytes()),
        (b"\xfc%", "ü%".as_bytes()),
        (b"%C3\xbc", "%C3¼".as_bytes()),
    ] {
        assert_eq!(decode(raw).as_ref(), decoded, "{}", raw.escape_ascii());
    }
    assert!(matches!(decode(b"plain"), Cow::Borrowed(_)));
}

/// S-54: the token never travels on; all other bytes do.
#[test]
fn s54_our_cookie_is_taken_out_and_nothing_else() {
    for (lines, rest) in [
        (&["sid=1"][..], None),
        (&["sid=1;"], None),
        (&[" ; sid=1 ; "], None),
        (&["sid=1; sid=2"], None),
        (&["a=b; sid=1"], Some("a=b")),
        (&["sid=1; a=b"], Some("a=b")),
        (&["a=b;sid=1;c=d"], Some("a=b;c=d")),
        (&["a=b; sid=1; c=d"], Some("a=b; c=d")),
        (&["a=b;\t sid \t= \"x\" ;  c=d"], Some("a=b;  c=d")),
        (
            &["a=\"q\" ;; b ; sid=1;=z; a=2"],
            Some("a=\"q\" ;; b ;=z; a=2"),
        ),
        (&["Sid=1; xsid=2; sid"], Some("Sid=1; xsid=2; sid")),
        (&["x=\"a; sid=1; b\""], Some("x=\"a; b\"")),
        (&["ü=ä; sid=1"], Some("ü=ä")),
    ] {
        assert_eq!(stripped(lines).as_deref(), rest, "{lines:?}");
    }
}

/// S-33: HTTP/2 sends a line per cookie.
#[test]
fn s33_crumbs_are_joined() {
    assert_eq!(stripped(&["a=b", "c=d"]).as_deref(), Some("a=b; c=d"));
    assert_eq!(
        stripped(&["sid=1", "a=b", "sid=2", "c=d"]).as_deref(),
        Some("a=b; c=d")
    );
    assert_eq!(stripped(&["sid=1", "sid=2"]), None);
    assert_eq!(stripped(&["", "a=b"]).as_deref(), Some("a=b"));
}

#[test]
fn a_request_without_our_cookie_keeps_its_line() {
    let mut headers = headers(&["a=b ;; c"]);
    let before = headers.get(COOKIE).unwrap().as_bytes().as_ptr();
    spec().strip(&mut headers);
    assert_eq!(headers.get(COOKIE).unwrap().as_bytes().as_ptr(), before);
}

#[test]
fn s42_attributes_in_order() {
    let day = Timestamp(86_400_000);
    let now = Timestamp(784_111_777_000);
    let line = |spec: &CookieSpec, secure| {
        let end = now.after(Duration::from_millis(day.0));
        spec.set("v", now, end, secure)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        line(&spec(), false),
        "sid=v; Path=/; Expires=Mon, 07 Nov 1994 08:49:37 GMT; Max-Age=86400; HttpOnly; SameSite=Lax"
    );
    let full = CookieSpec {
        domain: Some("example.com".to_owned()),
        same_site: SameSite::None,
        partitioned: true,
        persistent: false,
        ..spec()
    };
    assert_eq!(
        line(&full, true),
        "sid=v; Domain=example.com; Path=/; HttpOnly; Secure; Partitioned; SameSite=None"
    );
}

#[test]
fn s44_no_cookie_outlives_400_days() {
    let line = spec()
        .set("v", Timestamp(0), Timestamp(u64::MAX), true)
        .unwrap();
    let line = line.to_str().unwrap();
    assert!(
        line.contains("Expires=Fri, 05 Feb 1971 00:00:00 GMT; Max-Age=34560000;"),
        "{line}"
    );
}

/// S-46, CVE-2024-21492: the same name, Path, Domain and Secure.
#[test]
fn s46_clearing_repeats_the_attributes() {
    let spec = CookieSpec {
        name: "__Secure-sid".to_owned(),
        domain: Some("example.com".to_owned()),
        secure: Secure::Always,
        persistent: false,
        ..spec()
    };
    assert_eq!(
        spec.clear(false).unwrap(),
        "__Secure-sid=; Domain=example.com; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; \
         Max-Age=0; HttpOnly; Secure; SameSite=Lax"
    );
}

#[test]
fn secure_follows_the_connection_unless_told() {
    for (secure, plain, tls) in [
        (Secure::Auto, false, true),
        (Secure::Always, true, true),
        (Secure::Never, false, false),
    ] {
        let spec = CookieSpec { secure, ..spec() };
        assert_eq!((spec.is_secure(false), spec.is_secure(true)), (plain, tls));
    }
}

#[test]
fn bytes_that_a_header_cannot_hold_are_no_cookie() {
    let result = spec().set("a\r\nX: y", Timestamp(0), Timestamp(1), true);
    assert_eq!(result, Err(Refusal::InternalError));
}

/// S-45: the application cannot set the session cookie's name, nor smuggle it
/// in as the value of a nameless cookie.
#[test]
fn s45_the_applications_cookie_of_our_name() {
    for ours in [
        "sid=1",
        " sid =1; Path=/",
        "sid=",
        "sid=a=b",
        "=sid=1",
        " =\tsid=1",
    ] {
        assert!(
            spec().is_ours_set_cookie(&HeaderValue::from_static(ours)),
            "{ours}"
        );
    }
    for other in [
        "",
        "Sid=1",
        "xsid=1",
        "sid2=1",
        "sid",
        "a=sid=1",
        "a=b; sid=1",
        "==sid=1",
    ] {
        assert!(
            !spec().is_ours_set_cookie(&HeaderValue::from_static(other)),
            "{other}"
        );
    }
}

/// Everything of express-session's attributes that our options can say: its
/// value, and each attribute that both know. Express sends no `Max-Age`.
#[test]
fn sets_what_express_sets() {
    let all: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/express-cookies.json")).unwrap();
    let mut compared = 0;
    for case in all["set_cookie"].as_array().unwrap() {
        let Some(theirs) = case["set_cookie"][0].as_str() else {
            continue;
        };
        let options = &case["options"]["cookie"];
        let has = |attribute: &str| theirs.contains(attribute);
        // We always send HttpOnly and SameSite, and never Priority.
        if !has("HttpOnly") || !has("SameSite") || has("Priority") {
            continue;
        }
        let (pair, _) = theirs.split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        let spec = CookieSpec {
            name: name.to_owned(),
            path: options["path"].as_str().unwrap_or("/").to_owned(),
            domain: options["domain"].as_str().map(str::to_owned),
            same_site: match theirs {
                line if line.contains("SameSite=Strict") => SameSite::Strict,
                line if line.contains("SameSite=None") => SameSite::None,
                _ => SameSite::Lax,
            },
            secure: Secure::Auto,
            persistent: has("Expires"),
            partitioned: has("Partitioned"),
        };
        let decoded = String::from_utf8(decode(value.as_bytes()).into_owned()).unwrap();
        let ours = spec
            .set(&encode(&decoded), Timestamp(0), Timestamp(1), has("Secure"))
            .unwrap();
        assert_eq!(ours.to_str().unwrap(), theirs, "{}", case["note"]);
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// The value encoding of every vector, whatever its attributes.
#[test]
fn encodes_every_value_as_express_does() {
    let all: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/express-cookies.json")).unwrap();
    let mut compared = 0;
    for case in all["set_cookie"].as_array().unwrap() {
        let Some(theirs) = case["set_cookie"][0].as_str() else {
            continue;
        };
        let (_, value) = theirs.split_once(';').unwrap().0.split_once('=').unwrap();
        let decoded = String::from_utf8(decode(value.as_bytes()).into_owned()).unwrap();
        assert_eq!(encode(&decoded), value);
        compared += 1;
    }
    assert!(compared >= 15, "{compared}");
}

proptest! {
    /// CVE-2023-28625: a crafted `Cookie` must not crash the stripping, and
    /// what is left holds nothing of ours.
    #[test]
    fn stripping_leaves_nothing_of_ours(lines in proptest::collection::vec("[ \t;=\"sida%]{0,24}", 0..4)) {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let mut map = headers(&lines);
        let all: usize = lines.iter().flat_map(|line| line.split(';')).filter(|part| !part.trim().is_empty()).count();
        let ours = spec().values(&map).count();
        spec().strip(&mut map);
        prop_assert_eq!(spec().values(&map).count(), 0);
        let left = map.get(COOKIE).map_or(0, |line| {
            line.to_str().unwrap().split(';').filter(|part| !part.trim().is_empty()).count()
        });
        prop_assert_eq!(left, all - ours);
    }

    #[test]
    fn decoding_undoes_encoding(text in "\\PC{0,40}") {
        let encoded = encode(&text);
        let decoded = decode(encoded.as_bytes());
        prop_assert_eq!(decoded.as_ref(), text.as_bytes());
    }

    #[test]
    fn decoding_never_panics(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
        let decoded = decode(&raw);
        prop_assert!(std::str::from_utf8(&decoded).is_ok());
    }
}

#[test]
fn the_prefix_of_a_name_needs_secure_in_any_case() {
    let named = |name: &str| CookieSpec {
        name: name.to_owned(),
        ..spec()
    };
    for name in ["__Host-sid", "__host-sid", "__Secure-sid", "__SECURE-sid"] {
        assert!(named(name).needs_secure(), "{name}");
    }
    for name in ["sid", "__Hostsid", "x__Host-sid"] {
        assert!(!named(name).needs_secure(), "{name}");
    }
    let other = |change: fn(&mut CookieSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.needs_secure()
    };
    assert!(other(|spec| spec.secure = Secure::Always));
    assert!(other(|spec| spec.same_site = SameSite::None));
    assert!(other(|spec| spec.partitioned = true));
    assert!(!other(|spec| spec.secure = Secure::Never));
}
