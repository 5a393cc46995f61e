//! Requests that another site makes a signed-in browser send.

use super::expect;
use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::Request;
use crate::harness::users::ALICE;

/// S-67: for each, whether it passes.
const CASES: &[(&[(&str, &str)], bool)] = &[
    (&[], true),
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "CROSS-SITE")], false),
    (&[("sec-fetch-site", "")], false),
    (
        &[
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://app.test"),
        ],
        false,
    ),
    (
        &[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
        ],
        false,
    ),
    (&[("origin", "http://app.test")], true),
    (&[("origin", "http://app.test:80")], true),
    (&[("origin", "https://app.test")], false),
    (&[("origin", "http://app.test:81")], false),
    (&[("origin", "http://evil.test")], false),
    (&[("origin", "http://app.test.evil.test")], false),
    (&[("origin", "null")], false),
    (
        &[("origin", "http://app.test"), ("origin", "http://app.test")],
        false,
    ),
    (&[("referer", "http://evil.test/")], true),
];

#[test]
fn unsafe_requests_with_the_session_cookie_must_not_come_from_another_site() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    let request = |method: &str, fields: &[(&str, &str)]| {
        let request = Request::new(method, "/x").header("host", "app.test");
        fields.iter().fold(request, |r, (n, v)| r.header(n, v))
    };
    for (fields, passes) in CASES {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH"] {
            backend.clear();
            let response = proxy.send(&request(method, fields).cookies(&jar));
            if *passes {
                assert_eq!(response.status, 200, "{method} {fields:?}");
            } else {
                expect::refused(&response, 403, "cross_site_request");
                assert!(backend.requests().is_empty(), "{method} {fields:?}");
            }
        }
        // Safe methods do no harm.
        for method in ["GET", "HEAD", "OPTIONS"] {
            let response = proxy.send(&request(method, fields).cookies(&jar));
            assert_eq!(response.status, 200, "{method} {fields:?}");
        }
    }
    // On public routes too: the application may know the visitor by other
    // means. Without our cookie there is nobody to act for.
    let evil = [
        ("sec-fetch-site", "cross-site"),
        ("origin", "http://evil.test"),
    ];
    let post = |target: &str| {
        let request = Request::post(target).header("host", "app.test");
        evil.iter().fold(request, |r, (n, v)| r.header(n, v))
    };
    for target in ["/public", "/optional"] {
        expect::refused(
            &proxy.send(&post(target).cookies(&jar)),
            403,
            "cross_site_request",
        );
        assert_eq!(proxy.send(&post(target)).status, 200);
    }
}

#[test]
fn sibling_hosts_pass_where_they_are_allowed() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("csrf.allow_same_site", true)
        .start();
    let jar = proxy.sign_in(&ALICE);
    for (site, status) in [("same-site", 200), ("cross-site", 403)] {
        let request = Request::post("/x")
            .cookies(&jar)
            .header("sec-fetch-site", site);
        assert_eq!(proxy.send(&request).status, status, "{site}");
    }
}

#[test]
fn the_check_of_forwarded_requests_can_be_turned_off_but_not_that_of_our_own() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).set("csrf.mode", "off").start();
    let jar = proxy.sign_in(&ALICE);
    let evil = |target: &str| {
        Request::post(target)
            .cookies(&jar)
            .header("sec-fetch-site", "cross-site")
            .header("origin", "http://evil.test")
    };
    assert_eq!(proxy.send(&evil("/x")).status, 200);
    for own in ["/auth/login", "/auth/logout", "/auth/logout-all"] {
        expect::refused(&proxy.send(&evil(own)), 403, "cross_site_request");
    }
    assert_eq!(
        proxy.get_as("/x", &jar).status,
        200,
        "the session was ended"
    );
    let warning = "requests of other sites are not checked";
    proxy.output().wait_for_words(&[warning]);
}

#[test]
fn behind_a_trusted_proxy_our_origin_is_what_the_browser_sees() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\"]")
        .start();
    let jar = proxy.sign_in(&ALICE);
    for (origin, status) in [("https://app.test", 200), ("http://app.test", 403)] {
        let request = Request::post("/x")
            .cookies(&jar)
            .header("host", "app.test")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-for", "203.0.113.7")
            .header("origin", origin);
        assert_eq!(proxy.send(&request).status, status, "{origin}");
    }
}
