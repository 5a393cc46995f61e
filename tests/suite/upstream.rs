//! An application that is down, slow or broken: never a hang, never a crash,
//! and never a broken answer that looks whole.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::expect;
use crate::harness::backend::{Answer, Backend, Reply, nobody};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};

#[test]
fn an_application_that_is_down_is_502_until_it_is_back() {
    let mut backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    assert_eq!(proxy.get("/public").status, 200);
    backend.stop();
    for _ in 0..3 {
        expect::refused(&proxy.get("/public"), 502, "upstream_connect_failed");
        let upload = Request::post("/public").body("x".repeat(100_000));
        expect::refused(&proxy.send(&upload), 502, "upstream_connect_failed");
    }
    // What needs no application still works.
    expect::refused(&proxy.get("/x"), 401, "no_cookie");
    backend.restart();
    assert_eq!(proxy.get("/public").status, 200);
    let never = Config::to(nobody()).start();
    expect::refused(&never.get("/public"), 502, "upstream_connect_failed");
}

/// A listener whose queue is full: connecting to it hangs.
struct Full {
    addr: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<TcpStream>,
}

impl Full {
    fn start() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue never fills");
        }
        Self {
            addr,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// S-28.
#[test]
fn an_application_that_hangs_is_504_in_time() {
    let full = Full::start();
    let connecting = Config::to(full.addr)
        .set("upstreams.app.connect_timeout", "200ms")
        .start();
    let begin = Instant::now();
    expect::refused(&connecting.get("/public"), 504, "upstream_timeout");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );

    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/head" => Reply::take(|mut stream, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX-A:").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }),
        "/public/hang" => Reply::Hang,
        _ => Reply::ok("fine"),
    });
    let answering = Config::to(backend.addr())
        .set("upstreams.app.response_timeout", "200ms")
        .start();
    for target in ["/public/hang", "/public/head"] {
        let begin = Instant::now();
        expect::refused(&answering.get(target), 504, "upstream_timeout");
        let upload = Request::post(target).body("a body that was sent");
        expect::refused(&answering.send(&upload), 504, "upstream_timeout");
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
    }
    assert_eq!(answering.get("/public").text(), "fine");
    let requests = backend.requests();
    let hung = requests.iter().filter(|r| r.target == "/public/hang");
    assert_eq!(hung.count(), 2, "a request was sent again");
}

#[test]
fn a_slow_upload_may_take_longer_than_the_time_to_answer() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("upstreams.app.response_timeout", "150ms")
        .start();
    let mut client = Client::connect(proxy.addr());
    client.send("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        client.send("x");
    }
    let response = client.read("POST");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(backend.only_request().body.content, b"xxxxxxxxxx");
}

/// S-8, S-9, S-11, S-15, S-16, S-24: each is 502, or cut where the client can
/// see it; a part of an answer never looks like a whole one.
#[test]
fn a_broken_answer_is_refused_or_visibly_cut() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\n\r\n", "a".repeat(600_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(2000));
    let answers: Vec<(&str, &[u8])> = vec![
        ("nothing", b""),
        ("garbage", b"\x00\x01\x02 no HTTP at all \xff\r\n\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("half a head", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"),
        ("bad version", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("bad status", b"HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n"),
        ("status 0", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("CL and TE", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("two CL", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("CL list", b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd"),
        ("signed CL", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        ("negative CL", b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
        ("hex CL", b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc"),
        ("empty CL", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc"),
        ("xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("chunked twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("two TE", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("folded", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: -\r\n\r\n"),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n"),
        ("no colon", b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n"),
        ("huge head", huge.as_bytes()),
        ("too many fields", many.as_bytes()),
        ("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
    ];
    let bodies: Vec<(&str, &[u8])> = vec![
        ("bad chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"),
        ("negative chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n\r\n"),
        ("overflowing chunk size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nfffffffffffffffff\r\n"),
        ("chunk without end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n"),
        ("no last chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("short", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
    ];
    let count = answers.len();
    let script: Vec<Vec<u8>> = answers
        .iter()
        .chain(&bodies)
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    let backend = Backend::with(move |request| {
        match request
            .target
            .trim_start_matches("/public/")
            .parse::<usize>()
        {
            Ok(number) => Reply::BytesThenClose(script[number].clone()),
            Err(_) => Reply::ok("fine"),
        }
    });
    let proxy = Config::to(backend.addr())
        .set("upstreams.app.response_timeout", "2s")
        .start();
    for (number, (what, _)) in answers.iter().chain(&bodies).enumerate() {
        for method in ["GET", "POST"] {
            let mut client = Client::connect(proxy.addr());
            client.send(Request::new(method, &format!("/public/{number}")).bytes("x"));
            let answer = client.try_read(method);
            match answer {
                Ok(response) if number < count => {
                    expect::refused(&response, 502, "upstream_protocol_error");
                }
                Ok(response) => panic!("{what}: looks whole: {response:?}"),
                Err(_) if number < count => panic!("{what}: no answer"),
                Err(_) => {}
            }
        }
        assert_eq!(proxy.get("/public").text(), "fine", "after {what}");
    }
}

#[test]
fn interim_answers_do_not_keep_a_client_waiting_for_ever() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/endless" => Reply::take(|mut stream, _| {
            // Ends when the proxy closes.
            while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }),
        "/public/few" => {
            let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3);
            Reply::Bytes([early, Answer::new(200).body("fine").bytes()].concat())
        }
        _ => Reply::ok("fine"),
    });
    let proxy = Config::to(backend.addr())
        .set("upstreams.app.response_timeout", "300ms")
        .set("server.workers", 1)
        .start();
    assert_eq!(proxy.get("/public/few").text(), "fine");
    let begin = Instant::now();
    let response = proxy.get("/public/endless");
    assert!(matches!(response.status, 502 | 504), "{}", response.status);
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(proxy.get("/public").text(), "fine");
}

/// Surplus bytes after an answer belong to nobody (S-16).
#[test]
fn surplus_bytes_are_never_the_next_answer() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/surplus" => {
            let evil = Answer::new(200).body("poisoned").bytes();
            Reply::Bytes([Answer::new(200).body("first").bytes(), evil].concat())
        }
        "/public/head" => Reply::Bytes(Answer::new(200).body("poisoned").bytes()),
        "/public/204" => Reply::Bytes(
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"
                .to_vec(),
        ),
        _ => Reply::ok("fine"),
    });
    let proxy = Config::to(backend.addr()).set("server.workers", 1).start();
    for (method, target) in [
        ("GET", "/public/surplus"),
        ("HEAD", "/public/head"),
        ("GET", "/public/204"),
    ] {
        for _ in 0..5 {
            let first = proxy.send(&Request::new(method, target));
            assert!(first.status < 300);
            let next = proxy.get("/public/next");
            assert_eq!(next.status, 200, "after {method} {target}: {}", next.text());
            assert_eq!(next.text(), "fine", "after {method} {target}");
        }
    }
}

/// S-19, and the body's own idle time.
#[test]
fn an_answer_that_stops_half_way_is_cut() {
    let backend = Backend::with(|_| {
        Reply::take(|mut stream, _| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        })
    });
    let proxy = Config::to(backend.addr())
        .set("server.limits.body_idle_timeout", "200ms")
        .start();
    let mut client = Client::connect(proxy.addr());
    client.send("GET /public HTTP/1.1\r\nHost: x\r\n\r\n");
    client.read_head().unwrap();
    let rest = client.read_to_end();
    assert_eq!(
        rest,
        b"3\r\nabc\r\n",
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
}

/// It takes the connection, and then nothing of what is sent.
#[test]
fn an_application_that_stops_reading_is_given_up() {
    // A listener whose connections nobody accepts takes what fits into its
    // socket's buffer.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Config::to(deaf.local_addr().unwrap())
        .set("upstreams.app.response_timeout", "500ms")
        .set("server.limits.body_idle_timeout", "1m")
        .start();
    let mut client = Client::connect(proxy.addr());
    let head = "POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
    client.send(head);
    let writer = std::thread::spawn(move || {
        // Until the sockets between are full, or the proxy has closed.
        let piece = vec![b'x'; 1 << 20];
        while client.try_send(&piece).is_ok() {}
        client
    });
    let line = proxy
        .output()
        .wait_for_json(|l| l["kind"] == "access" && l["reason"] == "upstream_timeout");
    assert_eq!(line["status"], 504);
    drop(writer.join().unwrap());
}
