//! WebSockets of clients that speak HTTP/2 (RFC 8441).

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::clients::with_tls;
use crate::harness::backend::{Answer, Backend, Recorded, Reply};
use crate::harness::config::Config;
use crate::harness::modern;
use crate::harness::process::Signal;
use crate::harness::proxy::Proxy;
use crate::harness::streams::{Asked, Stream, Streams};
use crate::harness::tls::Authority;
use crate::harness::users::ALICE;
use crate::harness::{PATIENCE, eventually};

/// What an application that knows WebSockets answers.
fn accepting(request: &Recorded, more: &str) -> String {
    let key = request.header("sec-websocket-key").unwrap();
    assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
    let accept = modern::accept(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Says everything back in capitals.
fn echo_on(mut stream: TcpStream, early: &[u8]) {
    let _ = stream.write_all(&early.to_ascii_uppercase());
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        let said = piece[..count].to_ascii_uppercase();
        if stream.write_all(&said).is_err() {
            break;
        }
    }
}

/// An application that accepts.
fn echo() -> Backend {
    Backend::with(|request| {
        let more = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: app=1\r\n";
        let accepted = accepting(request, more);
        Reply::take(move |mut stream, early| {
            let _ = stream.write_all(accepted.as_bytes());
            echo_on(stream, &early);
        })
    })
}

fn open(streams: &Streams, path: &str) -> Stream {
    let socket = streams.send(Asked::socket(streams, path));
    assert_eq!(socket.status, 200, "{:?}", socket.headers);
    socket
}

#[track_caller]
fn refused(mut answer: Stream, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.reason().as_str()), (status, reason));
    let why = answer.header("proxy-status").unwrap();
    assert!(why.starts_with("cloakroom; error="), "{why}");
}

#[test]
fn a_socket_is_the_same_as_over_http1() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let streams = Streams::connect(proxy.addr());
    assert_eq!(
        streams.send(Asked::get(&streams, "/auth/session")).status,
        401
    );
    assert!(streams.takes_sockets());
    let asked = Asked::socket(&streams, "/chat?room=%20")
        .header("cookie", "a=1")
        .cookies(&alice)
        .header("cookie", "b=2")
        .header("origin", &proxy.url())
        .header("x-user-id", "somebody-else")
        .header("sec-websocket-protocol", "chat, other")
        .header("sec-websocket-extensions", "permessage-deflate")
        // Neither has a meaning here.
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("te", "trailers");
    let mut socket = streams.send(asked);
    assert_eq!(socket.status, 200);
    assert_eq!(socket.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(socket.header("set-cookie"), Some("app=1"));
    for name in [
        "sec-websocket-accept",
        "upgrade",
        "connection",
        "content-length",
    ] {
        assert_eq!(socket.header(name), None, "{name}");
    }
    for round in 0..3 {
        socket.write(format!("hello {round}"));
        assert_eq!(socket.read(7), format!("HELLO {round}").into_bytes());
    }
    // Other requests go on beside it.
    let beside = streams.send(Asked::get(&streams, "/auth/session").cookies(&alice));
    assert_eq!(beside.status, 200);

    let arrived = backend.only_request();
    assert_eq!(
        (arrived.method.as_str(), arrived.target.as_str()),
        ("GET", "/chat?room=%20")
    );
    let host = proxy.addr().to_string();
    for (name, values) in [
        ("host", &[host.as_str()][..]),
        ("x-user-id", &[ALICE.id]),
        ("upgrade", &["websocket"]),
        ("connection", &["upgrade"]),
        ("cookie", &["a=1; b=2"]),
        ("sec-websocket-version", &["13"]),
        ("sec-websocket-protocol", &["chat, other"]),
        ("sec-websocket-extensions", &["permessage-deflate"]),
        ("via", &["2.0 cloakroom"]),
        ("x-forwarded-proto", &["http"]),
        ("te", &[]),
        ("content-length", &[]),
        ("transfer-encoding", &[]),
    ] {
        assert_eq!(arrived.fields().all(name), values, "{name}");
    }
    let keys = arrived.fields().all("sec-websocket-key");
    assert_eq!(keys.len(), 1);
    assert_ne!(keys[0], "dGhlIHNhbXBsZSBub25jZQ==");

    socket.finish();
    assert_eq!(socket.rest().unwrap(), b"");
    let line = proxy.output().wait_for_json(|l| l["path"] == "/chat");
    assert_eq!(
        (&line["method"], &line["protocol"]),
        (&"CONNECT".into(), &"HTTP/2".into())
    );
    assert_eq!(
        (&line["status"], &line["aborted"]),
        (&200.into(), &false.into())
    );
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&21.into(), &21.into())
    );
    assert_eq!(line["user"], ALICE.id);
}

#[test]
fn sockets_share_a_connection_over_tls() {
    let backend = echo();
    let authority = Authority::new();
    let proxy = with_tls(Config::to(backend.addr()), &authority).start();
    let streams = Streams::over_tls(authority.client(None), "localhost", proxy.addr());
    let mut sockets: Vec<_> = (0..20)
        .map(|n| open(&streams, &format!("/public/{n}")))
        .collect();
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.write(format!("i am {n:02}"));
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.read(7), format!("I AM {n:02}").into_bytes());
    }
    let first = &backend.requests()[0];
    assert_eq!(first.header("x-forwarded-proto").as_deref(), Some("https"));
    // More than the windows hold, in both directions at once.
    let large = vec![b'x'; 200 * 1024];
    for socket in &mut sockets {
        for _ in 0..4 {
            socket.write(&large);
        }
    }
    for socket in &mut sockets {
        assert!(
            socket
                .read(4 * large.len())
                .iter()
                .all(|byte| *byte == b'X')
        );
    }
}

#[test]
fn the_rules_are_those_of_a_get() {
    let backend = echo();
    let proxy = Config::to(backend.addr())
        .with("[[routes]]\npath = \"/\"\n[[routes]]\npath = \"/read\"\nmethods = [\"GET\"]\naccess = \"public\"\n[[routes]]\npath = \"/admin\"\nroles = [\"admin\"]\n[[routes]]\npath = \"/denied\"\naccess = \"deny\"\n")
        .start();
    let alice = proxy.sign_in(&ALICE);
    let streams = Streams::connect(proxy.addr());
    let ask = |path: &str| Asked::socket(&streams, path);
    let html = ask("/").header("accept", "text/html");
    let anonymous = streams.send(html.header("sec-fetch-mode", "websocket"));
    refused(anonymous, 401, "no_cookie");
    // No redirect either where the browser does not say who asks.
    let answer = streams.send(ask("/").header("accept", "text/html"));
    assert_eq!((answer.status, answer.header("location")), (401, None));
    // A 200 with `grpc-status` would be an open socket.
    let grpc = streams.send(ask("/").header("content-type", "application/grpc"));
    refused(grpc, 401, "no_cookie");
    refused(streams.send(ask("/denied")), 403, "route_denied");
    refused(
        streams.send(ask("/admin").cookies(&alice)),
        403,
        "missing_role",
    );
    refused(streams.send(ask("/x/%00")), 400, "bad_request_target");
    let forged = ask("/").header("cookie", "cloakroom.sid=s%3Aabc.def");
    assert_eq!(streams.send(forged).status, 401);
    assert!(backend.requests().is_empty());
    open(&streams, "/read/x");
}

/// S-67.
#[test]
fn other_sites_cannot_open_one_with_our_cookie() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).set("csrf.mode", "off").start();
    let alice = proxy.sign_in(&ALICE);
    let own = proxy.url();
    let streams = Streams::connect(proxy.addr());
    for (name, value, allowed) in [
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("sec-fetch-site", "cross-site", false),
        ("origin", own.as_str(), true),
        ("sec-fetch-site", "same-origin", true),
    ] {
        let asked = Asked::socket(&streams, "/chat").cookies(&alice);
        let answer = streams.send(asked.header(name, value));
        match allowed {
            true => assert_eq!(answer.status, 200, "{name}: {value}"),
            false => refused(answer, 403, "cross_site_request"),
        }
    }
    let public = Asked::socket(&streams, "/public").header("origin", "https://evil.example");
    assert_eq!(streams.send(public).status, 200);
}

#[test]
fn any_other_connect_is_refused() {
    let backend = echo();
    let proxy = Config::to(backend.addr()).start();
    let streams = Streams::connect(proxy.addr());
    for protocol in [
        None,
        Some("connect-udp"),
        Some("connect-tcp"),
        Some("h2c"),
        Some("websocket, x"),
    ] {
        let asked = Asked::connect(&streams, "/public", protocol);
        refused(streams.send(asked), 405, "method_not_allowed");
        let asked = Asked::connect(&streams, "/public", protocol);
        let asked = asked.header("content-type", "application/grpc");
        refused(streams.send(asked), 405, "method_not_allowed");
    }
    // Our own endpoints are no sockets, and their 200 would look like one.
    for endpoint in ["login", "logout", "logout-all", "session"] {
        let asked = Asked::socket(&streams, &format!("/auth/{endpoint}"));
        refused(streams.send(asked), 405, "method_not_allowed");
    }
    // A name in other letters is the same protocol.
    let asked = Asked::connect(&streams, "/public", Some("WebSocket"));
    assert_eq!(streams.send(asked).status, 200);
    // It has no content.
    let asked = Asked::socket(&streams, "/public").header("content-length", "0");
    assert_eq!(streams.send(asked).status, 200);
    assert_eq!(backend.requests().len(), 2);
    let asked = Asked::socket(&streams, "/public").header("content-length", "5");
    assert!(streams.try_send(asked).is_err());
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn what_the_application_answers_otherwise_is_no_socket() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/403" => Answer::new(403).body("not you").into(),
        "/public/302" => Answer::new(302).header("location", "/elsewhere").into(),
        "/public/426" => Answer::new(426).header("upgrade", "websocket").into(),
        "/public/200" => Reply::ok("a page"),
        "/public/204" => Answer::new(204).into(),
        "/public/key" => {
            // The accept of another key.
            let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
            Reply::BytesThenClose(switch(accept).into_bytes())
        }
        "/public/none" => Reply::BytesThenClose(switch("").into_bytes()),
        "/public/length" => {
            let accepted = accepting(request, "Content-Length: 5\r\n");
            Reply::BytesThenClose((accepted + "hello").into_bytes())
        }
        _ => Reply::BytesThenClose(
            accepting(request, "")
                .replace("websocket", "h2c")
                .into_bytes(),
        ),
    });
    let proxy = Config::to(backend.addr()).start();
    let streams = Streams::connect(proxy.addr());
    let ask = |name: &str| streams.send(Asked::socket(&streams, &format!("/public/{name}")));
    let mut forbidden = ask("403");
    assert_eq!(forbidden.status, 403);
    assert_eq!(forbidden.rest().unwrap(), b"not you");
    let (moved, required) = (ask("302"), ask("426"));
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("/elsewhere"))
    );
    assert_eq!((required.status, required.header("upgrade")), (426, None));
    for name in ["200", "204", "key", "none", "other"] {
        refused(ask(name), 502, "upstream_protocol_error");
    }
    // A length says nothing of what follows a 101.
    let mut socket = ask("length");
    assert_eq!(
        (socket.status, socket.header("content-length")),
        (200, None)
    );
    assert_eq!(socket.read(5), b"hello");
}

fn switch(more: &str) -> String {
    format!("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n{more}\r\n")
}

#[test]
fn each_end_learns_that_the_other_has_gone() {
    let (left, gone) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let backend = Backend::with(move |request| {
        let accepted = accepting(request, "");
        let left = left.lock().unwrap().clone();
        let closes = request.target == "/public/closes";
        Reply::take(move |mut stream, _| {
            let _ = stream.write_all(accepted.as_bytes());
            if closes {
                return;
            }
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            let _ = left.send(said);
        })
    });
    let proxy = Config::to(backend.addr()).start();
    let streams = Streams::connect(proxy.addr());
    let gone = || gone.recv_timeout(PATIENCE).unwrap();
    let mut socket = open(&streams, "/public/chat");
    socket.write("bye");
    socket.finish();
    assert_eq!(gone(), b"bye");
    // A reset may overtake what was said before it.
    open(&streams, "/public/chat").reset();
    assert_eq!(gone(), b"");
    assert_eq!(open(&streams, "/public/closes").rest().unwrap(), b"");
    let mut socket = open(&streams, "/public/chat");
    socket.write("bye");
    drop((socket, streams));
    assert!(b"bye".starts_with(&gone()));
}

#[test]
fn a_socket_is_no_idle_connection_and_a_silent_one_ends() {
    let backend = echo();
    let proxy = Config::to(backend.addr())
        .set("server.limits.tunnel_idle_timeout", "900ms")
        .set("server.limits.idle_timeout", "100ms")
        .set("server.limits.body_idle_timeout", "200ms")
        .start();
    let streams = Streams::connect(proxy.addr());
    let mut socket = open(&streams, "/public/chat");
    socket.write("a");
    assert_eq!(socket.read(1), b"A");
    let began = std::time::Instant::now();
    assert_eq!(socket.rest().unwrap(), b"");
    assert!(began.elapsed().as_millis() >= 700, "{:?}", began.elapsed());
    let line = proxy.output().wait_for_json(|l| l["status"] == 200);
    assert_eq!(line["aborted"], true);
    eventually("the connection ends", || {
        let metrics = proxy.admin_get("/metrics").text();
        metrics.contains("cloakroom_connections 0").then_some(())
    });
}

fn drained(config: Config) -> (Proxy, Streams, Stream) {
    let proxy = config.start();
    let streams = Streams::connect(proxy.addr());
    let socket = open(&streams, "/public/chat");
    let metrics = proxy.admin_get("/metrics").text();
    assert!(metrics.contains("cloakroom_connections 1"), "{metrics}");
    (proxy, streams, socket)
}

#[test]
fn an_open_socket_is_waited_for() {
    let backend = echo();
    let short = Config::to(backend.addr()).set("server.drain_timeout", "300ms");
    let (mut proxy, _streams, mut socket) = drained(short);
    assert_eq!(proxy.terminate().code(), Some(0));
    assert!(socket.rest().is_err());

    let (mut proxy, streams, mut socket) = drained(Config::to(backend.addr()));
    proxy.signal(Signal::Term);
    proxy
        .output()
        .wait_for_json(|l| l["message"].as_str().is_some_and(|m| m.contains("drain")));
    eventually("no new sockets", || {
        streams
            .try_send(Asked::socket(&streams, "/public/late"))
            .err()
    });
    socket.write("still here");
    assert_eq!(socket.read(10), b"STILL HERE");
    socket.finish();
    assert_eq!(socket.rest().unwrap(), b"");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// The listener that only sends people to https opens nothing.
#[test]
fn there_is_none_beside_tls() {
    let backend = echo();
    let proxy = with_tls(Config::to(backend.addr()), &Authority::new())
        .set("server.tls.redirect_http", "127.0.0.1:0")
        .start();
    let streams = Streams::connect(proxy.redirect());
    for protocol in [Some("websocket"), None] {
        let answer = streams.send(Asked::connect(&streams, "/public", protocol));
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn sockets_count_as_requests() {
    let backend = echo();
    let proxy = Config::to(backend.addr())
        .set("server.limits.requests_per_ip", "2/h")
        .start();
    let streams = Streams::connect(proxy.addr());
    let _two = [open(&streams, "/public"), open(&streams, "/public")];
    let third = streams.send(Asked::socket(&streams, "/public"));
    refused(third, 429, "rate_limited");
}
