//! `Content-Length` (RFC 9112 section 6.3): S-14, S-19; CVE-2023-40225,
//! RUSTSEC-2021-0078.

use super::{Case, HIDDEN, rejected, run, served};

const BROKEN: &[&str] = &[
    "-1",
    "-0",
    "+0",
    "+5",
    "--5",
    "0x5",
    "0X5",
    "0b1",
    "0o5",
    "5h",
    "5a",
    "a",
    "1e1",
    "1.0",
    "1.",
    ".5",
    "5,",
    ",5",
    "5, 6",
    "5,6",
    "5, 5x",
    "5;6",
    "5 5",
    "5\t5",
    "1_0",
    "_5",
    "5_",
    "1'0",
    "1\u{a0}0",
    "\u{a0}5",
    "\u{b}5",
    "5\u{b}",
    "\u{c}5",
    "5\u{c}",
    "\u{665}",
    "\u{ff15}",
    "\u{b2}",
    "\"5\"",
    "'5'",
    "(5)",
    "5\0",
    "\0",
    "5\r",
    "\r5",
    "5\r\n 6",
    "\r\n 5",
    "99999999999999999999",
    "18446744073709551616",
    "18446744073709551615",
    "18446744073709551621",
    "9223372036854775808",
    "340282366920938463463374607431768211461",
    "4294967301x",
    "NaN",
    "inf",
    "null",
    "",
    " ",
    "%35",
    "5/",
    "5:",
    "=5",
    "$5",
    "5L",
    "5u",
];

fn post(lines: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{rest}")
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in BROKEN {
        let head = post(&format!("Content-Length: {value}"), "");
        cases.push(rejected(format!("{value:?}"), head));
    }
    for (name, lines) in [
        ("two that differ", "Content-Length: 5\r\nContent-Length: 6"),
        (
            "zero and another",
            "Content-Length: 0\r\nContent-Length: 66",
        ),
        (
            "another and zero",
            "Content-Length: 66\r\nContent-Length: 0",
        ),
        (
            "two that differ, apart",
            "Content-Length: 5\r\nX-A: b\r\ncontent-length: 6",
        ),
        (
            "three, the last differs",
            "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6",
        ),
        (
            "one and a broken one",
            "Content-Length: 5\r\nContent-Length: x",
        ),
        (
            "one and an empty one",
            "Content-Length: 5\r\nContent-Length:",
        ),
        (
            "an empty one and one",
            "Content-Length:\r\nContent-Length: 5",
        ),
        ("a blank before the colon", "Content-Length : 5"),
        ("a tab before the colon", "Content-Length\t: 5"),
        ("a leading blank", "X-A: b\r\n Content-Length: 5"),
        ("a NUL in the name", "Content-Length\0: 5"),
        ("a CR in front", "X-A: b\rContent-Length: 5"),
        ("a blank in the name", "Content Length: 5"),
    ] {
        cases.push(rejected(name, post(lines, "")));
    }
    // Longer than what follows: never whole.
    for (name, lines, rest) in [
        ("one byte short", "Content-Length: 6", "abcde"),
        ("nothing at all", "Content-Length: 1", ""),
        ("a terabyte", "Content-Length: 1099511627776", "abc"),
        ("2^53", "Content-Length: 9007199254740992", "abc"),
        (
            "2^32 more than there is",
            "Content-Length: 4294967299",
            "abc",
        ),
    ] {
        cases.push(Case {
            bytes: post(lines, rest).into_bytes(),
            ..rejected(name, "")
        });
    }
    for (name, lines, body) in [
        (
            "equal, twice",
            "Content-Length: 3\r\nContent-Length: 3",
            "abc",
        ),
        (
            "equal, three times",
            "Content-Length: 3\r\ncontent-length: 3\r\nCONTENT-LENGTH: 3",
            "abc",
        ),
        ("leading zeros", "Content-Length: 003", "abc"),
        ("blanks around", "Content-Length: \t 3 \t", "abc"),
        ("no blank", "Content-Length:3", "abc"),
        ("zero", "Content-Length: 0", ""),
        ("zeros", "Content-Length: 000", ""),
        (
            "a name with an underscore is another",
            "Content_Length: 5",
            "",
        ),
        ("a name with more is another", "Content-Length-X: 5", ""),
        ("a prefixed name is another", "X-Content-Length: 5", ""),
        ("none", "X-A: b", ""),
    ] {
        cases.push(served(name, post(lines, body), &[("/", body)]));
    }
    let body = HIDDEN;
    let lines = format!("Content-Length: {}", body.len());
    cases.push(served(
        "a request for a body",
        post(&lines, body),
        &[("/", body)],
    ));
    for method in ["GET", "DELETE", "OPTIONS", "HEAD", "PROPFIND"] {
        let text = post(&lines, body).replacen("POST", method, 1);
        cases.push(served(
            format!("a request in the body of {method}"),
            text,
            &[("/", body)],
        ));
    }
    cases
}

#[test]
fn content_lengths() {
    run(&cases(), 95);
}
