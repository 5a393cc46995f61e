//! One request behind another (RFC 9112 section 9): S-16, S-20;
//! CVE-2025-4366, CVE-2026-2835.

use super::{Case, HIDDEN, SYNC, Want, refused, rejected, run, served, served_last};

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

fn old(lines: &str) -> String {
    get("/a", lines).replacen("HTTP/1.1", "HTTP/1.0", 1)
}

fn cases() -> Vec<Case> {
    let many: String = (0..50).map(|n| get(&format!("/{n}"), "")).collect();
    let names: Vec<_> = (0..50).map(|n| format!("/{n}")).collect();
    let many_seen: Vec<_> = names.iter().map(|n| (n.as_str(), "")).collect();
    let a = &[("/a", "")][..];
    let ab = &[("/a", ""), ("/b", "")][..];
    let post = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let mut cases = vec![
        served("two", get("/a", "") + &get("/b", ""), ab),
        served("fifty", many, &many_seen),
        served(
            "an empty line between",
            get("/a", "") + "\r\n" + &get("/b", ""),
            ab,
        ),
        served(
            "behind a body",
            post.to_owned() + &get("/b", ""),
            &[("/a", "abc"), ("/b", "")],
        ),
        served(
            "an empty line behind a body",
            post.to_owned() + "\r\n" + &get("/b", ""),
            &[("/a", "abc"), ("/b", "")],
        ),
        served(
            "a GET with a body",
            get("/a", "Content-Length: 3\r\n") + "abc" + &get("/b", ""),
            &[("/a", "abc"), ("/b", "")],
        ),
        served_last("close", get("/a", "Connection: close\r\n"), a),
        served_last("close in upper case", get("/a", "Connection: CLOSE\r\n"), a),
        served_last(
            "close in a list",
            get("/a", "Connection: x-a, close\r\n"),
            a,
        ),
        served_last(
            "close in the second line",
            get("/a", "Connection: x-a\r\nConnection: close\r\n"),
            a,
        ),
        served_last(
            "close and keep-alive",
            get("/a", "Connection: keep-alive, close\r\n"),
            a,
        ),
        served_last(
            "close behind a body",
            post.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1),
            &[("/a", "abc")],
        ),
        served_last("HTTP/1.0", old(""), a),
        served_last("HTTP/1.0 and close", old("Connection: close\r\n"), a),
        served(
            "HTTP/1.0 and keep-alive",
            old("Connection: keep-alive\r\n"),
            a,
        ),
        served_last(
            "HTTP/1.0, a body without a length",
            old("").replacen("GET", "POST", 1),
            a,
        ),
        served_last("HTTP/1.0 without a Host", "GET /a HTTP/1.0\r\n\r\n", a),
        served_last(
            "a next with both",
            get("/a", "")
                + "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ab,
        ),
        served(
            "keep-alive",
            get("/a", "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"),
            a,
        ),
        served(
            "closed is another option",
            get("/a", "Connection: closed\r\n"),
            a,
        ),
        served(
            "a proxy's close is another field",
            get("/a", "Proxy-Connection: close\r\n"),
            a,
        ),
    ];
    // The first is served, and what is behind it is refused.
    for (name, rest) in [
        ("garbage behind a request", "\u{1}\u{2}garbage\r\n\r\n"),
        ("a body without a length", "abc\r\n\r\n"),
        ("a chunk without a coding", "3\r\nabc\r\n0\r\n\r\n"),
        (
            "a blank before the next",
            " GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        (
            "a NUL before the next",
            "\0GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        ("a next without a Host", "GET /b HTTP/1.1\r\n\r\n"),
        (
            "a next that is protected",
            "GET /private HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        ("a next with LF", "GET /b HTTP/1.1\nHost: x\r\n\r\n"),
        (
            "a next with a fragment",
            "GET /b#c HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        (
            "a next with two lengths",
            "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        ("a preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS behind a request", "\u{16}\u{3}\u{1}\r\n\r\n"),
        ("a next that is cut", "GET /b HTTP/1.1\r\nHost: x\r\n"),
    ] {
        cases.push(Case {
            name: name.into(),
            bytes: (get("/a", "") + rest).into_bytes(),
            want: Want::ServedThenRefused(super::owned(a)),
        });
    }
    // An answer of our own never takes the body for a request.
    let length = HIDDEN.len();
    for (name, line, status) in [
        ("401", "POST /private HTTP/1.1", 401),
        ("405", "TRACE / HTTP/1.1", 405),
        ("400", "POST /%00 HTTP/1.1", 400),
    ] {
        let body = get("/inside", "");
        let text = format!(
            "{line}\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        cases.push(refused(
            status,
            format!("a request in the body of a {name}"),
            text,
        ));
        let text = format!(
            "{line}\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        cases.push(refused(
            status,
            format!("a request in the chunk of a {name}"),
            text,
        ));
    }
    cases.extend([
        rejected(
            "a length that swallows the next",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                length + 1
            ),
        ),
        served(
            "a length that swallows just the next",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SYNC}",
                SYNC.len()
            ),
            &[("/", SYNC)],
        ),
    ]);
    cases
}

#[test]
fn pipelines() {
    run(&cases(), 40);
}
