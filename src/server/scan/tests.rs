use super::*;
use proptest::prelude::*;

/// The verdicts on the first `count` requests, with the bytes in pieces.
fn verdicts(bytes: &[u8], count: usize, piece: usize) -> (Vec<Option<Refusal>>, bool) {
    let mut scanner = Scanner::new();
    for piece in bytes.chunks(piece) {
        scanner.feed(piece);
    }
    let findings = scanner.findings();
    let verdicts = (0..count).map(|_| findings.next_request()).collect();
    (verdicts, scanner.between_messages())
}

fn expect(bytes: &str, wanted: &[Option<Refusal>], between: bool) {
    for piece in 1..=bytes.len() {
        assert_eq!(
            verdicts(bytes.as_bytes(), wanted.len(), piece),
            (wanted.to_vec(), between),
            "{bytes:?} in pieces of {piece}"
        );
    }
}

const TARGET: Option<Refusal> = Some(Refusal::BadRequestTarget);
const FRAMING: Option<Refusal> = Some(Refusal::BadFraming);

#[test]
fn a_fragment_is_seen_in_the_request_line_only() {
    expect("GET /a HTTP/1.1\r\nHost: #\r\n\r\n", &[None], true);
    expect("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", &[TARGET], true);
    expect("\r\nGET /a#b HTTP/1.1\r\n\r\n", &[TARGET], true);
    let long = format!("GET /{}#b HTTP/1.1\r\n\r\n", "x".repeat(300));
    expect(&long, &[TARGET], true);
}

#[test]
fn the_second_request_of_a_pipeline_is_told_from_the_first() {
    expect(
        "GET /a HTTP/1.1\r\n\r\nGET /b#c HTTP/1.1\r\n\r\n",
        &[None, TARGET],
        true,
    );
}

#[test]
fn bodies_are_not_read_as_requests() {
    expect(
        "POST / HTTP/1.1\r\ncontent-length: 14\r\n\r\nGET /#\r\nGET /#GET /#x HTTP/1.1\r\n\r\n",
        &[None, TARGET],
        true,
    );
    expect(
        "POST / HTTP/1.1\r\nTransfer-Encoding:  Chunked \r\n\r\n8;x=#\r\nGET /#\r\n\r\n0\r\nT: #\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        &[None, None],
        true,
    );
    // The length stands behind a long field that is cut.
    let long = format!(
        "POST / HTTP/1.1\r\nX: {}\r\nContent-Length: 3\r\n\r\nab\n",
        "y".repeat(200)
    );
    expect(&long, &[None], true);
}

#[test]
fn a_bare_lf_in_a_head_is_bad_framing() {
    expect("GET / HTTP/1.1\nHost: a\r\n\r\n", &[FRAMING], true);
    expect("GET / HTTP/1.1\r\nHost: a\n\r\n", &[FRAMING], true);
    expect("GET / HTTP/1.1\r\nHost: a\r\n\n", &[FRAMING], true);
    expect("\nGET / HTTP/1.1\r\n\r\n", &[FRAMING], true);
    let long = format!("GET / HTTP/1.1\r\nX: {}\n\r\n", "y".repeat(200));
    expect(&long, &[FRAMING], true);
}

#[test]
fn where_it_cannot_follow_it_is_blind() {
    for head in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ] {
        expect(&format!("{head}GET /#\r\n\r\n"), &[None, None], false);
    }
}

#[test]
fn a_request_with_content_is_followed_whatever_it_asks_for() {
    let chunked = "POST / HTTP/1.1\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    expect(
        &format!("{chunked}GET /# HTTP/1.1\r\n\r\n"),
        &[None, TARGET],
        true,
    );
    let sized = "POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nab";
    expect(
        &format!("{sized}GET /# HTTP/1.1\r\n\r\n"),
        &[None, TARGET],
        true,
    );
}

#[test]
fn a_length_that_is_hidden_by_its_own_is_bad_framing() {
    let zeros = format!("Content-Length: {}5", "0".repeat(400));
    let blanks = format!("Transfer-Encoding:{}chunked", " ".repeat(400));
    // It is refused, and with it the connection ends, wherever the scanner stands.
    for field in [zeros, blanks] {
        let head = format!("POST / HTTP/1.1\r\n{field}\r\n\r\n");
        for piece in 1..=head.len() {
            let (found, _) = verdicts(head.as_bytes(), 1, piece);
            assert_eq!(found, [FRAMING], "{head:?} in pieces of {piece}");
        }
    }
}

#[test]
fn zeros_before_a_size_hide_no_digits() {
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for zeros in [1, 127, 128, 129, 400] {
        let size = format!("{}5", "0".repeat(zeros));
        let body = format!("{size}\r\n\r\n\r\n#\r\n0\r\n\r\n");
        let next = "GET /#x HTTP/1.1\r\n\r\n";
        expect(&format!("{head}{body}{next}"), &[None, TARGET], true);
    }
}

/// RFC 9112 section 7.1.
#[test]
fn a_bare_lf_in_trailers_breaks_the_message() {
    let broken = |trailers: &str, piece: usize| {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
        let mut scanner = Scanner::new();
        for piece in format!("{head}{trailers}").as_bytes().chunks(piece) {
            scanner.feed(piece);
        }
        scanner.is_broken()
    };
    for piece in 1..60 {
        for trailers in ["\n", "x: y\n\r\n", "x: y\r\n\n"] {
            assert!(broken(trailers, piece), "{trailers:?}");
        }
        for trailers in ["\r\n", "x: y\r\n\r\n", "\r\nGET / HTTP/1.1\n"] {
            assert!(!broken(trailers, piece), "{trailers:?}");
        }
    }
}

#[test]
fn what_stands_before_a_broken_line_may_be_had() {
    let good = "GET /a HTTP/1.1\r\n\r\n\
        POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n";
    let bytes = format!("{good}x: y\n\r\nGET /b HTTP/1.1\r\n\r\n");
    for piece in 1..=bytes.len() {
        let mut scanner = Scanner::new();
        let had: usize = bytes
            .as_bytes()
            .chunks(piece)
            .map(|piece| scanner.feed(piece))
            .sum();
        // The beginning of the line is had where it came by itself.
        assert!(
            (good.len()..good.len() + 5).contains(&had),
            "{piece}: {had}"
        );
        assert!(scanner.is_broken());
        assert_eq!(scanner.feed(b"GET /c HTTP/1.1\r\n\r\n"), 0);
    }
}

/// The parser refuses such a line, so nothing behind it is looked at.
#[test]
fn a_size_that_is_none_is_not_followed() {
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for size in ["1\r9", "1;a\rb", "1 9", "1x", "\r", "1\r"] {
        let mut scanner = Scanner::new();
        let bytes = format!("{head}{size}\r\na\r\n0\r\nx: y\n\r\n");
        assert_eq!(scanner.feed(bytes.as_bytes()), bytes.len(), "{size:?}");
        assert!(!scanner.is_broken(), "{size:?}");
    }
}

#[test]
fn half_a_message_is_not_between_messages() {
    for bytes in [
        "GET",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        expect(bytes, &[None], false);
    }
}

proptest! {
    /// However the bytes are cut, the findings are the same.
    #[test]
    fn cuts_change_nothing(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("GET /a HTTP/1.1\r\n\r\n"), Just("GET /#b HTTP/1.1\r\n"), Just("\n"),
                Just("\r\n"), Just("content-length: 5\r\n"), Just("transfer-encoding: chunked\r\n"),
                Just("5\r\nabcde\r\n"), Just("0\r\n\r\n"), Just("x: y\r\n"), Just("#"), Just("POST / HTTP/1.1\r\n"),
            ],
            0..20,
        ),
        piece in 1usize..40,
    ) {
        let bytes = parts.concat().into_bytes();
        let whole = verdicts(&bytes, 10, usize::MAX);
        prop_assert_eq!(verdicts(&bytes, 10, piece), whole);
    }
}
