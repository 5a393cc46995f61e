//! Limits of size and time, at a client's side.

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::expect;
use crate::harness::PATIENCE;
use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};

/// CVE-2021-40346: sections are bounded with 431. hyper looks at the limit
/// between two reads, so a little more than it may pass.
#[test]
fn a_head_may_be_so_large_and_no_larger() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.header_bytes", "16KiB")
        .set("server.limits.header_count", 20)
        .start();
    let with = |bytes: usize| Request::get("/public").header("x-large", "a".repeat(bytes));
    assert_eq!(proxy.send(&with(12_000)).status, 200);
    assert_eq!(proxy.send(&with(40_000)).status, 431);
    assert_eq!(proxy.send(&with(2_000_000 / 8)).status, 431);
    let many = |count: usize| {
        (0..count).fold(Request::get("/public"), |r, n| {
            r.header(&format!("x-{n}"), "1")
        })
    };
    assert_eq!(proxy.send(&many(15)).status, 200);
    assert_eq!(proxy.send(&many(21)).status, 431);
    assert_eq!(backend.requests().len(), 2);
    let default = Config::to(backend.addr()).start();
    assert_eq!(default.send(&with(60_000)).status, 200);
    assert_eq!(default.send(&with(200_000)).status, 431);
    assert_eq!(default.send(&many(90)).status, 200);
    assert_eq!(default.send(&many(110)).status, 431);
}

/// CVE-2024-28869: slowloris.
#[test]
fn a_head_in_drips_ends_with_the_header_timeout() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.header_timeout", "300ms")
        .start();
    let begin = Instant::now();
    let mut silent = Client::connect(proxy.addr());
    let mut drips = Client::connect(proxy.addr());
    let mut again = Client::connect(proxy.addr());
    assert_eq!(again.request(&Request::get("/public")).status, 200);
    again.send("GET /public HTTP/1.1\r\n");
    let head = "GET /public HTTP/1.1\r\nHost: x\r\nX-Long: "
        .bytes()
        .chain(std::iter::repeat(b'a'));
    for byte in head {
        if drips.try_send([byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        assert!(begin.elapsed() < Duration::from_secs(5), "still open");
    }
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(silent.is_closed());
    // One that had a request before gets no more time for the next one.
    assert!(again.is_closed());
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn an_idle_connection_ends_with_the_idle_timeout() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.idle_timeout", "200ms")
        .start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        assert_eq!(client.request(&Request::get("/public")).status, 200);
    }
    let begin = Instant::now();
    assert!(client.is_closed());
    assert!(begin.elapsed() >= Duration::from_millis(150));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_request_body_that_stops_ends_with_its_own_timeout() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.body_idle_timeout", "200ms")
        .start();
    for head in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = Client::connect(proxy.addr());
        client.send(format!("POST /public HTTP/1.1\r\nHost: x\r\n{head}"));
        expect::refused(&client.read("POST"), 408, "body_timeout");
        assert!(client.is_closed());
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn a_request_body_may_be_so_large_and_no_larger() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with(
            r#"
            [server.limits]
            body_bytes = "1KiB"
            [[routes]]
            path = "/"
            access = "public"
            [[routes]]
            path = "/upload"
            access = "public"
            body_bytes = "1MiB"
            [[routes]]
            path = "/any"
            access = "public"
            body_bytes = "none"
            "#,
        )
        .start();
    let chunked = |target: &str, size: usize| {
        let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        Request::post(target)
            .header("transfer-encoding", "chunked")
            .body(body)
    };
    let declared = |target: &str, size: usize| Request::post(target).body("x".repeat(size));
    for (target, limit) in [("/", 1024), ("/upload", 1024 * 1024)] {
        for request in [declared(target, limit), chunked(target, limit)] {
            assert_eq!(proxy.send(&request).status, 200);
        }
        backend.clear();
        for request in [declared(target, limit + 1), chunked(target, limit + 1)] {
            expect::refused(&proxy.send(&request), 413, "body_too_large");
        }
        assert!(backend.requests().is_empty(), "{target}");
    }
    // A declared length is refused before a byte of the body comes.
    let mut client = Client::connect(proxy.addr());
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    expect::refused(&client.read("POST"), 413, "body_too_large");
    assert_eq!(proxy.send(&declared("/any", 3_000_000)).status, 200);
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.workers", 1)
        .set("server.limits.connections", 2)
        .start();
    let mut open: Vec<_> = (0..2).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut open {
        assert_eq!(client.request(&Request::get("/public/first")).status, 200);
    }
    let mut third = Client::connect(proxy.addr());
    third.send(Request::get("/public/third").bytes("x"));
    for client in &mut open {
        assert_eq!(client.request(&Request::get("/public/again")).status, 200);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(
        backend
            .requests()
            .iter()
            .all(|r| r.target != "/public/third")
    );
    drop(open.pop());
    assert_eq!(third.read("GET").status, 200);
}

/// A client that does not read holds the application up only so long.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let (ended, gone) = mpsc::channel();
    let backend = Backend::with(move |_| {
        let ended = ended.clone();
        Reply::take(move |mut stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
            ended.send(()).unwrap();
        })
    });
    let proxy = Config::to(backend.addr())
        .set("server.limits.body_idle_timeout", "300ms")
        .start();
    let mut client = Client::connect(proxy.addr());
    client.send("GET /public HTTP/1.1\r\nHost: x\r\n\r\n");
    gone.recv_timeout(PATIENCE)
        .expect("the application was never let go");
    drop(client);
}
