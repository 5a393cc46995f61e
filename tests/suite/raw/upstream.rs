//! Answers of an application that is broken, or somebody else's: S-8, S-9,
//! S-11, S-15, S-16, S-19, S-24; CVE-2024-23326.

use crate::harness::backend::{Backend, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// 502 of our own.
    Bad,
    /// A message without its end.
    Cut,
    /// This status and content, whole; the surplus is nobody's.
    Whole(u16, &'static str),
}
use Want::{Bad, Cut, Whole};

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// What must never reach anybody.
const EVIL: &str = "HTTP/1.1 200 OK\r\nX-Poisoned: 1\r\nContent-Length: 8\r\n\r\npoisoned";

/// In place of the fields of an answer.
const FIELDS: &[(&str, &str)] = &[
    ("two lengths", "Content-Length: 3\r\nContent-Length: 4"),
    ("a list of lengths", "Content-Length: 3, 4"),
    ("a signed length", "Content-Length: +3"),
    ("a negative length", "Content-Length: -3"),
    ("a hexadecimal length", "Content-Length: 0x3"),
    ("an empty length", "Content-Length:"),
    ("a length with an underscore", "Content-Length: 1_0"),
    ("a length with a letter", "Content-Length: 3a"),
    ("a length with a blank", "Content-Length: 3 3"),
    (
        "a length that overflows",
        "Content-Length: 99999999999999999999",
    ),
    ("a length of 2^64", "Content-Length: 18446744073709551616"),
    ("a length with a vertical tab", "Content-Length: \u{b}3"),
    (
        "both lengths",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
    ),
    (
        "both lengths, reversed",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ),
    ("xchunked", "Transfer-Encoding: xchunked"),
    ("identity", "Transfer-Encoding: identity"),
    ("chunked twice", "Transfer-Encoding: chunked, chunked"),
    ("chunked, gzip", "Transfer-Encoding: chunked, gzip"),
    ("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
    (
        "two codings",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ),
    (
        "a coding with a parameter",
        "Transfer-Encoding: chunked;q=1",
    ),
    (
        "a coding with a vertical tab",
        "Transfer-Encoding: \u{b}chunked",
    ),
    ("an empty coding", "Transfer-Encoding:"),
    ("a fold", "X-A: 1\r\n 2\r\nContent-Length: 3"),
    ("a folded length", "Content-Length:\r\n 3"),
    ("a leading blank", " X-A: 1\r\nContent-Length: 3"),
    ("NUL in a value", "X-A: a\0b\r\nContent-Length: 3"),
    ("NUL in a name", "X\0A: b\r\nContent-Length: 3"),
    ("a control byte", "X-A: a\u{1}b\r\nContent-Length: 3"),
    ("DEL", "X-A: a\u{7f}b\r\nContent-Length: 3"),
    ("bare CR", "X-A: a\rX-Poisoned: 1\r\nContent-Length: 3"),
    ("an empty name", ": a\r\nContent-Length: 3"),
    ("no colon", "nonsense\r\nContent-Length: 3"),
    ("a blank in a name", "X A: b\r\nContent-Length: 3"),
    (
        "a name that is no ASCII",
        "X-\u{e4}: b\r\nContent-Length: 3",
    ),
];

const STATUS_LINES: &[&str] = &[
    "HTTP/9.9 200 OK",
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "HTTP/1 200 OK",
    "http/1.1 200 OK",
    "ICY 200 OK",
    "HTTP/1.1 20x OK",
    "HTTP/1.1 000 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 -20 OK",
    "HTTP/1.1 +20 OK",
    "HTTP/1.1 099 OK",
    "HTTP/1.1",
    "HTTP/1.1 ",
    "200 OK",
    "GET / HTTP/1.1",
    "SSH-2.0-OpenSSH_9.2",
    "PRI * HTTP/2.0",
    "HTTP/1.1\t200\tOK",
    " HTTP/1.1 200 OK",
    "HTTP/1.1 200 O\0K",
    "HTTP/1.1 200 O\u{1}K",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade",
    "\u{16}\u{3}\u{1}",
];

const CHUNKS: &[(&str, &str)] = &[
    ("a letter", "zz\r\nabc\r\n0\r\n\r\n"),
    ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
    ("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a prefixed size", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
    ("an empty size", "\r\nabc\r\n0\r\n\r\n"),
    (
        "a size that overflows",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ),
    ("a size that wraps", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("LF behind the size", "3\nabc\r\n0\r\n\r\n"),
    ("CR behind the size", "3\rabc\r\n0\r\n\r\n"),
    ("LF behind an extension", "3;a\nabc\r\n0\r\n\r\n"),
    ("too much data", "3\r\nabcdef\r\n0\r\n\r\n"),
    ("LF behind the data", "3\r\nabc\n0\r\n\r\n"),
    ("nothing behind the data", "3\r\nabc0\r\n\r\n"),
    ("no last chunk", "3\r\nabc\r\n"),
    ("half a chunk", "3\r\na"),
    ("half an end", "3\r\nabc\r\n0\r\n"),
    (
        "a trailer without a colon",
        "3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
    ),
    ("NUL in a trailer", "3\r\nabc\r\n0\r\nX-A: a\0\r\n\r\n"),
];

type Case = (String, String, Want);

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, fields) in FIELDS {
        cases.push((
            name.to_string(),
            format!("{OK}{fields}\r\n\r\nabc{EVIL}"),
            Bad,
        ));
    }
    for line in STATUS_LINES {
        let text = format!("{line}\r\nContent-Length: 3\r\n\r\nabc{EVIL}");
        cases.push((line.to_string(), text, Bad));
    }
    for (name, chunks) in CHUNKS {
        let text = format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}");
        cases.push((format!("chunks: {name}"), text, Cut));
    }
    for (name, text, want) in [
        ("nothing", String::new(), Bad),
        ("half a head", format!("{OK}X-A: 1\r\n"), Bad),
        ("half a status line", "HTTP/1.1 20".into(), Bad),
        (
            "less than declared",
            format!("{OK}Content-Length: 10\r\n\r\nabc"),
            Cut,
        ),
        (
            "nothing of what was declared",
            format!("{OK}Content-Length: 10\r\n\r\n"),
            Cut,
        ),
        (
            "an interim answer alone",
            "HTTP/1.1 100 Continue\r\n\r\n".into(),
            Bad,
        ),
        (
            "more than declared",
            format!("{OK}Content-Length: 3\r\n\r\nabc{EVIL}"),
            Whole(200, "abc"),
        ),
        (
            "equal lengths",
            format!("{OK}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc{EVIL}"),
            Whole(200, "abc"),
        ),
        (
            "more behind the last chunk",
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{EVIL}"),
            Whole(200, "abc"),
        ),
        (
            "an extension",
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n{EVIL}"),
            Whole(200, "abc"),
        ),
        (
            "more behind nothing",
            format!("{OK}Content-Length: 0\r\n\r\n{EVIL}"),
            Whole(200, ""),
        ),
        (
            "content with 204",
            format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"),
            Whole(204, ""),
        ),
        (
            "a length with 204",
            format!(
                "HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{EVIL}",
                EVIL.len()
            ),
            Whole(204, ""),
        ),
        (
            "chunks with 204",
            format!(
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{EVIL}"
            ),
            Whole(204, ""),
        ),
        (
            "content with 304",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n{EVIL}"),
            Whole(304, ""),
        ),
        (
            "a blank before a colon",
            format!("{OK}X-A : b\r\nContent-Length: 3\r\n\r\nabc{EVIL}"),
            Bad,
        ),
        (
            "an upgrade with 200",
            format!(
                "{OK}Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc{EVIL}"
            ),
            Whole(200, "abc"),
        ),
        (
            "a nominated length",
            format!("{OK}Connection: content-length\r\nContent-Length: 3\r\n\r\nabc{EVIL}"),
            Whole(200, "abc"),
        ),
        (
            "a list of equal lengths",
            format!("{OK}Content-Length: 3, 3\r\n\r\nabc{EVIL}"),
            Bad,
        ),
    ] {
        cases.push((name.into(), text, want));
    }
    cases
}

fn judge(proxy_got: &[u8], want: Want) -> Result<(), String> {
    let text = String::from_utf8_lossy(proxy_got).into_owned();
    let said = || format!("{want:?}, but {text:?}");
    if want == Cut && text.is_empty() {
        // Closed before the head was on its way.
        return Ok(());
    }
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(said());
    };
    let head = head.to_ascii_lowercase();
    let starts = |status: u16| head.starts_with(&format!("http/1.1 {status} "));
    let whole_length = format!("content-length: {}", body.len());
    let is_whole = match head.contains("transfer-encoding: chunked") {
        true => body.ends_with("0\r\n\r\n"),
        false => head.lines().any(|line| line == whole_length),
    };
    let fine = match want {
        Bad => starts(502) && is_whole && head.contains("proxy-status: cloakroom"),
        // Either the head was not on its way yet, or the end is missing.
        Cut => starts(502) && is_whole || starts(200) && !is_whole,
        Whole(status @ (204 | 304), _) => starts(status) && body.is_empty(),
        Whole(status, content) => {
            let chunk = format!("{:x}\r\n{content}\r\n0\r\n\r\n", content.len());
            starts(status) && is_whole && (body == content || body == chunk)
        }
    };
    let one = text.to_ascii_lowercase().matches("http/1.").count() == 1;
    match fine && one && !text.to_ascii_lowercase().contains("poisoned") {
        true => Ok(()),
        false => Err(said()),
    }
}

#[test]
fn hostile_answers() {
    let cases = cases();
    assert!(cases.len() >= 90, "there are only {} cases", cases.len());
    let script: Vec<_> = cases
        .iter()
        .map(|(_, text, want)| (text.clone(), *want))
        .collect();
    let backend = Backend::with(move |request| {
        match request
            .target
            .trim_start_matches("/public/")
            .parse::<usize>()
        {
            Ok(number) => match &script[number] {
                // What is whole is kept open: is it used again?
                (text, Whole(..)) => Reply::Bytes(text.clone().into_bytes()),
                (text, _) => Reply::BytesThenClose(text.clone().into_bytes()),
            },
            Err(_) => Reply::ok("fine"),
        }
    });
    let proxy = Config::to(backend.addr()).set("server.workers", 1).start();
    let mut failures = Vec::new();
    for (number, (name, _, want)) in cases.iter().enumerate() {
        let mut client = Client::connect(proxy.addr());
        let request = Request::post(&format!("/public/{number}")).header("connection", "close");
        client.send(request.bytes("x"));
        let got = client.read_to_end();
        if let Err(why) = judge(&got, *want) {
            failures.push(format!("{name}: {why}"));
        }
        assert_eq!(proxy.get("/public").text(), "fine", "after {name}");
        let used: Vec<_> = backend.requests().iter().map(|r| r.connection).collect();
        if used.len() != 2 || used[0] == used[1] {
            failures.push(format!("{name}: connections {used:?}"));
        }
        backend.clear();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
