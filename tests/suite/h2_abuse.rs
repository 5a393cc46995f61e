//! HTTP/2 connections that cost more than they should: memory stays bounded,
//! and others are served.

use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::h2::{self, Frame, H2};
use crate::harness::proxy::Proxy;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// KiB that one abuser may cost.
const ALLOWED: u64 = 16 * 1024;

/// Starts a proxy, warms it up, abuses it, and looks at what that has cost.
fn abuse(attack: impl FnOnce(&Proxy)) {
    let backend = Backend::with(|_| Reply::ok(vec![b'x'; 4096]));
    let proxy = Config::to(backend.addr()).start();
    assert_eq!(proxy.get("/public").status, 200);
    let mut other = H2::connect(proxy.addr());
    get(&mut other, 1);
    let before = proxy.peak_memory();
    attack(&proxy);
    assert_eq!(proxy.get("/public").status, 200, "others are served");
    get(&mut other, 3);
    let cost = proxy.peak_memory() - before;
    assert!(cost < ALLOWED, "it cost {cost} KiB");
}

fn get(connection: &mut H2, stream: u32) {
    let block = h2::request(h2::GET, "/public", &[]);
    let flags = h2::END_HEADERS | h2::END_STREAM;
    let frame = Frame::new(h2::HEADERS, flags, stream, block);
    connection.send(&frame).unwrap();
    let head = connection.response(stream).unwrap();
    assert_eq!(head.payload[0], 0x88, "status 200");
}

/// CVE-2023-44487.
#[test]
fn rapid_reset_ends_the_connection() {
    abuse(|proxy| {
        let mut connection = H2::connect(proxy.addr());
        let block = h2::request(h2::GET, "/public", &[]);
        for number in 0..10_000u32 {
            let stream = number * 2 + 1;
            let flags = h2::END_HEADERS | h2::END_STREAM;
            let open = Frame::new(h2::HEADERS, flags, stream, block.clone());
            let cancel = Frame::new(h2::RST_STREAM, 0, stream, 8u32.to_be_bytes());
            let both = [open.bytes(), cancel.bytes()].concat();
            if connection.send_bytes(&both).is_err() {
                break;
            }
        }
        assert!(matches!(connection.ended(), None | Some(ENHANCE_YOUR_CALM)));
    });
}

/// CVE-2025-8671: the client makes the server reset.
#[test]
fn provoked_resets_end_the_connection() {
    abuse(|proxy| {
        let mut connection = H2::connect(proxy.addr());
        let block = h2::request(h2::POST, "/public", &[]);
        for number in 0..10_000u32 {
            let stream = number * 2 + 1;
            let open = Frame::new(h2::HEADERS, h2::END_HEADERS, stream, block.clone());
            // A window that grows by nothing is an error of the stream.
            let provoke = Frame::new(h2::WINDOW_UPDATE, 0, stream, 0u32.to_be_bytes());
            let both = [open.bytes(), provoke.bytes()].concat();
            if connection.send_bytes(&both).is_err() {
                break;
            }
        }
        assert!(matches!(
            connection.ended(),
            None | Some(ENHANCE_YOUR_CALM | 1)
        ));
    });
}

/// RUSTSEC-2024-0332.
#[test]
fn a_flood_of_continuations_ends_the_connection() {
    abuse(|proxy| {
        let mut connection = H2::connect(proxy.addr());
        let block = h2::request(h2::GET, "/public", &[]);
        connection
            .send(&Frame::new(h2::HEADERS, 0, 1, block))
            .unwrap();
        let field = [&[0, 100][..], &[b'a'; 100], &[100], &[b'b'; 100]].concat();
        let more = Frame::new(h2::CONTINUATION, 0, 1, field.repeat(80)).bytes();
        for _ in 0..10_000 {
            if connection.send_bytes(&more).is_err() {
                break;
            }
        }
        connection.ended();
    });
}

/// Every one asks for an answer, and nobody reads them.
#[test]
fn unread_answers_to_pings_and_settings_do_not_pile_up() {
    for frame in [
        Frame::new(h2::PING, 0, 0, [0; 8]),
        Frame::new(h2::SETTINGS, 0, 0, Vec::new()),
    ] {
        abuse(|proxy| {
            let mut connection = H2::connect(proxy.addr());
            let many = frame.bytes().repeat(1000);
            let socket_takes = std::time::Duration::from_millis(500);
            connection.write_timeout(socket_takes);
            // 170 MB of pings, if somebody takes them.
            for _ in 0..10_000 {
                if connection.send_bytes(&many).is_err() {
                    break;
                }
            }
        });
    }
}

/// RUSTSEC-2026-0258.
#[test]
fn empty_data_frames_do_not_pile_up() {
    abuse(|proxy| {
        let mut connection = H2::connect(proxy.addr());
        let block = h2::request(h2::POST, "/public", &[]);
        let open = Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block);
        connection.send(&open).unwrap();
        let many = Frame::new(h2::DATA, 0, 1, Vec::new()).bytes().repeat(1000);
        for _ in 0..2_000 {
            if connection.send_bytes(&many).is_err() {
                break;
            }
        }
    });
}

#[test]
fn streams_and_windows_are_bounded() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let mut connection = H2::connect(proxy.addr());
    let settings = connection.read().unwrap();
    assert_eq!(settings.kind, h2::SETTINGS);
    let value = |wanted: u16| {
        settings.payload.chunks(6).find_map(|entry| {
            let (name, value) = entry.split_at(2);
            let name = u16::from_be_bytes(name.try_into().unwrap());
            (name == wanted).then(|| u32::from_be_bytes(value.try_into().unwrap()))
        })
    };
    assert_eq!(value(3), Some(100), "streams");
    assert_eq!(value(4), Some(262_144), "window");
    assert_eq!(value(6), Some(65_536), "header list");
}

/// Its window is closed, so that nothing on the socket tells that it takes
/// nothing; answers of a hundred streams would be held for ever.
#[test]
fn a_client_that_takes_no_answer_is_cut_off() {
    let backend = Backend::with(|_| Reply::ok(vec![b'x'; 4 << 20]));
    let proxy = Config::to(backend.addr())
        .set("server.limits.body_idle_timeout", "300ms")
        .start();
    let mut connection = H2::connect(proxy.addr());
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let closed = [0, 4, 0, 0, 0, 0];
    let settings = Frame::new(h2::SETTINGS, 0, 0, closed);
    connection.send(&settings).unwrap();
    let block = h2::request(h2::GET, "/public", &[]);
    let flags = h2::END_HEADERS | h2::END_STREAM;
    for number in 0..20u32 {
        let open = Frame::new(h2::HEADERS, flags, number * 2 + 1, block.clone());
        connection.send(&open).unwrap();
    }
    connection.ended();
    crate::harness::eventually("its requests have ended", || {
        (backend.open() == 0).then_some(())
    });
}

/// `limits.header_count`, and `limits.header_bytes` as it is announced: name,
/// value and 32 bytes for each field (RFC 9113 section 6.5.2).
#[test]
fn a_head_may_have_so_many_fields_and_bytes_and_no_more() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .set("server.limits.header_count", 20)
        .set("server.limits.header_bytes", "16KiB")
        .start();
    let is_served = |count: usize, length: usize| {
        let (value, mut fields) = ("a".repeat(length), Vec::new());
        let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
        fields.extend(names.iter().map(|name| (name.as_str(), value.as_str())));
        let mut connection = H2::connect(proxy.addr());
        let flags = h2::END_HEADERS | h2::END_STREAM;
        let block = h2::request(h2::GET, "/public", &fields);
        connection
            .send(&Frame::new(h2::HEADERS, flags, 1, block))
            .unwrap();
        let head = connection.response(1).unwrap();
        head.payload.first() == Some(&0x88)
    };
    assert!(is_served(20, 1));
    assert!(!is_served(21, 1));
    let line = proxy.output().wait_for_json(|line| line["status"] == 431);
    assert_eq!(line["reason"], "request_header_too_large");
    assert_eq!(line["protocol"], "HTTP/2");
    assert_eq!(line["aborted"], false);
    assert!(is_served(20, 120));
    assert!(!is_served(120, 120), "17 KiB and more");
    assert_eq!(backend.requests().len(), 2);
}
