//! `Transfer-Encoding` (RFC 9112 sections 6.1 and 7): S-12, S-13;
//! CVE-2021-38512, CVE-2026-2835, RUSTSEC-2020-0008, RUSTSEC-2021-0020.

use super::{Case, HIDDEN, Want, owned, rejected, run, served};

const END: &str = "0\r\n\r\n";

fn post(lines: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{rest}")
}

const BROKEN: &[&str] = &[
    "xchunked",
    "chunkedx",
    "x-chunked",
    "chunk",
    "gzip",
    "identity",
    "deflate",
    "compress",
    "trailers",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked,chunked",
    "identity, chunked",
    "chunked, identity",
    ", chunked",
    "chunked,",
    ",chunked,",
    "chunked;q=1",
    "chunked; a=b",
    "chunked ;a",
    "\"chunked\"",
    "'chunked'",
    "(chunked)",
    "[chunked]",
    "chunked chunked",
    "gzip chunked",
    "chunked\u{b}",
    "\u{b}chunked",
    "\u{c}chunked",
    "\u{a0}chunked",
    "chunked\u{a0}",
    "chunked\0",
    "\0chunked",
    "chun\0ked",
    "chunked\u{7f}",
    "chun ked",
    "chun\tked",
    "chunked\r",
    "\rchunked",
    "\r\n chunked",
    "chunked\r\n , identity",
    "\r\n\tchunked",
    "",
    " ",
    ",",
    "chun\u{212a}ed",
    "chunked%00",
    "chunked:",
    ": chunked",
    "=chunked",
    "chunked, cow",
    "cow, chunked",
    "chunked\\",
    "chunke\u{64}\u{301}",
    "br, chunked",
    "0",
    "true",
];

/// Chunks win, and the connection ends after the answer.
fn both(name: &str, bytes: String) -> Case {
    Case {
        want: Want::ServedLast(owned(&[("/", "")])),
        ..rejected(name, bytes)
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in BROKEN {
        let head = post(&format!("Transfer-Encoding: {value}"), END);
        cases.push(rejected(format!("{value:?}"), head));
    }
    for (name, lines) in [
        (
            "two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            "two lines, gzip",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ),
        (
            "two lines, identity last",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "two lines, identity first",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        (
            "two lines, one empty",
            "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        ),
        (
            "two lines, cow",
            "Transfer-Encoding: chunked\r\nTransfer-encoding: cow",
        ),
        ("a blank before the colon", "Transfer-Encoding : chunked"),
        ("a tab before the colon", "Transfer-Encoding\t: chunked"),
        ("a leading blank", "X-A: b\r\n Transfer-Encoding: chunked"),
        ("a CR in front", "X-A: b\rTransfer-Encoding: chunked"),
        ("a blank in the name", "Transfer Encoding: chunked"),
        ("a CR in the name", "Transfer-Encoding\r: chunked"),
        ("NUL in the name", "Transfer-Encoding\0: chunked"),
        (
            "both, folded",
            "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked",
        ),
        (
            "a broken one and a length",
            "Content-Length: 5\r\nTransfer-Encoding: xchunked",
        ),
        (
            "identity and a length",
            "Content-Length: 5\r\nTransfer-Encoding: identity",
        ),
        (
            "both, a length that is broken",
            "Content-Length: x\r\nTransfer-Encoding: chunked",
        ),
        (
            "both, two lengths",
            "Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked",
        ),
    ] {
        cases.push(rejected(name, post(lines, END)));
    }
    for (name, lines) in [
        ("HTTP/1.0", "Transfer-Encoding: chunked"),
        (
            "HTTP/1.0, keep-alive",
            "Connection: keep-alive\r\nTransfer-Encoding: chunked",
        ),
        (
            "HTTP/1.0, both",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        ("HTTP/1.0, identity", "Transfer-Encoding: identity"),
    ] {
        let text = post(lines, END).replacen("HTTP/1.1", "HTTP/1.0", 1);
        cases.push(rejected(name, text));
    }
    // Both: the length is never believed, and nothing after it is.
    for (name, lines, rest) in [
        (
            "CL.TE",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            END,
        ),
        (
            "TE.CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            END,
        ),
        (
            "CL.TE, zero",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            END,
        ),
        (
            "TE.CL, zero",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            END,
        ),
        (
            "CL.TE, much",
            "Content-Length: 400\r\nTransfer-Encoding: chunked",
            END,
        ),
        (
            "TE.CL, much",
            "Transfer-Encoding: chunked\r\nContent-Length: 400",
            END,
        ),
        (
            "both and keep-alive",
            "Content-Length: 5\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked",
            END,
        ),
        (
            "both in another case",
            "content-length: 5\r\ntransfer-encoding: CHUNKED",
            END,
        ),
        (
            "both, the length nominated",
            "Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            END,
        ),
    ] {
        cases.push(both(name, post(lines, rest)));
    }
    let body = "3\r\nabc\r\n0\r\n\r\n";
    for (name, lines) in [
        ("upper case", "TRANSFER-ENCODING: CHUNKED"),
        ("mixed case", "tRANSFER-eNCODING: Chunked"),
        ("blanks around", "Transfer-Encoding: \t chunked \t"),
        ("no blank", "Transfer-Encoding:chunked"),
    ] {
        cases.push(served(name, post(lines, body), &[("/", "abc")]));
    }
    for (name, lines) in [
        ("an underscore is another", "Transfer_Encoding: chunked"),
        ("a prefix is another", "X-Transfer-Encoding: chunked"),
        ("TE is another", "TE: chunked"),
        ("Content-Encoding is another", "Content-Encoding: chunked"),
    ] {
        cases.push(served(name, post(lines, ""), &[("/", "")]));
    }
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for method in ["POST", "GET", "HEAD", "DELETE", "OPTIONS"] {
        let text = post("Transfer-Encoding: chunked", &chunk).replacen("POST", method, 1);
        cases.push(served(
            format!("a request in the chunk of {method}"),
            text,
            &[("/", HIDDEN)],
        ));
    }
    cases
}

#[test]
fn transfer_encodings() {
    run(&cases(), 100);
}
