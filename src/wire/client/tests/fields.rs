//! Tests of the fields in which others are told who asks.

use super::*;

#[test]
fn forwarding_fields_are_written_anew() {
    let written = |peer: &str, lines: &[_], trust: &Trust| {
        let mut out = HeaderMap::new();
        let client = resolve(peer, lines, trust).unwrap();
        write_forwarding(
            &mut out,
            &client,
            &conn(peer),
            &target("app.example:81"),
            trust,
        );
        let text = |name| {
            out.get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        (
            text("x-forwarded-for"),
            text("x-forwarded-proto"),
            text("x-forwarded-host"),
            text("forwarded"),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    let lines = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-proto", "wss"),
    ];
    assert_eq!(
        written("192.0.2.1", &lines, &xff()),
        (
            some("192.0.2.1"),
            some("http"),
            some("app.example:81"),
            None
        )
    );
    assert_eq!(
        written("10.0.0.1", &lines, &xff()),
        (
            some("203.0.113.9, 10.0.0.1"),
            some("https"),
            some("app.example:81"),
            None
        )
    );
    let forwarded = trust(ForwardingHeader::Forwarded);
    let lines = [(
        "forwarded",
        "for=6.6.6.6, for=\"[2001:db8::5]\";proto=https, for=10.1.1.1",
    )];
    assert_eq!(
        written("10.0.0.1", &lines, &forwarded),
        (
            some("2001:db8::5, 10.1.1.1, 10.0.0.1"),
            some("https"),
            some("app.example:81"),
            some(
                "for=\"[2001:db8::5]\";host=\"app.example:81\";proto=https, for=10.1.1.1, for=10.0.0.1"
            ),
        )
    );
    assert_eq!(
        written("192.0.2.1", &lines, &forwarded).3,
        some("for=192.0.2.1;host=\"app.example:81\";proto=http")
    );
    let believing = Trust {
        host: true,
        ..xff()
    };
    let lines = [("x-forwarded-host", "public.example")];
    assert_eq!(
        written("10.0.0.1", &lines, &believing).2,
        some("public.example")
    );
    assert_eq!(
        written("192.0.2.1", &lines, &believing).2,
        some("app.example:81")
    );
}

/// CVE-2026-39858, CVE-2026-35051, CVE-2026-54764, CVE-2026-40575: the whole
/// family, in every spelling.
#[test]
fn cve_2026_39858_the_whole_family_is_known() {
    for name in [
        "X-Forwarded-For",
        "x_forwarded_proto",
        "X-Forwarded_Host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "X_FORWARDED_URI",
        "x-forwarded-method",
        "x-forwarded-ssl",
        "x-forwarded-scheme",
        "x-forwarded-by",
        "x-forwarded-anything",
        "x-forwarded",
        "X-Real-IP",
        "x_real_ip",
        "x-original-url",
        "x-original-uri",
        "x-original-method",
        "x-original-host",
        "x-rewrite-url",
        "Forwarded",
        "x-client-ip",
        "True-Client-IP",
        "true_client_ip",
        "x-cluster-client-ip",
        "client-ip",
    ] {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        assert!(is_forwarding_field(&name), "{name}");
        let mut headers = HeaderMap::new();
        headers.append(name, HeaderValue::from_static("1"));
        headers.append("accept", HeaderValue::from_static("*/*"));
        remove_forwarding(&mut headers);
        assert_eq!(headers.len(), 1);
    }
    for name in [
        "host",
        "x-forward",
        "x-requested-with",
        "xforwarded-for",
        "from",
        "te",
        "cookie",
        "x-originality",
    ] {
        assert!(
            !is_forwarding_field(&HeaderName::from_static(name)),
            "{name}"
        );
    }
}
