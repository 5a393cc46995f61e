//! Conversations with an application, by the bytes of both sides.

mod sending;

use std::future::poll_fn;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::wire::body::Body;
use crate::wire::fields::{Lines, Sink as _};

/// What a conversation came to: the head's status and fields, the content, its trailers,
/// and whether the connection may be used again; or the error.
type Said = Result<(u16, Vec<(String, String)>, Bytes, HeaderMap, bool), String>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn connection(room: usize) -> (Option<Box<Connection>>, DuplexStream) {
    let (ours, theirs) = duplex(room);
    (Some(Box::new(Connection::new(ours, None))), theirs)
}

fn request(method: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri("/a?b");
    let request = request.header("host", "a.example").header("x-a", "1");
    request.body(Body::Empty).unwrap()
}

fn is_over(connection: &mut Connection) -> bool {
    connection.is_over(&mut Context::from_waker(Waker::noop()))
}

fn begin(place: &mut Option<Box<Connection>>, request: &mut Request<Body>) {
    let connection = place.as_mut().unwrap();
    assert!(!is_over(connection));
    let fields = |request: &Request<Body>, lines: &mut Lines<'_>| {
        for (name, value) in request.headers() {
            lines.pass(name, value);
        }
        Ok(())
    };
    connection.begin(request, "/a?b", fields).unwrap();
}

/// Sends a request, and lets the application answer with these pieces and close.
async fn talk(method: &str, pieces: &[&[u8]]) -> Said {
    let (mut place, mut theirs) = connection(64 * 1024);
    let mut asked = request(method);
    begin(&mut place, &mut asked);
    let answer = async {
        let mut head = [0; 1024];
        let mut length = 0;
        while !head[..length].ends_with(b"\r\n\r\n") {
            length += theirs.read(&mut head[length..]).await.unwrap();
        }
        for piece in pieces {
            // It may be gone already.
            let _ = theirs.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        drop(theirs);
    };
    let reading = async {
        let answered = Connection::answer(&mut place).await;
        let said = match answered {
            Ok(answer) => read(answer).await,
            Err(error) => Err(error.to_string()),
        };
        // Whoever still writes is told.
        drop(place);
        said
    };
    tokio::join!(reading, answer).0
}

async fn read(answer: Response<Inbound>) -> Said {
    let (head, mut body) = answer.into_parts();
    let fields = head.headers.iter();
    let fields = fields
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let (mut content, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        match frame.into_data() {
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    assert!(body.is_end_stream());
    let again = body.take_connection().is_some();
    Ok((
        head.status.as_u16(),
        fields,
        content.into(),
        trailers,
        again,
    ))
}

fn said(method: &str, answer: &str) -> Said {
    runtime().block_on(talk(method, &[answer.as_bytes()]))
}

#[test]
fn the_content_ends_where_the_head_says() {
    for (method, answer, content, again) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc",
            "ab",
            false,
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nabc", "abc", false),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            "",
            true,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "",
            true,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "abc",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0a;x=\"y\" \r\n0123456789\r\n1\r\nz\r\n000\r\n\r\n",
            "0123456789z",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: x, CLOSE\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
            "a",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            true,
        ),
    ] {
        let (_, _, found, _, reusable) = said(method, answer).expect(answer);
        assert_eq!(
            (&*found, reusable),
            (content.as_bytes(), again),
            "{answer:?}"
        );
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "",
        &format!("{chunked}\r\n\r\n"),
        &format!("{chunked};x\r\n\r\n"),
        &format!("{chunked}3\r\nabc0\r\n\r\n"),
        &format!("{chunked}3\r\nab\r\n0\r\n\r\n"),
        &format!("{chunked}-3\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}0x3\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}3\nabc\n0\n\n"),
        &format!("{chunked}3;a\nb\r\nabc\r\n0\r\n\r\n"),
        &format!("{chunked}3\r\nabc\r\n"),
        &format!("{chunked}3\r\nabc\r\n0\r\n"),
        &format!("{chunked}10000000000000000\r\nabc"),
        &format!("{chunked}3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(5000)),
        &format!("{chunked}0\r\na b: c\r\n\r\n"),
        &format!("{chunked}0\r\n{}\r\n", "a: b\r\n".repeat(101)),
        &format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101)),
    ] {
        assert!(said("GET", answer).is_err(), "{answer:?}");
    }
}

#[test]
fn trailers_and_reasons_come_through() {
    let answer = "HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\nA: 1\r\nb: 2\r\na: 3\r\n\r\n\
                  2\r\nab\r\n0\r\nX-End: yes\r\nx-end: no\r\n\r\n";
    let (status, fields, content, trailers, again) = said("GET", answer).unwrap();
    assert_eq!((status, &*content, again), (200, &b"ab"[..], true));
    let expected = [
        ("transfer-encoding", "chunked"),
        ("a", "1"),
        ("a", "3"),
        ("b", "2"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(fields, expected);
    let ends: Vec<_> = trailers.get_all("x-end").iter().collect();
    assert_eq!(ends, ["yes", "no"]);
    runtime().block_on(async {
        let (mut place, mut theirs) = connection(1024);
        begin(&mut place, &mut request("GET"));
        let answer = b"HTTP/1.1 299 Not bad\r\ncontent-length: 0\r\n\r\n";
        theirs.write_all(answer).await.unwrap();
        let answer = Connection::answer(&mut place).await.unwrap();
        let reason = answer.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(reason.unwrap().as_bytes(), b"Not bad");
    });
}

#[test]
fn interim_responses_have_an_end() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(50_000);
    let error = said("GET", &interim).unwrap_err();
    assert_eq!(error, Error::TooMuchBefore.to_string());
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(300 * 1024));
    assert_eq!(said("GET", &long).unwrap_err(), Error::TooLarge.to_string());
}

#[test]
fn a_connection_leaves_http_with_what_came_behind_the_head() {
    runtime().block_on(async {
        let (mut place, mut theirs) = connection(1024);
        begin(&mut place, &mut request("GET"));
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nhello";
        theirs.write_all(answer).await.unwrap();
        let mut answer = Connection::answer(&mut place).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert!(answer.body().is_end_stream());
        let mut raw = answer.body_mut().take_raw().unwrap();
        theirs.write_all(b" there").await.unwrap();
        let mut heard = [0; 11];
        raw.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello there");
        raw.write_all(b"hi").await.unwrap();
        let mut rest = Vec::new();
        drop(raw);
        theirs.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"\r\n\r\nhi"));
    });
}

/// Sends a request, and gives what is read first of an answer with this content.
async fn first_piece(
    place: &mut Option<Box<Connection>>,
    theirs: &mut DuplexStream,
    content: &[u8],
) -> Bytes {
    begin(place, &mut request("GET"));
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    theirs.write_all(head.as_bytes()).await.unwrap();
    theirs.write_all(content).await.unwrap();
    let mut body = Connection::answer(place).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap();
    while let Some(piece) = body.frame().await {
        piece.unwrap();
    }
    *place = body.take_connection();
    first.into_data().unwrap()
}

#[test]
fn answers_that_nobody_holds_come_in_one_piece_each_into_the_same_room() {
    runtime().block_on(async {
        let (mut place, mut theirs) = connection(64 * 1024);
        let mut rooms = Vec::new();
        for _ in 0..5 {
            let piece = first_piece(&mut place, &mut theirs, &[b'c'; 10_240]).await;
            assert_eq!(piece.len(), 10_240);
            rooms.push(piece.as_ptr());
        }
        assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    });
}

#[test]
fn answers_that_somebody_holds_stay_as_they_are_and_share_their_room() {
    runtime().block_on(async {
        let (mut place, mut theirs) = connection(64 * 1024);
        let mut held = Vec::new();
        for content in b'a'..=b'z' {
            held.push(first_piece(&mut place, &mut theirs, &[content; 200]).await);
        }
        for (piece, content) in held.iter().zip(b'a'..) {
            assert_eq!(piece[..], [content; 200]);
        }
        let places = held.iter().map(|piece| piece.as_ptr().addr());
        let span = places.clone().max().unwrap() - places.min().unwrap();
        assert!(span < 16 * 1024, "{span}");
    });
}

/// A connection that ended, or said something, while it was idle takes no request.
#[test]
fn what_is_out_of_step_takes_no_request() {
    runtime().block_on(async {
        let (mut place, theirs) = connection(1024);
        drop(theirs);
        assert!(is_over(place.as_mut().unwrap()));
        let (mut place, mut theirs) = connection(1024);
        assert!(!is_over(place.as_mut().unwrap()));
        theirs.write_all(b"H").await.unwrap();
        assert!(is_over(place.as_mut().unwrap()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However an answer is cut into pieces, it is the same answer.
    #[test]
    fn pieces_make_no_difference(
        chunks in prop::collection::vec("[a-z]{1,40}", 0..5),
        trailer in any::<bool>(),
        spoil in prop::option::of((0..200_usize, any::<u8>())),
        cuts in prop::collection::vec(1..30_usize, 0..40),
    ) {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            answer.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        answer.extend_from_slice(if trailer { b"0\r\nx-a: b\r\n\r\n" } else { b"0\r\n\r\n" });
        let is_spoilt = spoil.is_some();
        if let Some((at, byte)) = spoil {
            let at = at % answer.len();
            answer[at] = byte;
        }
        let mut pieces = Vec::new();
        let mut rest = &answer[..];
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces.push(rest);
        let whole = runtime().block_on(talk("GET", &[&answer]));
        let cut = runtime().block_on(talk("GET", &pieces));
        match (&whole, &cut) {
            // What is surplus may come before or after the end is seen.
            (Ok(whole), Ok(cut)) => {
                prop_assert_eq!(&whole.2, &cut.2);
                prop_assert_eq!(&whole.1, &cut.1);
            }
            _ => prop_assert_eq!(whole.is_ok(), cut.is_ok()),
        }
        if !is_spoilt {
            let (_, _, content, trailers, again) = whole.unwrap();
            let all = chunks.concat();
            prop_assert_eq!(&*content, all.as_bytes());
            prop_assert_eq!((trailers.len(), again), (usize::from(trailer), true));
        }
    }
}
