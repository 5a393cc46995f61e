//! WebSockets through the proxy (S-24, CVE-2026-2833, CVE-2024-23326).

use std::io::{Read, Write};

use super::expect;
use crate::harness::backend::{Answer, Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::proxy::Proxy;
use crate::harness::users::ALICE;

const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: app=1\r\n\r\n";

/// An application that accepts, and says everything back in capitals.
fn echo() -> Backend {
    Backend::with(|_| {
        Reply::take(|mut stream, early| {
            let _ = stream.write_all(ACCEPTED);
            let _ = stream.write_all(&early.to_ascii_uppercase());
            let mut piece = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                if stream
                    .write_all(&piece[..count].to_ascii_uppercase())
                    .is_err()
                {
                    break;
                }
            }
        })
    })
}

fn handshake(path: &str) -> Request {
    Request::get(path)
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn open(proxy: &Proxy, request: &Request) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(request.bytes(&proxy.addr().to_string()));
    let head = client.read_head().unwrap();
    assert!(head.raw.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(head.fields.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.fields.get("connection").as_deref(), Some("upgrade"));
    client
}

#[test]
fn bytes_pass_both_ways_and_the_application_knows_who_it_is() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let request = handshake("/chat")
        .header("X-User-Id", "somebody-else")
        .cookies(&alice);
    let mut client = open(&proxy, &request);
    for round in 0..3 {
        client.send(format!("hello {round}"));
        assert_eq!(client.read_bytes(7), format!("HELLO {round}").into_bytes());
    }
    let arrived = backend.only_request();
    assert_eq!(arrived.fields().all("x-user-id"), [ALICE.id]);
    assert_eq!(arrived.fields().all("upgrade"), ["websocket"]);
    assert_eq!(arrived.fields().all("connection"), ["upgrade"]);
    assert!(!arrived.fields().has("cookie"));
    assert!(arrived.fields().has("sec-websocket-key"));
    drop(client);
    let line = proxy.output().wait_for_json(|l| l["path"] == "/chat");
    assert_eq!(line["status"], 101);
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&21.into(), &21.into())
    );
    assert_eq!(line["user"], ALICE.id);
}

#[test]
fn without_a_session_there_is_no_socket_and_no_redirect() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).start();
    let request = handshake("/chat").header("Accept", "text/html");
    expect::refused(&proxy.send(&request), 401, "no_cookie");
    assert!(backend.requests().is_empty());
    open(&proxy, &handshake("/public/chat"));
}

/// S-67: scripts of any site may open WebSockets, with the visitor's cookie.
#[test]
fn other_sites_cannot_open_one_with_our_cookie() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).set("csrf.mode", "off").start();
    let alice = proxy.sign_in(&ALICE);
    let own = format!("http://{}", proxy.addr());
    for (origin, allowed) in [
        (Some("https://evil.example"), false),
        (Some("null"), false),
        (Some(own.as_str()), true),
        (None, true),
    ] {
        let mut request = handshake("/chat").cookies(&alice);
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        if allowed {
            open(&proxy, &request);
        } else {
            expect::refused(&proxy.send(&request), 403, "cross_site_request");
        }
    }
    // Without the cookie there is nothing to protect.
    open(
        &proxy,
        &handshake("/public/chat").header("Origin", "https://evil.example"),
    );
}

/// What follows the handshake is no data for the application until it has
/// accepted, and a request like any other if it does not.
#[test]
fn nothing_leaves_http_before_the_application_agrees() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    let smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\n\r\n";
    client.send([handshake("/public/a").bytes("x"), smuggled.into()].concat());
    assert_eq!(client.read("GET").status, 200);
    let second = client.read("GET");
    assert_eq!(second.status, 401);
    assert_eq!(backend.only_request().target, "/public/a");
}

#[test]
fn what_is_no_websocket_is_no_upgrade() {
    let backend = Backend::with(|request| {
        if request.target == "/public/sneaky" {
            return Reply::BytesThenClose(ACCEPTED.to_vec());
        }
        if request.target == "/public/other" {
            let other = b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
            return Reply::BytesThenClose(other.to_vec());
        }
        Answer::new(200).header("Upgrade", "h2c").into()
    });
    let proxy = Config::to(backend.addr()).start();
    for upgrade in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let request = Request::get("/public")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("HTTP2-Settings", "AAMAAABk")
            .header("Upgrade", upgrade);
        let answer = proxy.send(&request);
        assert_eq!(answer.status, 200, "{upgrade}");
        assert_eq!(answer.header("upgrade"), None);
        let arrived = backend.only_request();
        assert!(!arrived.fields().has("upgrade") && !arrived.fields().has("http2-settings"));
        backend.clear();
    }
    // No key, or two of them: not a handshake either.
    let keyless = Request::get("/public")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    let twice = handshake("/public").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for request in [keyless, twice] {
        assert_eq!(proxy.send(&request).status, 200);
        assert!(!backend.only_request().fields().has("upgrade"));
        backend.clear();
    }
    expect::refused(&proxy.get("/public/sneaky"), 502, "upstream_protocol_error");
    let other = proxy.send(&handshake("/public/other"));
    expect::refused(&other, 502, "upstream_protocol_error");
}

#[test]
fn a_socket_on_which_nobody_speaks_ends() {
    let backend = echo();
    let proxy = Config::to(backend.addr())
        .set("server.limits.tunnel_idle_timeout", "400ms")
        .set("server.limits.idle_timeout", "100ms")
        .start();
    let mut client = open(&proxy, &handshake("/public/chat"));
    client.send("a");
    assert_eq!(client.read_bytes(1), b"A");
    assert!(client.is_closed());
    let line = proxy.output().wait_for_json(|l| l["status"] == 101);
    assert_eq!(line["aborted"], true);
}

#[test]
fn each_end_learns_that_the_other_has_gone() {
    let (left, gone) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let backend = Backend::with(move |_| {
        let left = left.lock().unwrap().clone();
        Reply::take(move |mut stream, _| {
            let _ = stream.write_all(ACCEPTED);
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            let _ = left.send(said);
        })
    });
    let proxy = Config::to(backend.addr()).start();
    let mut client = open(&proxy, &handshake("/public/chat"));
    client.send("bye");
    drop(client);
    assert_eq!(gone.recv_timeout(crate::harness::PATIENCE).unwrap(), b"bye");

    let closing = Backend::with(|_| Reply::BytesThenClose(ACCEPTED.to_vec()));
    let proxy = Config::to(closing.addr()).start();
    assert!(open(&proxy, &handshake("/public/chat")).is_closed());
}

#[test]
fn an_open_socket_is_a_connection_until_it_ends() {
    let backend = echo();
    let mut proxy = Config::to(backend.addr())
        .set("server.drain_timeout", "300ms")
        .start();
    let mut client = open(&proxy, &handshake("/public/chat"));
    let metrics = proxy.admin_get("/metrics").text();
    assert!(metrics.contains("cloakroom_connections 1"), "{metrics}");
    assert_eq!(proxy.terminate().code(), Some(0));
    assert!(client.is_closed());
}
