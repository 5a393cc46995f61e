//! `Expect` (RFC 9110 section 10.1.1): S-27; CVE-2025-32094.

use super::{Case, refused, rejected, run, served, served_last};

fn post(expect: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\nExpect: {expect}\r\n{rest}")
}

const BODY: &str = "Content-Length: 3\r\n\r\nabc";

fn cases() -> Vec<Case> {
    let abc = &[("/", "abc")][..];
    let mut cases = vec![
        served("100-continue", post("100-continue", BODY), abc),
        served(
            "100-continue in another case",
            post("100-Continue", BODY),
            abc,
        ),
        served(
            "100-continue and chunks",
            post(
                "100-continue",
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            abc,
        ),
        served(
            "100-continue without a body",
            post("100-continue", "\r\n"),
            &[("/", "")],
        ),
        served(
            "100-continue with no length",
            post("100-continue", "Content-Length: 0\r\n\r\n"),
            &[("/", "")],
        ),
        served(
            "100-continue with GET",
            post("100-continue", BODY).replacen("POST", "GET", 1),
            abc,
        ),
        served_last(
            "100-continue over HTTP/1.0",
            post("100-continue", BODY).replacen("1.1", "1.0", 1),
            abc,
        ),
        refused(
            401,
            "100-continue for a protected path",
            post("100-continue", "Content-Length: 66\r\n\r\n").replacen("/ ", "/private ", 1),
        ),
        rejected("100-continue folded", post("100-continue\r\n x", BODY)),
        rejected(
            "100-continue folded at the beginning",
            post("\r\n 100-continue", BODY),
        ),
        rejected(
            "OPTIONS, folded",
            "OPTIONS / HTTP/1.1\r\nHost: x\r\nExpect:\r\n 100-continue\r\nContent-Length: 5\r\n\r\nabcde",
        ),
        served_last(
            "100-continue and both",
            post(
                "100-continue",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            &[("/", "")],
        ),
        rejected(
            "100-continue and a body that is cut",
            post("100-continue", "Content-Length: 1000\r\n\r\nabc"),
        ),
    ];
    for value in [
        "100",
        "200-ok",
        "continue",
        "100-continuex",
        "x100-continue",
        "100-continue, x",
        "x, 100-continue",
        "100 continue",
        "y100-continue",
        "101-continue",
        "100-continue;a=b",
        "\"100-continue\"",
        "100-continue\r\nExpect: x",
        "x\r\nExpect: 100-continue",
        "a=b",
        "",
    ] {
        cases.push(refused(417, format!("{value:?}"), post(value, BODY)));
    }
    cases
}

#[test]
fn expectations() {
    run(&cases(), 25);
}
