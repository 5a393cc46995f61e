//! Forwarding fields: who the client is, and that the next server, which trusts
//! us, comes to the same result from what we write.
//!
//! ```text
//! 10.0.0.0/8 fd00::/8        trusted networks
//! 10.0.0.1                   the peer; "unix" for a socket
//! X-Forwarded-For: 1.2.3.4   fields
//! ```

use std::net::{IpAddr, SocketAddr};

use cloakroom::wire::client::{
    Client, ConnInfo, ForwardingHeader, Trust, is_forwarding_field, remove_forwarding,
    write_forwarding,
};
use cloakroom::wire::target::Target;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::line;

pub fn run(input: &[u8]) {
    let (networks, rest) = line(input);
    let (peer, mut rest) = line(rest);
    let (Ok(networks), Ok(peer)) = (std::str::from_utf8(networks), std::str::from_utf8(peer))
    else {
        return;
    };
    let proxies: Result<Vec<_>, _> = networks.split_whitespace().map(str::parse).collect();
    let Ok(proxies) = proxies else {
        return;
    };
    let local: SocketAddr = ([127, 0, 0, 1], 80).into();
    let conn = match peer {
        "unix" => ConnInfo::over_unix(local, local),
        peer => match peer.parse::<IpAddr>() {
            Ok(ip) => ConnInfo::new((ip, 1234).into(), local, false),
            Err(_) => return,
        },
    };
    let mut headers = HeaderMap::new();
    while !rest.is_empty() {
        let (field, after) = line(rest);
        rest = after;
        let Some(at) = field.iter().position(|b| *b == b':') else {
            return;
        };
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&field[..at]),
            HeaderValue::from_bytes(field[at + 1..].trim_ascii()),
        ) else {
            return;
        };
        headers.append(name, value);
    }
    for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
        for host in [false, true] {
            let trust = Trust {
                proxies: proxies.clone(),
                unix: true,
                header,
                host,
            };
            resolved(&conn, &headers, &trust);
        }
    }
}

fn resolved(conn: &ConnInfo, headers: &HeaderMap, trust: &Trust) {
    let trusted_peer = conn.unix || trusts(trust, conn.peer.ip());
    let result = Client::resolve(conn, headers, trust);
    let Ok(client) = result else {
        assert!(trusted_peer, "a stranger's fields were read");
        return;
    };
    assert_eq!(client.ip, client.ip.to_canonical());
    let chain: Vec<IpAddr> = client
        .forwarded_for
        .iter()
        .flat_map(|chain| chain.split(", "))
        .map(|hop| hop.parse().expect("not an address"))
        .collect();
    let said = said(headers, trust);
    match chain.split_first() {
        None => {
            assert_eq!(client.ip, conn.peer.ip());
            assert!(client.forwarded_host.is_none() || trusted_peer);
        }
        Some((first, between)) => {
            assert!(trusted_peer, "a stranger's fields were read");
            assert_eq!(client.ip, *first);
            assert!(between.iter().all(|hop| trusts(trust, *hop)));
            // Nearer to the client there is nothing, or what hides itself.
            if trusts(trust, *first) {
                assert!(said.iter().all(|ip| trusts(trust, *ip)));
            }
            // In the order in which they were said, none left out.
            assert!(said.ends_with(&chain), "{said:?} walked as {chain:?}");
        }
    }

    let target = Target::from_parts("app.example.com", "/").expect("a fine target");
    let mut out = headers.clone();
    remove_forwarding(&mut out);
    assert!(!out.keys().any(is_forwarding_field));
    write_forwarding(&mut out, &client, conn, &target, trust);
    if conn.unix && client.forwarded_for.is_none() {
        // There is no address to tell.
        return;
    }

    // The next server trusts us, and whom we trust.
    let us: IpAddr = [192, 0, 2, 77].into();
    let mut next = trust.clone();
    next.proxies.push(us.into());
    if trusted_peer {
        next.proxies.push(conn.peer.ip().into());
    }
    let onward = ConnInfo::new((us, 4321).into(), conn.local, false);
    let again = Client::resolve(&onward, &out, &next).expect("our own fields cannot be read");
    let same_ip = again.ip == client.ip;
    // The test's own address may stand in a chain.
    assert!(
        same_ip || said.contains(&us),
        "{} became {}",
        client.ip,
        again.ip
    );
    assert_eq!(again.scheme, client.scheme);
    if trust.host {
        let host = |client: &Client| client.forwarded_host.clone();
        let shown = host(&client).unwrap_or(HeaderValue::from_static("app.example.com"));
        assert_eq!(host(&again), Some(shown));
    }
}

fn trusts(trust: &Trust, ip: IpAddr) -> bool {
    trust
        .proxies
        .iter()
        .any(|network| network.contains(&ip.to_canonical()))
}

/// Every address in the configured field that a plain reader understands, up to
/// the last thing that it does not.
fn said(headers: &HeaderMap, trust: &Trust) -> Vec<IpAddr> {
    let (name, forwarded) = match trust.header {
        ForwardingHeader::XForwardedFor => ("x-forwarded-for", false),
        ForwardingHeader::Forwarded => ("forwarded", true),
    };
    let mut found = Vec::new();
    for line in headers.get_all(name) {
        let text = String::from_utf8_lossy(line.as_bytes()).into_owned();
        let elements = match forwarded {
            true => split(&text, ','),
            false => text.split(',').map(str::to_owned).collect(),
        };
        for element in elements.iter().map(|e| e.trim()).filter(|e| !e.is_empty()) {
            let node = match forwarded {
                false => Some(element.to_owned()),
                true => split(element, ';').iter().find_map(|pair| {
                    let (name, value) = pair.split_once('=')?;
                    let value = value.trim().replace(['"', '\\'], "");
                    name.trim().eq_ignore_ascii_case("for").then_some(value)
                }),
            };
            match node.as_deref().and_then(address) {
                Some(ip) => found.push(ip),
                None => found.clear(),
            }
        }
    }
    found
}

/// Splits at a separator that does not stand in quotes.
fn split(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if c == at && !quoted {
            parts.push(String::new());
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        parts.last_mut().expect("never empty").push(c);
    }
    parts
}

fn address(text: &str) -> Option<IpAddr> {
    let text = match text.split_once(":_") {
        Some((text, _)) => text,
        None => text,
    };
    let text = text.trim();
    let ip: IpAddr = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((inside, _)) => inside.parse().ok()?,
        None => match text.parse() {
            Ok(ip) => ip,
            Err(_) => text.rsplit_once(':')?.0.parse().ok()?,
        },
    };
    Some(ip.to_canonical())
}
