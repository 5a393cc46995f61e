use proptest::prelude::*;

use super::*;

const OWN: &str = "app.example.com";

fn hosts() -> Vec<String> {
    vec![
        "other.example.com".to_owned(),
        "dev.example.com:8443".to_owned(),
    ]
}

fn go(rd: &str) -> Option<String> {
    return_to(rd, Some(OWN), "https", &hosts())
}

#[test]
fn good_targets_pass() {
    for (rd, expected) in [
        ("/", "/"),
        ("/a/b?c=d&e=%2F#f", "/a/b?c=d&e=%2F#f"),
        ("/a//b", "/a//b"),
        ("/search?next=//evil.example", "/search?next=//evil.example"),
        (
            "/search?q=https://evil.example/",
            "/search?q=https://evil.example/",
        ),
        ("/@me", "/@me"),
        ("/a:b", "/a:b"),
        ("/?", "/?"),
        ("/#//evil.example", "/#//evil.example"),
        ("/project/a%2Fb", "/project/a%2Fb"),
        ("/a b\"<x>", "/a%20b%22%3Cx%3E"),
        ("/käse?ü=✓", "/k%C3%A4se?%C3%BC=%E2%9C%93"),
        ("/[id]/{x}", "/[id]/%7Bx%7D"),
        ("https://app.example.com", "https://app.example.com/"),
        ("https://app.example.com/x?y", "https://app.example.com/x?y"),
        ("https://app.example.com?y", "https://app.example.com/?y"),
        ("https://APP.example.com:443/x", "https://app.example.com/x"),
        ("https://other.example.com/x", "https://other.example.com/x"),
        ("http://other.example.com/x", "http://other.example.com/x"),
        (
            "http://other.example.com:80/x",
            "http://other.example.com/x",
        ),
        (
            "https://dev.example.com:8443/",
            "https://dev.example.com:8443/",
        ),
    ] {
        assert_eq!(go(rd).as_deref(), Some(expected), "{rd}");
    }
}

#[test]
fn our_own_origin_is_scheme_host_and_port() {
    let at = |rd: &str, own, scheme| return_to(rd, own, scheme, &[]);
    assert!(at("http://app.example.com/", Some(OWN), "https").is_none());
    assert!(at("http://app.example.com/", Some(OWN), "http").is_some());
    assert!(at("https://app.example.com:8443/", Some(OWN), "https").is_none());
    assert!(at("https://a:8443/", Some("a:8443"), "https").is_some());
    assert!(at("https://a/", Some("a:8443"), "https").is_none());
    assert!(at("https://[::1]:8443/", Some("[::1]:8443"), "https").is_some());
    assert!(at("https://app.example.com/", None, "https").is_none());
    assert!(at("/x", None, "https").is_some());
    assert!(at("https:///x", Some(""), "https").is_none());
}

#[test]
fn length_is_bounded() {
    let longest = format!("/{}", "a".repeat(MAX_TARGET - 1));
    assert!(go(&longest).is_some());
    assert!(go(&format!("{longest}a")).is_none());
}

/// What has led elsewhere in one product or another, or would if a part of the
/// rule were missing.
const HOSTILE: &[&str] = &[
    // Nothing, or not a path.
    "",
    " ",
    "a",
    "a/b",
    ".",
    "..",
    "./a",
    "../a",
    "?a",
    "#a",
    "evil.example",
    "evil.example/",
    "www.evil.example",
    "*",
    "%2f",
    "%2fevil.example",
    "%2f%2fevil.example",
    "@evil.example",
    // Another authority.
    "//",
    "//evil.example",
    "//evil.example/",
    "///evil.example",
    "////evil.example",
    "//evil.example@app.example.com/",
    "//app.example.com",
    "//app.example.com@evil.example",
    "//evil.example:443",
    "//evil.example?x",
    "//evil.example#x",
    "//[::1]/",
    "//2130706433/",
    "// evil.example",
    "//%65vil.example",
    "//evil。example",
    "//evil.example/%2e%2e",
    "//app.example.com.evil.example",
    "//google.com%2f@evil.example",
    // Backslashes, which browsers read as slashes.
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "\\evil.example",
    "/\\/evil.example",
    "//\\evil.example",
    "/\\\\evil.example",
    "/a\\b",
    "/a/\\/evil.example",
    "/?a=\\b",
    "/.\\evil.example",
    "/..\\/evil.example",
    "https:\\\\evil.example",
    "https:/\\evil.example",
    "https://app.example.com\\@evil.example",
    "https://app.example.com\\.evil.example",
    "https://evil.example\\@app.example.com",
    "https://app.example.com/\\evil.example",
    // Bytes that browsers drop, or that end a header line.
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "/\r\n/evil.example",
    "\t//evil.example",
    "\n//evil.example",
    " //evil.example",
    "\u{0}//evil.example",
    "/\u{0}/evil.example",
    "/\u{b}/evil.example",
    "/\u{c}/evil.example",
    "/\u{1f}/evil.example",
    "/\u{7f}/evil.example",
    "/a\u{7f}",
    "/a\tb",
    "/a\r\nSet-Cookie: a=b",
    "/a\nLocation: //evil.example",
    "/a\r\n\r\n<script>alert(1)</script>",
    "/\u{85}/evil.example",
    "/a\u{9b}b",
    "ht\ntps://evil.example",
    "https:\t//evil.example",
    "java\tscript:alert(1)",
    "https://app.example.com\t.evil.example",
    "https://app.example.com\n@evil.example",
    "\u{feff}//evil.example",
    "\u{a0}//evil.example",
    "\u{2028}//evil.example",
    " /a",
    " https://app.example.com/",
    // What becomes another authority once it is tidied or decoded again.
    "/.//evil.example",
    "/..//evil.example",
    "/a/..//evil.example",
    "/a/b/../..//evil.example",
    "/././/evil.example",
    "/.//.//evil.example",
    "/%2e//evil.example",
    "/%2e%2e//evil.example",
    "/.%2e//evil.example",
    "/%2E//evil.example",
    "/%2f/evil.example",
    "/%09/evil.example",
    "/%0A%2fevil.example",
    "/%250d/evil.example",
    "/%2fevil.example",
    "/%2Fevil.example",
    "/%5cevil.example",
    "/%5Cevil.example",
    "/%2f%2fevil.example",
    "/%5c%5cevil.example",
    "/%252fevil.example",
    "/%25252fevil.example",
    "/%255cevil.example",
    "/a/..%2f/evil.example",
    "/a/%2e%2e/%2fevil.example",
    "//.",
    "//..",
    "/%2fevil.example/..",
    "/a/..//evil.example/..",
    "/;/..//evil.example",
    "/..%2f..%2f/evil.example",
    // Other hosts, spelled to look like ours.
    "https://evil.example",
    "http://evil.example/",
    "https://evil.example/app.example.com",
    "https://evil.example?app.example.com",
    "https://evil.example#app.example.com",
    "https://app.example.com.evil.example/",
    "https://evil-app.example.com/",
    "https://evilapp.example.com/",
    "https://xother.example.com/",
    "https://a.other.example.com/",
    "https://other.example.com.evil.example",
    "https://other.example.comevil.example/",
    "https://example.com/",
    "https://other.example.com./",
    "https://app.example.com./",
    "https://.other.example.com/",
    "https://other.example.com:8443/",
    "https://dev.example.com/",
    "https://dev.example.com:84430/",
    "https://dev.example.com:08443/",
    "https://dev.example.com:/",
    "https://dev.example.com:8443:443:1/",
    "https://app.example.com:443:443/",
    "https://app.example.com:444/",
    "https://app.example.com:80/",
    "https://app.example.com:/",
    "http://app.example.com/",
    "https://app.еxample.com/",
    "https://app.example。com/",
    "https://app.example.com%2eevil.example/",
    "https://app%2eexample.com/",
    "https://app.example.com%00.evil.example/",
    "https://ａpp.example.com/",
    "https://app.example.com,evil.example/",
    // User information.
    "https://app.example.com@evil.example/",
    "https://app.example.com:443@evil.example/",
    "https://user@app.example.com/",
    "https://user:pass@app.example.com/",
    "https://@app.example.com/",
    "https://evil.example@app.example.com/",
    "https://app.example.com%40evil.example/",
    "https://app.example.com@evil.example@app.example.com/",
    "https://evil.example%2f@app.example.com/",
    "https://app.example.com;@evil.example/",
    "https://evil.example;app.example.com/",
    // Broken or other schemes.
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https:////evil.example",
    "https://",
    "https:///",
    "https://?",
    "https://#",
    "http:app.example.com",
    "https:app.example.com",
    "https:/app.example.com/",
    "https:///app.example.com/",
    "HTTPS://evil.example/",
    "hTTp://evil.example",
    "javascript:alert(1)",
    "javascript://app.example.com/%0aalert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "data://app.example.com/",
    "vbscript:msgbox(1)",
    "file:///etc/passwd",
    "ftp://app.example.com/",
    "ws://app.example.com/",
    "blob:https://app.example.com/x",
    "view-source:https://app.example.com/",
    "mailto:a@evil.example",
    "://app.example.com/",
    ":https://app.example.com/",
    "x://app.example.com/",
    "https ://app.example.com/",
    "https://app.example.com //evil.example",
    "https://app.example.com//evil.example",
    "https://app.example.com/.//evil.example",
    "https://app.example.com/%2fevil.example",
    "https%3a%2f%2fevil.example",
    "https://[::1]/",
    "https://[app.example.com]/",
    "https://1.1/",
];

#[test]
fn hostile_targets_are_refused() {
    assert!(HOSTILE.len() >= 120, "{}", HOSTILE.len());
    for rd in HOSTILE {
        assert_eq!(go(rd), None, "{rd:?}");
    }
}

/// Where a browser at `https://app.example.com/auth/login` goes: scheme and
/// authority, as the WHATWG URL standard reads a target. Written apart from
/// the rule under test, and more generous.
fn browser_origin(target: &str) -> (String, String) {
    let target: String = target
        .trim_matches(|c: char| c <= ' ')
        .chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
        .map(|c| if c == '\\' { '/' } else { c })
        .collect();
    let own = ("https".to_owned(), OWN.to_owned());
    let has_scheme = target.find(':').filter(|colon| {
        let scheme = &target[..*colon];
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let (scheme, rest) = match has_scheme {
        Some(colon) => (target[..colon].to_ascii_lowercase(), &target[colon + 1..]),
        None => ("https".to_owned(), target.as_str()),
    };
    if !matches!(scheme.as_str(), "http" | "https") {
        return (scheme, rest.to_owned());
    }
    let slashes = rest.chars().take_while(|c| *c == '/').count();
    if slashes < 2 && (has_scheme.is_none() || scheme == "https") {
        return own;
    }
    let rest = rest.trim_start_matches('/');
    let authority = rest.split(['/', '?', '#']).next().unwrap();
    let host = authority.rsplit('@').next().unwrap().to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host).to_owned();
    (scheme, host)
}

fn check(rd: &str) {
    let Some(location) = go(rd) else { return };
    assert!(
        location.bytes().all(|b| (0x21..0x7f).contains(&b)),
        "{location:?}"
    );
    let (scheme, host) = browser_origin(&location);
    let ours = scheme == "https" && host == OWN;
    let named = hosts().contains(&host);
    assert!(
        ours || named,
        "{rd:?} led to {scheme}://{host} as {location:?}"
    );
    // What was returned may come back and be returned again.
    if location.len() <= MAX_TARGET {
        assert_eq!(go(&location).as_deref(), Some(location.as_str()));
    }
}

#[test]
fn the_browser_of_the_tests_knows_the_tricks() {
    for rd in [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        " //evil.example",
        "https:\\\\evil.example",
        "https://app.example.com@evil.example/",
    ] {
        assert_eq!(browser_origin(rd).1, "evil.example", "{rd:?}");
    }
    assert_eq!(browser_origin("/a").1, OWN);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn anything_returned_stays_with_us(rd in any::<String>()) {
        check(&rd);
    }

    #[test]
    fn anything_made_of_tricks_stays_with_us(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "/", "//", "\\", "\t", "\n", "\r", "@", ":", ".", "..", "%2f", "%5c", "%2e", "?", "#",
                "%09", "%0a", " ", "\u{0}", "\u{a0}", "https:", "http:", "https://", "http://",
                "javascript:", "evil.example", "app.example.com", "other.example.com",
                "dev.example.com:8443", ":443", ":80", "a", "é", ";", ",", "[", "]", "%", "%25",
            ]),
            0..9,
        )
    ) {
        check(&parts.concat());
        check(&format!("/{}", parts.concat()));
        check(&format!("https://app.example.com{}", parts.concat()));
    }
}
