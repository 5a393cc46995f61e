//! HTTP/2 frames by hand (RFC 9113): S-30 to S-36; CVE-2026-33186,
//! CVE-2026-33555.

use std::io::ErrorKind;

use super::{Seen, owned, start, well_formed};
use crate::harness::backend::{Backend, Reply};
use crate::harness::h2::{self, Frame, H2};

/// What happens on stream 1.
enum Want {
    /// A refusal, a reset, or the end of the connection; nothing arrives.
    Rejected,
    /// Just this arrives, and the answer is 200.
    Served(Vec<Seen>),
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    want: Want,
}

pub(super) type Field<'f> = (&'f str, &'f str);

/// Fields in HPACK, each as a literal with a literal name (RFC 7541 section
/// 6.2.2).
pub(super) fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            assert!(text.len() < 127);
            block.extend(text.as_bytes());
        }
    }
    block
}

pub(super) const GET: &[Field] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "x"),
    (":path", "/"),
];

/// A GET with more fields.
pub(super) fn with(more: &[Field]) -> Vec<Field<'static>> {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let more = more.iter().map(|(n, v)| (leak(n), leak(v)));
    GET.iter().copied().chain(more).collect()
}

/// A GET with one pseudo-field changed, or left out.
pub(super) fn but(name: &str, value: Option<&str>) -> Vec<Field<'static>> {
    let value = value.map(|v| -> &'static str { Box::leak(v.to_owned().into_boxed_str()) });
    let changed = GET.iter().filter_map(|(n, v)| match *n == name {
        true => value.map(|value| (*n, value)),
        false => Some((*n, *v)),
    });
    changed.collect()
}

const END: u8 = h2::END_HEADERS | h2::END_STREAM;

fn headers(flags: u8, fields: &[Field]) -> Vec<u8> {
    Frame::new(h2::HEADERS, flags, 1, block(fields)).bytes()
}

fn data(flags: u8, text: &str) -> Vec<u8> {
    Frame::new(h2::DATA, flags, 1, text).bytes()
}

fn rejected(name: impl Into<String>, frames: &[Vec<u8>]) -> Case {
    let (name, bytes, want) = (name.into(), frames.concat(), Want::Rejected);
    Case { name, bytes, want }
}

fn served(name: impl Into<String>, frames: &[Vec<u8>], seen: &[(&str, &str)]) -> Case {
    Case {
        want: Want::Served(owned(seen)),
        ..rejected(name, frames)
    }
}

/// A POST with a declared length.
fn post(length: &str) -> Vec<u8> {
    let mut fields = with(&[("content-length", length)]);
    fields[0].1 = "POST";
    headers(h2::END_HEADERS, &fields)
}

fn heads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, value) in [
        ("X-Upper", "a"),
        ("x upper", "a"),
        ("x:a", "a"),
        (":x", "a"),
        ("", "a"),
        ("x\0", "a"),
        ("x\r\nx-user-id", "root"),
        ("x\n", "a"),
        ("x\u{7f}", "a"),
        ("x\u{e4}", "a"),
        ("x(a)", "a"),
        ("x,a", "a"),
        ("x/a", "a"),
        ("x@a", "a"),
        ("x-a", "a\r\nx-user-id: root"),
        ("x-a", "a\nb"),
        ("x-a", "a\rb"),
        ("x-a", "a\0b"),
        ("x-a", "a\u{1}b"),
        ("x-a", "a\u{7f}b"),
        ("connection", "close"),
        ("connection", "x-user-id"),
        ("keep-alive", "5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        (":path", "/private"),
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "y"),
        (":status", "200"),
        (":protocol", "websocket"),
        ("host", "y"),
        ("host", "x, y"),
        ("host", "x/y"),
        ("host", ""),
        ("host", "u@x"),
        ("content-length", "5"),
        ("content-length", "-1"),
        ("content-length", "+0"),
        ("content-length", "0x0"),
        ("content-length", ""),
        ("content-length", "0, 5"),
        ("content-length", "99999999999999999999"),
        ("expect", "200-ok"),
    ] {
        let fields = headers(END, &with(&[(name, value)]));
        cases.push(rejected(format!("{name:?}: {value:?}"), &[fields]));
    }
    for (name, value) in [
        (":method", None),
        (":method", Some("")),
        (":method", Some("G T")),
        (":method", Some("GET / HTTP/1.1\r\nx: y\r\n\r\n")),
        (":method", Some("CONNECT")),
        (":method", Some("TRACE")),
        (":scheme", None),
        (":scheme", Some("")),
        (":scheme", Some("ftp")),
        (":scheme", Some("http://x/private?")),
        (":path", None),
        (":path", Some("")),
        (":path", Some("x")),
        (":path", Some("?x")),
        (":path", Some("?")),
        (":path", Some("private")),
        (":path", Some("*")),
        (":path", Some("http://x/")),
        (":path", Some("/a b")),
        (":path", Some("/ HTTP/1.1\r\nx-user-id: root\r\n\r\n")),
        (":path", Some("/a\tb")),
        (":path", Some("/a\0")),
        (":path", Some("/%00")),
        (":path", Some("/%zz")),
        (":path", Some("/x/../private")),
        (":path", Some("//private")),
        (":path", Some("/private")),
        (":path", Some("/private#x")),
        (":authority", None),
        (":authority", Some("")),
        (":authority", Some("u@x")),
        (":authority", Some("x/y")),
        (":authority", Some("x y")),
        (":authority", Some("x, y")),
        (":authority", Some("x:99999")),
        (":authority", Some("x:-1")),
        (":authority", Some("[::g]")),
        (":authority", Some("x\r\nx-user-id: root")),
        (":authority", Some("x..y")),
    ] {
        let fields = headers(END, &but(name, value));
        cases.push(rejected(format!("{name} is {value:?}"), &[fields]));
    }
    let late = [&[("x-a", "b")], GET].concat();
    cases.extend([
        rejected("a late pseudo-field", &[headers(END, &late)]),
        rejected("no fields", &[headers(END, &[])]),
        served("a GET", &[headers(END, GET)], &[("/", "")]),
        served(
            "te: trailers",
            &[headers(END, &with(&[("te", "trailers")]))],
            &[("/", "")],
        ),
        served(
            "the same host",
            &[headers(END, &with(&[("host", "x")]))],
            &[("/", "")],
        ),
        served(
            "a made-up identity",
            &[headers(
                END,
                &with(&[("x-user-id", "root"), ("x_user_id", "root")]),
            )],
            &[("/", "")],
        ),
        served(
            "http2-settings",
            &[headers(END, &with(&[("http2-settings", "AAMA")]))],
            &[("/", "")],
        ),
        served(
            "a request for a value",
            &[headers(END, &with(&[("x-a", "GET /private HTTP/1.1")]))],
            &[("/", "")],
        ),
    ]);
    cases
}

fn bodies() -> Vec<Case> {
    let open = || headers(h2::END_HEADERS, &but(":method", Some("POST")));
    let trailers = |fields: &[Field]| vec![open(), data(0, "abc"), headers(END, fields)];
    let reset = Frame::new(h2::RST_STREAM, 0, 1, 8u32.to_be_bytes()).bytes();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        vec![
            Frame::new(kind, flags, stream, payload).bytes(),
            headers(END, GET),
        ]
    };
    let abc = &[("/", "abc")][..];
    let mut cases = vec![
        rejected(
            "less than declared",
            &[post("5"), data(h2::END_STREAM, "abc")],
        ),
        rejected(
            "more than declared",
            &[post("2"), data(h2::END_STREAM, "abc")],
        ),
        rejected(
            "more than declared, in frames",
            &[post("2"), data(0, "ab"), data(h2::END_STREAM, "c")],
        ),
        rejected(
            "more than nothing",
            &[post("0"), data(h2::END_STREAM, "abc")],
        ),
        rejected(
            "nothing of what was declared",
            &[post("3"), data(h2::END_STREAM, "")],
        ),
        rejected(
            "less than declared, and trailers",
            &[post("5"), data(0, "abc"), headers(END, &[("x-a", "b")])],
        ),
        rejected("data behind the end", &[post("3"), data(0, "abcdef")]),
        rejected("data without a head", &[data(h2::END_STREAM, "abc")]),
        rejected(
            "trailers without an end",
            &[
                open(),
                data(0, "abc"),
                headers(h2::END_HEADERS, &[("x-a", "b")]),
            ],
        ),
        rejected(
            "a pseudo-field in trailers",
            &trailers(&[(":path", "/private")]),
        ),
        rejected(
            "a pseudo-field of answers in trailers",
            &trailers(&[(":status", "200")]),
        ),
        rejected(
            "a pseudo-field before others in trailers",
            &trailers(&[(":method", "GET"), ("x-a", "b")]),
        ),
        rejected(
            "a pseudo-field behind others in trailers",
            &trailers(&[("x-a", "b"), (":authority", "x")]),
        ),
        rejected(
            "a pseudo-field in a continuation of trailers",
            &[
                open(),
                data(0, "abc"),
                headers(h2::END_STREAM, &[("x-a", "b")]),
                Frame::new(
                    h2::CONTINUATION,
                    h2::END_HEADERS,
                    1,
                    block(&[(":path", "/x")]),
                )
                .bytes(),
            ],
        ),
        rejected(
            "trailers whose first frame is empty",
            &[
                open(),
                data(0, "abc"),
                headers(h2::END_STREAM, &[]),
                Frame::new(
                    h2::CONTINUATION,
                    h2::END_HEADERS,
                    1,
                    block(&[(":path", "/x")]),
                )
                .bytes(),
            ],
        ),
        served("trailers without fields", &trailers(&[]), abc),
        served(
            "trailers that change the table",
            &[
                open(),
                data(0, "abc"),
                Frame::new(
                    h2::HEADERS,
                    END,
                    1,
                    [&[0x20, 0x3f, 0xe1, 0x1f][..], &block(&[("x-a", "b")])].concat(),
                )
                .bytes(),
            ],
            abc,
        ),
        rejected(
            "a name in upper case in trailers",
            &trailers(&[("X-A", "b")]),
        ),
        rejected("CRLF in trailers", &trailers(&[("x-a", "b\r\nx: y")])),
        rejected(
            "a connection in trailers",
            &trailers(&[("connection", "close")]),
        ),
        rejected(
            "a coding in trailers",
            &trailers(&[("transfer-encoding", "chunked")]),
        ),
        rejected(
            "a stream of the server",
            &[Frame::new(h2::HEADERS, END, 2, block(GET)).bytes()],
        ),
        rejected(
            "stream 0",
            &[Frame::new(h2::HEADERS, END, 0, block(GET)).bytes()],
        ),
        rejected(
            "a stream that depends on itself",
            &[Frame::new(
                h2::HEADERS,
                END | 0x20,
                1,
                [&[0, 0, 0, 1, 0][..], &block(GET)].concat(),
            )
            .bytes()],
        ),
        rejected(
            "too much padding",
            &[Frame::new(h2::HEADERS, END | 8, 1, [&[255][..], &block(GET)].concat()).bytes()],
        ),
        rejected(
            "an index that is not there",
            &[Frame::new(h2::HEADERS, END, 1, vec![0xff, 0xff, 0xff, 0x7f]).bytes()],
        ),
        rejected(
            "index 0",
            &[Frame::new(h2::HEADERS, END, 1, vec![0x80]).bytes()],
        ),
        rejected(
            "a string that is cut",
            &[Frame::new(h2::HEADERS, END, 1, vec![0, 10, b'x']).bytes()],
        ),
        rejected(
            "a table that is too large",
            &[Frame::new(
                h2::HEADERS,
                END,
                1,
                [&[0x3f, 0xff, 0xff, 0x7f][..], &block(GET)].concat(),
            )
            .bytes()],
        ),
        rejected(
            "bad Huffman code",
            &[Frame::new(
                h2::HEADERS,
                END,
                1,
                vec![0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a'],
            )
            .bytes()],
        ),
        rejected(
            "a continuation of nothing",
            &[Frame::new(h2::CONTINUATION, h2::END_HEADERS, 1, block(GET)).bytes()],
        ),
        rejected(
            "a frame between head and continuation",
            &[
                Frame::new(h2::HEADERS, h2::END_STREAM, 1, block(GET)).bytes(),
                Frame::new(h2::PING, 0, 0, [0; 8]).bytes(),
            ],
        ),
        rejected(
            "a frame that is too large",
            &[Frame::new(h2::DATA, 0, 1, vec![0; 20_000]).bytes()],
        ),
        rejected(
            "HTTP/1.1 in the middle",
            &[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()],
        ),
        rejected(
            "a second preface",
            &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()],
        ),
        rejected("a reset of an idle stream", std::slice::from_ref(&reset)),
        rejected(
            "a settings frame of a stream",
            &frame(h2::SETTINGS, 0, 1, &[]),
        ),
        rejected("settings of 5 bytes", &frame(h2::SETTINGS, 0, 0, &[0; 5])),
        rejected(
            "an acknowledgement with settings",
            &frame(h2::SETTINGS, h2::ACK, 0, &[0; 6]),
        ),
        rejected(
            "push that is neither",
            &frame(h2::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
        ),
        rejected(
            "a window that is too large",
            &frame(h2::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        rejected(
            "frames that are too small",
            &frame(h2::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        rejected("a ping of 7 bytes", &frame(h2::PING, 0, 0, &[0; 7])),
        rejected("a ping of a stream", &frame(h2::PING, 0, 1, &[0; 8])),
        rejected(
            "a push promise",
            &frame(5, h2::END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        rejected(
            "a window that grows by nothing",
            &frame(h2::WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        rejected(
            "a window that overflows",
            &frame(h2::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        rejected("a GOAWAY of a stream", &frame(h2::GOAWAY, 0, 1, &[0; 8])),
        served(
            "an unknown frame",
            &frame(0x42, 0xff, 1, b"xyz"),
            &[("/", "")],
        ),
        served(
            "an unknown setting",
            &frame(h2::SETTINGS, 0, 0, &[0x42, 0x42, 0, 0, 0, 1]),
            &[("/", "")],
        ),
        served("a body", &[open(), data(h2::END_STREAM, "abc")], abc),
        served(
            "a body in frames",
            &[
                open(),
                data(0, "a"),
                data(0, ""),
                data(h2::END_STREAM, "bc"),
            ],
            abc,
        ),
        served(
            "a body with a length",
            &[post("3"), data(0, "abc"), data(h2::END_STREAM, "")],
            abc,
        ),
        served("trailers", &trailers(&[("x-a", "b")]), abc),
        served(
            "an identity in trailers",
            &trailers(&[("x-user-id", "root"), ("x_user_id", "root")]),
            abc,
        ),
        served(
            "a length in trailers",
            &trailers(&[("content-length", "66")]),
            abc,
        ),
        served(
            "a host and a cookie in trailers",
            &trailers(&[("host", "evil"), ("cookie", "a=b")]),
            abc,
        ),
    ];
    let request = "GET /private HTTP/1.1\r\nHost: x\r\n\r\n";
    cases.push(served(
        "a request for a body",
        &[open(), data(h2::END_STREAM, request)],
        &[("/", request)],
    ));
    cases
}

/// Whether stream 1 was answered with 200, reading until it is done.
fn is_ok(connection: &mut H2) -> Result<bool, String> {
    loop {
        match connection.read() {
            Ok(frame) => match frame.kind {
                h2::HEADERS if frame.payload.first() == Some(&0x88) => return Ok(true),
                h2::HEADERS | h2::RST_STREAM | h2::GOAWAY => return Ok(false),
                _ => {}
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err("nothing happens".into());
            }
            Err(_) => return Ok(false),
        }
    }
}

fn run(cases: &[Case], least: usize) {
    assert!(cases.len() >= least, "there are only {} cases", cases.len());
    let backend = Backend::with(|_| Reply::status(200));
    let proxy = start(&backend);
    let mut failures = Vec::new();
    for case in cases {
        let mut connection = H2::connect(proxy.addr());
        // Whoever refuses early may have closed before all is sent.
        let _ = connection.send_bytes(&case.bytes);
        let result = is_ok(&mut connection).and_then(|is_ok| {
            let requests = backend.requests();
            requests.iter().try_for_each(well_formed)?;
            let seen = requests.into_iter().map(|r| (r.target, r.body.content));
            let seen: Vec<Seen> = seen.collect();
            let fine = match &case.want {
                Want::Rejected => !is_ok && seen.is_empty(),
                Want::Served(wanted) => is_ok && seen == *wanted,
            };
            let malformed = backend.malformed();
            match fine && malformed.is_empty() {
                true => Ok(()),
                false => Err(format!("200: {is_ok}, seen {seen:?}, {malformed:?}")),
            }
        });
        if let Err(why) = result {
            failures.push(format!("{}: {why}", case.name));
        }
        drop(connection);
        assert_eq!(proxy.get("/ordinary").status, 200, "after {}", case.name);
        backend.clear();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn http2_heads() {
    run(&heads(), 90);
}

#[test]
fn http2_frames() {
    run(&bodies(), 45);
}
