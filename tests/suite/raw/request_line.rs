//! The request line and its target (RFC 9112 section 3): S-2 to S-7, and what
//! is no HTTP/1 at all (S-38).

use super::{Case, refused, rejected, run, served};

const END: &str = "\r\nHost: x\r\n\r\n";

fn line(text: &str) -> String {
    format!("{text}{END}")
}

const VERSIONS: &[&str] = &[
    "HTTP/0.9",
    "HTTP/1.2",
    "HTTP/1.9",
    "HTTP/2.0",
    "HTTP/3.0",
    "HTTP/11",
    "HTTP/1",
    "HTTP/1.",
    "HTTP/.1",
    "HTTP/1.10",
    "HTTP/1.01",
    "HTTP/01.1",
    "HTTP/ 1.1",
    "HTTP /1.1",
    "HTTP/1,1",
    "HTTP/1.1x",
    "HTTP/1.1 ",
    "HTTP/1.1\t",
    "HTTP/1.1 HTTP/1.1",
    "HTTP/+1.1",
    "HTTP/1.-1",
    "HTTP/0x1.1",
    "http/1.1",
    "Http/1.1",
    "HTTPS/1.1",
    "ICY/1.1",
    "HTTP/\u{661}.1",
    "HTTP//1.1",
    "HTTP/1.1\0",
    "HTTP\\1.1",
];

const LINES: &[(&str, &str)] = &[
    ("two blanks before the target", "GET  / HTTP/1.1"),
    ("two blanks before the version", "GET /  HTTP/1.1"),
    ("tabs", "GET\t/\tHTTP/1.1"),
    ("a tab beside a blank", "GET / \tHTTP/1.1"),
    ("a blank in the target", "GET /a b HTTP/1.1"),
    ("a leading blank", " GET / HTTP/1.1"),
    ("a leading tab", "\tGET / HTTP/1.1"),
    ("vertical tabs", "GET\u{b}/\u{b}HTTP/1.1"),
    ("form feeds", "GET\u{c}/\u{c}HTTP/1.1"),
    ("no-break spaces", "GET\u{a0}/\u{a0}HTTP/1.1"),
    ("CR for a blank", "GET\r/\rHTTP/1.1"),
    ("no target", "GET HTTP/1.1"),
    ("an empty target", "GET  HTTP/1.1"),
    ("no blank", "GET/HTTP/1.1"),
    ("no blank before the target", "GET/ HTTP/1.1"),
    ("no version, a blank", "GET / "),
    ("no method", "/ HTTP/1.1"),
    ("a blank method", "  / HTTP/1.1"),
    ("only a method", "GET"),
    ("a bracket in the method", "G(T / HTTP/1.1"),
    ("a colon in the method", "GET: / HTTP/1.1"),
    ("an at sign in the method", "G@T / HTTP/1.1"),
    ("a quoted method", "\"GET\" / HTTP/1.1"),
    ("a method that is no ASCII", "G\u{c9}T / HTTP/1.1"),
    ("NUL in the method", "G\0T / HTTP/1.1"),
    ("DEL in the method", "G\u{7f}T / HTTP/1.1"),
    ("bare CR at the end", "GET / HTTP/1.1\r"),
    ("bare CR and a second line", "GET / HTTP/1.1\rX: y"),
    ("NUL after the line", "GET / HTTP/1.1\r\n\0"),
    ("a byte order mark", "\u{feff}GET / HTTP/1.1"),
    ("a status line", "HTTP/1.1 200 OK"),
];

const TARGETS: &[(&str, &str)] = &[
    ("authority-form", "x:80"),
    ("an asterisk", "*"),
    ("more than an asterisk", "*/x"),
    ("a relative path", "x"),
    ("a relative path with dots", "../x"),
    ("a query alone", "?x"),
    ("a fragment alone", "#"),
    ("a fragment", "/#x"),
    ("a fragment in the query", "/?a#b"),
    ("a user", "http://user@x/"),
    ("a user and a password", "http://user:pw@x/"),
    ("an empty user", "http://@x/"),
    ("quotes and angles in a query", "/?\"<>"),
    ("two at signs", "http://a@b@x/"),
    ("ftp", "ftp://x/"),
    ("ws", "ws://x/"),
    ("file", "file:///etc/passwd"),
    ("javascript", "javascript:alert(1)"),
    ("gopher", "gopher://x:70/_x"),
    ("a scheme without an authority", "http:/x"),
    ("a scheme without slashes", "http:x"),
    ("an empty authority", "http:///x"),
    ("nothing behind the slashes", "http://"),
    ("a port that is too large", "http://x:99999/"),
    ("a negative port", "http://x:-1/"),
    ("a signed port", "http://x:+80/"),
    ("a port with a letter", "http://x:8o/"),
    ("two ports", "http://x:80:80/"),
    ("a port without a host", "http://:80/"),
    ("an open bracket", "http://[::1/"),
    ("a bad address", "http://[::g]/"),
    ("a zone", "http://[fe80::1%25eth0]/"),
    ("text behind the address", "http://[::1]x/"),
    ("a backslash in the host", "http://x\\y/"),
    ("an escape in the host", "http://x%2ey/"),
    ("a list for a host", "http://x,y/"),
    ("dots for a host", "http://x..y/"),
    ("a fragment in the authority", "http://x#y/"),
    ("a quote in the host", "http://x'y/"),
    ("a control byte", "/a\u{1}b"),
    ("a vertical tab", "/a\u{b}b"),
    ("NUL", "/a\0b"),
    ("DEL", "/a\u{7f}b"),
    ("a tab", "/a\tb"),
    ("an escaped NUL", "/a%00b"),
    ("a twice escaped NUL", "/a%2500b"),
    ("a cut escape", "/a%"),
    ("a cut escape with a digit", "/a%2"),
    ("an escape that is none", "/a%zz"),
    ("a wide escape", "/%u0041"),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        let name = format!("version {version:?}");
        cases.push(rejected(name, line(&format!("GET / {version}"))));
    }
    for (name, text) in LINES {
        cases.push(rejected(*name, line(text)));
    }
    for (name, target) in TARGETS {
        let name = format!("target: {name}");
        cases.push(rejected(name, line(&format!("GET {target} HTTP/1.1"))));
    }
    let slash = "/".to_owned();
    cases.extend([
        rejected("HTTP/0.9", "GET /\r\n\r\n"),
        rejected("HTTP/0.9 with LF", "GET /\n"),
        refused(400, "bare LF", "GET / HTTP/1.1\nHost: x\r\n\r\n"),
        refused(400, "bare LF throughout", "GET / HTTP/1.1\nHost: x\n\n"),
        rejected("LF CR", "GET / HTTP/1.1\n\rHost: x\n\r\n\r"),
        refused(
            400,
            "LF at the beginning",
            format!("\n{}", line("GET / HTTP/1.1")),
        ),
        rejected(
            "CR at the beginning",
            format!("\r{}", line("GET / HTTP/1.1")),
        ),
        rejected(
            "blanks and CRLF at the beginning",
            format!("  \r\n{}", line("GET / HTTP/1.1")),
        ),
        served(
            "CRLF at the beginning",
            format!("\r\n{}", line("GET / HTTP/1.1")),
            &[("/", "")],
        ),
        rejected(
            "a target of 200 kB",
            line(&format!("GET /{} HTTP/1.1", "a".repeat(200_000))),
        ),
        rejected(
            "a query of 200 kB",
            line(&format!("GET /?{} HTTP/1.1", "a".repeat(200_000))),
        ),
        rejected(
            "a method of 200 kB",
            line(&format!("{} / HTTP/1.1", "A".repeat(200_000))),
        ),
        rejected(
            "a version of 200 kB",
            line(&format!("GET / HTTP/1.1{}", "1".repeat(200_000))),
        ),
        rejected(
            "bytes above 0x7f in the target",
            [b"GET /\xc0\xae HTTP/1.1", END.as_bytes()].concat(),
        ),
        rejected(
            "bytes above 0x7f in the host",
            [b"GET http://\xff/ HTTP/1.1", END.as_bytes()].concat(),
        ),
        rejected("200 kB without a line end", "A".repeat(200_000)),
        rejected("200 kB of empty lines", "\r\n".repeat(100_000)),
        rejected(
            "a preface that is broken",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ),
        rejected(
            "a preface in lower case",
            "pri * http/2.0\r\n\r\nsm\r\n\r\n",
        ),
        rejected("a preface with a Host", line("PRI * HTTP/2.0")),
        rejected("a preface of HTTP/1.1", line("PRI * HTTP/1.1")),
        rejected(
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ),
        rejected(
            "SSL 2",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\r\n\r\n",
        ),
        rejected(
            "PROXY version 1",
            format!(
                "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n{}",
                line("GET / HTTP/1.1")
            ),
        ),
        rejected(
            "PROXY unknown",
            format!("PROXY UNKNOWN\r\n{}", line("GET / HTTP/1.1")),
        ),
        rejected(
            "PROXY version 2",
            [
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
                line("GET / HTTP/1.1").as_bytes(),
            ]
            .concat(),
        ),
        rejected("SSH", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        rejected("SMTP", "EHLO x\r\nMAIL FROM:<x>\r\n\r\n"),
        rejected("Redis", "*1\r\n$4\r\nPING\r\n"),
        rejected("RTSP", "DESCRIBE rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        rejected(
            "SOCKS",
            b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01\0\x50\r\n\r\n",
        ),
        rejected("NULs", [0; 64]),
        served(
            "an absolute form",
            line("GET http://other.test/a?b HTTP/1.1"),
            &[("/a?b", "")],
        ),
        served(
            "an absolute form with a port",
            line("GET http://other.test:8080/ HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "an absolute form with an empty port",
            line("GET http://other.test:/ HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "an absolute form in upper case",
            line("GET HTTP://OTHER.test/ HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "an absolute form of https",
            line("GET https://other.test/ HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "an absolute form without a path",
            line("GET http://other.test HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "an absolute form with a query alone",
            line("GET http://other.test?a HTTP/1.1"),
            &[("/?a", "")],
        ),
        served(
            "an absolute form of an address",
            line("GET http://[::1]:80/ HTTP/1.1"),
            &[("/", "")],
        ),
        refused(
            401,
            "an absolute form of a protected path",
            line("GET http://x/private HTTP/1.1"),
        ),
        served(
            "a method of one's own",
            line("!$%&'*+-.^_`|~aZ9 / HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "a method in lower case",
            line("get / HTTP/1.1"),
            &[("/", "")],
        ),
        served(
            "a query with anything",
            line("GET /?a=%zz&b=http://[x]\\|^`{} HTTP/1.1"),
            &[("/?a=%zz&b=http://[x]\\|^`{}", "")],
        ),
        served(
            "a target of 8000 bytes",
            line(&format!("GET /{} HTTP/1.1", "a".repeat(8000))),
            &[(&(slash + &"a".repeat(8000)), "")],
        ),
    ]);
    cases
}

#[test]
fn request_lines() {
    run(&cases(), 140);
}
