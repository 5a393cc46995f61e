//! `server.proxy_protocol`: what a trusted proxy says before the first request.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::harness::PATIENCE;
use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::http::{Client, Request, Response};
use crate::harness::proxy::Proxy;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn start(backend: &Backend, trusted: &str) -> Proxy {
    Config::to(backend.addr())
        .set("server.proxy_protocol", true)
        .set("server.limits.header_timeout", "500ms")
        .with(&format!("trust.proxies = [\"{trusted}\"]"))
        .start()
}

fn ask(proxy: &Proxy, header: &[u8]) -> std::io::Result<Response> {
    let mut client = Client::connect(proxy.addr());
    let request = Request::get("/public").header("x-forwarded-for", "203.0.113.9");
    client.try_send([header, &request.bytes("a.example")].concat())?;
    client.try_read("GET")
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, rest].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 2, 0xdd, 0xd5, 0x01, 0xbb];

#[test]
fn the_source_address_is_the_peer() {
    let backend = Backend::start();
    let proxy = start(&backend, "loopback");
    let with_tlv = [&ADDRESSES[..], &[0x04, 0, 2, 0, 0]].concat();
    for header in [
        b"PROXY TCP4 192.0.2.7 198.51.100.2 56789 443\r\n".to_vec(),
        v2(0x21, 0x11, &ADDRESSES),
        v2(0x21, 0x11, &with_tlv),
    ] {
        backend.clear();
        assert_eq!(ask(&proxy, &header).unwrap().status, 200);
        // It is no trusted proxy itself, so its own word does not count.
        let sent = backend.only_request().header("x-forwarded-for");
        assert_eq!(sent.as_deref(), Some("192.0.2.7"));
    }
}

#[test]
fn without_an_address_the_socket_s_peer_stays() {
    let backend = Backend::start();
    let proxy = start(&backend, "loopback");
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &ADDRESSES),
    ] {
        backend.clear();
        assert_eq!(ask(&proxy, &header).unwrap().status, 200);
        let sent = backend.only_request().header("x-forwarded-for").unwrap();
        assert!(sent.starts_with("203.0.113.9"), "{sent}");
    }
}

#[test]
fn a_trusted_proxy_must_send_a_good_one() {
    let backend = Backend::start();
    let proxy = start(&backend, "loopback");
    let tlv_over = [&ADDRESSES[..], &[0x04, 0, 9, 1]].concat();
    for header in [
        b"".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.2 56789\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.2 56789 443\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        v2(0x21, 0x12, &ADDRESSES),
        v2(0x21, 0x11, &ADDRESSES[..8]),
        v2(0x21, 0x11, &tlv_over),
        v2(0x31, 0x11, &ADDRESSES),
    ] {
        assert!(ask(&proxy, &header).is_err(), "{header:?}");
    }
    assert!(backend.requests().is_empty());
    let metrics = proxy.admin_get("/metrics").text();
    let line = "cloakroom_refusals_total{reason=\"bad_proxy_header\"} 8";
    assert!(metrics.contains(line), "{metrics}");
    proxy
        .output()
        .wait_for_json(|line| line["reason"] == "bad_proxy_header");
}

#[test]
fn a_header_in_drips_has_a_deadline_and_in_pieces_is_whole() {
    let backend = Backend::start();
    let proxy = start(&backend, "loopback");
    let mut client = Client::connect(proxy.addr());
    client.send("PROXY TCP4 192.0.2.7");
    assert!(client.is_closed());

    let mut stream = std::net::TcpStream::connect(proxy.addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = v2(0x21, 0x11, &ADDRESSES);
    bytes.extend(b"GET /public HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn from_anyone_else_it_is_refused_and_not_needed() {
    let backend = Backend::start();
    let proxy = start(&backend, "10.0.0.0/8");
    for header in [
        b"PROXY TCP4 192.0.2.7 198.51.100.2 56789 443\r\n".to_vec(),
        v2(0x21, 0x11, &ADDRESSES),
    ] {
        assert!(ask(&proxy, &header).is_err(), "{header:?}");
    }
    assert!(backend.requests().is_empty());
    assert_eq!(ask(&proxy, b"").unwrap().status, 200);
    assert_eq!(proxy.send(&Request::post("/public")).status, 200);
    let sent = backend.wait_for(2).remove(0);
    assert_eq!(sent.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    let metrics = proxy.admin_get("/metrics").text();
    let line = "cloakroom_refusals_total{reason=\"untrusted_proxy_header\"} 2";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn on_a_unix_socket_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let backend = Backend::start();
    let start = |trusted: &str| {
        Config::to(backend.addr())
            .set("server.proxy_protocol", true)
            .with(&format!("server.listen = [\"unix:{}\"]", path.display()))
            .with(&format!("trust.proxies = [{trusted}]"))
            .start()
    };
    let ask = |header: &[u8]| {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client::over(stream, "a.example");
        let request = Request::get("/public").header("x-forwarded-for", "203.0.113.9");
        client.try_send([header, &request.bytes("a.example")].concat())?;
        client.try_read("GET")
    };
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.2 56789 443\r\n";
    let proxy = start("\"unix\"");
    assert_eq!(ask(header).unwrap().status, 200);
    let sent = backend.only_request().header("x-forwarded-for");
    assert_eq!(sent.as_deref(), Some("192.0.2.7"));
    let line = proxy.output().wait_for_json(|l| l["kind"] == "access");
    assert_eq!(line["client"], "192.0.2.7");
    // Without an address the socket's peer stays, and is trusted.
    backend.clear();
    assert_eq!(ask(&v2(0x20, 0x00, b"")).unwrap().status, 200);
    let sent = backend.only_request().header("x-forwarded-for").unwrap();
    assert!(sent.starts_with("203.0.113.9"), "{sent}");
    assert!(ask(b"").is_err());
    drop(proxy);
    let _proxy = start("\"10.0.0.0/8\"");
    assert!(ask(header).is_err());
    assert_eq!(ask(b"").unwrap().status, 200);
}
