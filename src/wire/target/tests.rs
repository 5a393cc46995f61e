//! Tests of the request target.

use proptest::prelude::*;

use super::readings::{
    decode_overlong, drop_parameters, merge_slashes, resolve_dots, turn_backslashes,
};
use super::*;

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(HOST, HeaderValue::from_bytes(line.as_bytes()).unwrap());
    }
    headers
}

fn parse(uri: &str, hosts: &[&str], version: Version) -> Result<Target, Refusal> {
    let uri = uri.parse().map_err(|_| Refusal::BadRequestTarget)?;
    Target::parse(&Method::GET, &uri, &headers(hosts), version)
}

fn h1(uri: &str) -> Result<Target, Refusal> {
    parse(uri, &["a.example"], Version::HTTP_11)
}

fn many(path: &str) -> Vec<String> {
    match h1(path).unwrap().readings() {
        Readings::Many(readings) => readings
            .iter()
            .map(|reading| String::from_utf8_lossy(reading).into_owned())
            .collect(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn an_ordinary_target_is_kept_as_it_is() {
    let target = parse("/a/b.c?d=e%", &["App.Example:8080"], Version::HTTP_11).unwrap();
    assert_eq!(target.host(), "app.example");
    assert_eq!(target.port(), Some(8080));
    assert_eq!(target.authority(), "app.example:8080");
    assert_eq!(target.authority_value(), "app.example:8080");
    assert_eq!(target.path(), "/a/b.c");
    assert_eq!(target.query(), Some("d=e%"));
    assert_eq!(target.path_and_query(), "/a/b.c?d=e%");
    assert_eq!(target.readings(), Readings::One);
    assert!(!target.has_upper());
    assert!(h1("/aB").unwrap().has_upper());
}

#[test]
fn a_host_in_lower_case_is_shared() {
    let headers = headers(&["a.example"]);
    let target = Target::parse(
        &Method::GET,
        &"/".parse().unwrap(),
        &headers,
        Version::HTTP_11,
    );
    let shared = target.unwrap().authority_value().as_bytes().as_ptr();
    assert_eq!(shared, headers.get(HOST).unwrap().as_bytes().as_ptr());
}

#[test]
fn s1_host_is_present_once_and_valid() {
    let host = |lines: &[&str]| parse("/", lines, Version::HTTP_11).map(|t| t.host().to_owned());
    for (line, expected) in [
        ("a.example", "a.example"),
        ("a.example:80", "a.example"),
        ("a.example:", "a.example"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("my_host", "my_host"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ] {
        assert_eq!(host(&[line]).as_deref(), Ok(expected), "{line}");
    }
    for bad in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.example..",
        "a b",
        "a,b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "user@a",
        "a@b",
        "a:x",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:000080",
        "[::1",
        "::1",
        "[::1]x",
        "[]",
        "[fe80::1%25eth0]",
        "[v1.x]",
        "a%2eb",
        "%61",
        "ü.example",
        "a\tb",
        "http://a",
        "a'b",
        "a;b",
        "a*",
        "<a>",
    ] {
        assert_eq!(host(&[bad]), Err(Refusal::BadHost), "{bad}");
    }
    assert_eq!(host(&[]), Err(Refusal::BadHost));
    assert_eq!(host(&["a", "a"]), Err(Refusal::BadHost));
}

/// CVE-2026-48794, CVE-2022-23632: the host is compared in lower case and
/// without one trailing dot.
#[test]
fn cve_2026_48794_case_and_trailing_dot() {
    let target = parse("/", &["Admin.Example.:443"], Version::HTTP_11).unwrap();
    assert_eq!(target.host(), "admin.example");
    assert_eq!(target.authority(), "admin.example.:443");
}

#[test]
fn http_1_0_may_come_without_host() {
    let target = parse("/x", &[], Version::HTTP_10).unwrap();
    assert_eq!(
        (target.host(), target.authority(), target.port()),
        ("", "", None)
    );
    assert!(parse("/x", &["a b"], Version::HTTP_10).is_err());
}

#[test]
fn s2_absolute_form_replaces_host() {
    let target = parse("HTTP://B.example:81/x?y", &["a.example"], Version::HTTP_11).unwrap();
    assert_eq!(target.authority(), "b.example:81");
    assert_eq!(target.path_and_query(), "/x?y");
    let empty = parse("http://b.example", &["a.example"], Version::HTTP_11).unwrap();
    assert_eq!(empty.path_and_query(), "/");
    let query = parse("http://b.example?q=1", &["a.example"], Version::HTTP_11).unwrap();
    assert_eq!((query.path(), query.path_and_query()), ("/", "/?q=1"));
    // The field must be there and be valid all the same (RFC 9112 section 3.2).
    for hosts in [&[][..], &["a b"], &["a", "b"]] {
        let result = parse("http://b.example/", hosts, Version::HTTP_11);
        assert_eq!(result.map(|_| ()), Err(Refusal::BadHost), "{hosts:?}");
    }
    let user = parse("http://u@b.example/", &["b.example"], Version::HTTP_11);
    assert_eq!(user.map(|_| ()), Err(Refusal::BadHost));
    let other = parse("ftp://b.example/", &["b.example"], Version::HTTP_11);
    assert_eq!(other.map(|_| ()), Err(Refusal::BadRequestTarget));
}

#[test]
fn s3_forms_belong_to_methods() {
    let parse = |method: Method, uri: &str| {
        let uri: Uri = uri.parse().unwrap();
        Target::parse(&method, &uri, &headers(&["a"]), Version::HTTP_11)
            .map(|t| t.path().to_owned())
    };
    assert_eq!(parse(Method::OPTIONS, "*").as_deref(), Ok("*"));
    assert_eq!(parse(Method::GET, "*"), Err(Refusal::BadRequestTarget));
    assert_eq!(parse(Method::GET, "a:80"), Err(Refusal::BadRequestTarget));
    assert_eq!(parse(Method::GET, "foo"), Err(Refusal::BadRequestTarget));
    // S-26, S-36, CVE-2025-64763.
    assert_eq!(
        parse(Method::CONNECT, "a:80"),
        Err(Refusal::MethodNotAllowed)
    );
    assert_eq!(parse(Method::TRACE, "/"), Err(Refusal::MethodNotAllowed));
}

#[test]
fn s4_long_targets_work() {
    let path = format!("/{}", "a".repeat(8000));
    assert_eq!(h1(&path).unwrap().path(), path);
}

/// CVE-2026-33186 and S-35: `:authority` without user information, a `Host`
/// that agrees, a `:path` that begins with `/`.
#[test]
fn s35_http_2() {
    let h2 = |uri: &str, hosts: &[&str]| {
        parse(uri, hosts, Version::HTTP_2).map(|target| target.authority().to_owned())
    };
    assert_eq!(h2("https://a.example/", &[]).as_deref(), Ok("a.example"));
    assert_eq!(
        h2("https://A.example/", &["a.example"]).as_deref(),
        Ok("a.example")
    );
    assert_eq!(
        h2("https://a.example/", &["a.example."]).as_deref(),
        Ok("a.example")
    );
    assert_eq!(h2("/", &["a.example"]).as_deref(), Ok("a.example"));
    assert_eq!(
        h2("https://a.example/", &["b.example"]),
        Err(Refusal::BadHost)
    );
    assert_eq!(
        h2("https://a.example/", &["a.example:81"]),
        Err(Refusal::BadHost)
    );
    assert_eq!(h2("https://u@a.example/", &[]), Err(Refusal::BadHost));
    assert_eq!(h2("/", &[]), Err(Refusal::BadHost));
}

/// S-5 and the bytes that are refused always.
#[test]
fn bytes_that_are_always_refused() {
    for bad in [
        "/a%00b", "/%2500", "/%", "/a%2", "/%zz", "/%u0041", "/%-1", "/ä", "/?ä",
    ] {
        assert_eq!(h1(bad).map(|_| ()), Err(Refusal::BadRequestTarget), "{bad}");
    }
    // A query decides nothing, so its escapes are its own matter.
    assert_eq!(h1("/?a=100%&b=%00").unwrap().query(), Some("a=100%&b=%00"));
}

/// CVE-2026-41059 and others: `#`. The `http` crate drops a fragment before it
/// is seen here, so what is matched and what is forwarded still agree.
#[test]
fn cve_2026_41059_fragments() {
    let target = h1("/public#/../admin").unwrap();
    assert_eq!(target.path_and_query(), "/public");
    let whole = Target::from_parts("a", "/public#x");
    assert_eq!(whole.map(|_| ()), Err(Refusal::BadRequestTarget));
}

#[test]
fn a_target_from_its_parts() {
    let target = Target::from_parts("App.example:81", "/x?y").unwrap();
    assert_eq!(
        (target.authority(), target.path_and_query()),
        ("app.example:81", "/x?y")
    );
    let name = target.host_name();
    assert_eq!(name.as_str(), "app.example");
    assert_eq!(name.detached().as_str(), "app.example");
    for (authority, path) in [
        ("", "/"),
        ("a b", "/"),
        ("a", ""),
        ("a", "x"),
        ("a", "*"),
        ("a", "/ x"),
    ] {
        assert!(
            Target::from_parts(authority, path).is_err(),
            "{authority} {path}"
        );
    }
}

#[test]
fn plain_paths_have_one_reading() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a.b/c",
        "/.well-known/x",
        "/...a",
        "/a:b@c,d!$&'()*+=~",
        "/a?b=//%2e;\\",
    ] {
        let parsed = Target::from_parts("a", path).unwrap();
        assert_eq!(parsed.readings(), Readings::One, "{path}");
    }
}

/// CVE-2026-33494, CVE-2019-9901, CVE-2021-29492, CVE-2025-66490,
/// CVE-2026-52844, CVE-2026-3872 and their kin: no spelling of `/admin` hides.
#[test]
fn every_way_to_spell_admin_is_seen() {
    for path in [
        "/public/../admin",
        "/public/./../admin",
        "/./admin",
        "//admin",
        "/public//../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/.%2e/admin",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/public/..%5cadmin",
        "/public\\..\\admin",
        "/public/..;/admin",
        "/public/..;x=y/admin",
        "/public/..%3b/admin",
        "/public/%2e%2e;/admin",
        "/admin;x",
        "/;x/admin",
        "/%61dmin",
        "/%2561dmin",
        "/public/%252e%252e/admin",
        "/public/%252e%252e%252fadmin",
        "/public%255c..%255cadmin",
        "/a%2fb/%2e%2e/admin",
        "/a%2fb/..%3b/admin",
        "/%c0%afadmin",
        "/public/%c0%ae%c0%ae/admin",
        "/public/..;%2fadmin",
        "/\\admin",
        "/%5cadmin",
        "/public/x/../../admin",
        "/../admin",
        "/public/;a/../..;b/admin",
        "/admin%2f",
        "/admin/.",
        "/admin/x/..",
    ] {
        let found = many(path);
        assert_eq!(found[0], path);
        assert!(
            found
                .iter()
                .any(|reading| matches!(reading.as_str(), "/admin" | "/admin/")),
            "{path}: {found:?}"
        );
    }
}

#[test]
fn readings_keep_what_some_servers_keep() {
    let found = many("/my%20docs/%61dmin");
    for expected in ["/my%20docs/%61dmin", "/my%20docs/admin", "/my docs/admin"] {
        assert!(
            found.iter().any(|reading| reading == expected),
            "{expected}: {found:?}"
        );
    }
    assert_eq!(many("/caf%C3%A9"), ["/caf%C3%A9", "/café"]);
    assert_eq!(many("/a;b"), ["/a;b", "/a"]);
}

/// CVE-2008-2938's like, and readings that a NUL would cut short.
#[test]
fn a_hidden_nul_cannot_be_judged() {
    assert_eq!(h1("/admin%25%30%30").unwrap().readings(), Readings::TooMany);
    assert_eq!(h1("/admin%c0%80").unwrap().readings(), Readings::TooMany);
}

#[test]
fn work_is_bounded() {
    let odd = "/a/b/c/d%252f..;x\\e//%2e%2e/f%5c..%3by/./g%255c..%253b/%2561//h%20i/../j;z%2fk";
    assert!(h1(odd).unwrap().readings() == Readings::TooMany);
    let encoded = format!("/{}", "%C3%A9".repeat(1300));
    assert!(matches!(h1(&encoded).unwrap().readings(), Readings::Many(all) if all.len() == 2));
    let long = format!("/{}", "..;/%2561".repeat(2500));
    assert!(h1(&long).unwrap().readings() == Readings::TooMany);
}

#[test]
fn dots_are_resolved_as_rfc_3986_does() {
    for (path, resolved) in [
        ("/a/b/c/./../../g", Some("/a/g")),
        ("/a/..", Some("/")),
        ("/a/.", Some("/a/")),
        ("/..", Some("/")),
        ("/../../a", Some("/a")),
        ("/a/b/../", Some("/a/")),
        ("/a//../b", Some("/a/b")),
        ("/a/...", None),
        ("/", None),
        ("", None),
    ] {
        let found = resolve_dots(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(found.as_deref(), resolved, "{path}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(uri in "\\PC{0,60}", host in "\\PC{0,30}", version in 0..3_usize) {
        let version = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][version];
        if let Ok(target) = parse(&uri, &[&host], version) {
            let _ = (target.host(), target.readings());
        }
        if let Ok(target) = Target::from_parts(&host, &uri) {
            prop_assert_eq!(target.path_and_query(), uri);
        }
    }

    #[test]
    fn odd_paths_never_panic(path in "/[a./%2eEfF5cC;\\\\0A]{0,40}") {
        if let Ok(target) = h1(&path) {
            match target.readings() {
                Readings::One | Readings::TooMany => {}
                Readings::Many(all) => {
                    prop_assert!(all.len() <= 64);
                    prop_assert_eq!(&*all[0], path.as_bytes());
                }
            }
        }
    }

    /// The short look finds a path plain exactly if no step would change it.
    #[test]
    fn one_means_that_no_step_applies(path in "/[aB./%2;\\\\]{0,8}") {
        if let Ok(target) = h1(&path) {
            let alone = matches!(readings::of(&path), Readings::Many(all) if all.len() == 1);
            if target.readings() == Readings::One {
                prop_assert!(alone, "{}", path);
            }
        }
    }

    #[test]
    fn an_ordinary_path_is_one(path in "(/[a-zA-Z0-9_~:@!$&'()*+,=-]{1,8}){1,5}/?") {
        prop_assert_eq!(h1(&path).unwrap().readings(), Readings::One);
    }

    /// Normalising twice is normalising once, for each step and for hosts.
    #[test]
    fn steps_are_idempotent(path in "/[a./;\\\\]{0,20}") {
        for step in [resolve_dots, merge_slashes, drop_parameters, turn_backslashes, decode_overlong] {
            if let Some(once) = step(path.as_bytes()) {
                prop_assert_eq!(step(&once), None, "{:?}", once);
            }
        }
    }

    #[test]
    fn hosts_are_normalised_once(host in "[a-zA-Z0-9.-]{1,12}(:[0-9]{1,4})?") {
        if let Ok(target) = parse("/", &[&host], Version::HTTP_11) {
            let again = parse("/", &[target.host()], Version::HTTP_11).unwrap();
            prop_assert_eq!(again.host(), target.host());
            prop_assert_eq!(again.authority(), target.host());
        }
    }
}
