//! HTTP/1.1 connections to the application: which are used again, which
//! requests are sent again, and what ends a connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::harness::backend::{Answer, Backend, Reply};
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};

/// Longer than a kept connection is trusted to be alive.
const PAUSE: Duration = Duration::from_millis(30);

/// One worker, so that it is known which pool a request meets.
fn config(backend: &Backend) -> Config {
    Config::to(backend.addr()).set("server.workers", 1)
}

/// Closes each connection instead of answering its second request.
fn ends_after_one() -> Backend {
    let served = std::sync::Mutex::new(std::collections::HashSet::new());
    Backend::with(
        move |request| match served.lock().unwrap().insert(request.connection) {
            true => Reply::ok("fine"),
            false => Reply::Close,
        },
    )
}

#[test]
fn what_may_be_sent_twice_is_sent_again_when_a_kept_connection_ends() {
    for (method, status, requests) in [
        ("GET", 200, 3),
        ("HEAD", 200, 3),
        ("OPTIONS", 200, 3),
        ("DELETE", 200, 3),
        ("POST", 502, 2),
        ("PATCH", 502, 2),
    ] {
        let backend = ends_after_one();
        let proxy = config(&backend).start();
        assert_eq!(proxy.get("/public").status, 200);
        std::thread::sleep(PAUSE);
        let mut client = Client::connect(proxy.addr());
        client.send(Request::new(method, "/public").bytes("x"));
        // What the scripted backend says to HEAD has a body, which ends it.
        let head = client.read_head().unwrap();
        assert!(
            head.start.contains(&status.to_string()),
            "{method}: {}",
            head.start
        );
        let seen = backend.wait_for(requests);
        assert_eq!(seen.len(), requests, "{method}");
        if requests == 3 {
            assert_eq!(seen[1].raw(), seen[2].raw(), "{method}");
        }
    }
}

#[test]
fn nothing_is_sent_again_with_a_body_or_without_retries() {
    let backend = ends_after_one();
    let proxy = config(&backend).start();
    assert_eq!(proxy.get("/public").status, 200);
    std::thread::sleep(PAUSE);
    assert_eq!(
        proxy.send(&Request::new("PUT", "/public").body("x")).status,
        502
    );
    assert_eq!(backend.requests().len(), 2);

    let backend = ends_after_one();
    let proxy = config(&backend).set("upstreams.app.retries", 0).start();
    assert_eq!(proxy.get("/public").status, 200);
    std::thread::sleep(PAUSE);
    assert_eq!(proxy.get("/public").status, 502);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn a_fresh_connection_that_ends_is_no_reason_to_send_again() {
    let backend = Backend::with(|_| Reply::Close);
    let proxy = config(&backend).start();
    let response = proxy.get("/public");
    assert_eq!(
        response.refusal().as_deref(),
        Some("upstream_protocol_error")
    );
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_connection_that_proves_who_somebody_is_serves_nobody_else() {
    for (challenge, authorization, connections) in [
        ("Basic realm=x", "Basic YTpi", 1),
        ("Negotiate", "Bearer x", 2),
        ("NTLM TlRM", "Bearer x", 2),
        ("Basic realm=x", "Negotiate YTpi", 2),
    ] {
        let backend = Backend::with(move |request| match request.target.as_str() {
            "/public/asks" => Answer::new(401)
                .header("WWW-Authenticate", challenge)
                .into(),
            _ => Reply::ok("fine"),
        });
        let proxy = config(&backend).start();
        let asks = Request::get("/public/asks").header("Authorization", authorization);
        assert_eq!(proxy.send(&asks).status, 401);
        assert_eq!(proxy.get("/public").status, 200);
        assert_eq!(
            backend.accepted(),
            connections,
            "{challenge} {authorization}"
        );
    }
}

#[test]
fn a_connection_with_an_unsent_body_is_not_used_again() {
    let backend = Backend::with_head(
        |head| {
            head.start
                .starts_with("POST")
                .then(|| Answer::new(413).into())
        },
        |_| Reply::ok("fine"),
    );
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    client.send("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly a part");
    assert_eq!(client.read("POST").status, 413);
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(backend.accepted(), 2);
}

#[test]
fn interim_responses_are_not_the_response() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/few" => Reply::Bytes(
            [
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3),
                Answer::new(200).body("fine").bytes(),
            ]
            .concat(),
        ),
        "/public/switch" => {
            Reply::Bytes(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec())
        }
        "/public/slow" => Reply::take(|mut stream, _| {
            while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }),
        _ => Reply::take(
            |mut stream, _| {
                while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
            },
        ),
    });
    let proxy = config(&backend)
        .set("upstreams.app.response_timeout", "2s")
        .start();
    let few = proxy.get("/public/few");
    assert_eq!((few.status, few.text().as_str()), (200, "fine"));
    for (target, status, reason) in [
        ("/public/switch", 502, "upstream_protocol_error"),
        ("/public/slow", 504, "upstream_timeout"),
        ("/public/endless", 502, "upstream_protocol_error"),
    ] {
        let response = proxy.get(target);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.refusal().as_deref(), Some(reason), "{target}");
    }
}

#[test]
fn an_upstream_can_listen_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let app = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        for _ in 0..2 {
            request.clear();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream
                .write_all(&Answer::new(200).body("fine").bytes())
                .unwrap();
        }
        String::from_utf8(request).unwrap()
    });
    let nobody = crate::harness::backend::nobody();
    let proxy = Config::to(nobody)
        .set(
            "upstreams.app.urls",
            vec![format!("unix:{}", path.display())],
        )
        .set("upstreams.app.host", "upstream")
        .set("server.workers", 1)
        .start();
    for _ in 0..2 {
        assert_eq!(proxy.get("/public").text(), "fine");
    }
    let request = app.join().unwrap();
    assert!(request.contains("\r\nhost: localhost\r\n"), "{request}");

    // Nobody listens any more.
    let refused = eventually("the connection has gone", || {
        Some(proxy.get("/public")).filter(|response| response.status == 502)
    });
    assert!(refused.refusal().is_some());
}

/// How many files the proxy has open.
fn files(proxy: &crate::harness::proxy::Proxy) -> usize {
    let folder = format!("/proc/{}/fd", proxy.id());
    std::fs::read_dir(folder).unwrap().count()
}

/// So many requests at once, each with a connection of its own.
fn crowd(proxy: &crate::harness::proxy::Proxy, backend: &Backend, count: usize) {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        client.send(Request::get("/public").bytes("a"));
    }
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    assert!(backend.accepted() >= count / 2, "{}", backend.accepted());
}

#[test]
fn idle_connections_are_let_go_without_another_request() {
    // Nobody is answered before all have asked.
    let all = std::sync::Arc::new(std::sync::Barrier::new(20));
    let backend = Backend::with(move |_| {
        all.wait();
        Reply::ok("fine")
    });
    let proxy = config(&backend)
        .set("upstreams.app.pool_idle_timeout", "1s")
        .start();
    let before = files(&proxy);
    crowd(&proxy, &backend, 20);
    assert!(backend.open() > 0);
    eventually("its connections have ended", || {
        (backend.open() == 0 && files(&proxy) <= before).then_some(())
    });
    crowd(&proxy, &backend, 20);
    eventually("the next ones too", || (backend.open() == 0).then_some(()));
}

#[test]
fn connections_that_the_application_closes_are_let_go_at_once() {
    let backend = Backend::start();
    let proxy = config(&backend)
        .set("upstreams.app.pool_idle_timeout", "1h")
        .start();
    let before = files(&proxy);
    crowd(&proxy, &backend, 1);
    assert_eq!(backend.open(), 1);
    backend.cut();
    eventually("nothing is left of it", || {
        (files(&proxy) <= before).then_some(())
    });
}

#[test]
fn a_body_that_breaks_off_before_it_begins_is_no_answer() {
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/public/fine" => Reply::ok("fine"),
        target => {
            // In one write, so that all of it is there at once.
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let rest = if target == "/public/bad" {
                "zz\r\n"
            } else {
                ""
            };
            let bytes = [head, rest].concat();
            Reply::take(move |mut stream, _| stream.write_all(bytes.as_bytes()).unwrap())
        }
    });
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..3 {
        let answer = client.request(&Request::get("/public/bad"));
        assert_eq!(answer.status, 502);
        assert_eq!(answer.refusal().as_deref(), Some("upstream_protocol_error"));
        let fine = client.request(&Request::get("/public/fine"));
        assert_eq!((fine.status, fine.text().as_str()), (200, "fine"));
    }
    let line = proxy.output().wait_for_json(|line| line["status"] == 502);
    assert_eq!(line["reason"], "upstream_protocol_error");
    assert_eq!(line["aborted"], false);
    // The end of a connection may come later than the head; never is it the
    // end of the answer.
    for _ in 0..20 {
        let mut client = Client::connect(proxy.addr());
        client.send(Request::get("/public/cut").bytes("a"));
        if let Ok(answer) = client.try_read("GET") {
            assert_eq!(answer.status, 502);
        }
    }
}
