//! Chunked bodies (RFC 9112 section 7.1): S-17, S-18; CVE-2024-22019,
//! CVE-2025-22871, CVE-2023-38697, RUSTSEC-2021-0079.

use super::{Case, Want, owned, rejected, run, served};

const HEAD: &str = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

/// In place of the size of a chunk of three bytes.
const SIZES: &[&str] = &[
    "-3",
    "+3",
    "--3",
    "0x3",
    "0X3",
    "x3",
    "3x",
    "3h",
    "3_",
    "_3",
    "0_3",
    "3_0",
    " 3",
    "\t3",
    "\u{b}3",
    "3\u{b}",
    "3\u{c}",
    "\u{a0}3",
    "3\u{a0}",
    "g",
    "3g",
    "",
    " ",
    "3 3",
    "3,3",
    "3.",
    "3.0",
    "3e0",
    "\"3\"",
    "'3'",
    "(3)",
    "3\0",
    "\x003",
    "3\r",
    "\r3",
    "\u{663}",
    "\u{ff13}",
    "10000000000000003",
    "fffffffffffffffff",
    "ffffffffffffffff",
    "fffffffffffffffd",
    "8000000000000003",
    "ffffffffffffffffffffffffffffffff3",
    "100000000000000000000000000000003",
    "%33",
    "3\u{85}",
    "=3",
    "#3",
    "3:",
    "3=",
    "3/",
];

/// In place of the whole body.
const BODIES: &[(&str, &str)] = &[
    ("LF behind the size", "3\nabc\r\n0\r\n\r\n"),
    ("CR behind the size", "3\rabc\r\n0\r\n\r\n"),
    ("LF CR behind the size", "3\n\rabc\r\n0\r\n\r\n"),
    ("two CRs behind the size", "3\r\r\nabc\r\n0\r\n\r\n"),
    ("LF behind the data", "3\r\nabc\n0\r\n\r\n"),
    ("CR behind the data", "3\r\nabc\r0\r\n\r\n"),
    ("nothing behind the data", "3\r\nabc0\r\n\r\n"),
    ("two bytes behind the data", "3\r\nabcXX0\r\n\r\n"),
    ("data that is too long", "3\r\nabcd\r\n0\r\n\r\n"),
    ("data that is too short", "3\r\nab\r\n0\r\n\r\n"),
    ("LF behind the last size", "3\r\nabc\r\n0\n\r\n"),
    ("LF for the end", "3\r\nabc\r\n0\r\n\n"),
    (
        "LF for the end behind a trailer",
        "3\r\nabc\r\n0\r\nX-A: b\r\n\n",
    ),
    ("LF behind a trailer", "3\r\nabc\r\n0\r\nX-A: b\n\r\n"),
    ("LFs for everything", "3\nabc\n0\n\n"),
    ("CR for the end", "3\r\nabc\r\n0\r\n\rX"),
    ("LF behind an extension", "3;a\nabc\r\n0\r\n\r\n"),
    ("CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    (
        "LF in a quoted extension",
        "3;a=\"b\nc\"\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "LF behind the extension of the last",
        "3\r\nabc\r\n0;a\n\r\n",
    ),
    ("an empty line before the size", "\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("an empty line between chunks", "3\r\nabc\r\n\r\n0\r\n\r\n"),
    ("a comment for a size", "; a\r\nabc\r\n0\r\n\r\n"),
    ("no chunks at all", "abc"),
    (
        "LF in a trailer",
        "3\r\nabc\r\n0\r\nX-A: b\nX-User-Id: root\r\n\r\n",
    ),
    (
        "CR in a trailer",
        "3\r\nabc\r\n0\r\nX-A: b\rX-User-Id: root\r\n\r\n",
    ),
    ("NUL in a trailer", "3\r\nabc\r\n0\r\nX-A: b\0c\r\n\r\n"),
    (
        "a trailer without a colon",
        "3\r\nabc\r\n0\r\nnonsense\r\n\r\n",
    ),
    ("a trailer without a name", "3\r\nabc\r\n0\r\n: b\r\n\r\n"),
    (
        "a trailer with a blank in its name",
        "3\r\nabc\r\n0\r\nX A: b\r\n\r\n",
    ),
    (
        "a trailer with a blank before the colon",
        "3\r\nabc\r\n0\r\nX-A : b\r\n\r\n",
    ),
    ("a folded trailer", "3\r\nabc\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    (
        "a request line for a trailer",
        "3\r\nabc\r\n0\r\nGET /private HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
];

/// Without a hidden request behind it, which would become a part of it.
const CUT: &[(&str, &str)] = &[
    ("no last chunk", "3\r\nabc\r\n"),
    ("no end of the last chunk", "3\r\nabc\r\n0\r\n"),
    ("half of the end", "3\r\nabc\r\n0\r\n\r"),
    ("no line end of the last size", "3\r\nabc\r\n0"),
    ("half of the data", "3\r\nab"),
    ("no end of the data", "3\r\nabc"),
    ("only a size", "3\r\n"),
    ("half of a size", "3"),
    ("nothing", ""),
    ("an extension that does not end", "3;a"),
    ("a trailer that does not end", "3\r\nabc\r\n0\r\nX-A: b"),
];

const GOOD: &[(&str, &str)] = &[
    ("one chunk", "3\r\nabc\r\n0\r\n\r\n"),
    ("three chunks", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"),
    ("zeros", "0003\r\nabc\r\n000\r\n\r\n"),
    ("an extension", "3;a\r\nabc\r\n0\r\n\r\n"),
    ("extensions", "3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n"),
    (
        "an extension that looks like a size",
        "3;5\r\nabc\r\n0\r\n\r\n",
    ),
    ("a trailer", "3\r\nabc\r\n0\r\nX-A: b\r\n\r\n"),
    (
        "a length for a trailer",
        "3\r\nabc\r\n0\r\nContent-Length: 66\r\n\r\n",
    ),
    (
        "a coding for a trailer",
        "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "a host for a trailer",
        "3\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
    ),
    (
        "a cookie for a trailer",
        "3\r\nabc\r\n0\r\nCookie: sid=x\r\n\r\n",
    ),
    (
        "credentials for a trailer",
        "3\r\nabc\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n",
    ),
    (
        "an identity for a trailer",
        "3\r\nabc\r\n0\r\nX-User-Id: root\r\nx_user_id: root\r\n\r\n",
    ),
    (
        "an address for a trailer",
        "3\r\nabc\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    ),
    (
        "a connection for a trailer",
        "3\r\nabc\r\n0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        let body = format!("{HEAD}{size}\r\nabc\r\n0\r\n\r\n");
        cases.push(rejected(format!("size {size:?}"), body));
    }
    for (name, body) in BODIES {
        cases.push(rejected(*name, format!("{HEAD}{body}")));
    }
    // Whatever is wrong with a message, the one before it is none the worse.
    let before = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, body) in BODIES {
        cases.push(Case {
            want: Want::ServedThenRefused(owned(&[("/a", "")])),
            ..rejected(
                format!("{name}, behind a request"),
                format!("{before}{HEAD}{body}"),
            )
        });
    }
    for (name, body) in CUT {
        cases.push(Case {
            bytes: format!("{HEAD}{body}").into_bytes(),
            ..rejected(*name, "")
        });
    }
    for (name, body) in GOOD {
        cases.push(served(*name, format!("{HEAD}{body}"), &[("/", "abc")]));
    }
    let long = "x".repeat(100_000);
    cases.extend([
        served("no data", format!("{HEAD}0\r\n\r\n"), &[("/", "")]),
        served(
            "a size in both cases",
            format!("{HEAD}A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
            &[("/", "01234567890123456789")],
        ),
        rejected(
            "an extension of 100 kB",
            format!("{HEAD}3;{long}\r\nabc\r\n0\r\n\r\n"),
        ),
        rejected(
            "many extensions",
            format!(
                "{HEAD}{}0\r\n\r\n",
                format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(1000)
            ),
        ),
        rejected(
            "a trailer of 100 kB",
            format!("{HEAD}3\r\nabc\r\n0\r\nX-A: {long}\r\n\r\n"),
        ),
        // A line is a line, whatever is quoted in it.
        Case {
            want: Want::ServedThenRefused(owned(&[("/", "abc")])),
            ..rejected(
                "CRLF in a quoted extension",
                format!("{HEAD}3;a=\"\r\nabc\r\n0\r\n\r\n\"\r\nabc\r\n0\r\n"),
            )
        },
        served(
            "a size with many zeros",
            format!("{HEAD}{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(100_000)),
            &[("/", "abc")],
        ),
        rejected(
            "ten thousand trailers",
            format!("{HEAD}0\r\n{}\r\n", "X-A: b\r\n".repeat(10_000)),
        ),
    ]);
    cases
}

#[test]
fn chunked_bodies() {
    run(&cases(), 145);
}
