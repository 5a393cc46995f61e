//! HTTP/2 with prior knowledge, spoken by curl.

use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::cli::{self, Ran};
use crate::harness::config::Config;
use crate::harness::users::ALICE;

fn curl(arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--http2-prior-knowledge",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(["-w", "\n%{http_version} %{response_code}"])
        .args(arguments);
    cli::run(&mut command, input)
}

/// S-33, S-35: cookie crumbs are one line, `Host` comes from `:authority`.
#[test]
fn requests_over_http2_are_the_same_requests() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    let ours = jar.header().unwrap();
    let url = format!("{}/x?a=%20", proxy.url());
    let ran = curl(
        &[
            "-H",
            "Cookie: a=1",
            "-H",
            &format!("Cookie: {ours}"),
            "-H",
            "Cookie: b=2",
            "-H",
            "X-User-Id: evil",
            "-H",
            "x_user_id: evil",
            "-H",
            "X-Forwarded-For: 6.6.6.6",
            "-H",
            "TE: trailers",
            &url,
        ],
        "",
    );
    assert!(ran.stdout.ends_with("\n2 200"), "{}", ran.text());
    let arrived = backend.only_request();
    assert_eq!(arrived.target, "/x?a=%20");
    assert_eq!(arrived.header("cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(arrived.header("x-user-id").as_deref(), Some(ALICE.id));
    assert!(!arrived.fields().has("x_user_id"));
    assert_eq!(arrived.header("host"), Some(proxy.addr().to_string()));
    assert_eq!(
        arrived.header("x-forwarded-for").as_deref(),
        Some("127.0.0.1")
    );
    assert_eq!(arrived.header("via").as_deref(), Some("2.0 cloakroom"));
    assert!(backend.malformed().is_empty());

    let line = proxy.output().wait_for_json(|l| l["path"] == "/x");
    assert_eq!(line["protocol"], "HTTP/2");
}

#[test]
fn bodies_over_http2_arrive_whole() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.body_bytes", "4MiB")
        .start();
    let url = format!("{}/public", proxy.url());
    let large = "0123456789abcdef".repeat(3 * 65536);
    let ran = curl(&["--data-binary", "@-", &url], &large);
    assert!(ran.stdout.ends_with("\n2 200"), "{}", ran.stderr);
    let arrived = backend.only_request();
    assert!(arrived.body.content == large.as_bytes());
    assert_eq!(arrived.method, "POST");
    backend.clear();

    // Without a declared length: chunks of our own.
    let ran = curl(&["-T", "-", &url], "streamed");
    assert!(ran.stdout.ends_with("\n2 200"), "{}", ran.text());
    assert_eq!(backend.only_request().body.content, b"streamed");
    backend.clear();

    // curl takes the reset that follows an early answer for an error, so what
    // it was told is looked up in the log.
    let ran = curl(&["--data-binary", "@-", &url], &large.repeat(2));
    assert_ne!(ran.code, Some(28), "it hung: {}", ran.stderr);
    let line = proxy.output().wait_for_json(|l| l["status"] == 413);
    assert_eq!(line["reason"], "body_too_large");
    assert!(backend.requests().is_empty());
}

#[test]
fn refusals_over_http2_are_the_same_refusals() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    for (target, status) in [("/x", 401), ("/denied", 403), ("/public/%00", 400)] {
        let ran = curl(&["-i", &format!("{}{target}", proxy.url())], "");
        assert!(
            ran.stdout.ends_with(&format!("\n2 {status}")),
            "{}",
            ran.text()
        );
        assert!(
            ran.stdout.contains("proxy-status: cloakroom; error="),
            "{}",
            ran.text()
        );
        assert!(!ran.stdout.contains("set-cookie"), "{}", ran.text());
    }
    // Another Host beside :authority, and a CONNECT.
    let ran = curl(&["-X", "TRACE", &format!("{}/public", proxy.url())], "");
    assert!(ran.stdout.ends_with("\n2 405"), "{}", ran.text());
    let ran = curl(
        &["--path-as-is", &format!("{}/public/../x", proxy.url())],
        "",
    );
    assert!(ran.stdout.ends_with("\n2 400"), "{}", ran.text());
    assert!(backend.requests().is_empty());
}

/// S-38.
#[test]
fn without_http2_its_preface_is_refused_and_nothing_hangs() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.http2", false)
        .start();
    let ran = curl(&[&format!("{}/public", proxy.url())], "");
    assert_ne!(ran.code, Some(0), "{}", ran.text());
    assert_ne!(ran.code, Some(28), "it hung: {}", ran.text());
    assert!(backend.requests().is_empty());
    assert_eq!(proxy.get("/public").status, 200);
}
