//! Raw bytes at the edge of HTTP/1.1. Whatever comes, the application sees at
//! most the one request that was allowed, in framing of our own; what is
//! ambiguous is refused, and the connection closed.

use crate::harness::backend::{Backend, Recorded};
use crate::harness::config::Config;
use crate::harness::http::Client;
use crate::harness::proxy::Proxy;

/// `/` is public, `/admin` is not; the proxy gives up soon on what does not
/// come, so that every connection has an end.
fn start(backend: &Backend) -> Proxy {
    let limits = "[server.limits]\nheader_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n\
                  body_idle_timeout = \"400ms\"\n";
    let routes = "[[routes]]\naccess = \"public\"\n[[routes]]\npath = \"/admin\"\n";
    Config::to(backend.addr())
        .with(&format!("{limits}{routes}"))
        .start()
}

/// A request that must never be seen: behind the end of the one before it by
/// one reading, inside of its body by another.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends each on a connection of its own and gives what came back, until the
/// proxy closed.
fn answers(proxy: &Proxy, payloads: &[Vec<u8>]) -> Vec<String> {
    let mut clients: Vec<_> = payloads
        .iter()
        .map(|bytes| {
            let mut client = Client::connect(proxy.addr());
            // Whoever refuses early may have closed before all is sent.
            let _ = client.try_send(bytes);
            client
        })
        .collect();
    clients
        .iter_mut()
        .map(|client| String::from_utf8_lossy(&client.read_to_end()).into_owned())
        .collect()
}

fn statuses(answer: &str) -> Vec<u16> {
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1."))
        .filter_map(|line| line.get(2..5)?.parse().ok())
        .collect()
}

fn hidden(requests: &[Recorded]) -> bool {
    requests.iter().any(|r| r.target.contains("admin"))
}

/// RUSTSEC-2020-0008, 2021-0020, 2021-0078, 2021-0079, CVE-2021-38512,
/// CVE-2026-2835, CVE-2023-40225, CVE-2023-25725, CVE-2025-22871,
/// CVE-2025-32094; S-1, S-2, S-5 to S-10, S-12 to S-14, S-17, S-26.
#[test]
fn what_is_malformed_or_ambiguous_is_refused_and_never_forwarded() {
    let te = |value: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n{HIDDEN}")
    };
    let cl = |value: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {value}\r\n\r\n{HIDDEN}")
    };
    let line = |line: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n{HIDDEN}");
    let request = |text: &str| format!("{text}\r\nHost: x\r\n\r\n{HIDDEN}");
    let payloads: Vec<(&str, String)> = vec![
        ("unknown TE", te("xchunked")),
        ("TE list", te("gzip, chunked")),
        ("TE chunked first", te("chunked, gzip")),
        ("TE twice in one", te("chunked, chunked")),
        ("TE empty element", te(", chunked")),
        ("TE identity", te("identity")),
        ("TE quoted", te("\"chunked\"")),
        ("TE parameter", te("chunked;q=1")),
        ("TE vertical tab", te("\u{b}chunked")),
        ("TE empty", te("")),
        (
            "TE in two lines",
            te("chunked\r\nTransfer-Encoding: chunked"),
        ),
        (
            "TE in two lines, other",
            te("gzip\r\nTransfer-Encoding: chunked"),
        ),
        (
            "TE and TE identity",
            te("chunked\r\nTransfer-Encoding: identity"),
        ),
        (
            "TE in HTTP/1.0",
            te("chunked").replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost"),
        ),
        ("TE before a colon", line("Transfer-Encoding : chunked")),
        ("TE folded", te("\r\n chunked")),
        ("negative CL", cl("-1")),
        ("signed CL", cl("+5")),
        ("hex CL", cl("0x5")),
        ("empty CL", cl("")),
        ("CL with a comma", cl("5,")),
        ("CL list that differs", cl("5, 6")),
        ("CL that differs", cl("5\r\nContent-Length: 6")),
        ("CL that overflows", cl("99999999999999999999")),
        ("CL with a blank", cl("5 5")),
        ("CL with an underscore", cl("1_0")),
        ("CL with a letter", cl("5a")),
        ("CL exponent", cl("1e1")),
        ("CL before a colon", line("Content-Length : 5")),
        ("folded line", line("X-A: 1\r\n folded")),
        ("folded line with tab", line("X-A: 1\r\n\tfolded")),
        (
            "folded first line",
            "GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n".into(),
        ),
        ("bare CR", line("X-A: 1\rX-B: 2")),
        ("bare CR before LF", line("X-A: 1\r\r")),
        ("NUL in a value", line("X-A: a\0b")),
        ("NUL in a name", line("X\0A: b")),
        ("control byte", line("X-A: a\u{1}b")),
        ("empty name", line(": a")),
        ("no colon", line("nonsense")),
        ("blank in a name", line("X A: b")),
        ("name with brackets", line("X(A): b")),
        ("name that is no ASCII", line("X-Ä: b")),
        ("no Host", format!("GET / HTTP/1.1\r\n\r\n{HIDDEN}")),
        ("two Hosts", line("Host: y")),
        ("the same Host twice", line("host: x")),
        (
            "empty Host",
            request("GET / HTTP/1.1").replacen("Host: x", "Host:", 1),
        ),
        (
            "Host with a path",
            request("GET / HTTP/1.1").replacen("Host: x", "Host: x/y", 1),
        ),
        (
            "Host with a user",
            request("GET / HTTP/1.1").replacen("Host: x", "Host: u@x", 1),
        ),
        (
            "Host with a blank",
            request("GET / HTTP/1.1").replacen("Host: x", "Host: x y", 1),
        ),
        (
            "Host list",
            request("GET / HTTP/1.1").replacen("Host: x", "Host: x, y", 1),
        ),
        (
            "Host with a bad port",
            request("GET / HTTP/1.1").replacen("Host: x", "Host: x:99999", 1),
        ),
        ("HTTP/0.9", format!("GET /\r\n\r\n{HIDDEN}")),
        ("HTTP/0.9 with version", request("GET / HTTP/0.9")),
        ("HTTP/1.2", request("GET / HTTP/1.2")),
        ("HTTP/2.0", request("GET / HTTP/2.0")),
        ("HTTP/11", request("GET / HTTP/11")),
        ("HTTP/1.1x", request("GET / HTTP/1.1x")),
        ("http/1.1", request("GET / http/1.1")),
        ("two blanks", request("GET  / HTTP/1.1")),
        ("tab in the request line", request("GET\t/\tHTTP/1.1")),
        ("blank in the target", request("GET /a b HTTP/1.1")),
        ("leading blank", request(" GET / HTTP/1.1")),
        ("no method", request("/ HTTP/1.1")),
        ("bad method", request("G(T / HTTP/1.1")),
        ("CONNECT", request("CONNECT x:443 HTTP/1.1")),
        ("CONNECT with a path", request("CONNECT / HTTP/1.1")),
        ("TRACE", request("TRACE / HTTP/1.1")),
        ("authority-form", request("GET x:80 HTTP/1.1")),
        ("asterisk with GET", request("GET * HTTP/1.1")),
        ("target without slash", request("GET x HTTP/1.1")),
        (
            "user in the target",
            request("GET http://user:pw@x/ HTTP/1.1"),
        ),
        ("another scheme", request("GET ftp://x/ HTTP/1.1")),
        (
            "HTTP/2 preface, broken",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into(),
        ),
        (
            "TLS",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".into(),
        ),
        ("only a part", "GET / HTTP/1.1\r\nHost: x\r\n".into()),
    ];
    let backend = Backend::start();
    let proxy = start(&backend);
    let bytes: Vec<_> = payloads
        .iter()
        .map(|(_, p)| p.clone().into_bytes())
        .collect();
    for ((what, _), answer) in payloads.iter().zip(answers(&proxy, &bytes)) {
        let statuses = statuses(&answer);
        assert!(
            statuses.iter().all(|s| (400..600).contains(s)),
            "{what}: {answer}"
        );
        assert!(statuses.len() <= 2, "{what}: {answer}");
    }
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
    assert!(backend.malformed().is_empty());
    assert_eq!(proxy.get("/still-there").status, 200);
}

/// What has one meaning is served, the rest of the bytes is the next request,
/// and the application gets our framing.
#[test]
fn what_has_one_meaning_is_served_in_our_framing() {
    let chunked = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
            .into_bytes()
    };
    let backend = Backend::start();
    let proxy = start(&backend);
    for (what, payload, body) in [
        ("leading CRLF", b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), ""),
        ("equal CL", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc".to_vec(), "abc"),
        ("leading zeros", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 003\r\n\r\nabc".to_vec(), "abc"),
        ("GET with a body", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_vec(), "abc"),
        ("HTTP/1.0 without a length", b"POST / HTTP/1.0\r\nHost: x\r\n\r\n".to_vec(), ""),
        ("upper case", b"POST / HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(), "abc"),
        ("extension", chunked("3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n"), "abc"),
        ("zeros", chunked("0003\r\nabc\r\n000\r\n\r\n"), "abc"),
        ("absolute-form", b"GET http://other.test/ HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), ""),
    ] {
        let answer = answers(&proxy, &[payload]).remove(0);
        assert_eq!(statuses(&answer).first(), Some(&200), "{what}: {answer}");
        let arrived = backend.only_request();
        backend.clear();
        assert_eq!(arrived.body.content, body.as_bytes(), "{what}");
        let lengths = arrived.fields().all("content-length");
        let codings = arrived.fields().all("transfer-encoding");
        assert!(lengths.len() + codings.len() <= 1, "{what}");
        assert!(lengths.iter().all(|l| *l == body.len().to_string()), "{what} {lengths:?}");
        if what == "absolute-form" {
            // S-2: the target's host replaces the field.
            assert_eq!(arrived.header("host").as_deref(), Some("other.test"));
            assert_eq!(arrived.target, "/");
        }
    }
    assert!(backend.malformed().is_empty());
}

/// S-12: hyper lets Transfer-Encoding win over Content-Length, and closes
/// after the answer; a refusal is as good. The hidden request never exists.
#[test]
fn both_lengths_never_make_two_requests() {
    let backend = Backend::start();
    let proxy = start(&backend);
    let payloads: Vec<Vec<u8>> = [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n22\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
    ]
    .iter()
    .map(|head| format!("{head}{HIDDEN}").into_bytes())
    .collect();
    for answer in answers(&proxy, &payloads) {
        let statuses = statuses(&answer);
        assert!(statuses.len() <= 1, "two answers: {answer}");
        assert!(
            matches!(statuses.first(), None | Some(200 | 400 | 408)),
            "{answer}"
        );
    }
    let requests = backend.requests();
    assert!(!hidden(&requests), "{requests:#?}");
    assert!(requests.len() <= payloads.len());
    assert!(backend.malformed().is_empty());
}

/// S-17, CVE-2024-22019, CVE-2025-22871: a chunked body that is not one is
/// never passed on as if it were whole.
#[test]
fn a_broken_chunked_body_is_never_completed() {
    let huge_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000));
    let bodies = [
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n",
        "3\r\nab",
        &huge_extension,
    ];
    let backend = Backend::start();
    let proxy = start(&backend);
    let payloads: Vec<_> = bodies
        .iter()
        .map(|body| {
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{body}{HIDDEN}").into_bytes()
        })
        .collect();
    let answers = answers(&proxy, &payloads);
    for (body, answer) in bodies.iter().zip(answers) {
        let statuses = statuses(&answer);
        assert!(
            statuses.len() <= 1 && statuses.iter().all(|s| matches!(s, 400 | 408)),
            "{:?}: {answer}",
            &body[..body.len().min(40)]
        );
    }
    // The application may have seen a beginning, but no whole request.
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
}

/// S-19: a request whose client leaves in the middle is not completed.
#[test]
fn a_cut_request_is_never_forwarded_as_whole() {
    let backend = Backend::start();
    let proxy = start(&backend);
    for payload in [
        "POST /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
        "POST /cut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        "POST /cut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut client = Client::connect(proxy.addr());
        client.send(payload);
        client.finish();
        client.read_to_end();
    }
    assert_eq!(proxy.get("/next").status, 200);
    assert_eq!(backend.only_request().target, "/next");
}

/// S-24, CVE-2026-2833, CVE-2024-23326: an upgrade that the application does not
/// take up is no tunnel, and what follows is the next request. Only WebSocket
/// is asked for at all.
#[test]
fn an_upgrade_that_is_not_taken_up_is_no_tunnel() {
    let backend = Backend::start();
    let proxy = start(&backend);
    for upgrade in ["websocket", "h2c", "TLS/1.0"] {
        let payload = format!(
            "GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: eA==\r\n\r\n{HIDDEN}"
        );
        let answer = answers(&proxy, &[payload.into_bytes()]).remove(0);
        let statuses = statuses(&answer);
        assert!(!statuses.contains(&101), "{answer}");
        assert_ne!(statuses.get(1), Some(&200), "{answer}");
        for request in backend.requests() {
            assert_eq!(request.target, "/up");
            let asked = request.fields().all("upgrade");
            assert!(asked.is_empty() || asked == ["websocket"] && upgrade == "websocket");
            assert!(!request.fields().has("http2-settings"));
        }
        backend.clear();
    }
}
