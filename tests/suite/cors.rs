//! Pages of other origins (S-65, S-66).

use crate::harness::backend::{Answer, Backend};
use crate::harness::config::Config;
use crate::harness::http::{Request, Response};
use crate::harness::users::ALICE;

const PAGE: &str = "https://www.example.com";

/// What an answer says to pages of other origins.
fn says(response: &Response, name: &str, value: &str) -> bool {
    response
        .header(&format!("access-control-{name}"))
        .as_deref()
        == Some(value)
}

fn says_nothing(response: &Response) -> bool {
    let head = String::from_utf8_lossy(&response.head.raw).to_ascii_lowercase();
    !head.contains("access-control-") && response.header("vary").as_deref() == Some("Origin")
}

#[test]
fn a_preflight_is_answered_without_a_session_and_never_forwarded() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("cors.origins", vec![PAGE])
        .start();
    for path in ["/", "/admin", "/denied", "/auth/login", "/nowhere"] {
        let preflight = Request::new("OPTIONS", path)
            .header("Origin", PAGE)
            .header("Access-Control-Request-Method", "PUT");
        let answer = proxy.send(&preflight);
        assert_eq!(answer.status, 204, "{path}");
        assert!(says(&answer, "allow-origin", PAGE));
        assert!(says(&answer, "allow-credentials", "true"));
        assert!(says(
            &answer,
            "allow-methods",
            "GET, HEAD, POST, PUT, PATCH, DELETE"
        ));
        assert!(says(&answer, "max-age", "600"));
        let stranger = Request::new("OPTIONS", path)
            .header("Origin", "https://evil.example")
            .header("Access-Control-Request-Method", "PUT");
        let answer = proxy.send(&stranger);
        assert!(says_nothing(&answer), "{path}");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn refusals_can_be_read_by_listed_pages_alone() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("cors.origins", vec![PAGE])
        .start();
    let refused = proxy.send(&Request::get("/").header("Origin", PAGE));
    assert_eq!(refused.status, 401);
    assert!(says(&refused, "allow-origin", PAGE));
    let stranger = proxy.send(&Request::get("/").header("Origin", "null"));
    assert!(says_nothing(&stranger));
}

#[test]
fn the_policy_of_the_proxy_replaces_that_of_the_application() {
    let backend = Backend::with(|_| {
        Answer::new(200)
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Headers", "*")
            .into()
    });
    let proxy = Config::to(backend.addr())
        .set("cors.origins", vec![PAGE])
        .start();
    let answer = proxy.send(&Request::get("/public").header("Origin", PAGE));
    assert!(says(&answer, "allow-origin", PAGE));
    assert_eq!(answer.header("access-control-allow-headers"), None);

    let own = Config::to(backend.addr())
        .set("cors.origins", vec![PAGE])
        .set("cors.preflight", "forward")
        .start();
    let answer = own.send(&Request::get("/public").header("Origin", PAGE));
    assert!(says(&answer, "allow-origin", "*"));
    let refused = own.send(&Request::get("/").header("Origin", PAGE));
    assert!(says(&refused, "allow-origin", PAGE));
}

#[test]
fn listed_pages_may_act_and_others_may_not() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("cors.origins", vec![PAGE])
        .start();
    let alice = proxy.sign_in(&ALICE);
    let act = |origin: &str| {
        let request = Request::new("POST", "/")
            .header("Origin", origin)
            .header("Sec-Fetch-Site", "cross-site")
            .cookies(&alice);
        proxy.send(&request).status
    };
    assert_eq!(act(PAGE), 200);
    assert_eq!(act("https://evil.example"), 403);
}
