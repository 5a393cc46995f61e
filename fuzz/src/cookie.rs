//! Cookies: what is stripped is gone, what is not ours stays byte for byte, and
//! only what was signed verifies.
//!
//! The first line is a `Set-Cookie` value, every other one a `Cookie` line.
//! `@SIGNED@` stands for a value that the second secret signed.

use std::sync::LazyLock;

use cloakroom::base::secret::Secret;
use cloakroom::wire::cookie::{CookieSpec, SameSite, Secure, decode, encode};
use cloakroom::wire::signature::{Signer, Verdict};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::{line, replace};

const NAMES: [&str; 3] = ["sid", "cloakroom.sid", "__Host-s"];
const SECRETS: [&str; 2] = [
    "the first secret of two, thirty-two bytes",
    "the second one, which only verifies cookies",
];

static SIGNERS: LazyLock<Vec<Signer>> =
    LazyLock::new(|| SECRETS.map(|s| Signer::new(&[Secret::new(s)])).into());
static BOTH: LazyLock<Signer> = LazyLock::new(|| Signer::new(&SECRETS.map(Secret::new)));

pub fn run(input: &[u8]) {
    let signed = encode(&SIGNERS[1].sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_"));
    let input = replace(input, b"@SIGNED@", signed.as_bytes());
    let (set_cookie, mut rest) = line(&input);
    let mut lines: Vec<&[u8]> = Vec::new();
    while !rest.is_empty() {
        let (first, after) = line(rest);
        lines.push(first);
        rest = after;
    }
    for name in NAMES {
        let spec = spec(name);
        sent_back(&spec, set_cookie);
        let mut headers = HeaderMap::new();
        for line in &lines {
            let Ok(value) = HeaderValue::from_bytes(line) else {
                return;
            };
            headers.append(COOKIE, value);
        }
        stripped(&spec, headers);
    }
    let text = String::from_utf8_lossy(&input);
    assert_eq!(decode(encode(&text).as_bytes()), text.as_bytes());
}

fn stripped(spec: &CookieSpec, headers: HeaderMap) {
    let name = spec.name.as_bytes();
    let before: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(|v| v.as_bytes())
        .collect();
    let found: Vec<&[u8]> = spec.values(&headers).collect();
    let plainly: Vec<&[u8]> = pairs(&before)
        .filter_map(|pair| value_of(pair, name))
        .collect();
    assert_eq!(found, plainly, "other values than a plain reader finds");
    for value in found {
        verified(&decode(value));
    }

    let mut left = headers.clone();
    spec.strip(&mut left);
    assert_eq!(spec.values(&left).count(), 0, "still there");
    let after: Vec<&[u8]> = left.get_all(COOKIE).iter().map(|v| v.as_bytes()).collect();
    let ours = |pair: &&[u8]| value_of(pair, name).is_some();
    assert!(!pairs(&after).any(|pair| ours(&pair)));
    let others = |lines: &[&[u8]]| -> Vec<Vec<u8>> {
        pairs(lines)
            .filter(|pair| !ours(pair))
            .map(|pair| pair.trim_ascii().to_vec())
            .filter(|pair| !pair.is_empty())
            .collect()
    };
    assert_eq!(others(&before), others(&after), "other cookies changed");
    assert!(after.len() <= 1 || after == before);
    if before.len() == 1 && !pairs(&before).any(|pair| ours(&pair)) {
        assert_eq!(before, after, "changed without need");
    }
    let mut again = left.clone();
    spec.strip(&mut again);
    assert_eq!(left, again, "stripping twice is another thing");
}

/// Only what a secret signed verifies, and then by that secret.
fn verified(decoded: &[u8]) {
    if let Verdict::Verified { token, secret } = BOTH.verify(decoded) {
        assert_eq!(SIGNERS[secret].sign(token).as_bytes(), decoded);
    }
}

/// A `Set-Cookie` that makes a browser send a cookie of our name is known as
/// ours.
fn sent_back(spec: &CookieSpec, set_cookie: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(set_cookie) else {
        return;
    };
    // RFC 6265bis sections 5.6 and 5.8.3.
    let pair = set_cookie.split(|b| *b == b';').next().unwrap_or_default();
    let sent = match pair.iter().position(|b| *b == b'=') {
        Some(at) => match (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()) {
            (b"", value) => value.to_vec(),
            (name, value) => [name, b"=", value].concat(),
        },
        None => pair.trim_ascii().to_vec(),
    };
    let ours = pairs(&[&sent]).any(|pair| value_of(pair, spec.name.as_bytes()).is_some());
    assert!(
        !ours || spec.is_ours_set_cookie(&value),
        "passes for another's"
    );
}

fn pairs<'a>(lines: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    lines.iter().flat_map(|line| line.split(|b| *b == b';'))
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = pair.iter().position(|b| *b == b'=')?;
    (pair[..at].trim_ascii() == name).then(|| pair[at + 1..].trim_ascii())
}

fn spec(name: &str) -> CookieSpec {
    CookieSpec {
        name: name.to_owned(),
        path: "/".to_owned(),
        domain: None,
        same_site: SameSite::Lax,
        secure: Secure::Auto,
        persistent: true,
        partitioned: false,
    }
}
