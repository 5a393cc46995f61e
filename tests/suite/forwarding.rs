//! What arrives at the application and what comes back, when all is well.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use super::expect;
use crate::harness::PATIENCE;
use crate::harness::backend::{Answer, Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::process::Signal;

/// 64 KiB that differ from block to block.
fn block(number: u64) -> Vec<u8> {
    let mut block: Vec<u8> = [0, 1, 2, 3, 5, 8, 13, 10].repeat(8 * 1024);
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

/// Blocks in a large body.
const BLOCKS: u64 = 1024;

/// Connections to the application at once.
const KEPT: usize = 8;

/// The most memory the process has had, in KiB.
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn methods_queries_and_fields_arrive_as_they_were_sent() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    for method in [
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH",
    ] {
        let target = "/public/x?a=1&a=2&b=%20+%C3%A4&c[]=&&=;?/";
        let request = Request::new(method, target)
            .header("X-One", "1")
            .header("Accept", "text/plain; q=0.5 ,  text/html")
            .header("X-Many", "a")
            .header("x-bytes", b"caf\xe9 \xc3\xa4\t.")
            .header("X-MANY", "b, c")
            .header("x-empty", "")
            .header("x-many", "a")
            .header("authorization", "Bearer the application's own")
            .body("body");
        assert_eq!(client.request(&request).status, 200, "{method}");
        let arrived = backend.only_request();
        backend.clear();
        assert_eq!(
            (arrived.method.as_str(), arrived.target.as_str()),
            (method, target)
        );
        assert_eq!(arrived.fields().all("x-many"), ["a", "b, c", "a"]);
        assert_eq!(
            arrived.header("accept").as_deref(),
            Some("text/plain; q=0.5 ,  text/html")
        );
        assert_eq!(arrived.header("x-empty").as_deref(), Some(""));
        assert_eq!(
            arrived.header("authorization").as_deref(),
            Some("Bearer the application's own")
        );
        let bytes = arrived.fields().0.iter().find(|(n, _)| n == "x-bytes");
        assert_eq!(bytes.unwrap().1, b"caf\xe9 \xc3\xa4\t.");
        assert_eq!(arrived.body.content, b"body");
        let names = arrived.fields().names();
        let place = |name: &str| names.iter().position(|n| *n == name).unwrap();
        assert!(place("x-one") < place("accept") && place("accept") < place("x-many"));
    }
    assert!(backend.malformed().is_empty());
}

#[test]
fn the_host_is_kept_or_written_as_configured() {
    let backend = Backend::start();
    for (setting, expected) in [
        ("preserve", "app.example.com:99".to_owned()),
        ("upstream", backend.addr().to_string()),
        ("internal.test", "internal.test".to_owned()),
    ] {
        let proxy = Config::to(backend.addr())
            .set("upstreams.app.host", setting)
            .start();
        let request = Request::get("/public").header("host", "App.Example.com:99");
        assert_eq!(proxy.send(&request).status, 200);
        let arrived = backend.only_request();
        backend.clear();
        assert_eq!(arrived.header("host"), Some(expected), "{setting}");
        assert_eq!(
            arrived.header("x-forwarded-host").as_deref(),
            Some("app.example.com:99")
        );
    }
}

/// S-23.
#[test]
fn each_request_has_a_via_and_an_id() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let get = Request::get("/public")
        .header("Via", "1.0 fred")
        .header("x-request-id", "mine");
    proxy.send(&get);
    proxy.send(&get);
    let mut old = Client::connect(proxy.addr());
    old.send("GET /public HTTP/1.0\r\n\r\n");
    assert_eq!(old.read("GET").status, 200);
    let requests = backend.requests();
    assert_eq!(
        requests[0].fields().all("via"),
        ["1.0 fred", "1.1 cloakroom"]
    );
    assert_eq!(requests[2].fields().all("via"), ["1.0 cloakroom"]);
    assert!(requests[2].fields().has("host"));
    let id = |n: usize| requests[n].header("x-request-id").unwrap();
    assert_ne!(id(0), id(1));
    assert!(id(0) != "mine" && id(0).len() >= 16);
    let line = proxy
        .output()
        .wait_for_json(|l| l["request_id"] == id(1).as_str());
    assert_eq!(line["status"], 200);

    let trusting = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\"]")
        .start();
    backend.clear();
    trusting.send(&get);
    trusting.send(&Request::get("/public").header("x-request-id", "not one id"));
    let requests = backend.requests();
    assert_eq!(requests[0].header("x-request-id").as_deref(), Some("mine"));
    assert_ne!(
        requests[1].header("x-request-id").as_deref(),
        Some("not one id")
    );
}

/// S-16: answers without a body leave the connections in step.
#[test]
fn answers_without_a_body_have_none() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/204" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n".to_vec()),
        "/public/304" => Reply::Bytes(
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n".to_vec(),
        ),
        "/public/empty" => Reply::status(200),
        _ if request.method == "HEAD" => Reply::Bytes(Answer::new(200).body("12345").head_bytes()),
        _ => Reply::ok("12345"),
    });
    let proxy = Config::to(backend.addr()).set("server.workers", 1).start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..2 {
        let head = client.request(&Request::new("HEAD", "/public/x"));
        assert_eq!(head.header("content-length").as_deref(), Some("5"));
        let none = client.request(&Request::get("/public/204"));
        assert_eq!(
            (none.status, none.header("x-a").as_deref()),
            (204, Some("1"))
        );
        assert!(!none.fields().has("content-length"));
        let same = client.request(&Request::get("/public/304"));
        assert_eq!(
            (same.status, same.header("etag").as_deref()),
            (304, Some("\"a\""))
        );
        assert_eq!(client.request(&Request::get("/public/empty")).text(), "");
        assert_eq!(client.request(&Request::get("/public/x")).text(), "12345");
    }
    assert_eq!(
        backend.accepted(),
        1,
        "the upstream connection was not kept"
    );
    assert!(backend.malformed().is_empty());
}

#[test]
fn chunked_bodies_pass_both_ways_with_their_trailers() {
    let backend = Backend::with(|_| {
        let answer = Answer::new(200)
            .header("Trailer", "X-Sum")
            .header("X-A", "1");
        Reply::Bytes(answer.chunked(&["hello ", "", "world"][..1], &[("X-Sum", "42")]))
    });
    let proxy = Config::to(backend.addr()).start();
    let request = Request::post("/public")
        .header("transfer-encoding", "chunked")
        .header("te", "trailers")
        .header("trailer", "X-Check")
        .body("5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Check: 7\r\n\r\n");
    let response = proxy.send(&request);
    assert_eq!((response.status, response.text().as_str()), (200, "hello "));
    assert_eq!(response.trailers.get("x-sum").as_deref(), Some("42"));
    let arrived = backend.only_request();
    assert_eq!(arrived.body.content, b"hello world");
    assert_eq!(arrived.body.trailers.get("x-check").as_deref(), Some("7"));
    assert_eq!(arrived.header("te").as_deref(), Some("trailers"));
    // S-18: extensions stay here.
    assert!(!String::from_utf8_lossy(&arrived.body.raw).contains("ext"));
}

#[test]
fn large_bodies_stream_both_ways_in_little_memory() {
    let total = BLOCKS * block(0).len() as u64;
    let backend = Backend::with_head(
        move |head| {
            let upload = head.start.starts_with("POST");
            Some(Reply::take(move |mut stream, already| {
                if upload {
                    let mut body = std::io::Cursor::new(already).chain(&stream);
                    let mut buffer = vec![0; block(0).len()];
                    for number in 0..BLOCKS {
                        body.read_exact(&mut buffer).unwrap();
                        assert!(buffer == block(number), "block {number} is another one");
                    }
                    (&stream)
                        .write_all(&Answer::new(200).body("whole").bytes())
                        .unwrap();
                } else {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    for number in 0..BLOCKS {
                        stream.write_all(&block(number)).unwrap();
                    }
                }
            }))
        },
        |_| Reply::Close,
    );
    let proxy = Config::to(backend.addr()).start();

    let mut down = Client::connect(proxy.addr());
    down.send("GET /public HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = down.read_head().unwrap();
    assert_eq!(head.fields.get("content-length"), Some(total.to_string()));
    // A client that waits holds the application up, not the proxy's memory.
    std::thread::sleep(Duration::from_millis(100));
    for number in 0..BLOCKS {
        assert!(
            down.read_bytes(block(0).len()) == block(number),
            "block {number}"
        );
    }

    let mut up = Client::connect(proxy.addr());
    up.send(format!(
        "POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n"
    ));
    for number in 0..BLOCKS {
        up.send(block(number));
    }
    assert_eq!(up.read("POST").text(), "whole");

    let peak = peak_memory(proxy.id());
    assert!(peak < 64 * 1024, "{peak} KiB for bodies of {total} bytes");
}

#[test]
fn events_arrive_as_they_are_sent() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let backend = Backend::with(move |_| {
        let wait = wait.lock().unwrap().take().unwrap();
        Reply::take(move |mut stream, _| {
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                      Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
                )
                .unwrap();
            wait.recv_timeout(PATIENCE).unwrap();
            stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n").unwrap();
        })
    });
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    client.send("GET /public HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
    let head = client.read_head().unwrap();
    assert_eq!(
        head.fields.get("content-type").as_deref(),
        Some("text/event-stream")
    );
    assert_eq!(client.read_bytes(14), b"9\r\ndata: 1\n\n\r\n");
    go_on.send(()).unwrap();
    assert_eq!(client.read_bytes(14), b"9\r\ndata: 2\n\n\r\n");
}

/// S-27.
#[test]
fn a_client_may_wait_for_100_continue_or_not() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let head =
        "POST /public HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut waits = Client::connect(proxy.addr());
    waits.send(head);
    let interim = waits.read_head().unwrap();
    assert!(
        interim.start.starts_with("HTTP/1.1 100"),
        "{}",
        interim.start
    );
    waits.send("body");
    assert_eq!(waits.read("POST").json()["body"], "body");

    let mut hurries = Client::connect(proxy.addr());
    hurries.send(format!("{head}body"));
    assert_eq!(hurries.read("POST").json()["body"], "body");

    // A refused one is not asked for its body.
    let mut refused = Client::connect(proxy.addr());
    refused.send(head.replace("/public", "/x"));
    let response = refused.read("POST");
    assert_eq!((response.status, response.interim.len()), (401, 0));

    // No interim response to HTTP/1.0.
    let mut old = Client::connect(proxy.addr());
    old.send(head.replace("HTTP/1.1", "HTTP/1.0"));
    old.send("body");
    let response = old.read("POST");
    assert_eq!((response.status, response.interim.len()), (200, 0));

    backend.clear();
    for other in ["200-ok", "100-continue, x", "", "100"] {
        let request = Request::post("/public").header("expect", other).body("x");
        expect::refused(&proxy.send(&request), 417, "expectation_failed");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn connections_to_the_application_are_used_again() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).set("server.workers", 1).start();
    for n in 0..20 {
        assert_eq!(proxy.get(&format!("/public/{n}")).status, 200);
    }
    assert_eq!((backend.accepted(), backend.requests().len()), (1, 20));
}

#[test]
fn an_idle_connection_is_not_used_after_pool_idle_timeout() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.workers", 1)
        .set("upstreams.app.pool_idle_timeout", "100ms")
        .start();
    assert_eq!(proxy.get("/public").status, 200);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(backend.accepted(), 2);

    let none = Config::to(backend.addr())
        .set("server.workers", 1)
        .set("upstreams.app.pool_idle", 0)
        .start();
    let before = backend.accepted();
    for _ in 0..3 {
        assert_eq!(none.get("/public").status, 200);
    }
    assert_eq!(backend.accepted() - before, 3);
}

#[test]
fn a_connection_that_the_application_closed_meanwhile_costs_nothing() {
    let mut backend = Backend::start();
    let proxy = Config::to(backend.addr()).set("server.workers", 1).start();
    for method in ["GET", "POST"] {
        for round in 0..10 {
            let request = Request::new(method, "/public").body("x");
            assert_eq!(proxy.send(&request).status, 200, "{method} {round}");
            backend.cut();
        }
    }
    assert_eq!(backend.requests().len(), 20);
    backend.restart();
    assert_eq!(proxy.get("/public").status, 200);
}

/// However many connections were kept: the second try is on a fresh one.
#[test]
fn a_restart_of_the_application_costs_no_request() {
    let barrier = std::sync::Barrier::new(KEPT);
    let backend = Backend::with(move |request| {
        if request.target == "/public/together" {
            barrier.wait();
        }
        Reply::ok("fine")
    });
    let mut proxy = Config::to(backend.addr())
        .set("server.workers", 1)
        .set("upstreams.app.pool_idle_timeout", "1m")
        .start();
    for method in ["GET", "POST"] {
        let mut clients: Vec<_> = (0..KEPT).map(|_| Client::connect(proxy.addr())).collect();
        for client in &mut clients {
            client.send(Request::get("/public/together").bytes("x"));
        }
        for client in &mut clients {
            assert_eq!(client.read("GET").status, 200);
        }
        // The proxy learns of everything at once: the requests, and that all
        // the connections that it keeps are gone.
        proxy.signal(Signal::Stop);
        for client in &mut clients {
            client.send(Request::new(method, "/public/next").body("x").bytes("x"));
        }
        backend.cut();
        proxy.signal(Signal::Cont);
        for client in &mut clients {
            let response = client.read(method);
            assert_eq!(response.status, 200, "{method}: {}", response.text());
        }
    }
    let next = backend.requests();
    let next = next.iter().filter(|r| r.target == "/public/next");
    assert_eq!(next.count(), 2 * KEPT);
}

/// S-25: what the application may have acted on is not sent again.
#[test]
fn a_request_that_was_sent_is_not_sent_again() {
    let backend = Backend::with(|request| match request.target.as_str() {
        "/public/close" => Reply::Close,
        "/public/part" => Reply::BytesThenClose(b"HTTP/1.1 200 O".to_vec()),
        _ => Reply::ok("fine"),
    });
    let proxy = Config::to(backend.addr())
        .set("server.workers", 1)
        .set("upstreams.app.retries", 3)
        .start();
    // On a fresh connection and on one that was used before.
    for target in ["/public/close", "/public/part"] {
        for warm in [false, true] {
            if warm {
                assert_eq!(proxy.get("/public/x").status, 200);
            }
            backend.clear();
            let response = proxy.send(&Request::post(target).body("order"));
            expect::refused(&response, 502, "upstream_protocol_error");
            assert_eq!(backend.requests().len(), 1, "{target} {warm}");
        }
    }
}

#[test]
fn an_answer_may_come_before_the_request_is_complete() {
    let backend = Backend::with_head(
        |head| {
            head.start.contains("/public/early").then(|| {
                Reply::BytesThenClose(
                    Answer::new(413)
                        .header("connection", "close")
                        .body("too much")
                        .bytes(),
                )
            })
        },
        |_| Reply::ok("whole"),
    );
    let proxy = Config::to(backend.addr()).start();
    for _ in 0..5 {
        let mut client = Client::connect(proxy.addr());
        client.send("POST /public/early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nsome");
        let response = client.read("POST");
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "too much")
        );
        // What is left of the request is no next request.
        let _ = client.try_send("GET /public/smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        drop(client);
        let whole = proxy.send(&Request::post("/public").body("all"));
        assert_eq!(whole.text(), "whole");
    }
    assert!(
        backend
            .requests()
            .iter()
            .all(|r| !r.target.contains("smuggled"))
    );
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_application() {
    let (left, gone) = mpsc::channel::<&'static str>();
    let backend = Backend::with_head(
        move |head| {
            let left = left.clone();
            let kind = match head.start.as_str() {
                start if start.contains("/public/wait") => "wait",
                start if start.contains("/public/stream") => "stream",
                start if start.contains("/public/upload") => "upload",
                _ => return None,
            };
            Some(Reply::take(move |mut stream, _| {
                if kind == "stream" {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin";
                    stream.write_all(head).unwrap();
                }
                // Until the proxy closes.
                let _ = stream.read_to_end(&mut Vec::new());
                left.send(kind).unwrap();
            }))
        },
        |_| Reply::ok("fine"),
    );
    let proxy = Config::to(backend.addr()).start();
    for (kind, asks) in [
        ("wait", ""),
        // Nobody follows what comes behind such a request.
        ("wait", "Connection: upgrade\r\nUpgrade: x\r\n"),
        ("stream", ""),
        ("upload", ""),
    ] {
        let mut client = Client::connect(proxy.addr());
        match kind {
            "upload" => client.send(
                "POST /public/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart",
            ),
            _ => client.send(format!(
                "GET /public/{kind} HTTP/1.1\r\nHost: x\r\n{asks}\r\n"
            )),
        }
        match kind {
            "stream" => {
                client.read_head().unwrap();
                assert_eq!(client.read_bytes(5), b"begin");
            }
            _ => drop(backend.wait_for(1)),
        }
        drop(client);
        assert_eq!(gone.recv_timeout(PATIENCE), Ok(kind));
        backend.clear();
    }
    assert_eq!(proxy.get("/public").text(), "fine");
    let aborted = proxy
        .output()
        .wait_for_json(|l| l["path"] == "/public/stream");
    assert_eq!(aborted["aborted"], true);
}

/// S-20: answers come in the order of the requests.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut client = Client::connect(proxy.addr());
    let mut bytes = Vec::new();
    for n in 0..10 {
        let body = "x".repeat(n);
        bytes.extend(Request::post(&format!("/public/{n}")).body(body).bytes("x"));
    }
    bytes.extend(Request::get("/x").bytes("x"));
    bytes.extend(
        Request::get("/public/last")
            .header("connection", "close")
            .bytes("x"),
    );
    bytes.extend(Request::get("/public/after-close").bytes("x"));
    client.send(bytes);
    for n in 0..10 {
        let echo = client.read("POST").json();
        assert_eq!(echo["target"], format!("/public/{n}"));
        assert_eq!(echo["body"].as_str().unwrap().len(), n);
    }
    assert_eq!(client.read("GET").status, 401);
    assert_eq!(client.read("GET").json()["target"], "/public/last");
    assert!(client.is_closed());
    assert_eq!(backend.requests().len(), 11);
}

#[test]
fn hop_by_hop_fields_of_an_answer_stay_here() {
    // S-21.
    let backend = Backend::with(|_| {
        Answer::new(200)
            .header("Connection", "X-Private, keep-alive")
            .header("X-Private", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("Upgrade", "h2c")
            .header("X-Kept", "1")
            .header("Server", "the application's")
            .header("Proxy-Status", "inner; error=http_request_error")
            .header("X-Kept", "2")
            .body("x")
            .into()
    });
    let proxy = Config::to(backend.addr()).start();
    let response = proxy.get("/public");
    assert_eq!(response.status, 200);
    for name in ["x-private", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!response.fields().has(name), "{name}");
    }
    assert_eq!(response.fields().all("x-kept"), ["1", "2"]);
    assert_eq!(
        response.header("server").as_deref(),
        Some("the application's")
    );
    assert!(response.fields().has("date"));
}

/// S-22, S-23.
#[test]
fn hops_are_counted() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let options = |left: &str| Request::new("OPTIONS", "/public").header("Max-Forwards", left);
    assert_eq!(proxy.send(&options("0")).status, 204);
    assert!(backend.requests().is_empty());
    assert_eq!(proxy.send(&options("3")).status, 200);
    let arrived = backend.only_request();
    assert_eq!(arrived.header("max-forwards").as_deref(), Some("2"));
    backend.clear();

    let round = ["1.1 cloakroom"; 11].join(", ");
    let looping = proxy.send(&Request::get("/public").header("Via", &round));
    assert_eq!(looping.status, 508);
    assert_eq!(looping.refusal().as_deref(), Some("loop_detected"));
    assert!(backend.requests().is_empty());
}
