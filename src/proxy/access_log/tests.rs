use std::io;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::base::log_queue;

pub(super) fn as_text<S: serde::Serializer>(id: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(std::str::from_utf8(id).unwrap())
}

pub(super) fn as_text_or_null<S: serde::Serializer>(
    host: &Option<&[u8]>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match host {
        Some(host) => as_text(host, to),
        None => to.serialize_none(),
    }
}

fn plain_line() -> Line<'static> {
    Line {
        time: Moment::of(SystemTime::UNIX_EPOCH),
        kind: "access",
        request_id: b"a",
        client: None,
        method: "GET",
        host: Some(b"a.example"),
        path: "/",
        protocol: "HTTP/1.1",
        status: 200,
        route: Some("/"),
        user: None,
        session: None,
        reason: None,
        aborted: false,
        bytes_in: 0,
        bytes_out: 0,
        duration_ms: Milliseconds::of(Duration::ZERO),
        upstream_ms: None,
    }
}

/// S-61: no field can bring a control character by the short cut.
#[test]
fn s61_a_line_with_something_to_escape_is_looked_at() {
    assert!(plain_line().write_json(&mut Vec::new()));
    for text in ["\u{7f}", "\u{9b}31m", "é", "\"", "\\", "\n"] {
        let (plain, some) = (plain_line, Some(text));
        for line in [
            Line {
                request_id: text.as_bytes(),
                ..plain()
            },
            Line {
                host: some.map(str::as_bytes),
                ..plain()
            },
            Line {
                path: text,
                ..plain()
            },
            Line {
                route: some,
                ..plain()
            },
            Line {
                user: some,
                ..plain()
            },
            Line {
                session: some,
                ..plain()
            },
        ] {
            assert!(!line.write_json(&mut Vec::new()), "{line:?}");
        }
    }
}

#[test]
fn each_byte_is_found_at_each_place() {
    let is_one = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    for length in 1..=25 {
        for around in [b' ', b'!', b'#', b'[', b']', b'~'] {
            let mut text = vec![around; length];
            assert!(is_plain(&text));
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    text[at] = byte;
                    assert_eq!(is_plain(&text), is_one(byte), "{text:?}");
                }
                text[at] = around;
            }
        }
    }
    assert!(is_plain(b""));
}

#[test]
fn a_line_is_the_json_of_its_fields() {
    let mut line = Line {
        time: Moment::of(SystemTime::UNIX_EPOCH + Duration::from_millis(1)),
        kind: "access",
        request_id: b"a\"b",
        client: Some("::1".parse().unwrap()),
        method: "GET",
        host: Some(b"a.example"),
        path: "/\\\n\u{1b}é",
        protocol: "HTTP/1.1",
        status: 200,
        route: Some("/"),
        user: Some("会"),
        session: None,
        reason: None,
        aborted: true,
        bytes_in: 0,
        bytes_out: u64::MAX,
        duration_ms: Milliseconds::of(Duration::from_micros(125)),
        upstream_ms: Some(Milliseconds::of(Duration::from_millis(12))),
    };
    for client in ["1.20.255.0", "100.9.10.99"] {
        let mut written = Vec::new();
        line.write_json(&mut written);
        let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written, serde_json::to_value(&line).unwrap());
        line.client = Some(client.parse().unwrap());
        (line.host, line.user) = (None, None);
        (line.reason, line.upstream_ms) = (Some("no_cookie"), None);
    }
}

struct Sink(mpsc::Sender<Vec<u8>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_stand_behind_each_other_and_are_escaped_alone() {
    let (sender, written) = mpsc::channel();
    let (queue, thread) = log_queue::start(Sink(sender)).unwrap();
    let log = AccessLog::new(queue, Format::Json);
    let paths = ["/", "/\u{7f}\u{9b}\u{e9}", "/\"", "/a"];
    let lines = paths.map(|path| Line {
        path,
        ..plain_line()
    });
    lines.iter().for_each(|line| log.write(line));
    drop(thread);
    let all = String::from_utf8(written.iter().flatten().collect()).unwrap();
    assert!(
        !all.contains(|c: char| c.is_control() && c != '\n'),
        "{all:?}"
    );
    let all: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(all, lines.map(|line| serde_json::to_value(line).unwrap()));
}

/// RUSTSEC-2025-0055, S-61.
#[test]
fn s61_no_control_character_is_left_in_json() {
    let text = "a\u{7f}b\u{80}\u{9b}31m\u{a0}\u{e9}\u{4f1a}\n\u{1b}";
    let json = serde_json::to_vec(text).unwrap();
    let escaped = without_controls(&json);
    let shown = std::str::from_utf8(&escaped).unwrap();
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(serde_json::from_str::<String>(shown).unwrap(), text);
    assert!(matches!(
        without_controls(b"{\"a\":\"b\"}\n"),
        Cow::Borrowed(_)
    ));
}
