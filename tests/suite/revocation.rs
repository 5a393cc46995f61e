//! The end of a session reaches what is open on its behalf, on every replica, within
//! a second.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::backend::{Backend, Recorded, Reply};
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::http::{Client, Request};
use crate::harness::modern;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{self, over_each_store};
use crate::harness::streams::{Asked, Streams};
use crate::harness::users::{ALICE, BOB};

/// Within this time an end must have arrived everywhere.
const SOON: Duration = Duration::from_secs(1);

/// A close frame as a server sends it: 4401, and why.
fn close_frame(why: &str) -> Vec<u8> {
    let mut frame = vec![0x88, u8::try_from(2 + why.len()).unwrap(), 0x11, 0x31];
    frame.extend(why.bytes());
    frame
}

fn accepted(request: &Recorded) -> String {
    let key = request.header("sec-websocket-key").unwrap();
    let accept = modern::accept(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// An application with sockets, events that never end, and a page. What it hears on
/// its sockets it says back; on `/within` it stops in the middle of a frame.
fn application() -> Backend {
    Backend::with(|request: &Recorded| match request.target.as_str() {
        "/socket" => with(accepted(request), |mut stream| {
            let _ = stream.write_all(b"\x81\x02hi");
            let mut piece = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                if stream.write_all(&piece[..count]).is_err() {
                    break;
                }
            }
        }),
        "/within" => with(accepted(request), |mut stream| {
            let _ = stream.write_all(b"\x81\x05hi");
            let _ = stream.read(&mut [0]);
        }),
        "/events" => Reply::take(|mut stream, _| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(b"9\r\ndata: 1\n\n\r\n");
            let _ = stream.read(&mut [0]);
        }),
        "/download" => Reply::take(|mut stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
            let piece = [b'x'; 10_000];
            while stream.write_all(&piece).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }),
        _ => Reply::ok("a page"),
    })
}

fn with(head: String, then: impl FnOnce(TcpStream) + Send + 'static) -> Reply {
    Reply::take(move |mut stream, _| {
        let _ = stream.write_all(head.as_bytes());
        then(stream);
    })
}

fn socket(proxy: &Proxy, path: &str, jar: &CookieJar) -> Client {
    let request = Request::get(path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .cookies(jar);
    let mut client = Client::connect(proxy.addr());
    client.send(request.bytes(&proxy.addr().to_string()));
    let head = client.read_head().unwrap();
    assert!(head.raw.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    client
}

fn greeted(proxy: &Proxy, jar: &CookieJar) -> Client {
    let mut client = socket(proxy, "/socket", jar);
    assert_eq!(client.read_bytes(4), b"\x81\x02hi");
    client
}

fn events(proxy: &Proxy, jar: &CookieJar) -> Client {
    let mut client = Client::connect(proxy.addr());
    client.send(Request::get("/events").cookies(jar).bytes("app.test"));
    client.read_head().unwrap();
    assert_eq!(client.read_bytes(14), b"9\r\ndata: 1\n\n\r\n");
    client
}

/// Everything that comes until the end, which must come soon.
fn ends_soon(client: &mut Client, since: Instant) -> Vec<u8> {
    let rest = client.read_to_end();
    assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
    rest
}

/// A body that was cut must not look like one that is whole.
fn is_cut(client: &mut Client, since: Instant) {
    let rest = ends_soon(client, since);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}

#[test]
fn signing_out_ends_what_is_open_and_nothing_else() {
    let backend = application();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let mut alices = greeted(&proxy, &alice);
        let mut bobs = greeted(&proxy, &bob);
        let mut stream = events(&proxy, &alice);
        let begin = Instant::now();
        assert_eq!(proxy.sign_out(&alice).status, 204);
        let last = ends_soon(&mut alices, begin);
        assert_eq!(last, close_frame("unknown_session"), "{store}");
        is_cut(&mut stream, begin);
        // His goes on.
        bobs.send(b"\x81\x00");
        assert_eq!(bobs.read_bytes(2), b"\x81\x00", "{store}");
        let line = proxy.output().wait_for_json(|l| l["path"] == "/events");
        assert_eq!(line["reason"], "unknown_session", "{store}");
        assert_eq!(
            (&line["user"], &line["aborted"]),
            (&ALICE.id.into(), &true.into())
        );
        let metrics = proxy.admin_get("/metrics").text();
        let lag = "cloakroom_revocation_lag_seconds_count 2";
        assert!(metrics.contains(lag), "{store}: {metrics}");
    });
}

#[test]
fn a_request_that_waits_for_its_answer_ends_with_its_session() {
    let (sender, left) = std::sync::mpsc::channel();
    let backend = Backend::with(move |request: &Recorded| {
        let (sender, target) = (sender.clone(), request.target.clone());
        Reply::take(move |mut stream, _| {
            let _ = stream.read(&mut [0]);
            let _ = sender.send(target);
        })
    });
    let (ended, waiting) = (AtomicU64::new(0), AtomicU64::new(0));
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let mut polls = [("alice", &alice), ("bob", &bob)].map(|(name, jar)| {
            let mut poll = Client::connect(proxy.addr());
            let request = Request::get(&format!("/{name}/{store}")).cookies(jar);
            poll.send(request.bytes("app.test"));
            poll
        });
        backend.wait_until(|all| {
            let ours = |r: &&Recorded| r.target.ends_with(&format!("/{store}"));
            all.iter().filter(ours).count() == 2
        });
        let begin = Instant::now();
        assert_eq!(proxy.sign_out(&alice).status, 204);
        let refused = polls[0].read("GET");
        assert!(begin.elapsed() < SOON, "{store}: {:?}", begin.elapsed());
        assert_eq!(refused.status, 401, "{store}");
        let reason = refused.refusal();
        assert_eq!(reason.as_deref(), Some("unknown_session"), "{store}");
        let path = format!("/alice/{store}");
        let line = proxy.output().wait_for_json(|l| l["path"] == path);
        assert_eq!(line["user"], ALICE.id, "{store}");
        ended.fetch_add(1, Ordering::SeqCst);
        // The other's goes on.
        let stream = polls[1].stream();
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "{store}");
        waiting.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(ended.load(Ordering::SeqCst), waiting.load(Ordering::SeqCst));
    // The application was told of each by the end of its connection.
    let mut alices = 0;
    while alices < ended.load(Ordering::SeqCst) {
        let target: String = left.recv_timeout(Duration::from_secs(10)).unwrap();
        alices += u64::from(target.starts_with("/alice/"));
    }
}

#[test]
fn signing_out_everywhere_ends_it_for_all_sessions_of_the_user() {
    let backend = application();
    over_each_store(&Config::to(backend.addr()), |store, proxy, _| {
        let (one, two) = (proxy.sign_in(&ALICE), proxy.sign_in(&ALICE));
        let mut open = [greeted(&proxy, &one), greeted(&proxy, &two)];
        let begin = Instant::now();
        let all = Request::post("/auth/logout-all").cookies(&one);
        assert_eq!(proxy.send(&all).status, 204, "{store}");
        for client in &mut open {
            let last = ends_soon(client, begin);
            assert!(
                last.starts_with(&[0x88]) && last[2..4] == [0x11, 0x31],
                "{store}: {last:?}"
            );
        }
    });
}

#[test]
fn time_ends_what_is_open_and_use_keeps_it() {
    let backend = application();
    let config = Config::to(backend.addr())
        .set("session.idle_timeout", "2s")
        .set("session.absolute_timeout", "6s");
    over_each_store(&config, |store, proxy, _| {
        let (used, unused) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let begin = Instant::now();
        let mut talking = greeted(&proxy, &used);
        let mut silent = greeted(&proxy, &unused);
        let idle = std::thread::spawn(move || {
            let last = silent.read_to_end();
            (last, begin.elapsed())
        });
        // Frames are use of the session, even without any request.
        while begin.elapsed() < Duration::from_secs(4) {
            talking.send(b"\x81\x00");
            assert_eq!(talking.read_bytes(2), b"\x81\x00", "{store}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (last, after) = idle.join().unwrap();
        assert!(last.starts_with(&[0x88]), "{store}: {last:?}");
        assert!(
            after > Duration::from_secs(1) && after < Duration::from_secs(4),
            "{store}: {after:?}"
        );
        let last = talking.read_to_end();
        assert!(last.starts_with(&[0x88]), "{store}: {last:?}");
        assert!(begin.elapsed() > Duration::from_secs(4), "{store}");
        assert!(begin.elapsed() < Duration::from_secs(9), "{store}");
    });
}

#[test]
fn who_waits_for_an_answer_is_not_idle() {
    let (answers, may) = std::sync::mpsc::channel::<()>();
    let may = std::sync::Mutex::new(may);
    let backend = Backend::with(move |_: &Recorded| {
        let _ = may.lock().unwrap().recv();
        Reply::ok("a report")
    });
    let config = Config::to(backend.addr()).set("session.idle_timeout", "2s");
    let proxy = config.start();
    let alice = proxy.sign_in(&ALICE);
    let mut client = Client::connect(proxy.addr());
    client.send(Request::get("/report").cookies(&alice).bytes("app.test"));
    backend.wait_for(1);
    // This asks whether there is a session, and is no use of it.
    let asks = Request::get("/auth/session").cookies(&alice);
    let begin = Instant::now();
    while proxy.send(&asks).status == 200 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    // An end would come within this time.
    client.stream().set_read_timeout(Some(SOON)).unwrap();
    let nothing = client.stream().read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    client.stream().set_read_timeout(None).unwrap();
    answers.send(()).unwrap();
    let answer = client.read("GET");
    assert_eq!((answer.status, answer.text()), (200, "a report".into()));
}

#[test]
fn a_frame_that_does_not_end_is_cut() {
    let backend = application();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let mut client = socket(&proxy, "/within", &alice);
    assert_eq!(client.read_bytes(4), b"\x81\x05hi");
    let begin = Instant::now();
    proxy.sign_out(&alice);
    assert_eq!(ends_soon(&mut client, begin), b"");
}

#[test]
fn streams_of_http_2_are_reset() {
    let backend = application();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let streams = Streams::connect(proxy.addr());
    let mut events = streams.send(Asked::get(&streams, "/events").cookies(&alice));
    assert_eq!(events.read(9), b"data: 1\n\n");
    let mut socket = streams.send(Asked::socket(&streams, "/socket").cookies(&alice));
    assert_eq!(socket.read(4), b"\x81\x02hi");
    let begin = Instant::now();
    proxy.sign_out(&alice);
    assert!(events.rest().is_err());
    assert_eq!(socket.rest().unwrap(), close_frame("unknown_session"));
    assert!(begin.elapsed() < SOON);
}

#[test]
fn downloads_end_and_so_does_their_place_at_the_application() {
    let backend = application();
    let proxy = Config::to(backend.addr()).start();
    let alice = proxy.sign_in(&ALICE);
    let mut client = Client::connect(proxy.addr());
    client.send(Request::get("/download").cookies(&alice).bytes("app.test"));
    client.read_head().unwrap();
    client.read_bytes(100_000);
    let begin = Instant::now();
    proxy.sign_out(&alice);
    ends_soon(&mut client, begin);
    // The application is not left writing to nobody.
    let patience = Instant::now() + Duration::from_secs(10);
    while backend.open() > 0 {
        assert!(Instant::now() < patience, "{} open", backend.open());
        std::thread::yield_now();
    }
}

#[test]
fn an_end_reaches_every_replica() {
    let backend = application();
    let redis = Redis::start();
    let replica = || Config::to(backend.addr()).store(&redis.url()).start();
    let (here, there) = (replica(), replica());
    type End<'a> = (&'a str, &'a dyn Fn(&CookieJar));
    let ends: [End<'_>; 4] = [
        ("sign-out", &|jar| {
            assert_eq!(here.sign_out(jar).status, 204)
        }),
        ("sign-out everywhere", &|jar| {
            let all = Request::post("/auth/logout-all").cookies(jar);
            assert_eq!(here.send(&all).status, 204);
        }),
        ("DEL by hand", &|jar| {
            let key = session::key(&session::token_of(jar));
            assert_eq!(redis.run(&["DEL", &key]).int(), 1);
        }),
        ("FLUSHALL", &|_| {
            redis.run(&["FLUSHALL"]);
        }),
    ];
    for (how, end) in ends {
        let alice = here.sign_in(&ALICE);
        // Known to both, so that each has a copy.
        for proxy in [&here, &there] {
            for _ in 0..3 {
                assert_eq!(proxy.get_as("/", &alice).status, 200);
            }
        }
        let mut open = [greeted(&here, &alice), greeted(&there, &alice)];
        let mut stream = events(&there, &alice);
        let begin = Instant::now();
        end(&alice);
        while there.get_as("/", &alice).status == 200 {
            assert!(begin.elapsed() < SOON, "{how}");
        }
        assert_eq!(here.get_as("/", &alice).status, 401, "{how}");
        for client in &mut open {
            let last = ends_soon(client, begin);
            assert!(
                last.starts_with(&[0x88]) && last[2..4] == [0x11, 0x31],
                "{how}: {last:?}"
            );
        }
        is_cut(&mut stream, begin);
    }
}

#[test]
fn an_outage_ends_nothing_and_hides_no_end() {
    let backend = application();
    let mut redis = Redis::start();
    let proxy = Config::to(backend.addr()).store(&redis.url()).start();
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    let (mut alices, mut bobs) = (greeted(&proxy, &alice), greeted(&proxy, &bob));
    let key = session::key(&session::token_of(&alice));
    redis.pause();
    // The channel is silent, so each request must ask, and nobody answers.
    let patience = Instant::now() + Duration::from_secs(10);
    while proxy.get_as("/", &alice).status != 503 {
        assert!(Instant::now() < patience);
    }
    for client in [&mut alices, &mut bobs] {
        client.send(b"\x81\x00");
        assert_eq!(client.read_bytes(2), b"\x81\x00");
    }
    redis.resume();
    redis.run(&["DEL", &key]);
    let begin = Instant::now();
    assert!(ends_soon(&mut alices, begin).starts_with(&[0x88]));
    bobs.send(b"\x81\x00");
    assert_eq!(bobs.read_bytes(2), b"\x81\x00");
    assert_eq!(session::state(&proxy, &bob), BOB.id);
}

/// An application that sends without end, as fast as it is read, and how much it has
/// sent.
fn source() -> (Backend, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let backend = Backend::with(move |request: &Recorded| {
        let (count, events) = (count.clone(), request.target == "/events");
        if !events && request.target != "/download" {
            return Reply::ok("a page");
        }
        Reply::take(move |mut stream, _| {
            let (head, mut piece) = match events {
                true => (
                    "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked",
                    b"10000\r\n".to_vec(),
                ),
                false => ("Content-Length: 1000000000000", Vec::new()),
            };
            piece.extend_from_slice(&[b'x'; 0x10000]);
            if events {
                piece.extend_from_slice(b"\r\n");
            }
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
            while stream.write_all(&piece).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    (backend, sent)
}

/// Waits until nothing is sent any more: every buffer on the way is full.
fn is_stuck(sent: &AtomicU64) {
    let mut last = (sent.load(Ordering::SeqCst), Instant::now());
    let patience = Instant::now() + Duration::from_secs(20);
    while last.0 == 0 || last.1.elapsed() < Duration::from_millis(400) {
        assert!(Instant::now() < patience, "the client takes everything");
        std::thread::sleep(Duration::from_millis(10));
        let now = sent.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

fn is_let_go(backend: &Backend, since: Instant) {
    while backend.open() > 0 {
        assert!(since.elapsed() < SOON, "{} open", backend.open());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_does_not_read_is_cut_off_as_well() {
    for path in ["/download", "/events"] {
        let (backend, sent) = source();
        let proxy = Config::to(backend.addr()).start();
        let alice = proxy.sign_in(&ALICE);
        let mut client = Client::connect(proxy.addr());
        client.send(Request::get(path).cookies(&alice).bytes("app.test"));
        client.read_head().unwrap();
        is_stuck(&sent);
        let begin = Instant::now();
        assert_eq!(proxy.sign_out(&alice).status, 204);
        is_let_go(&backend, begin);
        let line = proxy.output().wait_for_json(|l| l["path"] == path);
        assert_eq!(line["reason"], "unknown_session", "{path}");
        assert_eq!(line["aborted"], true, "{path}");
        // What was on its way is all there is.
        client.stream().set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        let ended = client.stream().read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{path} looks whole");
    }
}

#[test]
fn a_stream_of_http_2_that_nobody_reads_is_reset_and_no_other() {
    for path in ["/download", "/events"] {
        let (backend, sent) = source();
        let proxy = Config::to(backend.addr()).start();
        let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
        let streams = Streams::connect(proxy.addr());
        let mut stuck = streams.send(Asked::get(&streams, path).cookies(&alice));
        is_stuck(&sent);
        let begin = Instant::now();
        assert_eq!(proxy.sign_out(&alice).status, 204);
        is_let_go(&backend, begin);
        assert!(stuck.rest().is_err(), "{path}");
        let mut page = streams.send(Asked::get(&streams, "/").cookies(&bob));
        assert_eq!(page.rest().unwrap(), b"a page", "{path}");
    }
}
