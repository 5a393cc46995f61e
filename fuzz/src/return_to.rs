//! Where a browser is sent after signing in: read as the WHATWG URL standard
//! says, it is our own origin or a host that is named.
//!
//! ```text
//! app.example.com         our own host, or empty
//! https                   our scheme
//! other.example.com       hosts that may be returned to
//! /path?query             the target
//! ```

use cloakroom::login::return_to::return_to;

use crate::text_line;

pub fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    let (own, rest) = text_line(input);
    let (scheme, rest) = text_line(rest);
    let (hosts, rd) = text_line(rest);
    let plain = |host: &str| {
        host.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b))
    };
    // As the configuration and requests give them.
    if !matches!(scheme, "http" | "https") || !plain(own) || !hosts.split(' ').all(plain) {
        return;
    }
    let own = (!own.is_empty()).then_some(own);
    let hosts: Vec<String> = hosts
        .split(' ')
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    let Some(target) = return_to(rd, own, scheme, &hosts) else {
        let harmless = rd.strip_prefix('/').is_some_and(|rest| {
            rest.bytes().all(|b| b.is_ascii_alphanumeric()) && rest.len() < 100
        });
        assert!(!harmless, "{rd:?} is refused");
        return;
    };
    assert!(
        target
            .bytes()
            .all(|b| b.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&b)),
        "{target:?} is no URI"
    );
    let base = own.unwrap_or("unknown.invalid");
    // Whatever a careless server in between decodes once more.
    let decoded = percent_encoding::percent_decode_str(&target).decode_utf8_lossy();
    for read in [target.as_str(), decoded.as_ref()] {
        let (to_scheme, to_host) = browse(read, scheme, base);
        let ours = to_scheme == scheme && same(&to_scheme, &to_host, base);
        let named = hosts.iter().any(|host| same(&to_scheme, &to_host, host));
        assert!(
            ours || named && matches!(&*to_scheme, "http" | "https"),
            "{rd:?} leads to {to_scheme}://{to_host} by {target:?}"
        );
    }
    // What was returned can be returned to.
    if target.len() < 2000 {
        assert_eq!(
            return_to(&target, own, scheme, &hosts).as_ref(),
            Some(&target)
        );
    }
}

fn same(scheme: &str, a: &str, b: &str) -> bool {
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = |h: &str| h.strip_suffix(usual).unwrap_or(h).to_owned();
    host(a) == host(b)
}

/// Scheme and host (with port, in lower case) that a browser on `base` goes to.
fn browse(url: &str, base_scheme: &str, base: &str) -> (String, String) {
    let url: String = url
        .trim_matches(|c| c <= ' ')
        .chars()
        .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
        .collect();
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme.to_ascii_lowercase()), rest),
        _ => (None, url.as_str()),
    };
    let special = scheme
        .as_deref()
        .is_none_or(|s| matches!(s, "http" | "https" | "ws" | "wss" | "ftp"));
    let rest = match special {
        // Up to query and fragment, but those begin after the host.
        true => rest.replace('\\', "/"),
        false => rest.to_owned(),
    };
    let absolute = match &scheme {
        Some(scheme) if special && scheme != base_scheme => true,
        Some(_) if special => rest.starts_with("//"),
        Some(_) => true,
        None => rest.starts_with("//"),
    };
    if !absolute {
        return (base_scheme.to_owned(), base.to_owned());
    }
    // Any number of slashes begins the host of a special URL.
    let authority = rest.trim_start_matches('/');
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let authority = &authority[..end];
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    (
        scheme.unwrap_or(base_scheme.to_owned()),
        host.to_ascii_lowercase(),
    )
}
