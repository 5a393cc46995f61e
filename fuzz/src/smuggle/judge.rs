//! What the application may receive of a client's bytes.

use cloakroom::policy::Route;
use http::Method;

use super::Seen;
use crate::http1::{self, End, Manner, Request};
use crate::{contains, readings};

/// The requests that these bytes are, by the letter; and whether they are that to
/// the last byte.
pub(super) fn allowed(bytes: &[u8]) -> (Vec<Request>, bool) {
    let mut requests = Vec::new();
    let mut at = 0;
    loop {
        let Ok(request) = http1::request(&bytes[at..], Manner::Server) else {
            return (requests, false);
        };
        let (end, last) = (request.end, request.is_last());
        requests.push(request);
        match end {
            End::At(length) => at += length,
            End::Open | End::Broken(_) => return (requests, false),
        }
        if last {
            return (requests, at == bytes.len());
        }
    }
}

/// How many answers there are, interim ones not counted.
pub(super) fn finals(answered: &[u8], requests: &[Request]) -> usize {
    let mut at = 0;
    let mut count = 0;
    while at < answered.len() {
        let method = requests.get(count).map_or("GET", |r| r.method.as_str());
        let Some((status, length)) = http1::response(&answered[at..], method) else {
            // To something that is no request, without a body that was announced.
            break;
        };
        at += length;
        if status >= 200 {
            count += 1;
        }
    }
    count
}

/// Panics if the application received what nobody sent, or without a right to it.
pub(super) fn judge(seen: &Seen, routes: &[Route]) {
    let show = || http1::lossy(&seen.sent);
    assert_eq!(seen.log.malformed, [""; 0], "{}", show());
    let (requests, clean) = allowed(&seen.sent);
    let answers = finals(&seen.answered, &requests);
    let most = requests.len() + usize::from(!clean);
    assert!(answers <= most, "{answers} answers to {}", show());

    // Each is the first one behind the last that it can be: others may have been
    // refused that look the same, but had no right.
    let mut open = requests.iter();
    for received in &seen.log.requests {
        let mut why = String::new();
        let found = open.by_ref().any(|request| {
            is_of(received, request)
                && match check(received, request, &seen.session, routes) {
                    Ok(()) => true,
                    Err(reason) => {
                        why = reason;
                        false
                    }
                }
        });
        assert!(found, "nobody sent {received:?} {why}; sent: {}", show());
    }

    if seen.hurried {
        return;
    }
    // What is plain arrives, so that refusing everything is no way to pass. A
    // bare LF ends what is plain: the request it is in is refused.
    let mut at = 0;
    let plain = requests.iter().take_while(|request| {
        let End::At(length) = request.end else {
            return false;
        };
        let bytes = seen.sent.get(at..at + length).unwrap_or_default();
        at += length;
        !has_bare_lf(bytes) && is_plain(request)
    });
    for (request, received) in plain.zip(
        seen.log
            .requests
            .iter()
            .map(Some)
            .chain(std::iter::repeat(None)),
    ) {
        let arrived = received
            .is_some_and(|received| matches!(received.end, End::At(_)) && is_of(received, request));
        assert!(arrived, "{request:?} did not arrive; sent: {}", show());
    }
}

/// Whether an LF follows no CR among these bytes. One in a body counts too: so
/// much is not looked at.
fn has_bare_lf(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().any(|byte| {
        let bare = *byte == b'\n' && before != b'\r';
        before = *byte;
        bare
    })
}

/// Whether a request was sent as another: method, target and body are the same,
/// and it is not whole if the other is not.
fn is_of(received: &Request, sent: &Request) -> bool {
    let body = match (received.end, sent.end) {
        (End::At(_), End::At(_)) => received.body == sent.body,
        (End::At(_), _) => false,
        _ => sent.body.starts_with(&received.body),
    };
    body && received.method == sent.method && received.target == origin_form(&sent.target).1
}

/// Authority and path of a target. A fragment is nobody's business: it is not
/// forwarded.
fn origin_form(target: &str) -> (Option<String>, String) {
    let target = target.split('#').next().unwrap_or_default();
    let Some((_, rest)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return (None, target.to_owned());
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let slash = if path.starts_with('/') { "" } else { "/" };
    (Some(authority.to_owned()), format!("{slash}{path}"))
}

/// What has to hold, or why it does not.
macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}

/// Whether a request was sent as another, in all that matters; else why not.
fn check(
    received: &Request,
    sent: &Request,
    session: &str,
    routes: &[Route],
) -> Result<(), String> {
    let path = received.target.split('?').next().unwrap_or_default();
    let method = Method::from_bytes(received.method.as_bytes()).expect("a method");
    let meets =
        |path: &[u8], ignores_case| readings::meets(routes, "any", path, &method, ignores_case);
    let met = meets(path.as_bytes(), false);
    let all = readings::all(path.as_bytes()).unwrap_or_else(|| panic!("odd path {path:?}"));
    for reading in all {
        for ignores_case in [false, true] {
            ensure!(meets(&reading, ignores_case) == met, "{path:?}");
        }
    }

    let private = match met.as_slice() {
        [0] => false,
        [1] => true,
        _ => return Err(format!("{path:?} is not to be forwarded")),
    };
    let signed_in = sent
        .all("cookie")
        .any(|line| contains(line, session.as_bytes()));
    ensure!(signed_in || !private, "without session");
    let named = |name: &str| -> Vec<&[u8]> {
        let fields = received.fields.iter().chain(&received.trailers);
        fields
            .filter(|field| field.name.replace('_', "-") == name)
            .map(|field| field.value.as_slice())
            .collect()
    };
    let expected = |value: &'static [u8]| if private { vec![value] } else { vec![] };
    ensure!(named("x-user-id") == expected(b"u1"), "the user");
    ensure!(named("x-user-roles") == expected(b"admin"), "the roles");

    // Of the request's way, only what we say ourselves.
    ensure!(named("x-forwarded-for") == [b"127.0.0.1"], "the client");
    ensure!(named("x-forwarded-proto") == [b"http"], "the scheme");
    for none in ["forwarded", "x-real-ip", "x-forwarded-prefix", "expect"] {
        ensure!(named(none).is_empty(), "{none}");
    }
    // Of upgrades, only a WebSocket that was asked for.
    let asked = sent
        .all("upgrade")
        .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    match named("upgrade").as_slice() {
        [] => {}
        [b"websocket"] if asked => {}
        other => return Err(format!("upgrade to {other:?}")),
    }
    let hosts = named("host");
    ensure!(hosts.len() == 1, "hosts");
    let asked = match origin_form(&sent.target).0 {
        Some(authority) => Some(authority.into_bytes()),
        None => sent.all("host").next().map(<[u8]>::to_vec),
    };
    if let Some(asked) = asked {
        let asked = asked.strip_suffix(b":").unwrap_or(&asked);
        ensure!(asked.eq_ignore_ascii_case(hosts[0]), "the host");
    }
    for line in received.all("cookie") {
        let mut names = line
            .split(|b| *b == b';')
            .filter_map(|pair| Some(pair[..pair.iter().position(|b| *b == b'=')?].trim_ascii()));
        ensure!(!names.any(|name| name == b"sid"), "our cookie");
    }

    const OURS: [&str; 14] = [
        "upgrade",
        "host",
        "via",
        "x-request-id",
        "te",
        "connection",
        "content-length",
        "transfer-encoding",
        "cookie",
        "x-user-id",
        "x-user-roles",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
    ];
    for field in &received.fields {
        let ours = OURS.contains(&field.name.as_str());
        ensure!(ours || sent.fields.contains(field), "{field:?}");
    }
    for field in &received.trailers {
        ensure!(sent.trailers.contains(field), "{field:?}");
    }
    Ok(())
}

/// A request that nothing speaks against.
fn is_plain(request: &Request) -> bool {
    const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];
    const FIELDS: [&str; 5] = [
        "host",
        "content-length",
        "transfer-encoding",
        "accept",
        "x-a",
    ];
    let host = |host: &[u8]| !host.is_empty() && host.iter().all(u8::is_ascii_lowercase);
    let path = request.target.strip_prefix('/');
    let words = ["private", "denied", "auth", "early", "close"];
    matches!(request.end, End::At(_))
        && request.minor == 1
        && METHODS.contains(&request.method.as_str())
        && path.is_some_and(|p| p.bytes().all(|b| b.is_ascii_lowercase()) && p.len() < 100)
        && !words.contains(&path.unwrap_or_default())
        && request.fields.iter().all(|f| {
            FIELDS.contains(&f.name.as_str()) && f.value.len() < 100
                || f.name == "connection" && f.value == b"close" && request.target == "/last"
        })
        && request.fields.len() < 20
        && request.trailers.is_empty()
        && request.all("host").count() == 1
        && request.all("host").all(host)
}
