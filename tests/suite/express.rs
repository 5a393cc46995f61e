//! A real Express application behind the proxy, for a program and for a
//! browser.

use std::path::Path;

use serde_json::json;

use crate::harness::config::Config;
use crate::harness::express::{self, Express};
use crate::harness::http::Request;
use crate::harness::users::{ALICE, CAROL};

#[test]
fn the_application_learns_who_it_is() {
    let app = Express::start();
    let proxy = Config::to(app.addr()).start();

    let anonymous = proxy.get("/api/me");
    assert_eq!(anonymous.status, 401);
    assert_eq!(anonymous.json()["reason"], "no_cookie");
    assert_eq!(proxy.get("/public").status, 200);

    let alice = proxy.sign_in(&ALICE);
    let me = proxy.get_as("/api/me", &alice);
    assert_eq!(me.status, 200);
    assert_eq!(
        me.json(),
        json!({ "id": ALICE.id, "email": ALICE.email, "roles": ALICE.roles })
    );
    assert_eq!(proxy.get_as("/admin", &alice).status, 403);

    let carol = proxy.sign_in(&CAROL);
    assert_eq!(proxy.get_as("/admin", &carol).status, 200);
}

#[test]
fn the_application_cannot_be_told_lies() {
    let app = Express::start();
    let proxy = Config::to(app.addr()).start();
    let alice = proxy.sign_in(&ALICE);

    let lies = Request::get("/headers")
        .header("X-User-Id", "u-carol")
        .header("x_user_roles", "admin")
        .cookies(&alice);
    let seen = proxy.send(&lies).json();
    let headers = seen["headers"].as_array().unwrap();
    let values = |name: &str| -> Vec<&str> {
        let spelt_alike = |field: &&serde_json::Value| {
            field[0]
                .as_str()
                .unwrap()
                .replace('_', "-")
                .eq_ignore_ascii_case(name)
        };
        headers
            .iter()
            .filter(spelt_alike)
            .map(|field| field[1].as_str().unwrap())
            .collect()
    };
    assert_eq!(values("x-user-id"), [ALICE.id]);
    assert_eq!(values("x-user-roles"), [ALICE.roles.join(",")]);
    assert!(
        values("cookie").is_empty(),
        "the session cookie reached the application: {seen}"
    );
}

#[test]
fn bodies_pass_in_both_directions() {
    let app = Express::start();
    let proxy = Config::to(app.addr()).start();
    let alice = proxy.sign_in(&ALICE);

    let body = "0123456789abcdef".repeat(20_000);
    let echo = Request::post("/echo").cookies(&alice).body(body.as_str());
    let echoed = proxy.send(&echo);
    assert_eq!(echoed.status, 200);
    assert!(
        echoed.text() == body,
        "{} of {} bytes came back",
        echoed.body.len(),
        body.len()
    );

    let stream = proxy.get_as("/stream", &alice);
    assert_eq!(
        stream.text(),
        "chunk 1\nchunk 2\nchunk 3\nchunk 4\nchunk 5\n"
    );
}

#[test]
fn a_browser_signs_in_and_out() {
    let app = Express::start();
    let proxy = Config::to(app.addr()).start();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    express::browse(
        &proxy.url(),
        ALICE.name,
        ALICE.password,
        ALICE.id,
        &pictures,
    );
}
