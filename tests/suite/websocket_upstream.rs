//! WebSockets to applications that speak HTTP/2, or prefer it.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{io, thread};

use http::Version;

use super::expect;
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::modern::{Manner, Modern, accept, answer, echo};
use crate::harness::pki::Authority;
use crate::harness::proxy::Proxy;
use crate::harness::streams::{Asked, Streams};
use crate::harness::users::ALICE;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn sockets(manner: Manner) -> Modern {
    Modern::with(manner, |request| {
        Box::pin(async move {
            let is_socket =
                request.method() == "CONNECT" || request.headers().contains_key("upgrade");
            match request.uri().path() {
                "/public/forbidden" => answer(403, "not you"),
                "/public/empty" => answer(204, ""),
                _ if is_socket => echo(request),
                _ => answer(200, "fine"),
            }
        })
    })
}

fn h2c() -> Manner {
    Manner {
        sockets: true,
        ..Manner::h2c()
    }
}

/// One worker, so that it is known which pool a request meets.
fn to(backend: &Modern) -> Config {
    let url = format!("h2c://{}", backend.addr());
    Config::to(backend.addr())
        .set("upstreams.app.urls", vec![url])
        .set("server.workers", 1)
}

fn over_tls(backend: &Modern, authority: &Authority) -> Config {
    let url = format!("https://localhost:{}", backend.addr().port());
    to(backend)
        .set("upstreams.app.urls", vec![url])
        .set("upstreams.app.tls.ca", "ca.pem")
        .file("ca.pem", authority.pem())
}

fn handshake(path: &str) -> Request {
    Request::get(path)
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Protocol", "chat")
        .header("Sec-WebSocket-Key", KEY)
}

/// Opens one over HTTP/1.1 and says something.
fn talk(proxy: &Proxy, request: &Request) -> Client {
    go_on(begin(proxy, request))
}

fn begin(proxy: &Proxy, request: &Request) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(request.bytes(&proxy.addr().to_string()));
    client
}

fn go_on(mut client: Client) -> Client {
    let head = client.read_head().unwrap();
    let text = String::from_utf8_lossy(&head.raw).into_owned();
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-accept", &accept(KEY.as_bytes())),
    ] {
        assert_eq!(head.fields.all(name), [value], "{text}");
    }
    assert!(!head.fields.has("content-length"), "{text}");
    client.send("hello");
    assert_eq!(client.read_bytes(5), b"HELLO");
    client
}

/// The same over HTTP/2.
fn talk_http2(proxy: &Proxy) {
    let streams = Streams::connect(proxy.addr());
    let mut socket = streams.send(Asked::socket(&streams, "/public/http2"));
    assert_eq!(
        (socket.status, socket.header("sec-websocket-accept")),
        (200, None)
    );
    socket.write("hello");
    assert_eq!(socket.read(5), b"HELLO");
    socket.finish();
    assert_eq!(socket.rest().unwrap(), b"");
}

#[test]
fn an_application_that_prefers_http2_gets_http1_for_a_socket() {
    let authority = Authority::new();
    let certified = authority.certify(&["localhost"]);
    let backend = sockets(Manner::tls(certified, &["h2", "http/1.1"]));
    let proxy = over_tls(&backend, &authority).start();
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(proxy.get("/public").status, 200);
    drop(talk(&proxy, &handshake("/chat").cookies(&alice)));
    talk_http2(&proxy);
    assert_eq!(proxy.get("/public").status, 200);
    // One that was refused leaves its connection for the next.
    for _ in 0..2 {
        assert_eq!(proxy.send(&handshake("/public/forbidden")).status, 403);
    }
    assert_eq!(proxy.get("/public").status, 200);
    let seen = backend.seen();
    let versions: Vec<_> = seen.iter().map(|seen| seen.version).collect();
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    assert_eq!(versions, [two, one, one, two, one, one, two]);
    let connections: Vec<_> = seen.iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 2, 0, 3, 3, 0]);
    let chat = &seen[1];
    assert_eq!((chat.method.as_str(), chat.uri.path()), ("GET", "/chat"));
    assert_eq!(chat.headers["x-user-id"], ALICE.id);
    assert_eq!(chat.headers["sec-websocket-key"], KEY);
    assert!(!chat.headers.contains_key("cookie"));
    assert_eq!(chat.server_name.as_deref(), Some("localhost"));
}

#[test]
fn an_application_of_http2_alone_gets_an_extended_connect() {
    let authority = Authority::new();
    let tls = || Manner::tls(authority.certify(&["localhost"]), &["h2"]);
    let plain = sockets(h2c());
    let secure = sockets(Manner {
        sockets: true,
        ..tls()
    });
    for (backend, config, scheme) in [
        (&plain, to(&plain), "http"),
        (&secure, over_tls(&secure, &authority), "https"),
    ] {
        let proxy = config.start();
        let alice = proxy.sign_in(&ALICE);
        // On a connection of which nothing is known yet, too.
        let request = handshake("/chat?room=%20")
            .header("X-User-Id", "somebody-else")
            .header("TE", "trailers")
            .cookies(&alice);
        let mut client = talk(&proxy, &request);
        talk_http2(&proxy);
        assert_eq!(proxy.get("/public").status, 200);
        client.send("still");
        assert_eq!(client.read_bytes(5), b"STILL");
        drop(client);
        let line = proxy.output().wait_for_json(|l| l["path"] == "/chat");
        assert_eq!(
            (&line["status"], &line["method"]),
            (&101.into(), &"GET".into())
        );

        let seen = backend.seen();
        let first = seen.iter().find(|seen| seen.uri.path() == "/chat").unwrap();
        assert_eq!(
            (first.version, first.method.as_str()),
            (Version::HTTP_2, "CONNECT")
        );
        assert_eq!(first.uri.path_and_query().unwrap(), "/chat?room=%20");
        assert_eq!(first.uri.scheme_str(), Some(scheme));
        assert_eq!(
            first.uri.authority().unwrap().as_str(),
            proxy.addr().to_string()
        );
        assert_eq!(first.headers["x-user-id"], ALICE.id);
        assert_eq!(first.headers["sec-websocket-version"], "13");
        for name in [
            "sec-websocket-key",
            "upgrade",
            "connection",
            "host",
            "cookie",
            "te",
        ] {
            assert!(!first.headers.contains_key(name), "{name}");
        }
        assert!(seen.iter().all(|seen| seen.connection == first.connection));
        let metrics = proxy.admin_get("/metrics").text();
        let one = "cloakroom_upstream_connections{upstream=\"app\"} 1";
        assert!(metrics.contains(one), "{metrics}");
    }
}

#[test]
fn an_application_that_takes_none_is_a_clear_502() {
    let authority = Authority::new();
    let certified = authority.certify(&["localhost"]);
    let plain = sockets(Manner::h2c());
    let secure = sockets(Manner::tls(certified, &["h2"]));
    for (backend, config) in [
        (&plain, to(&plain)),
        (&secure, over_tls(&secure, &authority)),
    ] {
        let proxy = config.start();
        for _ in 0..6 {
            let refused = proxy.send(&handshake("/public/chat"));
            expect::refused(&refused, 502, "upstream_protocol_error");
        }
        let streams = Streams::connect(proxy.addr());
        let mut refused = streams.send(Asked::socket(&streams, "/public/chat"));
        assert_eq!(
            (refused.status, refused.reason().as_str()),
            (502, "upstream_protocol_error")
        );
        proxy.output().wait_for_json(|line| {
            let text = line.to_string();
            text.contains("does not take WebSockets over it (RFC 8441)")
        });
        assert!(backend.seen().is_empty());
        // Nothing of this counts against the application.
        assert_eq!(proxy.get("/public").status, 200);
        let metrics = proxy.admin_get("/metrics").text();
        let none = "cloakroom_upstream_connect_failures_total{upstream=\"app\"} 0";
        assert!(metrics.contains(none), "{metrics}");
    }
}

#[test]
fn what_it_answers_otherwise_passes() {
    let backend = sockets(h2c());
    let proxy = to(&backend).start();
    let forbidden = proxy.send(&handshake("/public/forbidden"));
    assert_eq!(
        (forbidden.status, forbidden.text().as_str()),
        (403, "not you")
    );
    let empty = proxy.send(&handshake("/public/empty"));
    expect::refused(&empty, 502, "upstream_protocol_error");
    // Without a key it is no handshake.
    let keyless = Request::get("/public/page")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    assert_eq!(proxy.send(&keyless).text(), "fine");
    assert_eq!(backend.seen().last().unwrap().method, "GET");
    drop(talk(&proxy, &handshake("/public/chat")));
    assert_eq!(backend.accepted(), 1);
}

/// Each open socket takes one of the streams that the application allows.
#[test]
fn an_open_socket_keeps_its_place() {
    let backend = sockets(Manner {
        streams: Some(2),
        ..h2c()
    });
    let proxy = to(&backend).start();
    assert_eq!(proxy.get("/public").status, 200);
    let clients: Vec<_> = (0..4)
        .map(|_| talk(&proxy, &handshake("/public/chat")))
        .collect();
    assert_eq!(proxy.get("/public").status, 200);
    let connections: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 1, 2]);
    drop(clients);
    eventually("places on the first connection", || {
        assert_eq!(proxy.get("/public").status, 200);
        (backend.seen().last().unwrap().connection == 0).then_some(())
    });
}

/// One stream alone: whether the settings have come cannot be told from their
/// number.
#[test]
fn an_application_that_allows_one_stream_is_understood() {
    let backend = sockets(Manner {
        streams: Some(1),
        ..h2c()
    });
    let proxy = to(&backend).start();
    drop(talk(&proxy, &handshake("/public/chat")));
    let backend = sockets(Manner {
        streams: Some(1),
        ..Manner::h2c()
    });
    let proxy = to(&backend).start();
    for _ in 0..2 {
        let refused = proxy.send(&handshake("/public/chat"));
        expect::refused(&refused, 502, "upstream_protocol_error");
        assert_eq!(proxy.get("/public").status, 200);
    }
}

/// Whoever accepts and says nothing has not said no.
#[test]
fn an_application_that_does_not_say_is_waited_for() {
    // The system accepts, and nobody reads.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = silent.local_addr().unwrap();
    let proxy = Config::to(addr)
        .set("upstreams.app.urls", vec![format!("h2c://{addr}")])
        .set("upstreams.app.connect_timeout", "300ms")
        .start();
    let unknown = proxy.send(&handshake("/public/chat"));
    expect::refused(&unknown, 504, "upstream_timeout");
}

#[test]
fn a_handshake_meets_no_goodbye() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let manner = Manner {
        goodbye: true,
        ..h2c()
    };
    let backend = Modern::with(manner, move |request| {
        counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { echo(request) })
    });
    let proxy = to(&backend).start();
    for _ in 0..10 {
        drop(talk(&proxy, &handshake("/public/chat")));
    }
    assert_eq!(count.load(Ordering::SeqCst), 10);
    assert!(backend.accepted() > 1);
}

#[test]
fn several_addresses_may_speak_differently() {
    let old = sockets(Manner::default());
    let new = sockets(h2c());
    let urls = vec![
        format!("http://{}", old.addr()),
        format!("h2c://{}", new.addr()),
    ];
    let proxy = to(&new)
        .set("upstreams.app.urls", urls)
        .set("upstreams.app.balance", "round_robin")
        .start();
    for _ in 0..4 {
        drop(talk(&proxy, &handshake("/public/chat")));
    }
    assert_eq!((old.seen().len(), new.seen().len()), (2, 2));
    // Where nobody is, the handshake goes to the other, in its version.
    drop(new);
    for _ in 0..4 {
        drop(talk(&proxy, &handshake("/public/chat")));
    }
    assert_eq!(old.seen().len(), 6);
}

/// How long an application takes counts from when it is asked, not from when there is a
/// connection on which it says whether it takes sockets.
#[test]
fn waiting_for_its_settings_is_not_waiting_for_its_answer() {
    let backend = sockets(h2c());
    let late = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("h2c://{}", late.local_addr().unwrap());
    // The system accepts, and nobody reads: this one's time to answer is the clock.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = to(&backend)
        .set("upstreams.app.urls", vec![url])
        .set("upstreams.app.connect_timeout", "20s")
        .with(&format!(
            "[upstreams.silent]\nurls = [\"http://{}\"]\nresponse_timeout = \"300ms\"\n\
             [[routes]]\npath = \"/public\"\naccess = \"public\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/silent\"\naccess = \"public\"\nupstream = \"silent\"",
            silent.local_addr().unwrap()
        ))
        .start();
    let asking = begin(&proxy, &handshake("/public/chat"));
    let (mut ours, _) = late.accept().unwrap();
    let held = Instant::now();
    expect::refused(&proxy.get("/silent"), 504, "upstream_timeout");
    let held = held.elapsed();
    let mut theirs = TcpStream::connect(backend.addr()).unwrap();
    let mut back = (theirs.try_clone().unwrap(), ours.try_clone().unwrap());
    let threads = [
        thread::spawn(move || pass(&mut ours, &mut theirs)),
        thread::spawn(move || pass(&mut back.0, &mut back.1)),
    ];
    drop(go_on(asking));
    let line = proxy
        .output()
        .wait_for_json(|line| line["path"] == "/public/chat");
    let ms = |field: &str| line[field].as_f64().unwrap();
    let rest = ms("duration_ms") - held.as_secs_f64() * 1000.0;
    assert!(ms("upstream_ms") <= rest, "{held:?} {line}");
    drop((proxy, backend));
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Passes on what comes, and its end.
fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    let _ = io::copy(from, to);
    let _ = to.shutdown(Shutdown::Write);
}
