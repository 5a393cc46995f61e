//! Field lines (RFC 9112 section 5, RFC 9110 section 5): S-5, S-6, S-8 to S-11;
//! CVE-2023-25725, CVE-2021-40346, CVE-2025-64484, CVE-2026-29054.

use super::{Case, refused, rejected, run, served};

fn with(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        lines.as_ref(),
        b"\r\n\r\n",
    ]
    .concat()
}

const BROKEN: &[(&str, &str)] = &[
    ("a folded line", "X-A: 1\r\n folded"),
    ("a folded line with a tab", "X-A: 1\r\n\tfolded"),
    ("a folded empty value", "X-A:\r\n 1"),
    ("a fold that is blank", "X-A: 1\r\n "),
    (
        "a fold that looks like a field",
        "X-A: 1\r\n X-User-Id: root",
    ),
    ("a fold before a length", "X-A: 1\r\n Content-Length: 66"),
    ("bare CR", "X-A: 1\rX-User-Id: root"),
    ("bare CR before CRLF", "X-A: 1\r"),
    ("two CRs", "X-A: 1\r\r"),
    ("bare CR at the beginning of a value", "X-A: \r1"),
    ("bare CR in a name", "X\rA: 1"),
    ("CR before the colon", "X-A\r: 1"),
    (
        "bare CR twice in place of an end",
        "X-A: 1\r\rGET /private HTTP/1.1",
    ),
    ("NUL in a value", "X-A: a\0b"),
    ("NUL at the end", "X-A: a\0"),
    ("NUL in a name", "X\0A: b"),
    ("NUL for a name", "\0: b"),
    ("NUL before a name", "\0X-A: b"),
    ("SOH in a value", "X-A: a\u{1}b"),
    ("backspace in a value", "X-A: a\u{8}b"),
    ("vertical tab in a value", "X-A: a\u{b}b"),
    ("form feed in a value", "X-A: a\u{c}b"),
    ("escape in a value", "X-A: a\u{1b}[1mb"),
    ("DEL in a value", "X-A: a\u{7f}b"),
    ("an empty name", ": a"),
    ("an empty name and value", ":"),
    ("an empty name before others", ": a\r\nX-User-Id: root"),
    ("a blank for a name", " : a"),
    ("no colon", "nonsense"),
    ("no colon but a blank", "X-A 1"),
    ("no colon but an equals sign", "X-A=1"),
    ("a blank before the colon", "X-A : b"),
    ("a tab before the colon", "X-A\t: b"),
    ("a vertical tab before the colon", "X-A\u{b}: b"),
    ("a no-break space before the colon", "X-A\u{a0}: b"),
    ("a blank in a name", "X A: b"),
    ("brackets in a name", "X(A): b"),
    ("a comma in a name", "X,A: b"),
    ("a slash in a name", "X/A: b"),
    ("a semicolon in a name", "X;A: b"),
    ("an at sign in a name", "X@A: b"),
    ("a quote in a name", "\"X\": b"),
    ("a backslash in a name", "X\\A: b"),
    ("an equals sign in a name", "X=A: b"),
    ("a question mark in a name", "X?A: b"),
    ("an angle in a name", "<X>: b"),
    ("a brace in a name", "{X}: b"),
    ("a name that is no ASCII", "X-\u{c4}: b"),
    ("a Kelvin sign", "\u{212a}eep-Alive: b"),
    ("DEL in a name", "X\u{7f}: b"),
    ("a request line for a field", "GET / HTTP/1.1"),
    ("a leading blank", " X-A: b"),
];

fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = BROKEN
        .iter()
        .map(|(name, lines)| rejected(*name, with(lines)))
        .collect();
    for (name, head) in [
        (
            "a folded first line",
            "GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n",
        ),
        (
            "a blank first line",
            "GET / HTTP/1.1\r\n \r\nHost: x\r\n\r\n",
        ),
        (
            "a tab for the first line",
            "GET / HTTP/1.1\r\n\tX-A: b\r\nHost: x\r\n\r\n",
        ),
        (
            "LF in a value",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\nX-User-Id: root\r\n\r\n",
        ),
        (
            "LF before the empty line",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\n\r\n",
        ),
        (
            "LF for the empty line",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\n",
        ),
        (
            "LF CR for the empty line",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\n\r\r\n\r\n",
        ),
        (
            "CR for the empty line",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r",
        ),
        (
            "a blank for the empty line",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n \r\n\r\n",
        ),
        (
            "a head that is cut",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-B",
        ),
    ] {
        cases.push(rejected(name, head));
    }
    cases.extend([
        rejected(
            "a name of 200 kB",
            with(format!("{}: b", "x".repeat(200_000))),
        ),
        rejected(
            "a value of 200 kB",
            with(format!("X-A: {}", "x".repeat(200_000))),
        ),
        rejected(
            "blanks of 200 kB",
            with(format!("X-A: {}b", " ".repeat(200_000))),
        ),
        refused(
            431,
            "a thousand fields",
            with(["X-A: 1"; 1000].join("\r\n")),
        ),
        rejected(
            "a hundred thousand names",
            with(
                (0..100_000)
                    .map(|n| format!("x{n}:"))
                    .collect::<Vec<_>>()
                    .join("\r\n"),
            ),
        ),
        rejected(
            "a name of 64 KiB and a length",
            with(format!(
                "Content-Length{}: 0\r\nContent-Length: 66",
                "a".repeat(65_536 - 14)
            )),
        ),
        served("an empty value", with("X-A:"), &[("/", "")]),
        served("a blank value", with("X-A: \t "), &[("/", "")]),
        served("bytes above 0x7f", with(b"X-A: \xff\xfe\x80"), &[("/", "")]),
        served("a tab in a value", with("X-A: a\tb"), &[("/", "")]),
        served(
            "every character of a token",
            with("!#$%&'*+-.^_`|~09azAZ: b"),
            &[("/", "")],
        ),
        served("colons in a value", with("X-A::b:c"), &[("/", "")]),
        served(
            "a request in a value",
            with("X-A: GET /private HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "the same field often",
            with("X-A: 1\r\nx-a: 2\r\nX-a: 3"),
            &[("/", "")],
        ),
    ]);
    // An identity that the client makes up.
    for name in [
        "X-User-Id",
        "x-user-id",
        "X_User_Id",
        "X-User_Id",
        "x_USER-id",
        "X-User-Email",
        "X_User_Email",
        "X-User-Roles",
        "x_user_roles",
    ] {
        cases.push(served(
            name,
            with(format!("{name}: root\r\n{name}: root")),
            &[("/", "")],
        ));
    }
    for options in [
        "X-User-Id",
        "x-user-id, close",
        "Host",
        "host, x-a",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "X-Forwarded-For",
        "Via",
        "keep-alive, X-User-Id, ,",
        "\"quoted\"",
        "Connection",
    ] {
        let head = with(format!(
            "Connection: {options}\r\nX-User-Id: root\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive"
        ));
        let case = match options.contains("close") {
            true => super::served_last(format!("Connection: {options}"), head, &[("/", "")]),
            false => served(format!("Connection: {options}"), head, &[("/", "")]),
        };
        cases.push(case);
    }
    let nominated =
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc";
    cases.push(served("a nominated length", nominated, &[("/", "abc")]));
    let nominated = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    cases.push(served("a nominated coding", nominated, &[("/", "abc")]));
    cases
}

#[test]
fn field_lines() {
    run(&cases(), 90);
}
