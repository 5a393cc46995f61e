//! Upstreams over HTTP/2: many requests on few connections.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::Semaphore;

use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::modern::{Manner, Modern, answer};

/// One worker, so that it is known which pool a request meets.
fn config(backend: &Modern) -> Config {
    Config::to(backend.addr())
        .set(
            "upstreams.app.urls",
            vec![format!("h2c://{}", backend.addr())],
        )
        .set("server.workers", 1)
}

/// Answers `/held` once it is told to, everything else at once.
fn holding(streams: Option<u32>) -> (Modern, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let manner = Manner {
        streams,
        ..Manner::h2c()
    };
    let backend = Modern::with(manner, move |request| {
        let gate = held.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/held") {
                gate.acquire().await.unwrap().forget();
            }
            answer(200, "fine")
        })
    });
    (backend, gate)
}

#[test]
fn requests_share_a_connection() {
    let (backend, gate) = holding(None);
    let proxy = config(&backend).start();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.addr())).collect();
    for client in &mut clients {
        client.send(Request::get("/public/held").bytes("x"));
    }
    backend.wait_for(20);
    gate.add_permits(20);
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(backend.accepted(), 1);
    let metrics = proxy.admin_get("/metrics").text();
    assert!(
        metrics.contains("cloakroom_upstream_connections{upstream=\"app\"} 1"),
        "{metrics}"
    );
}

#[test]
fn a_full_connection_gets_another_beside_it() {
    let (backend, gate) = holding(Some(2));
    let proxy = config(&backend).start();
    // By its response the limit is known.
    assert_eq!(proxy.get("/public").status, 200);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(proxy.addr())).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(Request::get("/public/held").bytes("x"));
        backend.wait_for(index + 2);
    }
    let mut streams = [0; 3];
    for seen in &backend.seen()[1..] {
        streams[seen.connection] += 1;
    }
    streams.sort_unstable();
    assert_eq!(streams, [1, 2, 2]);
    gate.add_permits(5);
    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
}

#[test]
fn a_client_that_leaves_ends_its_stream_alone() {
    let gone = Arc::new(AtomicUsize::new(0));
    let counter = gone.clone();
    let backend = Modern::with(Manner::h2c(), move |request| {
        let gone = Gone(counter.clone());
        Box::pin(async move {
            match request.uri().path() {
                "/public/waits" => std::future::pending().await,
                "/public/streams" => {
                    let body = Frames {
                        frames: [Frame::data(Bytes::from_static(b"first"))].into(),
                        endless: Some(gone),
                    };
                    Response::new(body.boxed_unsync())
                }
                _ => answer(200, "fine"),
            }
        })
    });
    let proxy = config(&backend).start();
    let wait_gone = |count: usize| {
        eventually("the stream was reset", || {
            (gone.load(Ordering::SeqCst) >= count).then_some(())
        });
    };
    let mut waits = Client::connect(proxy.addr());
    waits.send(Request::get("/public/waits").bytes("x"));
    backend.wait_for(1);
    drop(waits);
    wait_gone(1);

    let mut streams = Client::connect(proxy.addr());
    streams.send(Request::get("/public/streams").bytes("x"));
    streams.read_head().unwrap();
    drop(streams);
    wait_gone(2);

    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(backend.accepted(), 1);
}

/// A body of unknown length.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    /// There: it never ends.
    endless: Option<Gone>,
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.endless.is_some() => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// Counts when it goes.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_connection_that_says_goodbye_loses_no_request() {
    let manner = Manner {
        goodbye: true,
        ..Manner::h2c()
    };
    let backend = Modern::start(manner);
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    for _ in 0..30 {
        assert_eq!(client.request(&Request::get("/public")).status, 200);
    }
    assert!(backend.accepted() > 1);
}

#[test]
fn an_early_answer_leaves_the_connection_as_it_is() {
    let backend = Modern::with(Manner::h2c(), |request| {
        Box::pin(async move {
            match request.method().as_str() {
                // Without reading the body.
                "POST" => answer(413, "too much"),
                _ => answer(200, "fine"),
            }
        })
    });
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    client.send("POST /public HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nonly a part");
    assert_eq!(client.read("POST").status, 413);
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn trailers_pass_in_both_directions() {
    let received = Arc::new(Mutex::new(HeaderMap::new()));
    let note = received.clone();
    let backend = Modern::with(Manner::h2c(), move |request| {
        let note = note.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap();
            *note.lock().unwrap() = body.trailers().cloned().unwrap_or_default();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", "2".parse().unwrap());
            trailers.insert("set-cookie", "a=b".parse().unwrap());
            let frames = [
                Frame::data(Bytes::from_static(b"fine")),
                Frame::trailers(trailers),
            ];
            let body = Frames {
                frames: frames.into(),
                endless: None,
            };
            let mut response = Response::new(body.boxed_unsync());
            let announced = "x-checksum".parse().unwrap();
            response.headers_mut().insert("trailer", announced);
            response
        })
    });
    let proxy = config(&backend).start();
    let mut client = Client::connect(proxy.addr());
    client.send(
        "POST /public HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: x-checksum\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Checksum: 1\r\nX-User-Id: root\r\n\r\n",
    );
    let response = client.read("POST");
    assert_eq!((response.status, response.text().as_str()), (200, "fine"));
    assert_eq!(response.trailers.get("x-checksum").as_deref(), Some("2"));
    assert!(!response.trailers.has("set-cookie"));
    let received = received.lock().unwrap();
    assert_eq!(received["x-checksum"], "1");
    assert!(!received.contains_key("x-user-id"));
}
