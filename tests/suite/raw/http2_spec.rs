//! What RFC 9113 and RFC 7541 demand of a server toward a client that errs: the
//! cases of h2spec in its strict mode, by its own numbering (that of RFC 7540,
//! which RFC 9113 kept but for section 3.4, once 3.5). Each has the error that
//! it must be answered with.

use super::http2::{GET, block, but, with};
use super::start;
use crate::harness::backend::{Backend, Reply};
use crate::harness::h2::{self, Frame, H2};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const END: u8 = h2::END_HEADERS | h2::END_STREAM;

/// What must come.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// GOAWAY with one of these codes, and the end.
    Connection(&'static [u32]),
    /// RST_STREAM with one of these codes, and no answer before it. (The
    /// connection may end instead, with the same code.)
    Stream(&'static [u32]),
    /// The answer to the request on stream 1.
    Answer,
    /// Nothing: the connection goes on.
    Alive,
}
use Want::{Alive, Answer, Connection, Stream};

/// Section and number of h2spec, what is sent, and what must come.
struct Case {
    name: &'static str,
    /// Before an answer has come on stream 1, if there is a second part.
    first: Vec<u8>,
    then: Option<Vec<u8>>,
    want: Want,
}

fn case(name: &'static str, frames: &[Vec<u8>], want: Want) -> Case {
    Case {
        name,
        first: frames.concat(),
        then: None,
        want,
    }
}

/// What is sent when the stream has been answered.
fn closed(name: &'static str, frame: Vec<u8>, want: Want) -> Case {
    Case {
        then: Some(frame),
        ..case(name, &[get(1)], want)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    Frame::new(kind, flags, stream, payload).bytes()
}

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    frame(h2::HEADERS, END, stream, &block(GET))
}

/// The head of a request with a body.
fn post(stream: u32) -> Vec<u8> {
    let fields = but(":method", Some("POST"));
    frame(h2::HEADERS, h2::END_HEADERS, stream, &block(&fields))
}

fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(h2::HEADERS, END, 1, &block(fields))
}

fn hpack(bytes: &[u8]) -> Vec<u8> {
    frame(h2::HEADERS, END, 1, &[&block(GET), bytes].concat())
}

fn setting(name: u8, value: u32) -> Vec<u8> {
    let value = value.to_be_bytes();
    frame(h2::SETTINGS, 0, 0, &[&[0, name][..], &value].concat())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(h2::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(h2::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Sections 3 to 5: connections, frames, streams.
fn connections_and_streams() -> Vec<Case> {
    const PROTOCOL: Want = Connection(&[PROTOCOL_ERROR]);
    const CLOSED: Want = Connection(&[STREAM_CLOSED]);
    let data = |stream, flags| frame(h2::DATA, flags, stream, b"test");
    let open = |stream| frame(h2::HEADERS, h2::END_STREAM, stream, &block(GET));
    let continuation = |stream| frame(h2::CONTINUATION, h2::END_HEADERS, stream, &block(&[]));
    let priority = |stream, on: u32| {
        frame(
            PRIORITY,
            0,
            stream,
            &[&on.to_be_bytes()[..], &[15]].concat(),
        )
    };
    let limit = (0..101).map(|n| post(2 * n + 1)).collect::<Vec<_>>();
    let ping = frame(h2::PING, 0, 0, &[0; 8]);
    vec![
        case(
            "4.1/1 a frame of an unknown type",
            &[frame(22, 0, 0, &[0; 8]), get(1)],
            Answer,
        ),
        case(
            "4.1/2 flags that mean nothing",
            &[frame(h2::PING, 0x16, 0, &[0; 8]), get(1)],
            Answer,
        ),
        case(
            "4.1/3 the reserved bit",
            &[frame(h2::PING, 0, 1 << 31, &[0; 8]), get(1)],
            Answer,
        ),
        case(
            "4.2/1 DATA of 2^14 bytes",
            &[post(1), frame(h2::DATA, 1, 1, &[b'x'; 16_384])],
            Answer,
        ),
        case(
            "4.2/2 DATA of more",
            &[post(1), frame(h2::DATA, 1, 1, &[b'x'; 16_385])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.2/3 HEADERS of more",
            &[frame(h2::HEADERS, END, 1, &[0; 16_385])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "4.3/1 a header block that is none",
            &[frame(h2::HEADERS, END, 1, &[0x40])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        case(
            "4.3/2 PRIORITY within a header block",
            &[open(1), priority(1, 0), continuation(1)],
            PROTOCOL,
        ),
        case(
            "4.3/3 HEADERS within a header block",
            &[open(1), get(3)],
            PROTOCOL,
        ),
        case("5.1/1 idle: DATA", &[data(1, 1)], PROTOCOL),
        case("5.1/2 idle: RST_STREAM", &[reset(1, 8)], PROTOCOL),
        case("5.1/3 idle: WINDOW_UPDATE", &[update(1, 100)], PROTOCOL),
        case("5.1/4 idle: CONTINUATION", &[continuation(1)], PROTOCOL),
        case(
            "5.1/5 half closed: DATA",
            &[get(1), data(1, 1)],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1/6 half closed: HEADERS",
            &[get(1), get(1)],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1/7 half closed: CONTINUATION",
            &[get(1), continuation(1)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case(
            "5.1/8 closed by a reset: DATA",
            &[post(1), reset(1, 8), data(1, 1)],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1/9 closed by a reset: HEADERS",
            &[post(1), reset(1, 8), get(1)],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "5.1/10 closed by a reset: CONTINUATION",
            &[post(1), reset(1, 8), continuation(1)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        closed("5.1/11 closed: DATA", data(1, 1), CLOSED),
        closed("5.1/12 closed: HEADERS", get(1), CLOSED),
        closed(
            "5.1/13 closed: CONTINUATION",
            continuation(1),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        case("5.1.1/1 an even number", &[get(2)], PROTOCOL),
        case("5.1.1/2 a smaller number", &[get(5), get(3)], PROTOCOL),
        case(
            "5.1.2/1 too many streams",
            &limit,
            Stream(&[PROTOCOL_ERROR, REFUSED_STREAM]),
        ),
        case(
            "5.3.1/1 HEADERS that depend on themselves",
            &[frame(
                h2::HEADERS,
                END | 0x20,
                1,
                &[&[0, 0, 0, 1, 15][..], &block(GET)].concat(),
            )],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.3.1/2 PRIORITY that depends on itself",
            &[priority(2, 2)],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "5.4.1/1 the end of a connection",
            &[frame(h2::PING, 0, 3, &[0; 8])],
            PROTOCOL,
        ),
        case(
            "5.5/1 an extension",
            &[frame(0x16, 0, 0, &[0; 8]), ping],
            Alive,
        ),
        case(
            "5.5/2 an extension within a header block",
            &[open(1), frame(0x16, 0, 0, &[0; 8]), continuation(1)],
            PROTOCOL,
        ),
    ]
}

/// Section 6: the frames, and section 7: codes.
fn frames() -> Vec<Case> {
    const PROTOCOL: Want = Connection(&[PROTOCOL_ERROR]);
    const SIZE: Want = Connection(&[FRAME_SIZE_ERROR]);
    const FLOW: Want = Connection(&[FLOW_CONTROL_ERROR]);
    let open = frame(h2::HEADERS, h2::END_STREAM, 1, &block(GET));
    let more = |stream, flags| frame(h2::CONTINUATION, flags, stream, &block(&[("x-a", "b")]));
    let most = (1 << 31) - 1;
    let priority = [0, 0, 0, 0, 15];
    vec![
        case(
            "6.1/1 DATA of stream 0",
            &[frame(h2::DATA, 1, 0, b"test")],
            PROTOCOL,
        ),
        case(
            "6.1/2 DATA of a stream that has ended",
            &[get(1), frame(h2::DATA, 1, 1, b"test")],
            Stream(&[STREAM_CLOSED]),
        ),
        case(
            "6.1/3 DATA with too much padding",
            &[post(1), frame(h2::DATA, 9, 1, b"\x06Test")],
            PROTOCOL,
        ),
        case(
            "6.2/1 HEADERS, then PRIORITY",
            &[open.clone(), frame(PRIORITY, 0, 1, &priority)],
            PROTOCOL,
        ),
        case(
            "6.2/2 HEADERS, then those of another",
            &[open.clone(), get(3)],
            PROTOCOL,
        ),
        case("6.2/3 HEADERS of stream 0", &[get(0)], PROTOCOL),
        case(
            "6.2/4 HEADERS with too much padding",
            &[frame(
                h2::HEADERS,
                END | 8,
                1,
                &[&[255][..], &block(GET)].concat(),
            )],
            PROTOCOL,
        ),
        case(
            "6.3/1 PRIORITY of stream 0",
            &[frame(PRIORITY, 0, 0, &priority)],
            PROTOCOL,
        ),
        case(
            "6.3/2 PRIORITY of 4 bytes",
            &[post(1), frame(PRIORITY, 0, 1, &[0; 4])],
            Stream(&[FRAME_SIZE_ERROR]),
        ),
        case("6.4/1 RST_STREAM of stream 0", &[reset(0, 8)], PROTOCOL),
        case(
            "6.4/2 RST_STREAM of an idle stream",
            &[reset(1, 8)],
            PROTOCOL,
        ),
        case(
            "6.4/3 RST_STREAM of 3 bytes",
            &[post(1), frame(h2::RST_STREAM, 0, 1, &[0; 3])],
            SIZE,
        ),
        case(
            "6.5/1 an acknowledgement with content",
            &[frame(h2::SETTINGS, h2::ACK, 0, &[0; 6])],
            SIZE,
        ),
        case(
            "6.5/2 SETTINGS of a stream",
            &[frame(h2::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100])],
            PROTOCOL,
        ),
        case(
            "6.5/3 SETTINGS of 3 bytes",
            &[frame(h2::SETTINGS, 0, 0, &[0, 3, 0])],
            SIZE,
        ),
        case("6.5.2/1 ENABLE_PUSH of 2", &[setting(2, 2)], PROTOCOL),
        case(
            "6.5.2/2 a window that is too large",
            &[setting(4, 1 << 31)],
            FLOW,
        ),
        case(
            "6.5.2/3 frames that are too small",
            &[setting(5, 16_383)],
            PROTOCOL,
        ),
        case(
            "6.5.2/4 frames that are too large",
            &[setting(5, 1 << 24)],
            PROTOCOL,
        ),
        case("6.5.2/5 an unknown setting", &[setting(0xff, 1)], Alive),
        case(
            "6.7/3 PING of a stream",
            &[frame(h2::PING, 0, 1, &[0; 8])],
            PROTOCOL,
        ),
        case(
            "6.7/4 PING of 6 bytes",
            &[frame(h2::PING, 0, 0, &[0; 6])],
            SIZE,
        ),
        case(
            "6.8/1 GOAWAY of a stream",
            &[frame(h2::GOAWAY, 0, 1, &[0; 8])],
            PROTOCOL,
        ),
        case("6.9/1 WINDOW_UPDATE by nothing", &[update(0, 0)], PROTOCOL),
        case(
            "6.9/2 WINDOW_UPDATE of a stream by nothing",
            &[post(1), update(1, 0)],
            Stream(&[PROTOCOL_ERROR]),
        ),
        case(
            "6.9/3 WINDOW_UPDATE of 3 bytes",
            &[frame(h2::WINDOW_UPDATE, 0, 0, &[0; 3])],
            SIZE,
        ),
        case(
            "6.9.1/2 a window that overflows",
            &[update(0, most), update(0, most)],
            FLOW,
        ),
        case(
            "6.9.1/3 a stream's window that overflows",
            &[post(1), update(1, most), update(1, most)],
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "6.9.2/3 windows that are made too large",
            &[post(1), setting(4, 1 << 31)],
            FLOW,
        ),
        case(
            "6.10/1 CONTINUATION, twice",
            &[open.clone(), more(1, 0), more(1, h2::END_HEADERS)],
            Answer,
        ),
        case(
            "6.10/2 CONTINUATION, then DATA",
            &[open.clone(), more(1, 0), frame(h2::DATA, 1, 1, b"test")],
            PROTOCOL,
        ),
        case(
            "6.10/3 CONTINUATION of stream 0",
            &[open, more(0, h2::END_HEADERS)],
            PROTOCOL,
        ),
        case(
            "6.10/4 CONTINUATION behind the end of a block",
            &[post(1), more(1, h2::END_HEADERS)],
            PROTOCOL,
        ),
        case(
            "6.10/5 CONTINUATION behind the last",
            &[
                frame(h2::HEADERS, 0, 1, &block(GET)),
                more(1, h2::END_HEADERS),
                more(1, h2::END_HEADERS),
            ],
            PROTOCOL,
        ),
        case(
            "6.10/6 CONTINUATION behind DATA",
            &[
                post(1),
                frame(h2::DATA, 0, 1, b"test"),
                more(1, h2::END_HEADERS),
            ],
            PROTOCOL,
        ),
        case(
            "7/1 GOAWAY with an unknown code",
            &[frame(h2::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff])],
            Connection(&[NO_ERROR]),
        ),
        case(
            "7/2 RST_STREAM with an unknown code",
            &[post(1), reset(1, 0xff)],
            Alive,
        ),
    ]
}

/// Section 8: messages, and RFC 7541: HPACK.
fn messages() -> Vec<Case> {
    const PROTOCOL: Want = Stream(&[PROTOCOL_ERROR]);
    const COMPRESSION: Want = Connection(&[COMPRESSION_ERROR]);
    let trailers = |flags, fields| frame(h2::HEADERS, flags, 1, &block(fields));
    let declared = |length| {
        let mut fields = with(&[("content-length", length)]);
        fields[0].1 = "POST";
        frame(h2::HEADERS, h2::END_HEADERS, 1, &block(&fields))
    };
    let data = |flags| frame(h2::DATA, flags, 1, b"test");
    let late = [&[("x-test", "a")], GET].concat();
    vec![
        case(
            "8.1/1 a second head without an end",
            &[post(1), trailers(h2::END_HEADERS, &[("x-a", "b")])],
            PROTOCOL,
        ),
        case(
            "8.1.2/1 a name in upper case",
            &[request(&with(&[("X-TEST", "ok")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.1/1 an unknown pseudo-field",
            &[request(&with(&[(":test", "ok")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.1/2 a pseudo-field of responses",
            &[request(&with(&[(":status", "200")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.1/3 a pseudo-field in trailers",
            &[post(1), trailers(END, &[(":method", "200")])],
            PROTOCOL,
        ),
        case("8.1.2.1/4 a late pseudo-field", &[request(&late)], PROTOCOL),
        case(
            "8.1.2.2/1 a field of the connection",
            &[request(&with(&[("connection", "keep-alive")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.2/2 TE that is not trailers",
            &[request(&with(&[("te", "trailers, deflate")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/1 an empty path",
            &[request(&but(":path", Some("")))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/2 no method",
            &[request(&but(":method", None))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/3 no scheme",
            &[request(&but(":scheme", None))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/4 no path",
            &[request(&but(":path", None))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/5 two methods",
            &[request(&with(&[(":method", "GET")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/6 two schemes",
            &[request(&with(&[(":scheme", "http")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.3/7 two paths",
            &[request(&with(&[(":path", "/")]))],
            PROTOCOL,
        ),
        case(
            "8.1.2.6/1 a length that is wrong",
            &[declared("1"), data(1)],
            PROTOCOL,
        ),
        case(
            "8.1.2.6/2 a length that is not the sum",
            &[declared("1"), data(0), data(1)],
            PROTOCOL,
        ),
        case(
            "8.2/1 PUSH_PROMISE",
            &[
                post(1),
                frame(PUSH_PROMISE, h2::END_HEADERS, 1, &[0, 0, 0, 2]),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
        case(
            "hpack 2.3.3/1 an index that is not there",
            &[hpack(&[0xff, 0x00])],
            COMPRESSION,
        ),
        case(
            "hpack 2.3.3/2 a name's index that is not there",
            &[hpack(&[0x7f, 0x00, 1, b'a'])],
            COMPRESSION,
        ),
        case(
            "hpack 4.2/1 a change of the table at the end",
            &[hpack(&[0x20])],
            COMPRESSION,
        ),
        case(
            "hpack 5.2/1 Huffman padding of more than 7 bits",
            &[hpack(&[0, 1, b'x', 0x82, 0x1f, 0xff])],
            COMPRESSION,
        ),
        case(
            "hpack 5.2/2 Huffman padding with zeros",
            &[hpack(&[0, 1, b'x', 0x81, 0x18])],
            COMPRESSION,
        ),
        case(
            "hpack 5.2/3 Huffman's end of string",
            &[hpack(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])],
            COMPRESSION,
        ),
        case("hpack 6.1/1 index 0", &[hpack(&[0x80])], COMPRESSION),
        case(
            "hpack 6.3/1 a table that is too large",
            &[frame(
                h2::HEADERS,
                END,
                1,
                &[&[0x3f, 0xe2, 0x1f][..], &block(GET)].concat(),
            )],
            COMPRESSION,
        ),
    ]
}

/// Where the parser (`h2`) answers otherwise than it should, and with what. The
/// connection or the stream ends all the same, with a code that says less.
const DEVIATIONS: &[(&str, Want)] = &[
    // It says PROTOCOL_ERROR of header blocks that cannot be decoded,
    ("4.3/1", Connection(&[PROTOCOL_ERROR])),
    ("hpack 2.3.3/1", Connection(&[PROTOCOL_ERROR])),
    ("hpack 2.3.3/2", Connection(&[PROTOCOL_ERROR])),
    ("hpack 4.2/1", Connection(&[PROTOCOL_ERROR])),
    ("hpack 5.2/1", Connection(&[PROTOCOL_ERROR])),
    ("hpack 5.2/2", Connection(&[PROTOCOL_ERROR])),
    ("hpack 5.2/3", Connection(&[PROTOCOL_ERROR])),
    ("hpack 6.1/1", Connection(&[PROTOCOL_ERROR])),
    ("hpack 6.3/1", Connection(&[PROTOCOL_ERROR])),
    // of frames of a wrong length,
    ("6.3/2", Connection(&[PROTOCOL_ERROR])),
    ("6.4/3", Connection(&[PROTOCOL_ERROR])),
    ("6.5/1", Connection(&[PROTOCOL_ERROR])),
    ("6.5/3", Connection(&[PROTOCOL_ERROR])),
    ("6.7/4", Connection(&[PROTOCOL_ERROR])),
    ("6.9/3", Connection(&[PROTOCOL_ERROR])),
    // of windows that are too large in SETTINGS,
    ("6.5.2/2", Connection(&[PROTOCOL_ERROR])),
    ("6.9.2/3", Connection(&[PROTOCOL_ERROR])),
    // and of DATA and HEADERS behind the end.
    ("5.1/5", Connection(&[PROTOCOL_ERROR])),
    ("5.1/6", Connection(&[PROTOCOL_ERROR])),
    ("5.1/9", Connection(&[PROTOCOL_ERROR])),
    ("5.1/12", Connection(&[PROTOCOL_ERROR])),
    ("6.1/2", Connection(&[PROTOCOL_ERROR])),
    // What comes for a stream that is long over is passed over, as if it had
    // been on its way when the stream ended.
    ("5.1/11", Alive),
];

const MARK: [u8; 8] = *b"the mark";

/// What comes first of what could decide.
fn outcome(connection: &mut H2, want: Want) -> Result<(), String> {
    loop {
        let Ok(frame) = connection.read() else {
            return Err("the connection ends without a word".into());
        };
        let code = |at: usize| {
            let code = frame.payload.get(at..at + 4).unwrap_or_default();
            u32::from_be_bytes(code.try_into().unwrap_or([0xff; 4]))
        };
        let fine = match (frame.kind, want) {
            (h2::GOAWAY, Connection(codes) | Stream(codes)) => codes.contains(&code(4)),
            (h2::RST_STREAM, Stream(codes)) => codes.contains(&code(0)),
            (h2::HEADERS, Answer) => frame.payload.first() == Some(&0x88),
            (h2::PING, Alive) if frame.payload == MARK => frame.flags & h2::ACK != 0,
            // What was asked before may be answered.
            (h2::HEADERS | h2::DATA | h2::RST_STREAM, Connection(_)) => continue,
            (h2::GOAWAY | h2::RST_STREAM | h2::HEADERS, _) => false,
            _ => continue,
        };
        return match fine {
            true => Ok(()),
            false => Err(format!("type {}, {:x?}", frame.kind, frame.payload)),
        };
    }
}

fn run(cases: &[Case]) {
    let backend = Backend::with(|_| Reply::status(200));
    let proxy = start(&backend);
    let mut failures = Vec::new();
    for case in cases {
        let named = |(name, _): &&(&str, Want)| case.name.starts_with(&format!("{name} "));
        let deviation = DEVIATIONS.iter().find(named);
        let want = deviation.map_or(case.want, |(_, want)| *want);
        let mut connection = H2::connect(proxy.addr());
        // Whoever refuses early may have closed before all is sent.
        let _ = connection.send_bytes(&case.first);
        if let Some(then) = &case.then {
            connection.response(1).unwrap();
            let _ = connection.send_bytes(then);
        }
        if matches!(want, Alive) {
            let _ = connection.send(&Frame::new(h2::PING, 0, 0, MARK));
        }
        if let Err(why) = outcome(&mut connection, want) {
            failures.push(format!("{}: {why}", case.name));
        }
        assert_eq!(proxy.get("/ordinary").status, 200, "after {}", case.name);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn sections_3_to_5() {
    run(&connections_and_streams());
}

#[test]
fn sections_6_and_7() {
    run(&frames());
}

#[test]
fn section_8_and_hpack() {
    run(&messages());
}
