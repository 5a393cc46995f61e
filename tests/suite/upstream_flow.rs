//! A connection to the application while nobody asks it for anything: both directions of a
//! request go on without each other, and an end is seen.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::harness::backend::{Answer, Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::{PATIENCE, eventually};

/// More than all buffers on the way hold together.
const MUCH: usize = 32 * 1024 * 1024;

/// One worker, so that it is known which pool a request meets.
fn config(backend: &Backend) -> Config {
    Config::to(backend.addr()).set("server.workers", 1)
}

fn files(proxy: &crate::harness::proxy::Proxy) -> usize {
    let folder = format!("/proc/{}/fd", proxy.id());
    std::fs::read_dir(folder).unwrap().count()
}

/// Answers a request before it reads its body, with `before` bytes that it sends first, and
/// with as many as that again when it has read all. Tells how many bytes it has read.
fn early(before: usize) -> (Backend, Receiver<usize>) {
    let (told, tells): (Sender<usize>, _) = channel();
    let backend = Backend::with_head(
        move |head| {
            let told = told.clone();
            head.start.starts_with("POST").then(|| {
                Reply::take(move |mut stream, rest| {
                    let mut reader = stream.try_clone().unwrap();
                    let reads = thread::spawn(move || {
                        let mut count = rest.len();
                        let mut piece = vec![0; 64 * 1024];
                        while count < MUCH {
                            match reader.read(&mut piece).unwrap() {
                                0 => break,
                                read => count += read,
                            }
                        }
                        told.send(count).unwrap();
                    });
                    let length = 2 * before;
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(&vec![b'a'; before]).unwrap();
                    reads.join().unwrap();
                    stream.write_all(&vec![b'b'; before]).unwrap();
                })
            })
        },
        |_| Reply::ok("fine"),
    );
    (backend, tells)
}

fn upload() -> String {
    format!("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: {MUCH}\r\n\r\n")
}

#[test]
fn an_upload_goes_on_while_nobody_reads_the_answer() {
    // All of it, little, and more than fits anywhere.
    for before in [0, 10, MUCH] {
        let (backend, read) = early(before);
        let proxy = config(&backend).start();
        let mut client = Client::connect(proxy.addr());
        client.send(upload());
        client.send(vec![b'x'; MUCH]);
        assert_eq!(read.recv_timeout(PATIENCE).unwrap(), MUCH, "{before}");
        let answer = client.read("POST");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.len(), 2 * before);
        // All was said on both sides.
        client.send("GET /public HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.read("GET").text(), "fine");
    }
}

#[test]
fn an_upload_and_its_answer_flow_at_the_same_time() {
    let backend = Backend::with_head(
        |head| {
            head.start.starts_with("POST").then(|| {
                Reply::take(|mut stream, rest| {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.write_all(&rest).unwrap();
                    let mut left = MUCH - rest.len();
                    let mut piece = vec![0; 64 * 1024];
                    while left > 0 {
                        let read = stream.read(&mut piece).unwrap();
                        assert!(read > 0);
                        stream.write_all(&piece[..read]).unwrap();
                        left -= read;
                    }
                })
            })
        },
        |_| Reply::ok("fine"),
    );
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    client.send(upload());
    let mut sender = client.stream().try_clone().unwrap();
    let sends = thread::spawn(move || {
        for piece in vec![b'x'; MUCH].chunks(100_000) {
            sender.write_all(piece).unwrap();
        }
    });
    let answer = client.read("POST");
    sends.join().unwrap();
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(answer.body.len(), MUCH);
}

#[test]
fn an_application_that_closes_after_its_answer_leaves_nothing_behind() {
    // It does not say so beforehand.
    let backend = Backend::with(|_| Reply::BytesThenClose(Answer::new(200).body("x").bytes()));
    let proxy = config(&backend)
        .set("upstreams.app.pool_idle_timeout", "1h")
        .start();
    let before = files(&proxy);
    let mut client = Client::connect(proxy.addr());
    for _ in 0..50 {
        // Where the end comes after the request was sent, that is not sent again.
        let status = client.request(&Request::post("/public").body("x")).status;
        assert!([200, 502].contains(&status), "{status}");
    }
    drop(client);
    eventually("nothing is left of it", || {
        (files(&proxy) <= before).then_some(())
    });
}

#[test]
fn what_ended_while_it_was_idle_gets_no_request() {
    let backend = Backend::start();
    let proxy = config(&backend).start();
    for turn in 1..=20 {
        let mut client = Client::connect(proxy.addr());
        assert_eq!(client.request(&Request::get("/public")).status, 200);
        // The end is there before the request is.
        backend.cut();
        let post = Request::post("/public").body("x");
        assert_eq!(client.request(&post).status, 200, "{turn}");
        // This one too, and from somebody else.
        backend.cut();
        assert_eq!(proxy.send(&post).status, 200, "{turn}");
        backend.cut();
    }
}

#[test]
fn a_client_that_leaves_ends_the_connection_of_its_answer() {
    for length in [1000, MUCH] {
        let (told, tells) = channel();
        let backend = Backend::with(move |_| {
            let told = told.clone();
            Reply::take(move |mut stream, _| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                // The larger one is broken off where nobody takes it any more.
                let _ = stream.write_all(&vec![b'a'; length - 1]);
                let end = stream.read(&mut [0; 1]);
                told.send(end.is_ok_and(|read| read > 0)).unwrap();
            })
        });
        let proxy = config(&backend).start();
        let mut client = Client::connect(proxy.addr());
        client.send(Request::get("/public").bytes("x"));
        client.read_head().unwrap();
        client.reset();
        assert!(!tells.recv_timeout(PATIENCE).unwrap(), "{length}");
        eventually("the connection has ended", || {
            (backend.open() == 0).then_some(())
        });
    }
}
