//! Tests of who asks.

use http::{HeaderName, Method, Version};
use proptest::prelude::*;

use super::*;

mod fields;

fn trust(header: ForwardingHeader) -> Trust {
    Trust {
        proxies: vec![
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8:1::/48".parse().unwrap(),
        ],
        unix: false,
        header,
        host: false,
    }
}

fn xff() -> Trust {
    trust(ForwardingHeader::XForwardedFor)
}

fn conn(peer: &str) -> ConnInfo {
    ConnInfo::new(
        SocketAddr::new(peer.parse().unwrap(), 4000),
        "127.0.0.1:8080".parse().unwrap(),
        false,
    )
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn resolve(peer: &str, lines: &[(&'static str, &str)], trust: &Trust) -> Result<Client, Refusal> {
    Client::resolve(&conn(peer), &headers(lines), trust)
}

fn target(host: &str) -> Target {
    let headers = headers(&[("host", host)]);
    Target::parse(
        &Method::GET,
        &"/".parse().unwrap(),
        &headers,
        Version::HTTP_11,
    )
    .unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// CVE-2023-36456, CVE-2024-21494, CVE-2026-33495, CVE-2024-47070: what an
/// untrusted peer says is not even read.
#[test]
fn cve_2023_36456_untrusted_peers_speak_in_vain() {
    let lines = [
        ("x-forwarded-for", "garbage, 1.2.3.4"),
        ("x-forwarded-proto", "nonsense"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=1.2.3.4;proto=https"),
    ];
    for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
        let trust = Trust {
            host: true,
            ..trust(header)
        };
        let client = resolve("192.0.2.1", &lines, &trust).unwrap();
        assert_eq!(client.ip, ip("192.0.2.1"));
        assert_eq!(client.scheme, Scheme::Http);
        assert_eq!(client.forwarded_for, None);
        assert_eq!(client.forwarded_host, None);
    }
}

#[test]
fn the_chain_is_walked_from_the_right() {
    for (lines, client, chain) in [
        (&["203.0.113.9"][..], "203.0.113.9", "203.0.113.9"),
        (&["6.6.6.6, 203.0.113.9"], "203.0.113.9", "203.0.113.9"),
        (
            &["garbage, 203.0.113.9, 10.1.1.1"],
            "203.0.113.9",
            "203.0.113.9, 10.1.1.1",
        ),
        (
            &["6.6.6.6", "203.0.113.9 ,10.1.1.1", "10.2.2.2"],
            "203.0.113.9",
            "203.0.113.9, 10.1.1.1, 10.2.2.2",
        ),
        (&["10.1.1.1, 10.2.2.2"], "10.1.1.1", "10.1.1.1, 10.2.2.2"),
        (&["203.0.113.9:1234"], "203.0.113.9", "203.0.113.9"),
        (&["[2001:db8::5]:80"], "2001:db8::5", "2001:db8::5"),
        (&["[2001:db8::5]"], "2001:db8::5", "2001:db8::5"),
        (
            &["2001:db8::5, 2001:db8:1::1"],
            "2001:db8::5",
            "2001:db8::5, 2001:db8:1::1",
        ),
        (&[", 203.0.113.9 ,,"], "203.0.113.9", "203.0.113.9"),
    ] {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("x-forwarded-for", *line))
            .collect();
        let found = resolve("10.0.0.1", &lines, &xff()).unwrap();
        assert_eq!(found.ip, ip(client), "{lines:?}");
        assert_eq!(found.forwarded_for.as_deref(), Some(chain), "{lines:?}");
    }
    for lines in [&[][..], &[("x-forwarded-for", " ,")]] {
        let found = resolve("10.0.0.1", lines, &xff()).unwrap();
        assert_eq!((found.ip, found.forwarded_for), (ip("10.0.0.1"), None));
    }
}

#[test]
fn what_is_walked_must_be_readable() {
    for bad in [
        "garbage",
        "unknown",
        "1.2.3",
        "1.2.3.4, x",
        "10.1.1.1:x",
        "1.2.3.4:99999",
        "[::1",
        "::1]",
        "\u{e9}",
        "x, 10.1.1.1",
    ] {
        let result = resolve("10.0.0.1", &[("x-forwarded-for", bad)], &xff());
        assert_eq!(result, Err(Refusal::BadForwardingHeader), "{bad}");
    }
}

/// GHSA-7jmw-8259-q9jx: IPv4 in IPv6 clothes, as peer, in the chain and in the
/// result.
#[test]
fn ghsa_7jmw_mapped_addresses_are_ipv4() {
    assert!(xff().trusts(ip("::ffff:10.0.0.1")));
    assert!(!xff().trusts(ip("::ffff:11.0.0.1")));
    let lines = [("x-forwarded-for", "::ffff:203.0.113.9, ::ffff:10.1.1.1")];
    let client = resolve("::ffff:10.0.0.1", &lines, &xff()).unwrap();
    assert_eq!(client.ip, ip("203.0.113.9"));
    assert_eq!(
        client.forwarded_for.as_deref(),
        Some("203.0.113.9, 10.1.1.1")
    );
}

#[test]
fn the_scheme_is_that_of_the_same_hop() {
    for (chain, proto, expected) in [
        (None, "https", Scheme::Https),
        (Some("203.0.113.9"), "HTTPS", Scheme::Https),
        (Some("203.0.113.9"), "wss", Scheme::Https),
        (Some("203.0.113.9"), "ws", Scheme::Http),
        // The client's own claim stands to the left of what the proxy added.
        (Some("6.6.6.6, 203.0.113.9"), "https, http", Scheme::Http),
        (
            Some("6.6.6.6, 203.0.113.9"),
            "nonsense, https",
            Scheme::Https,
        ),
        (Some("203.0.113.9, 10.1.1.1"), "https, http", Scheme::Https),
        (Some("203.0.113.9, 10.1.1.1"), "https", Scheme::Https),
        (
            Some("203.0.113.9, 10.1.1.1, 10.2.2.2"),
            "https, http",
            Scheme::Https,
        ),
    ] {
        let mut lines = vec![("x-forwarded-proto", proto)];
        lines.extend(chain.map(|chain| ("x-forwarded-for", chain)));
        let client = resolve("10.0.0.1", &lines, &xff()).unwrap();
        assert_eq!(client.scheme, expected, "{chain:?} {proto}");
    }
    // CVE-2024-21499: no bytes of it go anywhere.
    for bad in ["ftp", "https://evil", "http\u{e9}", "http https"] {
        let result = resolve("10.0.0.1", &[("x-forwarded-proto", bad)], &xff());
        assert_eq!(result, Err(Refusal::BadForwardingHeader), "{bad}");
    }
}

#[test]
fn s41_forwarded() {
    let trust = trust(ForwardingHeader::Forwarded);
    for (lines, client, scheme) in [
        (
            &["for=203.0.113.9;proto=https"][..],
            "203.0.113.9",
            Scheme::Https,
        ),
        (
            &["For=\"203.0.113.9:80\"; PROTO=\"https\" ;by=_x"],
            "203.0.113.9",
            Scheme::Https,
        ),
        (&["for=\"[2001:db8::5]:80\""], "2001:db8::5", Scheme::Http),
        (&["for=203.0.113.9:80"], "203.0.113.9", Scheme::Http),
        (&["for=\"203.0.113.9:_port\""], "203.0.113.9", Scheme::Http),
        (
            &["for=6.6.6.6;proto=https, for=203.0.113.9;proto=http"],
            "203.0.113.9",
            Scheme::Http,
        ),
        (
            &["for=203.0.113.9;proto=https", "for=10.1.1.1;proto=http"],
            "203.0.113.9",
            Scheme::Https,
        ),
        (
            &["for=6.6.6.6, for=unknown;proto=https, for=10.1.1.1"],
            "10.1.1.1",
            Scheme::Https,
        ),
        (&["for=6.6.6.6, for=_hidden"], "10.0.0.1", Scheme::Http),
        (&["for=6.6.6.6, proto=https"], "10.0.0.1", Scheme::Https),
        (
            &["for=\"6.6.6.6, x\";a=\"\\\"\", for=203.0.113.9"],
            "203.0.113.9",
            Scheme::Http,
        ),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        let found = resolve("10.0.0.1", &lines, &trust).unwrap();
        assert_eq!((found.ip, found.scheme), (ip(client), scheme), "{lines:?}");
    }
    for bad in [
        "for=garbage",
        "for",
        "=x",
        "for=1.2.3.4;for=1.2.3.4",
        "for=\"1.2.3.4",
        "for=\"1.2.3.4\"x",
        "for=1.2.3.4;proto=ftp",
        "for=1.2.3.4;x=\", for=203.0.113.9",
        "for=1.2.3.4;host=\"a b\"",
        "for=",
        "for=6.6.6.6;x=\", for=\"[2001:db8::5]\"",
    ] {
        let result = resolve("10.0.0.1", &[("forwarded", bad)], &trust);
        assert_eq!(result, Err(Refusal::BadForwardingHeader), "{bad}");
    }
    // The other family is not read.
    let lines = [
        ("x-forwarded-for", "garbage"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(
        resolve("10.0.0.1", &lines, &trust).unwrap().scheme,
        Scheme::Http
    );
}

#[test]
fn a_unix_peer_is_trusted_if_told_so() {
    let conn = ConnInfo::over_unix(
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
    );
    let headers = headers(&[("x-forwarded-for", "203.0.113.9")]);
    let resolve = |unix| Client::resolve(&conn, &headers, &Trust { unix, ..xff() }).unwrap();
    assert_eq!(resolve(true).ip, ip("203.0.113.9"));
    assert_eq!(resolve(false).ip, ip("127.0.0.1"));
    let mut out = HeaderMap::new();
    write_forwarding(&mut out, &resolve(true), &conn, &target("a"), &xff());
    assert_eq!(out["x-forwarded-for"], "203.0.113.9");
    out.clear();
    write_forwarding(&mut out, &resolve(false), &conn, &target("a"), &xff());
    assert!(!out.contains_key("x-forwarded-for"));
}

/// S-48 and section 4: TLS here, or the word of a trusted peer, or the public
/// URL.
#[test]
fn s48_what_is_secure() {
    let https = Origin::parse("https://app.example").unwrap();
    let plain = resolve("192.0.2.1", &[("x-forwarded-proto", "https")], &xff()).unwrap();
    assert!(!plain.secure(None));
    assert!(!plain.secure(Origin::parse("http://app.example").as_ref()));
    assert!(plain.secure(Some(&https)));
    let told = resolve("10.0.0.1", &[("x-forwarded-proto", "https")], &xff()).unwrap();
    assert!(told.secure(None));
    let tls = ConnInfo::new(
        "192.0.2.1:1".parse().unwrap(),
        "127.0.0.1:1".parse().unwrap(),
        true,
    );
    assert!(
        Client::resolve(&tls, &HeaderMap::new(), &xff())
            .unwrap()
            .secure(None)
    );
}

#[test]
fn our_own_origin() {
    let lines = [
        ("x-forwarded-host", "Public.example:8443"),
        ("x-forwarded-proto", "https"),
    ];
    let own = |peer, trust: &Trust, public: Option<&Origin>| {
        let client = resolve(peer, &lines, trust).unwrap();
        client
            .own_origin(&target("In.example:8080"), public)
            .unwrap()
            .to_string()
    };
    let believing = Trust {
        host: true,
        ..xff()
    };
    assert_eq!(own("192.0.2.1", &believing, None), "http://in.example:8080");
    assert_eq!(own("10.0.0.1", &xff(), None), "https://in.example:8080");
    assert_eq!(
        own("10.0.0.1", &believing, None),
        "https://public.example:8443"
    );
    let public = Origin::parse("https://app.example").unwrap();
    assert_eq!(
        own("10.0.0.1", &believing, Some(&public)),
        "https://app.example"
    );
    let bad = resolve("10.0.0.1", &[("x-forwarded-host", "a b")], &believing);
    assert_eq!(bad, Err(Refusal::BadForwardingHeader));
    assert!(resolve("10.0.0.1", &[("x-forwarded-host", "a b")], &xff()).is_ok());
}

#[test]
fn origins_are_read_as_browsers_write_them() {
    for text in [
        "https://app.example",
        "http://localhost:3000",
        "https://[::1]:8443",
    ] {
        assert_eq!(Origin::parse(text).unwrap().to_string(), text);
    }
    for bad in [
        "null",
        "",
        "app.example",
        "https://",
        "https://a/",
        "https://a:",
        "https://u@a",
        "HTTPS://a",
        "https://A",
        "ftp://a",
        "https://a b",
        "https://a,https://b",
        "https://a:x",
        "https://*.a",
    ] {
        assert!(Origin::parse(bad).is_none(), "{bad}");
    }
    let plain = Origin::parse("https://a").unwrap();
    assert_eq!(plain, Origin::parse("https://a:443").unwrap());
    assert!(plain.is("https://a:443") && plain.is("https://a"));
    for other in [
        "http://a",
        "https://b",
        "https://a:444",
        "https://a.b",
        "null",
        "https://A",
    ] {
        assert!(!plain.is(other), "{other}");
    }
}

proptest! {
    #[test]
    fn resolving_never_panics(chain in "\\PC{0,40}", proto in "\\PC{0,8}", forwarded in "[forhst=\";, 1.:\\[\\]\\\\_-]{0,40}") {
        let mut map = HeaderMap::new();
        for (name, text) in [("x-forwarded-for", &chain), ("x-forwarded-proto", &proto), ("forwarded", &forwarded)] {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                map.append(name, value);
            }
        }
        for header in [ForwardingHeader::XForwardedFor, ForwardingHeader::Forwarded] {
            let trust = Trust { host: true, ..trust(header) };
            if let Ok(client) = Client::resolve(&conn("10.0.0.1"), &map, &trust) {
                let mut out = HeaderMap::new();
                write_forwarding(&mut out, &client, &conn("10.0.0.1"), &target("a"), &trust);
                prop_assert!(out.contains_key("x-forwarded-for"));
            }
        }
    }
}
