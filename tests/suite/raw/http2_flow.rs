//! HTTP/2 that is spoken as it should be: what h2spec asks of the preface,
//! settings, pings and windows (RFC 9113 sections 3.4, 6.5.3, 6.7, 6.9), and
//! its generic cases.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;

use super::http2::{GET, block, but, with};
use super::start;
use crate::harness::PATIENCE;
use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::h2::{self, Frame, H2};
use crate::harness::http::Client;
use crate::harness::proxy::Proxy;

const PRIORITY: u8 = 2;
const END: u8 = h2::END_HEADERS | h2::END_STREAM;

/// Without the short limits of the others, for tests in which something has to be waited
/// for.
const PUBLIC: &str = "[[routes]]\naccess = \"public\"\n";

fn proxy() -> (Backend, Proxy) {
    let backend = Backend::with(|_| Reply::ok("0123456789"));
    let proxy = start(&backend);
    (backend, proxy)
}

fn setting(name: u8, value: u32) -> Frame {
    let value = value.to_be_bytes();
    Frame::new(h2::SETTINGS, 0, 0, [&[0, name][..], &value].concat())
}

fn get(stream: u32) -> Frame {
    Frame::new(h2::HEADERS, END, stream, block(GET))
}

fn update(stream: u32, by: u32) -> Frame {
    Frame::new(h2::WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

/// The next frame of a kind.
fn next(connection: &mut H2, kind: u8) -> Frame {
    loop {
        let frame = connection.read().unwrap();
        assert_ne!(frame.kind, h2::GOAWAY, "{frame:?}");
        if frame.kind == kind {
            return frame;
        }
    }
}

/// Waits until all that was sent has been read.
fn pass(connection: &mut H2) {
    let ping = Frame::new(h2::PING, 0, 0, [0; 8]);
    connection.send(&ping).unwrap();
    next(connection, h2::PING);
}

#[test]
fn s3_5_what_is_no_preface_is_not_http2() {
    let (_backend, proxy) = proxy();
    let mut connection = H2::connect(proxy.addr());
    assert_eq!(connection.read().unwrap().kind, h2::SETTINGS, "3.5/1");
    let mut client = Client::connect(proxy.addr());
    client.send("INVALID CONNECTION PREFACE\r\n\r\n");
    client.finish();
    client.read_to_end();
    assert!(client.is_closed(), "3.5/2");
}

#[test]
fn s6_5_3_settings_are_taken_in_order_and_acknowledged() {
    let (_backend, proxy) = proxy();
    let mut connection = H2::connect(proxy.addr());
    // Twice in one frame: the last one counts.
    let twice = [setting(4, 100).payload, setting(4, 1).payload].concat();
    connection
        .send(&Frame::new(h2::SETTINGS, 0, 0, twice))
        .unwrap();
    connection.send(&get(1)).unwrap();
    let data = next(&mut connection, h2::DATA);
    assert_eq!(data.payload.len(), 1, "6.5.3/1");
    let mut connection = H2::connect(proxy.addr());
    let settings = |frame: &Frame| frame.kind == h2::SETTINGS && frame.flags & h2::ACK != 0;
    while !settings(&connection.read().unwrap()) {}
    connection.send(&setting(3, 10)).unwrap();
    while !settings(&connection.read().unwrap()) {}
}

#[test]
fn s6_7_a_ping_is_answered_with_its_bytes_and_an_answer_is_not() {
    let (_backend, proxy) = proxy();
    let mut connection = H2::connect(proxy.addr());
    connection
        .send(&Frame::new(h2::PING, h2::ACK, 0, *b"not this"))
        .unwrap();
    connection
        .send(&Frame::new(h2::PING, 0, 0, *b"but this"))
        .unwrap();
    let answer = next(&mut connection, h2::PING);
    assert_eq!(
        (answer.flags, answer.payload.as_slice()),
        (h2::ACK, &b"but this"[..])
    );
}

#[test]
fn s6_9_windows_are_kept_to() {
    let (_backend, proxy) = proxy();
    let mut connection = H2::connect(proxy.addr());
    connection.send(&setting(4, 1)).unwrap();
    connection.send(&get(1)).unwrap();
    assert_eq!(next(&mut connection, h2::DATA).payload.len(), 1, "6.9.1/1");

    // No room at first; then for one byte.
    let mut connection = H2::connect(proxy.addr());
    connection.send(&setting(4, 0)).unwrap();
    connection.send(&get(1)).unwrap();
    next(&mut connection, h2::HEADERS);
    connection.send(&setting(4, 1)).unwrap();
    assert_eq!(next(&mut connection, h2::DATA).payload.len(), 1, "6.9.2/1");

    // Three bytes were sent, and only two may have been: one more is owed.
    let mut connection = H2::connect(proxy.addr());
    connection.send(&setting(4, 3)).unwrap();
    connection.send(&get(1)).unwrap();
    assert_eq!(next(&mut connection, h2::DATA).payload.len(), 3);
    connection.send(&setting(4, 2)).unwrap();
    connection.send(&update(1, 2)).unwrap();
    assert_eq!(next(&mut connection, h2::DATA).payload.len(), 1, "6.9.2/2");
}

/// A length that is reached is not the end of a stream: more may come, and then the
/// request was malformed from the start (RFC 9113 section 8.1.1). Until it ends, the
/// application has no whole request.
#[test]
fn a_request_is_whole_when_its_stream_has_ended() {
    let backend = Backend::with(|_| Reply::ok("0123456789"));
    let proxy = Config::to(backend.addr()).with(PUBLIC).start();
    let end = |rest| Frame::new(h2::DATA, h2::END_STREAM, 1, rest);
    let cancel = Frame::new(h2::RST_STREAM, 0, 1, 8u32.to_be_bytes());
    for (length, first) in [("2", "ab"), ("0", "")] {
        for (rest, answer) in [
            (end(""), Some(h2::HEADERS)),
            (end("c"), Some(h2::RST_STREAM)),
            (cancel.clone(), None),
        ] {
            let mut connection = H2::connect(proxy.addr());
            let mut fields = with(&[("content-length", length)]);
            fields[0].1 = "POST";
            let head = Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block(&fields));
            connection.send(&head).unwrap();
            connection.send(&Frame::new(h2::DATA, 0, 1, first)).unwrap();
            // Once this is answered all before it was read, and once that is, sent on.
            pass(&mut connection);
            assert_eq!(proxy.get("/other").status, 200);
            connection.send(&rest).unwrap();
            match answer {
                Some(kind) => drop(next(&mut connection, kind)),
                None => {
                    pass(&mut connection);
                    assert_eq!(proxy.get("/other").status, 200);
                }
            }
            let requests = backend.requests().into_iter();
            let seen: Vec<_> = requests.map(|request| request.target).collect();
            let expected: &[&str] = match answer {
                Some(h2::HEADERS) => &["/other", "/"],
                Some(_) => &["/other"],
                None => &["/other", "/other"],
            };
            assert_eq!(seen, expected, "{length}: {first:?}, {rest:?}");
            backend.clear();
        }
    }
}

/// Only what would make the request whole is held back. With nothing of it, a connection
/// that was kept would look idle to the application, which may end it.
#[test]
fn what_comes_before_the_end_of_a_stream_is_sent() {
    let application = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = Config::to(application.local_addr().unwrap())
        .with(PUBLIC)
        .start();
    for (length, content, held) in [("2", "ab", "ab"), ("0", "", "\n")] {
        let mut connection = H2::connect(proxy.addr());
        let mut fields = with(&[("content-length", length)]);
        fields[0].1 = "POST";
        let head = Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block(&fields));
        connection.send(&head).unwrap();
        let data = Frame::new(h2::DATA, 0, 1, content);
        connection.send(&data).unwrap();
        let (mut stream, _) = application.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let before = if content.is_empty() {
            "\r\n\r"
        } else {
            "\r\n\r\n"
        };
        let mut seen = Vec::new();
        while !seen.ends_with(before.as_bytes()) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        stream.set_nonblocking(true).unwrap();
        let more = stream.read(&mut [0]).unwrap_err();
        assert_eq!(more.kind(), ErrorKind::WouldBlock, "{length}");
        stream.set_nonblocking(false).unwrap();
        let end = Frame::new(h2::DATA, h2::END_STREAM, 1, "");
        connection.send(&end).unwrap();
        let mut rest = vec![0; held.len()];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(rest, held.as_bytes());
        let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).unwrap();
        next(&mut connection, h2::HEADERS);
    }
}

/// `generic` of h2spec: each of these is followed by a request that is served.
#[test]
fn what_is_allowed_is_served() {
    let (backend, proxy) = proxy();
    let post = || {
        let fields = but(":method", Some("POST"));
        Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block(&fields))
    };
    let priority = |stream: u32, on: u32, weight: u8| {
        Frame::new(
            PRIORITY,
            0,
            stream,
            [&on.to_be_bytes()[..], &[weight]].concat(),
        )
    };
    let data = |flags, payload: &[u8]| Frame::new(h2::DATA, flags, 1, payload);
    let literal = |first: &[u8]| Frame::new(h2::HEADERS, END, 1, [&block(GET), first].concat());
    let huffman = [0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
    let head = Frame::new(h2::HEADERS, 0, 1, block(GET));
    let mut open = head.clone();
    open.flags = h2::END_STREAM;
    let more = |flags| Frame::new(h2::CONTINUATION, flags, 1, block(&[("x-a", "b")]));
    let padded = [&[2][..], &block(GET), &[0, 0]].concat();
    let with_priority = [&[0x80, 0, 0, 0, 255][..], &block(GET)].concat();
    for (name, frames) in [
        ("2/1 a request", vec![get(1)]),
        (
            "2/2 a half-closed stream: PRIORITY",
            vec![get(1), priority(1, 0, 9)],
        ),
        (
            "2/3 a half-closed stream: WINDOW_UPDATE",
            vec![get(1), update(1, 9)],
        ),
        ("3.1/1 DATA", vec![post(), data(1, b"test")]),
        (
            "3.1/2 several DATA",
            vec![post(), data(0, b"test"), data(1, b"test")],
        ),
        (
            "3.1/3 DATA with padding",
            vec![post(), data(9, b"\x02test\0\0")],
        ),
        (
            "3.2/2 HEADERS with padding",
            vec![Frame::new(h2::HEADERS, END | 8, 1, padded)],
        ),
        (
            "3.2/3 HEADERS with priority",
            vec![Frame::new(h2::HEADERS, END | 0x20, 1, with_priority)],
        ),
        (
            "3.3/1 PRIORITY of weight 1",
            vec![priority(1, 0, 0), get(1)],
        ),
        (
            "3.3/2 PRIORITY of weight 256",
            vec![priority(1, 0, 255), get(1)],
        ),
        (
            "3.3/3 PRIORITY with a dependency",
            vec![priority(3, 1, 5), get(1)],
        ),
        (
            "3.3/4 PRIORITY that is exclusive",
            vec![priority(3, 1 << 31 | 1, 5), get(1)],
        ),
        ("3.5/1 SETTINGS", vec![setting(3, 100), get(1)]),
        ("3.9/1 WINDOW_UPDATE", vec![update(0, 1), get(1)]),
        (
            "3.9/2 WINDOW_UPDATE of a stream",
            vec![get(1), update(1, 1)],
        ),
        (
            "3.10/1 CONTINUATION",
            vec![open.clone(), more(h2::END_HEADERS)],
        ),
        (
            "3.10/2 several CONTINUATION",
            vec![open, more(0), more(h2::END_HEADERS)],
        ),
        (
            "4/4 trailers",
            vec![
                post(),
                data(0, b"test"),
                Frame::new(h2::HEADERS, END, 1, block(&[("x-test", "ok")])),
            ],
        ),
        ("5/1 an indexed field", vec![literal(&[0x90])]),
        (
            "5/2 a literal that is indexed",
            vec![literal(&[0x7a, 4, b't', b'e', b's', b't'])],
        ),
        (
            "5/3 the same in Huffman code",
            vec![literal(&[&[0x7a][..], &huffman].concat())],
        ),
        ("5/4 a new name", vec![literal(b"\x40\x03x-a\x01b\xbe")]),
        (
            "5/6 a literal that is not indexed",
            vec![literal(b"\x0f\x2b\x04test")],
        ),
        (
            "5/10 a literal that is never indexed",
            vec![literal(b"\x1f\x2b\x04test")],
        ),
        (
            "5/14 a change of the table",
            vec![Frame::new(
                h2::HEADERS,
                END,
                1,
                [&[0x3f, 0x61][..], &block(GET)].concat(),
            )],
        ),
        (
            "5/15 two changes of the table",
            vec![Frame::new(
                h2::HEADERS,
                END,
                1,
                [&[0x20, 0x3f, 0x61][..], &block(GET)].concat(),
            )],
        ),
    ] {
        let mut connection = H2::connect(proxy.addr());
        for frame in &frames {
            connection.send(frame).unwrap();
        }
        let answer = next(&mut connection, h2::HEADERS);
        assert_eq!(answer.payload.first(), Some(&0x88), "generic {name}");
        let content = next(&mut connection, h2::DATA);
        assert_eq!(content.payload, b"0123456789", "generic {name}");
    }
    assert_eq!(backend.malformed(), Vec::<String>::new());
}
