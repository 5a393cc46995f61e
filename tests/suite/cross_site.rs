//! Requests that another site makes a browser send.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::Request;
use crate::harness::session;
use crate::harness::users::{ALICE, BOB};

/// Our own origin in these tests.
const HOST: &str = "app.example.test";
const OWN: &str = "http://app.example.test";

/// Fields that tell where a request comes from, and whether it may act.
const CASES: [(&[(&str, &str)], bool); 20] = [
    (&[], true),
    (&[("origin", OWN)], true),
    (&[("origin", "http://evil.example")], false),
    (&[("origin", "https://app.example.test")], false),
    (&[("origin", "http://app.example.test:8080")], false),
    (&[("origin", "http://x.app.example.test")], false),
    (&[("origin", "http://app.example.test.evil.example")], false),
    (&[("origin", "null")], false),
    (&[("origin", "")], false),
    (&[("origin", OWN), ("origin", "http://evil.example")], false),
    (&[("sec-fetch-site", "same-origin")], true),
    (&[("sec-fetch-site", "none")], true),
    (&[("sec-fetch-site", "same-site")], false),
    (&[("sec-fetch-site", "cross-site")], false),
    (&[("sec-fetch-site", "something-new")], false),
    (
        &[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
        ],
        false,
    ),
    (&[("sec-fetch-site", "cross-site"), ("origin", OWN)], false),
    (&[("sec-fetch-site", "same-site"), ("origin", OWN)], false),
    (
        &[("sec-fetch-site", "cross-site"), ("origin", "null")],
        false,
    ),
    (&[("sec-fetch-site", "same-origin"), ("origin", OWN)], true),
];

fn from(request: Request, fields: &[(&str, &str)]) -> Request {
    let request = request.header("host", HOST);
    fields.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    })
}

#[test]
fn another_site_cannot_sign_anybody_in_or_out() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let login = Request::post("/auth/login");
    let body = serde_json::json!({ "username": BOB.name, "password": "wrong" });
    for (fields, allowed) in CASES {
        for (request, answer) in [
            (login.clone().json(&body), 401),
            (
                login
                    .clone()
                    .form(&[("username", BOB.name), ("password", "wrong")]),
                401,
            ),
            (Request::post("/auth/logout"), 204),
            (Request::post("/auth/logout-all"), 204),
        ] {
            let response = proxy.send(&from(request, fields));
            let wanted = if allowed { answer } else { 403 };
            assert_eq!(response.status, wanted, "{fields:?}");
            if !allowed {
                assert_eq!(
                    response.refusal().as_deref(),
                    Some("cross_site_request"),
                    "{fields:?}"
                );
            }
        }
        if !allowed {
            for target in ["/auth/logout", "/auth/logout-all"] {
                let response = proxy.send(&from(Request::post(target).cookies(&alice), fields));
                assert_eq!(response.status, 403, "{fields:?}");
                assert!(!response.fields().has("set-cookie"), "{fields:?}");
            }
            assert_eq!(session::state(&proxy, &alice), ALICE.id, "{fields:?}");
        }
        // Looking is no acting.
        let looking = from(Request::get("/auth/session").cookies(&alice), fields);
        assert_eq!(proxy.send(&looking).status, 200, "{fields:?}");
    }
}

#[test]
fn another_site_cannot_act_with_our_cookie() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    for (fields, allowed) in CASES {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for target in ["/", "/public"] {
                let request = from(Request::new(method, target).cookies(&alice), fields);
                let wanted = if allowed { 200 } else { 403 };
                assert_eq!(
                    proxy.send(&request).status,
                    wanted,
                    "{method} {target} {fields:?}"
                );
            }
        }
        let get = from(Request::get("/").cookies(&alice), fields);
        assert_eq!(proxy.send(&get).status, 200, "{fields:?}");
        // Without our cookie it is the application's business.
        let webhook = from(Request::post("/public").header("cookie", "other=1"), fields);
        assert_eq!(proxy.send(&webhook).status, 200, "{fields:?}");
    }
    // A cookie that means nothing is still the browser's.
    let forged = from(Request::post("/public"), &[("origin", "null")]);
    let forged = forged.cookies(&session::jar("x"));
    assert_eq!(proxy.send(&forged).status, 403);
}

#[test]
fn sibling_hosts_may_act_where_that_is_allowed() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("csrf.allow_same_site", true)
        .start();
    let send = |site: &str| {
        proxy.send(&from(
            Request::post("/auth/logout"),
            &[("sec-fetch-site", site)],
        ))
    };
    assert_eq!(send("same-site").status, 204);
    assert_eq!(send("cross-site").status, 403);
}

#[test]
fn our_own_origin_is_as_the_browser_sees_it() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.public_url", "https://public.example.test")
        .start();
    let send =
        |origin: &str| proxy.send(&from(Request::post("/auth/logout"), &[("origin", origin)]));
    assert_eq!(send("https://public.example.test").status, 204);
    assert_eq!(send(OWN).status, 403);
    assert_eq!(send("http://public.example.test").status, 403);

    let proxy = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\"]")
        .start();
    let send = |origin: &str| {
        let fields = [
            ("origin", origin),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
        ];
        proxy.send(&from(Request::post("/auth/logout"), &fields))
    };
    assert_eq!(send("https://app.example.test").status, 204);
    assert_eq!(send("https://app.example.test:8443").status, 403);
    assert_eq!(send(OWN).status, 403);
}
