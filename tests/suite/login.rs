//! Signing in by program and by form: what is taken, and what is said.

use serde_json::json;

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::{Client, Request, Response};
use crate::harness::proxy::Proxy;
use crate::harness::session::{self, only_cookie};
use crate::harness::users::{self, ALICE, BOB, CAROL};

fn form(pairs: &[(&str, &str)]) -> Request {
    Request::post("/auth/login").form(pairs)
}

#[test]
fn json_gets_json_and_a_form_gets_a_redirect() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    for person in users::EVERYBODY {
        let response = proxy.try_sign_in(person.name, person.password);
        assert_eq!(response.status, 200);
        assert_eq!(
            response.header("content-type").as_deref(),
            Some("application/json")
        );
        let user = &response.json()["user"];
        assert_eq!(user["id"], person.id);
        assert_eq!(user["email"], person.email);
        assert_eq!(user["roles"], json!(person.roles));
        assert!(!response.text().contains("argon2"), "{}", response.text());
        assert_eq!(
            response.header("cache-control").as_deref(),
            Some("no-store")
        );

        let pairs = [("username", person.name), ("password", person.password)];
        let response = proxy.send(&form(&pairs));
        assert_eq!(response.status, 303);
        assert_eq!(response.header("location").as_deref(), Some("/"));
        assert!(response.body.is_empty());
        let jar = session::jar(&only_cookie(&response).value);
        assert_eq!(session::state(&proxy, &jar), person.id);
    }
    assert!(backend.requests().is_empty());
}

/// Everything but what differs between any two responses.
fn comparable(response: &Response) -> (String, Vec<(String, String)>, String) {
    let fields = response.fields().0.iter();
    let fields = fields
        .map(|(name, value)| {
            (
                name.to_lowercase(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .filter(|(name, _)| name != "date" && name != "x-request-id");
    (
        response.head.start.clone(),
        fields.collect(),
        response.text(),
    )
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    // The page repeats the name that was typed, so that has to be the same.
    let other = Config::to(backend.addr())
        .file(
            "users.toml",
            users::file().replace("name = \"alice\"", "name = \"alicia\""),
        )
        .start();
    assert_eq!(other.try_sign_in("alicia", ALICE.password).status, 200);
    let ask = |request: &Request| {
        let (wrong, unknown) = (proxy.send(request), other.send(request));
        assert_eq!(comparable(&wrong), comparable(&unknown));
        assert_eq!(wrong.status, 401);
        assert_eq!(wrong.refusal().as_deref(), Some("invalid_credentials"));
        assert!(!wrong.fields().has("set-cookie"));
        wrong
    };
    let sent = json!({ "username": ALICE.name, "password": "wrong" });
    let by_program = ask(&Request::post("/auth/login").json(&sent));
    assert_eq!(
        by_program.json(),
        json!({ "error": "Invalid credentials", "reason": "invalid_credentials" })
    );
    let page = ask(&form(&[
        ("username", ALICE.name),
        ("password", "wrong"),
        ("rd", "/x"),
        ("round", "1"),
    ]));
    assert!(
        page.text().contains("User name or password is wrong."),
        "{}",
        page.text()
    );
    assert!(
        !page.text().contains("\"wrong\""),
        "the page repeats the password"
    );

    // Other ways to be wrong.
    for (name, password) in [
        (ALICE.name, ""),
        (ALICE.name, BOB.password),
        ("", ALICE.password),
        ("Alice", ALICE.password),
        ("alice ", ALICE.password),
        ("alice\0", ALICE.password),
        (ALICE.id, ALICE.password),
        (ALICE.email, ALICE.password),
    ] {
        let response = proxy.try_sign_in(name, password);
        assert_eq!(comparable(&response), comparable(&by_program), "{name:?}");
    }
}

/// The processor time that the proxy has used, in the ticks of proc(5): other
/// than the time on the wall, it does not depend on who else is busy.
fn processor_time(proxy: &Proxy) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_unknown_user_costs_the_time_of_a_known_one() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let cost = |name: &str| {
        let before = processor_time(&proxy);
        for _ in 0..8 {
            assert_eq!(proxy.try_sign_in(name, "wrong").status, 401);
        }
        processor_time(&proxy) - before
    };
    let (known, unknown) = (cost(ALICE.name), cost("nobody"));
    let said = format!("{unknown} ticks for nobody, {known} for somebody");
    assert!(known >= 4, "{said}");
    assert!(unknown * 2 > known && known * 2 > unknown, "{said}");
}

#[test]
fn what_is_no_login_is_refused() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let login = || Request::post("/auth/login");
    let typed = |kind: &str, body: &str| login().header("content-type", kind).body(body);
    let right = json!({ "username": ALICE.name, "password": ALICE.password }).to_string();
    let large = json!({ "username": ALICE.name, "password": "x".repeat(70_000) }).to_string();
    let (json_kind, form_kind) = ("application/json", "application/x-www-form-urlencoded");
    for (what, request, status, reason) in [
        (
            "no type",
            login().body(right.as_str()),
            415,
            "unsupported_media_type",
        ),
        (
            "no type and no body",
            login(),
            415,
            "unsupported_media_type",
        ),
        (
            "text",
            typed("text/plain", &right),
            415,
            "unsupported_media_type",
        ),
        (
            "a file",
            typed("multipart/form-data; boundary=x", "--x--"),
            415,
            "unsupported_media_type",
        ),
        (
            "almost JSON",
            typed("application/jsonp", &right),
            415,
            "unsupported_media_type",
        ),
        ("no body", typed(json_kind, ""), 400, "bad_request_body"),
        (
            "broken JSON",
            typed(json_kind, "{\"username\":"),
            400,
            "bad_request_body",
        ),
        (
            "two of them",
            typed(json_kind, &right.repeat(2)),
            400,
            "bad_request_body",
        ),
        ("no object", typed(json_kind, "[]"), 400, "bad_request_body"),
        (
            "no password",
            typed(json_kind, "{\"username\":\"alice\"}"),
            400,
            "bad_request_body",
        ),
        (
            "no name",
            typed(json_kind, "{\"password\":\"x\"}"),
            400,
            "bad_request_body",
        ),
        (
            "a number",
            typed(json_kind, "{\"username\":1,\"password\":2}"),
            400,
            "bad_request_body",
        ),
        ("nothing", typed(json_kind, "null"), 400, "bad_request_body"),
        (
            "not UTF-8",
            login()
                .header("content-type", json_kind)
                .body(&b"{\"username\":\"\xff\"}"[..]),
            400,
            "bad_request_body",
        ),
        (
            "an empty form",
            typed(form_kind, ""),
            400,
            "bad_request_body",
        ),
        (
            "a form without a password",
            form(&[("username", "alice")]),
            400,
            "bad_request_body",
        ),
        (
            "a form without a name",
            form(&[("password", "x")]),
            400,
            "bad_request_body",
        ),
        (
            "too much JSON",
            typed(json_kind, &large),
            413,
            "body_too_large",
        ),
        (
            "too large a form",
            form(&[("username", "a"), ("password", &"x".repeat(70_000))]),
            413,
            "body_too_large",
        ),
    ] {
        let response = proxy.send(&request);
        assert_eq!(response.status, status, "{what} {}", response.text());
        assert_eq!(response.refusal().as_deref(), Some(reason), "{what}");
        assert_eq!(response.json()["reason"], reason, "{what}");
        assert!(!response.fields().has("set-cookie"), "{what}");
    }
    // A parameter of the type, and its case, mean nothing.
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        assert_eq!(proxy.send(&typed(kind, &right)).status, 200, "{kind}");
    }
    // The body may be held back until it is asked for.
    let mut client = Client::connect(proxy.addr());
    let patient = typed(json_kind, &right).header("expect", "100-continue");
    let response = client.request(&patient);
    assert_eq!((response.status, response.interim), (200, vec![100]));
    // Chunks that are too many are found out while they come.
    let mut client = Client::connect(proxy.addr());
    client.send(format!(
        "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: {json_kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    let chunk = format!("{:x}\r\n{}\r\n", 40_000, " ".repeat(40_000));
    client.send(&chunk);
    // The answer may come before the second chunk has been taken.
    let _ = client.try_send(&chunk);
    assert_eq!(client.read("POST").status, 413);
}

#[test]
fn the_own_endpoints_name_their_methods() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    for (target, allowed) in [
        ("/auth/login", "GET, HEAD, POST"),
        ("/auth/session", "GET, HEAD"),
        ("/auth/logout", "POST"),
        ("/auth/logout-all", "POST"),
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
        ] {
            let response = proxy.send(&Request::new(method, target));
            if allowed.split(", ").any(|m| m == method) {
                assert_ne!(response.status, 405, "{method} {target}");
            } else {
                assert_eq!(response.status, 405, "{method} {target}");
                assert_eq!(
                    response.header("allow").as_deref(),
                    Some(allowed),
                    "{method} {target}"
                );
            }
        }
    }
    // HEAD is GET without its content.
    for target in ["/auth/login", "/auth/session"] {
        let (head, get) = (proxy.send(&Request::new("HEAD", target)), proxy.get(target));
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{target}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{target} {name}");
        }
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn the_session_endpoint_says_who_or_why_not() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let carol = proxy.sign_in(&CAROL);
    let response = proxy.get_as("/auth/session", &carol);
    let body = response.json();
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["authenticated", "user", "expires_in", "idle_expires_in"]
    );
    assert_eq!(body["authenticated"], true);
    assert_eq!(body["user"]["id"], CAROL.id);
    assert_eq!(body["user"]["email"], CAROL.email);
    assert_eq!(body["user"]["roles"], json!(CAROL.roles));
    assert!((7 * 86400 - 60..=7 * 86400).contains(&body["expires_in"].as_i64().unwrap()));
    assert!((86400 - 60..=86400).contains(&body["idle_expires_in"].as_i64().unwrap()));
    assert!(!response.fields().has("set-cookie"));
    assert_eq!(
        response.header("cache-control").as_deref(),
        Some("no-store")
    );

    // A browser that goes there is told as well, and not sent elsewhere.
    for request in [
        Request::get("/auth/session"),
        Request::get("/auth/session").navigation(),
    ] {
        let response = proxy.send(&request);
        assert_eq!(response.status, 401);
        assert_eq!(
            response.json(),
            json!({ "error": "Not authenticated", "reason": "no_cookie" })
        );
    }
}

#[test]
fn other_paths_under_the_prefix_follow_the_routes() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/\"\naccess = \"public\"\n[[routes]]\npath = \"/auth/private\"\naccess = \"login\"")
        .start();
    for target in [
        "/auth",
        "/auth/",
        "/auth/google",
        "/auth/login/",
        "/auth/login/x",
        "/auth/Login",
        "/auth/loginx",
        "/authx",
    ] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(backend.requests().pop().unwrap().target, target);
    }
    assert_eq!(proxy.get("/auth/private/x").json()["reason"], "no_cookie");
}
