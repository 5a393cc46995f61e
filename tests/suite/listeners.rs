//! Unix sockets, running out of descriptors, half-closed connections, and
//! heads that are refused before they are requests.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::expect;
use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::{PATIENCE, eventually};

fn on_socket(backend: &Backend, path: &std::path::Path) -> Config {
    let listen = format!("server.listen = [\"unix:{}\"]", path.display());
    Config::to(backend.addr()).with(&listen)
}

fn ask(path: &std::path::Path, request: &Request) -> crate::harness::http::Response {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream, "a.example").request(request)
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let backend = Backend::start();
    let mut proxy = on_socket(&backend, &path).start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let request = Request::get("/public").header("x-forwarded-for", "192.0.2.9");
    assert_eq!(ask(&path, &request).status, 200);
    let sent = backend.only_request().header("x-forwarded-for");
    assert!(!sent.unwrap_or_default().contains("192.0.2.9"));

    let ran = on_socket(&backend, &path).try_start().err().unwrap();
    assert!(ran.text().contains("another program listens there"));
    assert_eq!(ask(&path, &request).status, 200);
    assert!(proxy.terminate().success());
    assert!(!path.exists());
}

#[test]
fn a_socket_that_a_crash_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let backend = Backend::start();
    let mut crashed = on_socket(&backend, &path).start();
    crashed.kill();
    assert!(path.exists());
    let _proxy = on_socket(&backend, &path).start();
    assert_eq!(ask(&path, &Request::get("/public")).status, 200);
}

#[test]
fn peers_on_a_unix_socket_can_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let backend = Backend::start();
    let _proxy = on_socket(&backend, &path)
        .with("trust.proxies = [\"unix\"]")
        .start();
    let request = Request::get("/public")
        .header("x-forwarded-for", "192.0.2.9")
        .header("x-forwarded-proto", "https");
    assert_eq!(ask(&path, &request).status, 200);
    let sent = backend.only_request();
    assert!(
        sent.header("x-forwarded-for")
            .unwrap()
            .starts_with("192.0.2.9")
    );
    assert_eq!(sent.header("x-forwarded-proto").as_deref(), Some("https"));
}

#[test]
fn running_out_of_descriptors_ends_nothing() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).limit_open_files(48).start();
    let mut idle: Vec<Client> = (0..80).map(|_| Client::connect(proxy.addr())).collect();
    proxy.output().wait_for_json(|line| {
        line["message"]
            .as_str()
            .unwrap_or_default()
            .starts_with("cannot accept")
    });
    let complaints = proxy.output().text().matches("cannot accept").count();
    assert!(complaints <= 4, "{complaints}");
    idle.clear();
    eventually("to be served again", || {
        let mut client = Client::try_connect(proxy.addr()).ok()?;
        client.try_send(Request::get("/public").bytes("a")).ok()?;
        client.try_read("GET").ok().filter(|r| r.status == 200)
    });
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let backend = Backend::with(move |_| {
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Reply::ok("late")
    });
    let proxy = Config::to(backend.addr()).start();
    for request in [
        Request::get("/public"),
        Request::post("/public").body("abc"),
        Request::post("/public")
            .header("transfer-encoding", "chunked")
            .body("3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let count = backend.requests().len();
        let mut client = Client::connect(proxy.addr());
        client.send(request.bytes("a.example"));
        client.finish();
        backend.wait_for(count + 1);
        // The proxy has seen the end by now, or sees it before the answer.
        std::thread::sleep(Duration::from_millis(20));
        release.send(()).unwrap();
        let answer = client.read("GET");
        assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
        assert!(client.is_closed());
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_ends_its_request() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    client.send("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    client.finish();
    proxy
        .output()
        .wait_for_json(|line| line["path"] == "/public");
    assert!(backend.requests().is_empty());
}

#[test]
fn a_client_that_resets_ends_its_request_at_once() {
    let (gone, told) = std::sync::mpsc::channel();
    let backend = Backend::with(move |_| {
        let gone = gone.clone();
        Reply::take(move |mut stream, _| {
            let mut byte = [0];
            let ended = std::io::Read::read(&mut stream, &mut byte);
            gone.send(matches!(ended, Ok(0) | Err(_))).unwrap();
        })
    });
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    client.send(Request::get("/public").bytes("a"));
    backend.wait_for(1);
    let socket = socket2::SockRef::from(&*client.stream());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(told.recv_timeout(Duration::from_secs(5)).unwrap());
    let line = proxy
        .output()
        .wait_for_json(|line| line["path"] == "/public");
    assert_eq!(line["status"], 499);
}

/// Nothing tells it from one that has only said all, but its silence: that is
/// why this takes ten seconds.
#[test]
fn a_client_that_closes_ends_its_request_in_the_end() {
    let (gone, told) = std::sync::mpsc::channel();
    let backend = Backend::with(move |_| {
        let gone = gone.clone();
        Reply::take(move |mut stream, _| {
            let mut byte = [0];
            let ended = std::io::Read::read(&mut stream, &mut byte);
            gone.send(matches!(ended, Ok(0) | Err(_))).unwrap();
        })
    });
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    client.send(Request::get("/public").bytes("a"));
    backend.wait_for(1);
    drop(client);
    assert!(told.recv_timeout(PATIENCE).unwrap());
    let line = proxy
        .output()
        .wait_for_json(|line| line["path"] == "/public");
    assert_eq!(line["status"], 499);
}

/// What each head gets, those included that the parser refuses by itself.
#[test]
fn odd_heads_are_refused_and_the_connection_ends() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let host = "Host: a.example\r\n";
    let long = "x".repeat(70_000);
    for (head, status, reason) in [
        (
            format!("GET /public#x HTTP/1.1\r\n{host}\r\n"),
            400,
            "bad_request_target",
        ),
        (
            format!("GET http://a.example/public#x HTTP/1.1\r\n{host}\r\n"),
            400,
            "bad_request_target",
        ),
        (
            format!("GET /public HTTP/1.1\n{host}\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X: y\n\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X: y\rz\r\n\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /pub\0lic HTTP/1.1\r\n{host}\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X : a\r\n\r\n"),
            400,
            "bad_framing",
        ),
        (
            format!("GET /public HTTP/1.1\r\n{host}X: {long}\r\n\r\n"),
            431,
            "request_header_too_large",
        ),
    ] {
        let shown: String = head.chars().take(80).collect();
        let mut client = Client::connect(proxy.addr());
        client.try_send(&head).unwrap();
        let answer = client.read("GET");
        expect::refused(&answer, status, reason);
        assert_eq!(
            answer.header("connection").as_deref(),
            Some("close"),
            "{shown:?}"
        );
        assert_eq!(answer.json()["reason"], reason);
        assert!(client.is_closed(), "{shown:?}");
    }
    assert!(backend.requests().is_empty());
    // Those that the parser refuses are counted and logged all the same.
    for line in [
        "cloakroom_refusals_total{reason=\"bad_request_target\"} 2",
        "cloakroom_refusals_total{reason=\"bad_framing\"} 8",
        "cloakroom_refusals_total{reason=\"request_header_too_large\"} 1",
    ] {
        // They are counted when the connection has ended.
        eventually(line, || {
            let metrics = proxy.admin_get("/metrics").text();
            metrics.contains(line).then_some(())
        });
    }
    let line = proxy.output().wait_for_json(|line| {
        line["kind"] == "access" && line["reason"] == "request_header_too_large"
    });
    assert_eq!(
        (
            &line["client"],
            &line["method"],
            &line["path"],
            &line["status"]
        ),
        (&"127.0.0.1".into(), &"-".into(), &"-".into(), &431.into())
    );
    assert!(line["request_id"].as_str().unwrap().len() >= 16, "{line}");
}

#[test]
fn a_head_that_is_none_behind_requests_gets_a_reason_too() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    let good = "GET /public HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{good}{good}GET / HTTP/1.1\r\n: x\r\n\r\n"));
    assert_eq!(client.read("GET").status, 200);
    assert_eq!(client.read("GET").status, 200);
    expect::refused(&client.read("GET"), 400, "bad_framing");
    assert!(client.is_closed());
    let old = "GET /public HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let mut client = Client::connect(proxy.addr());
    client.send(format!("{old}nonsense\r\n\r\n"));
    assert_eq!(client.read("GET").status, 200);
    expect::refused(&client.read("GET"), 400, "bad_framing");
    assert!(client.is_closed());
    assert_eq!(backend.requests().len(), 3);
    let metrics = proxy.admin_get("/metrics").text();
    let line = "cloakroom_refusals_total{reason=\"bad_framing\"} 2";
    assert!(metrics.contains(line), "{metrics}");
}

/// An application's bare refusal, and a body that looks like the parser's.
#[test]
fn what_only_looks_like_the_parser_s_refusal_is_passed_on() {
    let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                date: Sat, 21 Nov 2026 04:00:00 GMT\r\n\r\n";
    let backend = Backend::with(move |request| match request.target.as_str() {
        "/public/body" => Reply::ok(bare),
        _ => Reply::take(|mut stream, _| {
            let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\
                          Connection: close\r\n\r\n";
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }),
    });
    let proxy = Config::to(backend.addr()).start();
    for connection in ["keep-alive", "close"] {
        for target in ["/public/body", "/public/bare"] {
            let request = Request::get(target).header("connection", connection);
            let mut client = Client::connect(proxy.addr());
            client.send([request.bytes("a"), request.bytes("a")].concat());
            let count = if connection == "close" { 1 } else { 2 };
            for _ in 0..count {
                let answer = client.read("GET");
                match target {
                    "/public/body" => {
                        assert_eq!((answer.status, answer.text()), (200, bare.into()))
                    }
                    // With more behind the last request nothing tells the two apart.
                    _ if connection == "close" => assert_eq!(answer.status, 400),
                    _ => assert_eq!((answer.status, answer.refusal()), (400, None)),
                }
            }
        }
        let mut client = Client::connect(proxy.addr());
        let request = Request::get("/public/bare").header("connection", connection);
        let answer = client.request(&request);
        assert_eq!((answer.status, answer.refusal()), (400, None));
    }
}

#[test]
fn a_fragment_is_found_in_a_pipeline_and_not_in_a_body() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    client.send(
        "POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\nGET /# HTTP/1.1\r\n\r\
         GET /public/2 HTTP/1.1\r\nHost: a\r\n\r\n\
         GET /public/3# HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let statuses = [client.read("POST").status, client.read("GET").status];
    assert_eq!(statuses, [200, 200]);
    assert_eq!(client.read("GET").status, 400);
    assert!(client.is_closed());
    assert_eq!(backend.requests().len(), 2);
}
