//! Several addresses of one upstream: how requests are spread, and what
//! happens to those addresses that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::backend::{Backend, Reply, nobody};
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::proxy::Proxy;

fn config(addresses: &[SocketAddr]) -> Config {
    let urls: Vec<_> = addresses.iter().map(|a| format!("http://{a}")).collect();
    Config::to(addresses[0])
        .set("upstreams.app.urls", urls)
        .set("server.workers", 1)
}

fn metric(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.admin_get("/metrics").text();
    let line = format!("{name}{{upstream=\"app\"}} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&line));
    value
        .unwrap_or_else(|| panic!("{name}\n{text}"))
        .parse()
        .unwrap()
}

#[test]
fn round_robin_takes_turns() {
    let backends = [Backend::start(), Backend::start(), Backend::start()];
    let addresses: Vec<_> = backends.iter().map(Backend::addr).collect();
    let proxy = config(&addresses)
        .set("upstreams.app.balance", "round_robin")
        .set("upstreams.app.host", "upstream")
        .start();
    for _ in 0..9 {
        assert_eq!(proxy.get("/public").status, 200);
    }
    for backend in &backends {
        let requests = backend.requests();
        assert_eq!(requests.len(), 3);
        let host = requests[0].header("host");
        assert_eq!(host, Some(backend.addr().to_string()));
    }
}

#[test]
fn the_least_busy_address_is_taken() {
    let (slow, fast) = (Backend::with(|_| Reply::Hang), Backend::start());
    let proxy = config(&[slow.addr(), fast.addr()]).start();
    let mut waiting = Client::connect(proxy.addr());
    waiting.send(Request::get("/public").bytes("x"));
    // The first of two that have nothing to do.
    slow.wait_for(1);
    for _ in 0..10 {
        assert_eq!(proxy.get("/public").status, 200);
    }
    assert_eq!((slow.requests().len(), fast.requests().len()), (1, 10));
}

#[test]
fn an_address_that_accepts_no_connection_is_left_out() {
    let backend = Backend::start();
    let proxy = config(&[nobody(), backend.addr()])
        .set("upstreams.app.balance", "round_robin")
        .start();
    for _ in 0..6 {
        let response = proxy.send(&Request::post("/public").body("x"));
        assert_eq!(response.status, 200);
    }
    assert_eq!(backend.requests().len(), 6);
    assert!(metric(&proxy, "cloakroom_upstream_ejections_total") >= 1);
    assert!(metric(&proxy, "cloakroom_upstream_connect_failures_total") >= 1);
    assert!(metric(&proxy, "cloakroom_upstream_retries_total") >= 1);
}

#[test]
fn where_all_are_left_out_they_are_tried_all_the_same() {
    let mut backend = Backend::start();
    let proxy = config(&[nobody(), backend.addr()]).start();
    backend.stop();
    for _ in 0..3 {
        let response = proxy.get("/public");
        assert_eq!(response.status, 502);
        assert_eq!(
            response.refusal().as_deref(),
            Some("upstream_connect_failed")
        );
    }
    backend.restart();
    assert_eq!(proxy.get("/public").status, 200);
}

#[test]
fn an_address_that_fails_its_checks_gets_no_requests() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let ailing = Backend::with(move |request| match request.target.as_str() {
        "/alive" if is_well.load(Ordering::SeqCst) => Reply::status(204),
        "/alive" => Reply::status(503),
        _ => Reply::ok("ailing"),
    });
    let healthy = Backend::start();
    let proxy = config(&[ailing.addr(), healthy.addr()])
        .set("upstreams.app.balance", "round_robin")
        .set("upstreams.app.health.path", "/alive")
        .set("upstreams.app.health.interval", "100ms")
        .set("server.workers", 2)
        .start();
    let unhealthy = |wanted: u64| {
        eventually("the health checks", || {
            (metric(&proxy, "cloakroom_upstream_unhealthy") == wanted).then_some(())
        });
    };
    unhealthy(1);
    for _ in 0..6 {
        assert_ne!(proxy.get("/public").text(), "ailing");
    }
    well.store(true, Ordering::SeqCst);
    unhealthy(0);
    let answers: Vec<_> = (0..6).map(|_| proxy.get("/public").text()).collect();
    assert!(answers.iter().any(|text| text == "ailing"), "{answers:?}");
    let checks = ailing.requests();
    let check = checks
        .iter()
        .find(|request| request.target == "/alive")
        .unwrap();
    assert_eq!(check.header("host"), Some(ailing.addr().to_string()));
    assert_eq!(proxy.admin_get("/readyz").status, 200);
}

#[test]
fn an_address_that_does_not_answer_is_left_out() {
    let (hanging, backend) = (Backend::with(|_| Reply::Hang), Backend::start());
    let proxy = config(&[hanging.addr(), backend.addr()])
        .set("upstreams.app.balance", "round_robin")
        .set("upstreams.app.response_timeout", "100ms")
        .start();
    let statuses: Vec<_> = (0..10).map(|_| proxy.get("/public").status).collect();
    // Whether it was acted on is unknown, so nothing is sent again.
    assert_eq!(statuses, [504, 200].repeat(5));
    assert_eq!(metric(&proxy, "cloakroom_upstream_ejections_total"), 1);
    assert_eq!(hanging.requests().len(), 5);
}
