//! Exact bytes in, and what may become of them.
//!
//! Every case goes over a connection of its own through the real binary, once
//! with an end behind it (so nobody waits) and once without one (so it has to
//! end by itself). What is refused has a [`HIDDEN`] request behind it, what is
//! served a [`SYNC`] one: whoever loses the end of a message is found out.

mod chunked;
mod content_length;
mod expect;
mod fields;
mod host;
mod http2;
mod http2_flow;
mod http2_spec;
mod methods;
mod pipelining;
mod request_line;
mod transfer_encoding;
mod upstream;

use std::io::ErrorKind;

use crate::harness::backend::{Backend, Recorded, Reply};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::proxy::Proxy;

/// Must never be seen: behind the end of the message by one reading, inside it
/// by another, and with an identity that nobody has.
const HIDDEN: &str = "GET /private/hidden HTTP/1.1\r\nHost: x\r\nX-User-Id: root\r\n\r\n";

/// The next request on a connection that is still understood.
const SYNC: &str = "GET /sync HTTP/1.1\r\nHost: x\r\n\r\n";

/// What is sent, and what must happen.
struct Case {
    name: String,
    bytes: Vec<u8>,
    want: Want,
}

/// What must happen.
enum Want {
    /// An answer with this status, and nothing at the application.
    Refused(u16),
    /// Any 4xx or 5xx, or the end of the connection; nothing at the application.
    Rejected,
    /// The application sees just these, and then [`SYNC`].
    Served(Vec<Seen>),
    /// The application sees just these; then the connection ends.
    ServedLast(Vec<Seen>),
    /// The application sees just these; then there is one refusal, or the end.
    ServedThenRefused(Vec<Seen>),
}

/// The target and the body of a request at the application.
type Seen = (String, Vec<u8>);

fn refused(status: u16, name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Case {
    let bytes = [bytes.as_ref(), HIDDEN.as_bytes()].concat();
    let (name, want) = (name.into(), Want::Refused(status));
    Case { name, bytes, want }
}

fn rejected(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Case {
    Case {
        want: Want::Rejected,
        ..refused(0, name, bytes)
    }
}

fn served(name: impl Into<String>, bytes: impl AsRef<[u8]>, seen: &[(&str, &str)]) -> Case {
    Case {
        name: name.into(),
        bytes: [bytes.as_ref(), SYNC.as_bytes()].concat(),
        want: Want::Served(owned(seen)),
    }
}

fn served_last(name: impl Into<String>, bytes: impl AsRef<[u8]>, seen: &[(&str, &str)]) -> Case {
    Case {
        want: Want::ServedLast(owned(seen)),
        ..served(name, bytes, seen)
    }
}

fn owned(seen: &[(&str, &str)]) -> Vec<Seen> {
    let owned = |(target, body): &(&str, &str)| (target.to_string(), body.as_bytes().to_vec());
    seen.iter().map(owned).collect()
}

/// `/` is public and `/private` is not; the proxy gives up soon on what does
/// not come.
fn start(backend: &Backend) -> Proxy {
    let limits = "[server.limits]\nheader_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n\
                  body_idle_timeout = \"400ms\"\n";
    let routes = "[[routes]]\naccess = \"public\"\n[[routes]]\npath = \"/private\"\n";
    Config::to(backend.addr())
        .with(&format!("{limits}{routes}"))
        .start()
}

/// Runs a group of cases, of which there are at least so many.
fn run(cases: &[Case], least: usize) {
    assert!(cases.len() >= least, "there are only {} cases", cases.len());
    let backend = Backend::with(|_| Reply::status(200));
    let proxy = start(&backend);
    let mut failures = Vec::new();
    for case in cases {
        let mut client = Client::connect(proxy.addr());
        // Whoever refuses early may have closed before all is sent.
        let _ = client.try_send(&case.bytes);
        // Where the proxy has to close by itself, it is not helped.
        if !matches!(case.want, Want::ServedLast(_)) {
            client.finish();
        }
        let statuses = answers(&mut client, &case.bytes);
        let result = statuses.and_then(|statuses| judge(&case.want, &statuses, &backend));
        if let Err(why) = result {
            failures.push(format!("{}: {why}\n  {}", case.name, shown(&case.bytes)));
        }
        backend.clear();
        assert_eq!(proxy.get("/ordinary").status, 200, "after {}", case.name);
        backend.clear();
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    without_end(&proxy, &backend, cases);
}

/// All at once, and nobody says that no more comes.
fn without_end(proxy: &Proxy, backend: &Backend, cases: &[Case]) {
    let connect = |case: &Case| {
        let mut client = Client::connect(proxy.addr());
        let _ = client.try_send(&case.bytes);
        client
    };
    for some in cases.chunks(64) {
        let clients: Vec<_> = some.iter().map(connect).collect();
        for (case, mut client) in some.iter().zip(clients) {
            if let Err(why) = answers(&mut client, &case.bytes) {
                panic!("{}, without an end: {why}", case.name);
            }
        }
    }
    let requests = backend.requests();
    for request in &requests {
        well_formed(request).unwrap();
    }
    let most: usize = cases.iter().map(|case| case.want.most()).sum();
    let targets: Vec<_> = requests.iter().map(|r| &r.target).collect();
    assert!(requests.len() <= most, "more than {most}: {targets:?}");
    assert_eq!(backend.malformed(), Vec::<String>::new());
    assert_eq!(proxy.send(&Request::get("/ordinary")).status, 200);
}

impl Want {
    /// The most requests that the application may see.
    fn most(&self) -> usize {
        match self {
            Want::Refused(_) | Want::Rejected => 0,
            Want::ServedLast(seen) | Want::ServedThenRefused(seen) => seen.len(),
            Want::Served(seen) => seen.len() + 1,
        }
    }
}

/// The status of every answer, until the proxy closes.
fn answers(client: &mut Client, sent: &[u8]) -> Result<Vec<u16>, String> {
    let method = match sent.starts_with(b"HEAD") {
        true => "HEAD",
        false => "GET",
    };
    let mut statuses = Vec::new();
    loop {
        match client.try_read(method) {
            Ok(answer) => statuses.push(answer.status),
            Err(error) => match error.kind() {
                ErrorKind::InvalidData => return Err(format!("{error} after {statuses:?}")),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    return Err(format!("it does not end after {statuses:?}"));
                }
                _ => return Ok(statuses),
            },
        }
    }
}

fn judge(want: &Want, statuses: &[u16], backend: &Backend) -> Result<(), String> {
    let requests = backend.requests();
    let malformed = backend.malformed();
    if !malformed.is_empty() {
        return Err(format!("the application got {malformed:?}"));
    }
    requests.iter().try_for_each(well_formed)?;
    let seen = requests.into_iter().map(|r| (r.target, r.body.content));
    let seen: Vec<Seen> = seen.collect();
    let served = statuses.iter().take_while(|status| **status == 200).count();
    let refusals = statuses.get(served..).unwrap_or_default();
    let (expected, fine) = match want {
        Want::Refused(status) => (Vec::new(), refusals.first() == Some(status)),
        Want::Rejected => (Vec::new(), true),
        Want::ServedLast(seen) => (seen.clone(), refusals.is_empty()),
        Want::ServedThenRefused(seen) => (seen.clone(), refusals.len() <= 1),
        Want::Served(seen) => {
            let all = [seen.as_slice(), &owned(&[("/sync", "")])].concat();
            (all, refusals.is_empty())
        }
    };
    let refused = refusals.iter().all(|status| (400..600).contains(status));
    let fine = fine && refused && served == expected.len();
    match seen == expected && fine {
        true => Ok(()),
        false => {
            let seen: Vec<_> = seen.iter().map(|(t, b)| (t, shown(b))).collect();
            Err(format!("answered {statuses:?}, seen {seen:?}"))
        }
    }
}

/// What holds for each request at the application, whatever was sent.
fn well_formed(request: &Recorded) -> Result<(), String> {
    let bad = |what: &str| Err(format!("{what} in {}", shown(&request.raw())));
    if request.target.starts_with("/private") {
        return bad("a protected target");
    }
    let own_framing = request.head.request_framing().is_ok();
    if !own_framing || request.fields().all("host").len() != 1 {
        return bad("a doubtful head");
    }
    // A WebSocket may be asked for, in our words (tests/suite/websocket.rs).
    let websocket = request.fields().all("upgrade") == ["websocket"]
        && request.fields().all("connection") == ["upgrade"];
    let names = request.head.fields.names().into_iter();
    for name in names.chain(request.body.trailers.names()) {
        let folded = name.to_ascii_lowercase().replace('_', "-");
        if websocket && ["connection", "upgrade"].contains(&folded.as_str()) {
            continue;
        }
        if folded == "connection" && request.fields().all(name) == ["te"] {
            // Our own, with `TE: trailers` (RFC 9110 section 10.1.4).
            continue;
        }
        let of_the_connection = matches!(
            folded.as_str(),
            "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "http2-settings"
        );
        if folded.starts_with("x-user-") || of_the_connection {
            return bad(name);
        }
    }
    for name in request.body.trailers.names() {
        let folded = name.to_ascii_lowercase();
        let forbidden = [
            "host",
            "content-length",
            "transfer-encoding",
            "authorization",
            "cookie",
        ];
        if forbidden.contains(&folded.as_str()) || folded.starts_with("x-forwarded") {
            return bad("a forbidden trailer");
        }
    }
    Ok(())
}

/// The beginning of some bytes, for people.
fn shown(bytes: &[u8]) -> String {
    let beginning = &bytes[..bytes.len().min(160)];
    beginning.escape_ascii().to_string()
}
