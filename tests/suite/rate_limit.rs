//! `server.limits.requests_per_ip`.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};

#[test]
fn one_request_too_many_is_told_when_to_come_back() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.requests_per_ip", "3/h")
        .start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..3 {
        assert_eq!(client.request(&Request::get("/public")).status, 200);
    }
    let refused = client.request(&Request::get("/public"));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.refusal().as_deref(), Some("rate_limited"));
    assert_eq!(refused.json()["reason"], "rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "{wait}");
    // Another connection, perhaps another worker: one limit all the same.
    for target in ["/public", "/auth/session", "/auth/login", "/nowhere"] {
        assert_eq!(proxy.get(target).status, 429, "{target}");
    }
    assert_eq!(backend.requests().len(), 3);
    assert_eq!(proxy.admin_get("/healthz").status, 200);
    let metrics = proxy.admin_get("/metrics").text();
    let line = "cloakroom_refusals_total{reason=\"rate_limited\"} 5";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.requests_per_ip", "3/h")
        .with("trust.proxies = [\"loopback\"]")
        .start();
    let ask = |client: &str| {
        let request = Request::get("/public").header("x-forwarded-for", client);
        proxy.send(&request).status
    };
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        for _ in 0..3 {
            assert_eq!(ask(client), 200, "{client}");
        }
        assert_eq!(ask(client), 429, "{client}");
    }
    assert_eq!(ask("2001:db8::ffff"), 429, "the same network");
    assert_eq!(ask("2001:db8:0:1::1"), 200, "another one");
}

#[test]
fn from_an_untrusted_peer_a_forwarding_field_buys_nothing() {
    let proxy = Config::to(Backend::start().addr())
        .set("server.limits.requests_per_ip", "3/h")
        .start();
    let statuses: Vec<u16> = (1..=4)
        .map(|n| {
            let field = format!("192.0.2.{n}");
            let request = Request::get("/denied").header("x-forwarded-for", field);
            proxy.send(&request).status
        })
        .collect();
    assert_eq!(statuses, [403, 403, 403, 429]);
}

#[test]
fn without_a_limit_nobody_is_counted() {
    let proxy = Config::to(Backend::start().addr()).start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2000 {
        assert_eq!(client.request(&Request::get("/denied")).status, 403);
    }
}

/// Whoever sends what can only be refused is not to do so without a limit.
#[test]
fn requests_with_bad_targets_and_heads_count() {
    let backend = Backend::start();
    for (head, status, over) in [
        ("GET /public/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, 429),
        (
            "GET /public HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
            417,
            429,
        ),
        // These end their connection, limit or not.
        ("GET /public#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, 400),
        ("GET /public HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 400),
        ("GET /public HTTP/1.1\r\n: a\r\n\r\n", 400, 400),
    ] {
        let proxy = Config::to(backend.addr())
            .set("server.limits.requests_per_ip", "3/h")
            .start();
        let ask = || {
            let mut client = Client::connect(proxy.addr());
            client.send(head);
            client.read("GET")
        };
        for _ in 0..3 {
            assert_eq!(ask().status, status, "{head:?}");
        }
        let answer = ask();
        assert_eq!(answer.status, over, "{head:?}");
        assert_eq!(answer.fields().has("retry-after"), over == 429);
        assert_eq!(proxy.get("/public").status, 429, "{head:?}");
    }
    assert!(backend.requests().is_empty());
}
