//! Targets that servers read differently. Whatever the spelling, no rule is
//! led around, and what is forwarded is what was matched.

use super::expect;
use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::users::ALICE;

const RULES: &str = r#"
[[routes]]
path = "/"
access = "public"
[[routes]]
path = "/admin"
access = "login"
"#;

/// What some server, somewhere, takes for `/admin` or something below it.
const ADMIN: &[&str] = &[
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x",
    "/admin;x",
    "/admin;x=1/y",
    "/admin/.",
    "/admin/..;/admin",
    "/admin%2f",
    "/admin%2Fx",
    "/admin%5cx",
    "/admin\\x",
    "/admin%3bx",
    "/admin//",
    "//admin",
    "///admin",
    "//x//..//admin",
    "/./admin",
    "/././admin",
    "/.//admin",
    "/%2e/admin",
    "/%2E/admin",
    "/%252e/admin",
    "/x/../admin",
    "/public/../admin",
    "/public/../../admin",
    "/public/x/../../admin",
    "/public//../admin",
    "/public/./../admin",
    "/public/%2e%2e/admin",
    "/public/%2E%2e/admin",
    "/public/.%2e/admin",
    "/public/%2e./admin",
    "/public/%252e%252e/admin",
    "/public/..%2fadmin",
    "/public/..%2Fadmin",
    "/public/%2e%2e%2fadmin",
    "/public%2f..%2fadmin",
    "/public%2f../admin",
    "/public/..%252fadmin",
    "/public/..%5cadmin",
    "/public/..\\admin",
    "/public\\..\\admin",
    "/public%5c..%5cadmin",
    "/public/%2e%2e%5cadmin",
    "/public/..;/admin",
    "/public/..;x=1/admin",
    "/public/%2e%2e;/admin",
    "/public;/../admin",
    "/public/..%3b/admin",
    "/public/%c0%ae%c0%ae/admin",
    "/public/..%c0%afadmin",
    "\\admin",
    "/\\admin",
    "/%5cadmin",
    "/%2fadmin",
    "/%2Fadmin",
    "/%252fadmin",
    "%2fadmin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/%41dmin",
    "/%2561dmin",
    "/a%64min/x",
    "/ADMIN",
    "/Admin/x",
    "/aDmIn",
    "/;/admin",
    "/;x/admin",
    "/public/../ADMIN",
    "/%00/../admin",
    "/admin%00",
    "/admin%00.html",
    "/public%00/../admin",
    "/admin%2500",
    "/admin%",
    "/admin%2",
    "/admin%zz",
    "/%u0061dmin",
    "/admin#x",
    "/admin\u{1}",
    "/admin\u{7f}",
    "/admin\t",
    "/x/..//admin",
    "/x/y/..%2f../admin",
    "http://other.test/admin",
    "http://other.test/public/../admin",
    "HTTP://other.test//admin",
    "http://other.test\\admin",
    "http:/admin",
    "http:///admin",
    "admin",
    "./admin",
    "../admin",
    "?/../admin",
];

/// CVE-2026-33494, CVE-2019-9901, CVE-2021-29492, CVE-2025-66490,
/// CVE-2026-52844, CVE-2026-3872, CVE-2026-41059, CVE-2026-27587 and S-3.
#[test]
fn no_spelling_of_a_protected_path_reaches_the_application() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).with(RULES).start();
    assert!(ADMIN.len() >= 60);
    for target in ADMIN {
        for method in ["GET", "POST"] {
            let response = proxy.send(&Request::new(method, target));
            assert!(
                matches!(response.status, 400 | 401),
                "{method} {target:?}: {}",
                response.status
            );
        }
        assert!(backend.requests().is_empty(), "{target:?} was forwarded");
    }
    // Bytes that are no text.
    for target in [
        &b"/admin\xff"[..],
        b"/\xc0\xaeadmin",
        b"/public/\xef\xbc\x8e./admin",
    ] {
        let mut client = Client::connect(proxy.addr());
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
        assert!(matches!(client.read("GET").status, 400 | 401), "{target:?}");
    }
    assert!(backend.requests().is_empty());
    assert!(backend.malformed().is_empty());
}

/// The other way round: what a protected prefix lends no protection to stays
/// reachable, and what is public by one reading only is not public.
#[test]
fn a_public_path_inside_a_protected_one_opens_nothing_else() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/"
            access = "login"
            [[routes]]
            path = "/public"
            access = "public"
            "#,
        )
        .start();
    for target in [
        "/public/../secret",
        "/public/..",
        "/public/%2e%2e/secret",
        "/public/..%2fsecret",
        "/public/..;/secret",
        "/public\\..\\secret",
        "/public/..%5csecret",
        "/publi%63/../secret",
        "/public%2f..%2fsecret",
        "/PUBLIC/x",
        "/public%2fx",
        "/%70ublic/x",
        "//public/x",
        "/./public",
        "/public;x",
        "/x/../public",
    ] {
        let status = proxy.get(target).status;
        assert!(matches!(status, 400 | 401), "{target}: {status}");
    }
    assert!(backend.requests().is_empty());
    for target in [
        "/public",
        "/public/",
        "/public/x%20y",
        "/public/a//b",
        "/public/a/./b",
        "/public/x;v=1",
        "/public/%41",
        "/public/UPPER",
        "/public/a%2fb",
    ] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(backend.requests().pop().unwrap().target, target);
    }
}

#[test]
fn under_one_rule_odd_targets_arrive_byte_for_byte() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/\"\naccess = \"login\"")
        .start();
    let jar = proxy.sign_in(&ALICE);
    let mut client = Client::connect(proxy.addr());
    let targets = [
        "/",
        "/?",
        "/??",
        "//",
        "/a//b",
        "/a/../b",
        "/../../etc/passwd",
        "/.",
        "/..",
        "/%2e%2e/x",
        "/%252e%252e/x",
        "/a%2fb%5Cc",
        "/a\\b",
        "/a;b=c;d/e;f",
        "/..;/x",
        "/ABC/%c3%A4/%FF",
        "/a%20b+c",
        "/~user/!$&'()*+,=:@",
        "/a|b^c{d}",
        "/x?y=%zz&z=%00&%",
        "/x?a=../../b&c=//d\\e;f",
        "/x?q=[1]{2}|^`",
        "/x?",
        "/%7Euser",
        "/api/v1/files/a%2Fb.txt",
        "/xn--%C3%BC",
    ];
    for target in targets {
        let response = client.request(&Request::get(target).cookies(&jar));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
    }
    let arrived: Vec<_> = backend.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(arrived, targets);
}

#[test]
fn long_targets_work() {
    // S-4: at least 8000 bytes.
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let target = format!("/public/{}?{}", "a".repeat(8000), "b".repeat(8000));
    assert_eq!(proxy.get(&target).status, 200);
    assert_eq!(backend.only_request().target, target);
}

#[test]
fn what_is_never_valid_is_always_refused() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/\"\naccess = \"public\"\nambiguous_paths = \"allow\"")
        .start();
    for target in [
        "/%00", "/a%00b", "/%2500", "/%", "/a%2", "/%zz", "/%u0041", "/%-1",
    ] {
        expect::refused(&proxy.get(target), 400, "bad_request_target");
    }
    for target in ["*", "x", "ftp://x/", "http:x"] {
        assert_eq!(proxy.get(target).status, 400, "{target}");
    }
    assert!(backend.requests().is_empty());
}

/// CVE-2025-54576, CVE-2026-41059, CVE-2023-47106, CVE-2021-32779.
#[test]
fn a_fragment_is_refused() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).with(RULES).start();
    for target in [
        "/admin#/../public",
        "/public/../admin#",
        "/public#/../admin",
        "/public?a#b",
    ] {
        expect::refused(&proxy.get(target), 400, "bad_request_target");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn a_route_may_refuse_or_allow_whatever_is_ambiguous() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/"
            access = "public"
            ambiguous_paths = "reject"
            [[routes]]
            path = "/files"
            access = "public"
            ambiguous_paths = "allow"
            [[routes]]
            path = "/admin"
            access = "login"
            "#,
        )
        .start();
    for target in ["/a//b", "/a/../b", "/a%2fb", "/a;b", "/a\\b", "/a/%2e/b"] {
        expect::refused(&proxy.get(target), 400, "bad_request_target");
    }
    assert!(backend.requests().is_empty());
    assert_eq!(proxy.get("/a/b?c=../d").status, 200);
    for target in [
        "/files/..%2fadmin",
        "/files/a//b",
        "/files/%2e%2e/x",
        "/files/a;b",
    ] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(backend.requests().pop().unwrap().target, target);
    }
}

#[test]
fn the_asterisk_form_is_for_options_alone() {
    // S-3.
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/\"\naccess = \"login\"")
        .start();
    let jar = proxy.sign_in(&ALICE);
    expect::refused(&proxy.get("*"), 400, "bad_request_target");
    let options = proxy.send(&Request::new("OPTIONS", "*"));
    assert!(matches!(options.status, 401 | 404), "{}", options.status);
    assert!(backend.requests().is_empty());
    let options = proxy.send(&Request::new("OPTIONS", "*").cookies(&jar));
    match options.status {
        200 => assert_eq!(backend.only_request().target, "*"),
        status => assert_eq!((status, backend.requests().len()), (404, 0)),
    }
}
