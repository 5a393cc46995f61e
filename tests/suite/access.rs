//! Who may pass, and what the others are told.

use super::expect;
use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::Request;
use crate::harness::users::{ALICE, CAROL};

#[test]
fn each_access_rule_lets_through_whom_it_should() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let (alice, carol) = (proxy.sign_in(&ALICE), proxy.sign_in(&CAROL));
    let id_at_backend = || backend.requests().pop().unwrap().header("x-user-id");

    assert_eq!(proxy.get("/public/x").status, 200);
    assert_eq!(id_at_backend(), None);
    assert_eq!(proxy.get_as("/public/x", &alice).status, 200);
    assert_eq!(id_at_backend(), None, "public routes look nobody up");
    assert_eq!(proxy.get("/optional").status, 200);
    assert_eq!(id_at_backend(), None);
    assert_eq!(proxy.get_as("/optional", &alice).status, 200);
    assert_eq!(id_at_backend().as_deref(), Some(ALICE.id));
    assert_eq!(proxy.get_as("/x", &alice).status, 200);
    assert_eq!(id_at_backend().as_deref(), Some(ALICE.id));
    assert_eq!(proxy.get_as("/admin/x", &carol).status, 200);
    assert_eq!(id_at_backend().as_deref(), Some(CAROL.id));

    backend.clear();
    expect::refused(&proxy.get("/x"), 401, "no_cookie");
    expect::refused(&proxy.get("/admin"), 401, "no_cookie");
    expect::refused(&proxy.get_as("/admin", &alice), 403, "missing_role");
    expect::refused(&proxy.get("/denied"), 403, "route_denied");
    expect::refused(&proxy.get_as("/denied/x", &carol), 403, "route_denied");
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
}

/// CVE-2026-25748, CVE-2022-29226: nothing but a verified session opens a
/// protected path.
#[test]
fn no_credential_but_a_session_opens_a_protected_path() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    let real = jar.get("cloakroom.sid").unwrap();
    let other_token = format!("s%3A{}{}", "A".repeat(32), &real[35..]);
    for cookie in [
        "cloakroom.sid=",
        "cloakroom.sid",
        "cloakroom.sid=x",
        "cloakroom.sid=%00%ff",
        "cloakroom.sid=s%3Aabc.def",
        "cloakroom.sid=s:.",
        &format!("cloakroom.sid={}", &real[..real.len() - 1]),
        &format!("cloakroom.sid={real}x"),
        &format!("cloakroom.sid={other_token}"),
        &format!("Cloakroom.sid={real}"),
        &format!("\u{2000}cloakroom.sid={real}"),
        &format!("$Version=1; x=\"cloakroom.sid={real}\""),
        &format!("xcloakroom.sid={real}"),
    ] {
        let response = proxy.send(&Request::get("/x").header("cookie", cookie));
        assert_eq!(response.status, 401, "{cookie}");
        assert!(response.refusal().is_some(), "{cookie}");
        assert!(!response.fields().has("set-cookie"), "{cookie}");
    }
    for (name, value) in [
        ("authorization", "Bearer anything"),
        ("authorization", "Basic YWxpY2U6eA=="),
        ("user-agent", "kube-probe/1.29"),
        ("user-agent", ""),
        (
            "x-middleware-subrequest",
            "middleware:middleware:middleware",
        ),
        ("x-envoy-internal", "true"),
        ("x-forwarded-uri", "/public"),
        ("x-original-url", "/public"),
        ("x-rewrite-url", "/public"),
        ("x-http-method-override", "OPTIONS"),
        ("x-user-id", "u-alice"),
    ] {
        let response = proxy.send(&Request::get("/x").header(name, value));
        expect::refused(&response, 401, "no_cookie");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn what_no_route_covers_is_not_found_and_never_forwarded() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/app\"\naccess = \"public\"")
        .start();
    for target in ["/", "/ap", "/apple", "/other/app", "/?/app"] {
        expect::refused(&proxy.get(target), 404, "no_route");
    }
    assert!(backend.requests().is_empty());
    assert_eq!(proxy.get("/app").status, 200);
    assert_eq!(proxy.get("/app/").status, 200);
}

/// GHSA-gx7w-56w6-g48x: prefixes end at segments. CVE-2025-54576: the query
/// never decides.
#[test]
fn prefixes_end_at_segments_and_the_query_plays_no_part() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/"
            access = "public"
            [[routes]]
            path = "/admin"
            access = "deny"
            [[routes]]
            path = "/admin/help"
            access = "public"
            [[routes]]
            path = "/exact"
            exact = true
            access = "deny"
            [[routes]]
            path = "/docs/"
            access = "deny"
            "#,
        )
        .start();
    for (target, status) in [
        ("/administrator", 200),
        ("/admin-x", 200),
        ("/admin.html", 200),
        ("/x/admin", 200),
        ("/?/admin", 200),
        ("/x?a=/admin", 200),
        ("/admin", 403),
        ("/admin/", 403),
        ("/admin/x", 403),
        ("/admin?x", 403),
        ("/admin?/public", 403),
        ("/admin?x=/admin/help", 403),
        ("/admin/helper", 403),
        ("/admin/help", 200),
        ("/admin/help/x", 200),
        ("/exact", 403),
        ("/exact?x=1", 403),
        ("/exact/x", 200),
        ("/exactly", 200),
        ("/docs/x", 403),
    ] {
        assert_eq!(proxy.get(target).status, status, "{target}");
    }
}

#[test]
fn routes_can_be_for_some_methods_only() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/"
            access = "deny"
            [[routes]]
            path = "/api"
            methods = ["GET", "HEAD"]
            access = "public"
            [[routes]]
            path = "/api"
            methods = ["PURGE"]
            access = "login"
            "#,
        )
        .start();
    for (method, status) in [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 403),
        ("OPTIONS", 403),
        ("PURGE", 401),
        ("get", 403),
        ("FROB", 403),
    ] {
        let response = proxy.send(&Request::new(method, "/api/x"));
        assert_eq!(response.status, status, "{method}");
    }
    let methods: Vec<_> = backend.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["GET", "HEAD"]);
}

/// CVE-2026-48794, CVE-2022-23632, CVE-2026-27588: case and the trailing dot
/// of a host never change the rule; the port is no part of it.
#[test]
fn hosts_are_matched_whatever_their_case_dot_and_port() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            host = "app.example.com"
            access = "public"
            [[routes]]
            host = "*.example.com"
            access = "login"
            [[routes]]
            path = "/"
            access = "deny"
            "#,
        )
        .start();
    for (host, status) in [
        ("app.example.com", 200),
        ("APP.Example.COM", 200),
        ("app.example.com.", 200),
        ("app.example.com:8443", 200),
        ("App.example.com.:80", 200),
        ("www.example.com", 401),
        ("WWW.EXAMPLE.com.", 401),
        ("a.b.example.com:1", 401),
        ("example.com", 403),
        ("app.example.com.evil.test", 403),
        ("evilexample.com", 403),
        ("127.0.0.1", 403),
        ("[::1]:8080", 403),
        ("app.example.com..", 400),
        ("app..example.com", 400),
        ("app.example.com:x", 400),
        ("app.example.com/", 400),
        ("app.example.com,www.example.com", 400),
        ("user@app.example.com", 400),
        ("app.example.com ", 200),
    ] {
        let response = proxy.send(&Request::get("/").header("host", host));
        assert_eq!(response.status, status, "{host:?}: {}", response.text());
        if status == 400 {
            expect::refused(&response, 400, "bad_host");
        }
    }
    // The family of forwarding headers has no say in it.
    let forwarded = Request::get("/")
        .header("host", "other.test")
        .header("x-forwarded-host", "app.example.com")
        .header("forwarded", "host=app.example.com");
    expect::refused(&proxy.send(&forwarded), 403, "route_denied");
}

/// Who is sent to the login page and who gets a status.
#[test]
fn only_navigations_are_sent_to_the_login_page() {
    const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/"
            access = "login"
            [[routes]]
            path = "/status"
            access = "login"
            on_refusal = "status"
            [[routes]]
            path = "/login-please"
            access = "login"
            on_refusal = "login"
            "#,
        )
        .start();
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], [bool; 3]);
    // For each kind of request: is it redirected by auto, status and login?
    let cases: [Case<'_>; 14] = [
        (
            "GET",
            &[("sec-fetch-mode", "navigate"), ("accept", HTML)],
            [true, false, true],
        ),
        (
            "HEAD",
            &[("sec-fetch-mode", "navigate")],
            [true, false, true],
        ),
        ("GET", &[("accept", HTML)], [true, false, true]),
        ("GET", &[("accept", "text/html")], [true, false, true]),
        ("GET", &[], [false, false, true]),
        ("GET", &[("accept", "*/*")], [false, false, true]),
        (
            "GET",
            &[("accept", "application/json")],
            [false, false, true],
        ),
        (
            "GET",
            &[("accept", "application/json, text/html;q=0.5")],
            [false, false, true],
        ),
        (
            "GET",
            &[("sec-fetch-mode", "cors"), ("accept", HTML)],
            [false, false, false],
        ),
        (
            "GET",
            &[("sec-fetch-mode", "no-cors"), ("accept", HTML)],
            [false, false, true],
        ),
        (
            "GET",
            &[("x-requested-with", "XMLHttpRequest"), ("accept", HTML)],
            [false, false, false],
        ),
        (
            "GET",
            &[
                ("sec-fetch-mode", "websocket"),
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
            ],
            [false, false, false],
        ),
        (
            "POST",
            &[("sec-fetch-mode", "navigate"), ("accept", HTML)],
            [false, false, false],
        ),
        ("DELETE", &[("accept", HTML)], [false, false, false]),
    ];
    for (method, fields, expected) in cases {
        for (path, redirected) in ["/x", "/status/x", "/login-please/x"].iter().zip(expected) {
            let request = fields
                .iter()
                .fold(Request::new(method, path), |r, (n, v)| r.header(n, v));
            let response = proxy.send(&request);
            let what = format!("{method} {path} {fields:?}");
            assert_eq!(response.refusal().as_deref(), Some("no_cookie"), "{what}");
            expect::own(&response);
            if redirected {
                let place = format!("/auth/login?rd={}", path.replace('/', "%2F"));
                assert_eq!(response.status, 303, "{what}");
                assert_eq!(response.header("location"), Some(place), "{what}");
            } else {
                assert_eq!(response.status, 401, "{what}");
                assert!(!response.fields().has("location"), "{what}");
            }
            if !redirected && *path == "/status/x" && method != "HEAD" {
                assert_eq!(response.json()["reason"], "no_cookie", "{what}");
            }
        }
    }
    assert!(backend.requests().is_empty());
}

/// The way back holds the query, and stays on this origin whatever the target
/// looks like. CVE-2024-52003: no forwarding header gets into it.
#[test]
fn the_way_back_is_the_target_and_nothing_else() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let location = |request: Request| {
        let response = proxy.send(&request.navigation());
        assert_eq!(response.status, 303, "{}", response.text());
        response.header("location").unwrap()
    };
    assert_eq!(
        location(Request::get("/a?b=c&d=%20e")),
        "/auth/login?rd=%2Fa%3Fb%3Dc%26d%3D%2520e"
    );
    assert_eq!(
        location(
            Request::get("/a")
                .header("x-forwarded-prefix", "//evil.test")
                .header("x-forwarded-host", "evil.test")
                .header("x-forwarded-proto", "https\tx")
        ),
        "/auth/login?rd=%2Fa"
    );
    assert!(location(Request::get("//evil.test/")).starts_with("/auth/login?rd=%2F%2Fevil"));
}

#[test]
fn grpc_clients_get_their_own_status() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [[routes]]
            path = "/svc"
            access = "login"
            [[routes]]
            path = "/denied"
            access = "deny"
            "#,
        )
        .start();
    for (target, code, reason) in [
        ("/svc/Method", "16", "no_cookie"),
        ("/denied/Method", "7", "route_denied"),
        ("/nowhere", "12", "no_route"),
    ] {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let response = proxy.send(&Request::post(target).header("content-type", kind));
            expect::refused(&response, 200, reason);
            assert_eq!(response.header("grpc-status").as_deref(), Some(code));
            assert_eq!(
                response.header("content-type").as_deref(),
                Some("application/grpc")
            );
            assert!(response.body.is_empty());
        }
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn a_refused_head_request_has_no_body() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = crate::harness::http::Client::connect(proxy.addr());
    let response = client.request(&Request::new("HEAD", "/x"));
    expect::refused(&response, 401, "no_cookie");
    assert_eq!(client.request(&Request::get("/public")).status, 200);
}

/// CVE-2025-4366: what a refused request still sends is never read as the next
/// request.
#[test]
fn the_body_of_a_refused_request_is_never_taken_for_a_request() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.idle_timeout", "300ms")
        .set("server.limits.header_timeout", "300ms")
        .start();
    let inner = "GET /public/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        inner.len()
    );
    // The body at once, and after the answer.
    for wait in [false, true] {
        let mut client = crate::harness::http::Client::connect(proxy.addr());
        client.send(&head);
        if !wait {
            client.send(inner);
        }
        expect::refused(&client.read("POST"), 401, "no_cookie");
        if wait {
            // It may have been closed already.
            let _ = client.try_send(inner);
        }
        assert!(client.is_closed());
    }
    assert!(backend.requests().is_empty());
}
