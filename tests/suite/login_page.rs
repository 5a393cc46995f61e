//! The login page: what it looks like to a browser, where it leads, and how it
//! ends a loop.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::http::{Request, Response};
use crate::harness::proxy::Proxy;
use crate::harness::session::{self, only_cookie};
use crate::harness::users::{ALICE, CAROL};

#[test]
fn the_page_works_without_script_and_lets_nobody_else_in() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.title", "Ops & <friends>")
        .start();
    let page = proxy.get("/auth/login?rd=%2Freports%3Fa%3D%22b%22");
    assert_eq!(page.status, 200);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.header(name).as_deref(), Some(value), "{name}");
    }
    let policy = page.header("content-security-policy").unwrap();
    let directives: Vec<_> = policy.split(';').map(str::trim).collect();
    for directive in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(directives.contains(&directive), "{policy}");
    }
    assert!(policy.contains("form-action 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!policy.contains("script-src"), "{policy}");
    assert!(!page.fields().has("set-cookie"));

    let html = page.text();
    assert!(
        html.contains("<form method=\"post\" action=\"&#x2f;auth&#x2f;login\">"),
        "{html}"
    );
    for (name, value) in [("rd", "&#x2f;reports?a=&quot;b&quot;"), ("round", "0")] {
        let field = format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
        assert!(html.contains(&field), "{field} in {html}");
    }
    for part in [
        "<html lang=",
        "<meta name=\"viewport\"",
        "<label for=\"username\">",
        "<label for=\"password\">",
        "autocomplete=\"username\"",
        "autocomplete=\"current-password\"",
        "color-scheme",
        "Ops &amp; &lt;friends&gt;",
    ] {
        assert!(html.contains(part), "{part} in {html}");
    }
    for part in [
        "<script",
        "javascript:",
        "onload",
        "http://",
        "https://",
        "style=\"",
    ] {
        assert!(!html.contains(part), "{part} in {html}");
    }
}

#[test]
fn what_was_typed_cannot_become_markup() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let evil = "\"><script>alert(1)</script><input value='";
    let page = proxy.send(&Request::post("/auth/login").form(&[
        ("username", evil),
        ("password", "x"),
        ("rd", evil),
    ]));
    assert_eq!(page.status, 401);
    assert!(page.text().contains("&lt;script&gt;"), "{}", page.text());
    assert!(!page.text().contains("<script"), "{}", page.text());
    let target = "/auth/login?rd=%22%3E%3Cscript%3E&round=%3Cscript%3E";
    assert!(!proxy.get(target).text().contains("<script"));
}

#[test]
fn without_the_page_programs_can_still_sign_in() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).set("login.page", false).start();
    let page = proxy.get("/auth/login");
    assert_eq!(page.status, 405, "{}", page.text());
    let browser = proxy.send(&Request::get("/").navigation());
    assert_eq!(browser.status, 401);
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(session::state(&proxy, &alice), ALICE.id);
    let wrong = Request::post("/auth/login").form(&[("username", "x"), ("password", "y")]);
    assert_eq!(proxy.send(&wrong).json()["reason"], "invalid_credentials");
}

#[test]
fn who_is_signed_in_already_goes_on() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.after_login", "/home")
        .start();
    let alice = proxy.sign_in(&ALICE);
    for (target, place) in [
        ("/auth/login", "/home"),
        ("/auth/login?rd=", "/home"),
        ("/auth/login?rd=%2Fa%3Fb", "/a?b"),
        ("/auth/login?rd=%2Fa&round=9", "/a"),
        ("/auth/login?rd=%2F%2Fevil.example", "/home"),
    ] {
        let response = proxy.get_as(target, &alice);
        assert_eq!(response.status, 303, "{target}");
        assert_eq!(
            response.header("location").as_deref(),
            Some(place),
            "{target}"
        );
        assert!(!response.fields().has("set-cookie"), "{target}");
    }
    let ended = proxy.get_as("/auth/login", &session::signed_jar(&session::new_token()));
    assert_eq!(ended.status, 200);
}

/// What leads elsewhere in one product or another, as a browser or something
/// on the way might read it.
const HOSTILE: [&str; 34] = [
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "/\\evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/%2fevil.example",
    "/%5cevil.example",
    "/%252fevil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/a/..//evil.example",
    "/%2e%2e//evil.example",
    "http://evil.example",
    "https://evil.example/",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "HTTPS://evil.example",
    "http:\\\\evil.example",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "@evil.example",
    "http://app.example.test@evil.example/",
    "http://app.example.test.evil.example/",
    "http://evil.example#app.example.test",
    "http://app.example.test:pass@evil.example",
    "/x\r\nSet-Cookie: a=b",
];

/// Signs in by the form of another page (without a round).
fn sign_in_with_rd(proxy: &Proxy, rd: &str) -> Response {
    let pairs = [
        ("username", ALICE.name),
        ("password", ALICE.password),
        ("rd", rd),
    ];
    let request = Request::post("/auth/login").header("host", "app.example.test");
    let response = proxy.send(&request.form(&pairs));
    assert_eq!(response.status, 303, "{rd:?}");
    assert_eq!(response.set_cookies().len(), 1, "{rd:?}");
    response
}

#[test]
fn nobody_is_led_elsewhere_after_signing_in() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.after_login", "/home")
        .start();
    let alice = proxy.sign_in(&ALICE);
    for rd in HOSTILE {
        // The rule itself, at its three places: the form of another page, our
        // own page's form, and the page for those who are signed in.
        let response = sign_in_with_rd(&proxy, rd);
        assert_eq!(
            response.header("location").as_deref(),
            Some("/home"),
            "{rd:?}"
        );
        let query: String = form_urlencoded::byte_serialize(rd.as_bytes()).collect();
        let request = Request::get(&format!("/auth/login?rd={query}"))
            .header("host", "app.example.test")
            .cookies(&alice);
        let response = proxy.send(&request);
        assert_eq!(
            response.header("location").as_deref(),
            Some("/home"),
            "{rd:?}"
        );
    }
    let pairs = [
        ("username", ALICE.name),
        ("password", ALICE.password),
        ("rd", HOSTILE[0]),
        ("round", "0"),
    ];
    let response = proxy.send(&Request::post("/auth/login").form(&pairs));
    let place = response.header("location").unwrap();
    assert_eq!(place, "/auth/login?rd=%2Fhome&round=1");
}

#[test]
fn own_and_named_hosts_may_be_returned_to() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("login.after_login", "/home")
        .set(
            "login.redirect_hosts",
            vec!["other.example.test", "dev.example.test:8443"],
        )
        .start();
    for (rd, place) in [
        ("/a/b?c=%2F#d", "/a/b?c=%2F#d"),
        ("http://app.example.test/x", "http://app.example.test/x"),
        (
            "https://other.example.test/x?y",
            "https://other.example.test/x?y",
        ),
        (
            "https://dev.example.test:8443/",
            "https://dev.example.test:8443/",
        ),
        ("https://dev.example.test/", "/home"),
        ("https://app.example.test/x", "/home"),
        ("https://x.other.example.test/", "/home"),
        ("https://other.example.test.evil.example/", "/home"),
        ("https://other.example.test@evil.example/", "/home"),
        ("https://evil.example/other.example.test", "/home"),
        ("", "/home"),
    ] {
        let response = sign_in_with_rd(&proxy, rd);
        assert_eq!(
            response.header("location").as_deref(),
            Some(place),
            "{rd:?}"
        );
    }
}

/// The value of a hidden field of the page.
fn hidden(page: &Response, name: &str) -> String {
    let html = page.text();
    let start = format!("name=\"{name}\" value=\"");
    let (_, rest) = html
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {name} in {html}"));
    let (value, _) = rest.split_once('"').unwrap();
    value
        .replace("&#x2f;", "/")
        .replace("&amp;", "&")
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
}

/// Fills in the form of a page, as a browser does.
fn submit(proxy: &Proxy, page: &Response, jar: &CookieJar) -> Response {
    let (rd, round) = (hidden(page, "rd"), hidden(page, "round"));
    let pairs = [
        ("username", CAROL.name),
        ("password", CAROL.password),
        ("rd", rd.as_str()),
        ("round", round.as_str()),
    ];
    let request = Request::post("/auth/login").navigation().cookies(jar);
    proxy.send(&request.form(&pairs))
}

#[test]
fn a_browser_comes_back_to_where_it_wanted_to_go() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut jar = CookieJar::new();
    let wanted = "/admin/report?from=1&to=%2F2&name=a+b";
    let go =
        |target: &str, jar: &CookieJar| proxy.send(&Request::get(target).navigation().cookies(jar));
    let refused = go(wanted, &jar);
    assert_eq!(refused.status, 303);
    assert_eq!(refused.refusal().as_deref(), Some("no_cookie"));
    assert!(!refused.fields().has("set-cookie"));
    let page = go(&refused.header("location").unwrap(), &jar);
    assert_eq!(page.status, 200);
    let mut response = submit(&proxy, &page, &jar);
    only_cookie(&response);
    for _ in 0..3 {
        jar.store(&response);
        if response.status != 303 {
            break;
        }
        response = go(&response.header("location").unwrap(), &jar);
    }
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["target"], wanted);
    assert_eq!(
        backend.only_request().header("x-user-id").as_deref(),
        Some(CAROL.id)
    );
}

#[test]
fn a_browser_that_drops_its_cookies_is_told_so_the_third_time() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let none = CookieJar::new();
    let go = |target: &str| proxy.send(&Request::get(target).navigation());
    let mut page = go(&go("/wanted?x=1").header("location").unwrap());
    for _ in 1..=3 {
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(hidden(&page, "rd"), "/wanted?x=1");
        let signed_in = submit(&proxy, &page, &none);
        assert_eq!(signed_in.status, 303);
        only_cookie(&signed_in);
        page = go(&signed_in.header("location").unwrap());
    }
    assert_eq!(page.status, 400);
    assert_eq!(page.refusal().as_deref(), Some("cookie_not_kept"));
    let said = page.text();
    for word in [
        "Scheme",
        "Domain",
        "SameSite",
        "Secure",
        "Clock",
        "trust.proxies",
        "server.public_url",
        "session.cookie.domain",
        "session.cookie.same_site",
        "cookie_not_kept",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    assert!(!page.fields().has("set-cookie"));
    assert!(backend.requests().is_empty());
    // Who gives up and tries again gets the page, and a wrong password does
    // not count as a round.
    assert_eq!(go("/auth/login").status, 200);
    let wrong = Request::post("/auth/login").form(&[
        ("username", CAROL.name),
        ("password", "wrong"),
        ("rd", "/a"),
        ("round", "2"),
    ]);
    let again = proxy.send(&wrong);
    assert_eq!((again.status, hidden(&again, "round").as_str()), (401, "2"));
    assert_eq!(hidden(&again, "rd"), "/a");
}
