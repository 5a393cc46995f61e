//! Upstreams over TLS: what is spoken, and whom they are believed to be.

use http::Version;

use crate::harness::config::Config;
use crate::harness::http::Request;
use crate::harness::modern::{Manner, Modern};
use crate::harness::pki::Authority;

/// In front of a backend over TLS, whose authority is known.
fn config(backend: &Modern, authority: &Authority, url: &str) -> Config {
    Config::to(backend.addr())
        .set(
            "upstreams.app.urls",
            vec![url.replace("PORT", &backend.addr().port().to_string())],
        )
        .set("upstreams.app.tls.ca", "ca.pem")
        .file("ca.pem", authority.pem())
}

#[test]
fn the_upstream_chooses_the_version() {
    let authority = Authority::new();
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"][..], Version::HTTP_11),
        (&[][..], Version::HTTP_11),
    ] {
        let certified = authority.certify(&["localhost"]);
        let backend = Modern::start(Manner::tls(certified, protocols));
        let proxy = config(&backend, &authority, "https://localhost:PORT").start();
        let request = Request::get("/public/a?b=%20")
            .header("Host", "app.example.com")
            .header("TE", "trailers");
        for _ in 0..3 {
            let response = proxy.send(&request);
            assert_eq!((response.status, response.text().as_str()), (200, "fine"));
            assert_eq!(response.version, "HTTP/1.1");
        }
        let seen = backend.seen();
        assert_eq!(seen.len(), 3);
        for seen in seen {
            assert_eq!(seen.version, version);
            assert_eq!(seen.uri.path_and_query().unwrap(), "/public/a?b=%20");
            assert_eq!(seen.server_name.as_deref(), Some("localhost"));
            assert_eq!(seen.headers["te"], "trailers");
            assert!(!seen.certified);
            if version == Version::HTTP_2 {
                assert_eq!(seen.uri.scheme_str(), Some("https"));
                assert_eq!(seen.uri.authority().unwrap(), "app.example.com");
                assert!(!seen.headers.contains_key("host"));
                assert!(!seen.headers.contains_key("connection"));
            } else {
                assert_eq!(seen.headers["host"], "app.example.com");
            }
        }
    }
}

#[test]
fn a_certificate_that_proves_nothing_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let protocols = &["h2", "http/1.1"];
    let strange = Modern::start(Manner::tls(stranger.certify(&["localhost"]), protocols));
    let misnamed = Modern::start(Manner::tls(
        authority.certify(&["other.internal"]),
        protocols,
    ));
    for backend in [&strange, &misnamed] {
        let proxy = config(backend, &authority, "https://localhost:PORT").start();
        let response = proxy.get("/public");
        assert_eq!(response.status, 502);
        assert_eq!(
            response.refusal().as_deref(),
            Some("upstream_certificate_invalid")
        );
        let status = response.header("proxy-status").unwrap();
        assert!(status.contains("error=tls_certificate_error"), "{status}");
        assert!(backend.seen().is_empty());
    }
    let named = config(&misnamed, &authority, "https://localhost:PORT")
        .set("upstreams.app.tls.server_name", "other.internal")
        .start();
    assert_eq!(named.get("/public").status, 200);
    let seen = misnamed.seen();
    assert_eq!(seen[0].server_name.as_deref(), Some("other.internal"));
}

#[test]
fn the_own_certificate_is_shown_where_it_is_asked_for() {
    let authority = Authority::new();
    let manner = Manner {
        client_ca: Some(authority.pem().to_owned()),
        ..Manner::tls(authority.certify(&["127.0.0.1"]), &["h2"])
    };
    let backend = Modern::start(manner);
    let without = config(&backend, &authority, "https://127.0.0.1:PORT").start();
    assert_eq!(without.get("/public").status, 502);
    assert!(backend.seen().is_empty());

    let client = authority.certify(&["cloakroom.internal"]);
    let with = |key: &str| {
        config(&backend, &authority, "https://127.0.0.1:PORT")
            .set("upstreams.app.tls.client.cert", "client.pem")
            .set("upstreams.app.tls.client.key", "client-key.pem")
            .file("client.pem", client.cert.as_str())
            .file("client-key.pem", key)
    };
    assert_eq!(with(&client.key).start().get("/public").status, 200);
    assert!(backend.seen()[0].certified);

    let other_key = authority.certify(&["other"]).key;
    let refused = with(&other_key).check();
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(
        refused
            .text()
            .contains("the key belongs to the certificate"),
        "{}",
        refused.text()
    );
}

#[test]
fn what_is_no_tls_is_said_so() {
    let authority = Authority::new();
    let plain = Modern::start(Manner::default());
    let proxy = Config::to(plain.addr())
        .set(
            "upstreams.app.urls",
            vec![format!("https://127.0.0.1:{}", plain.addr().port())],
        )
        .set("upstreams.app.tls.ca", "ca.pem")
        .file("ca.pem", authority.pem())
        .start();
    let response = proxy.get("/public");
    assert_eq!(response.status, 502);
    assert_eq!(response.refusal().as_deref(), Some("upstream_tls_failed"));
}
