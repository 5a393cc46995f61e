//! Methods and upgrades (RFC 9110 sections 7.6.2, 7.8 and 9.3): S-3, S-22,
//! S-24, S-26; CVE-2025-64763, CVE-2026-71324, CVE-2026-2833.

use super::{Case, refused, rejected, run, served, served_last};

fn line(line: &str, lines: &str) -> String {
    format!("{line}\r\nHost: x\r\n{lines}\r\n")
}

fn cases() -> Vec<Case> {
    let root = &[("/", "")][..];
    let mut cases = Vec::new();
    for (name, text) in [
        ("CONNECT", "CONNECT x:443 HTTP/1.1"),
        ("CONNECT to an address", "CONNECT [::1]:443 HTTP/1.1"),
        ("CONNECT with a path", "CONNECT / HTTP/1.1"),
        (
            "CONNECT with an absolute form",
            "CONNECT http://x/ HTTP/1.1",
        ),
        ("CONNECT without a port", "CONNECT x HTTP/1.1"),
        ("CONNECT with an asterisk", "CONNECT * HTTP/1.1"),
        ("CONNECT with a user", "CONNECT u@x:443 HTTP/1.1"),
        ("CONNECT over HTTP/1.0", "CONNECT x:443 HTTP/1.0"),
        ("TRACE", "TRACE / HTTP/1.1"),
        ("TRACE of another path", "TRACE /private HTTP/1.1"),
        ("TRACE with an absolute form", "TRACE http://x/ HTTP/1.1"),
        ("TRACE with an asterisk", "TRACE * HTTP/1.1"),
        ("OPTIONS with more than an asterisk", "OPTIONS *x HTTP/1.1"),
        ("OPTIONS with two asterisks", "OPTIONS ** HTTP/1.1"),
        ("HEAD with an asterisk", "HEAD * HTTP/1.1"),
        ("PUT with an authority", "PUT x:80 HTTP/1.1"),
    ] {
        cases.push(rejected(name, line(text, "")));
        let with_body = line(text, "Content-Length: 3\r\n") + "abc";
        cases.push(rejected(format!("{name} and a body"), with_body));
    }
    cases.extend([
        refused(405, "TRACE is 405", line("TRACE / HTTP/1.1", "")),
        refused(
            405,
            "TRACE and Max-Forwards",
            line("TRACE / HTTP/1.1", "Max-Forwards: 0\r\n"),
        ),
        served(
            "trace is another method",
            line("trace / HTTP/1.1", ""),
            root,
        ),
        served("HEAD", line("HEAD / HTTP/1.1", ""), root),
        served(
            "HEAD with a body",
            line("HEAD / HTTP/1.1", "Content-Length: 3\r\n") + "abc",
            &[("/", "abc")],
        ),
        served("a POST without a body", line("POST / HTTP/1.1", ""), root),
        served(
            "a method override is a field",
            line("POST / HTTP/1.1", "X-HTTP-Method-Override: DELETE\r\n"),
            root,
        ),
        served(
            "Max-Forwards and GET",
            line("GET / HTTP/1.1", "Max-Forwards: 0\r\n"),
            root,
        ),
        refused(
            401,
            "a path override is a field",
            line(
                "GET /private HTTP/1.1",
                "X-Original-URL: /\r\nX-Rewrite-URL: /\r\nX-Forwarded-Uri: /\r\n",
            ),
        ),
    ]);
    for (name, lines) in [
        (
            "websocket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n",
        ),
        (
            "h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        (
            "h2c, not nominated",
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("TLS", "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n"),
        ("websocket, not nominated", "Upgrade: websocket\r\n"),
        ("nominated, but nothing", "Connection: upgrade\r\n"),
        ("an empty protocol", "Connection: upgrade\r\nUpgrade:\r\n"),
        (
            "a list",
            "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        ),
        (
            "two lines",
            "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        (
            "another case",
            "cOnNeCtIoN: UPGRADE\r\nuPgRaDe: WebSocket\r\n",
        ),
        (
            "a protocol of one's own",
            "Connection: upgrade\r\nUpgrade: evil/1\r\n",
        ),
        (
            "CONNECT's protocol",
            "Connection: upgrade\r\nUpgrade: connect-udp\r\n",
        ),
    ] {
        // The application does not switch, so what follows is a request.
        let last = line("GET /last HTTP/1.1", "Connection: close\r\n");
        let seen = [("/", ""), ("/last", "")];
        let bytes = line("GET / HTTP/1.1", lines) + &last;
        cases.push(served_last(format!("upgrade to {name}"), bytes, &seen));
        cases.push(refused(
            401,
            format!("upgrade to {name}, protected"),
            line("GET /private HTTP/1.1", lines),
        ));
        let with_body = line("POST / HTTP/1.1", &format!("{lines}Content-Length: 3\r\n")) + "abc";
        let name = format!("upgrade to {name} and a body");
        let seen = [("/", "abc"), ("/last", "")];
        cases.push(served_last(name, with_body + &last, &seen));
    }
    cases
}

#[test]
fn methods_and_upgrades() {
    run(&cases(), 60);
}
