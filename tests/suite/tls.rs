//! `server.tls`: certificates, versions, protocols, reloads, and the listener
//! that sends clients to https.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::harness::backend::{Answer, Backend};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::tls::{self, Authority, Issued};
use crate::harness::{PATIENCE, eventually};

fn with(config: Config, number: usize, issued: &Issued) -> Config {
    config
        .file(&format!("tls/{number}.pem"), issued.cert.as_str())
        .file(&format!("tls/{number}.key"), issued.key.as_str())
}

/// A proxy's configuration with these certificates.
fn config(backend: &Backend, issued: &[&Issued]) -> Config {
    let pairs: Vec<_> = (0..issued.len())
        .map(|n| format!("{{ cert = \"tls/{n}.pem\", key = \"tls/{n}.key\" }}"))
        .collect();
    let section = format!("server.tls.certificates = [{}]", pairs.join(", "));
    let config = Config::to(backend.addr()).with(&section);
    let numbered = issued.iter().enumerate();
    numbered.fold(config, |config, (n, one)| with(config, n, one))
}

#[test]
fn names_pick_the_certificate() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issue = |names: &[&str]| authority.issue(names, 2090);
    let (first, second) = (issue(&["a.example"]), issue(&["b.example", "*.c.example"]));
    let proxy = config(&backend, &[&first, &second]).start();
    let client = Arc::new(authority.client(None));
    for (name, wanted) in [
        ("a.example", &first),
        ("b.example", &second),
        ("x.c.example", &second),
    ] {
        let mut connection = tls::connect(&client, name, proxy.addr()).unwrap();
        assert_eq!(tls::shown(&mut connection), tls::der(wanted), "{name}");
        assert_eq!(connection.request(&Request::get("/public")).status, 200);
    }
    let error = tls::connect(&client, "other.example", proxy.addr()).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("not valid for name"), "{error}");

    let sent = backend.requests();
    assert_eq!(
        sent[0].header("x-forwarded-proto").as_deref(),
        Some("https")
    );
    let metrics = proxy.admin_get("/metrics").text();
    for number in 0..2 {
        let line = format!(
            "cloakroom_certificate_expiry_timestamp_seconds{{certificate=\"{number}\"}} 3818361600"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn the_cookie_is_secure_and_a_session_lives_on_h1_and_h2() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"], 2090);
    let proxy = config(&backend, &[&issued])
        .file("ca.pem", authority.pem())
        .set("server.tls.hsts", "365d")
        .start();
    let jar = proxy.folder().join("jar");
    let curl = |protocol: &str, path: &str, more: &[&str]| {
        let url = format!("https://localhost:{}{path}", proxy.addr().port());
        let resolve = format!("localhost:{}:127.0.0.1", proxy.addr().port());
        let output = Command::new("curl")
            .args(["-sS", "-i", protocol, "--resolve", &resolve, "--cacert"])
            .arg(proxy.folder().join("ca.pem"))
            .args([
                "-b".as_ref(),
                jar.as_os_str(),
                "-c".as_ref(),
                jar.as_os_str(),
            ])
            .args(more)
            .arg(url)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
    };
    let person = &crate::harness::users::ALICE;
    let body = serde_json::json!({ "username": person.name, "password": person.password });
    let body = body.to_string();
    let json = ["-H", "content-type: application/json", "-d", &body];
    let answer = curl("--http2", "/auth/login", &json);
    assert!(answer.starts_with("http/2 200"), "{answer}");
    assert!(answer.contains("; secure"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000"));
    for (protocol, status) in [("--http1.1", "http/1.1 200"), ("--http2", "http/2 200")] {
        let answer = curl(protocol, "/", &[]);
        assert!(answer.starts_with(status), "{answer}");
        let hsts = answer.matches("strict-transport-security").count();
        assert_eq!(hsts, 1, "{answer}");
    }
    // Also on refusals.
    let answer = curl("--http2", "/denied", &[]);
    assert!(answer.starts_with("http/2 403"), "{answer}");
    assert!(answer.contains("strict-transport-security"), "{answer}");
}

#[test]
fn the_application_s_own_hsts_is_kept() {
    let backend = Backend::with(|_| {
        Answer::new(200)
            .header("strict-transport-security", "max-age=7")
            .into()
    });
    let authority = Authority::new();
    let issued = authority.issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.tls.hsts", "1d")
        .start();
    let client = Arc::new(authority.client(None));
    let mut connection = tls::connect(&client, "a.example", proxy.addr()).unwrap();
    let answer = connection.request(&Request::get("/public"));
    let sent = answer.fields().all("strict-transport-security");
    assert_eq!(sent, ["max-age=7"]);
}

#[test]
fn versions_and_protocols_are_those_of_the_configuration() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issued = authority.issue(&["a.example"], 2090);
    let offer = |version: &'static rustls::SupportedProtocolVersion, alpn: &[&[u8]]| {
        let mut config = ClientConfig::builder_with_provider(cloakroom::base::crypto::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    let spoken = |proxy: &crate::harness::proxy::Proxy, config| {
        let mut client = tls::connect(&config, "a.example", proxy.addr()).ok()?;
        let conn = &client.stream().conn;
        Some((
            conn.protocol_version(),
            conn.alpn_protocol().map(<[u8]>::to_vec),
        ))
    };
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let (h1, h2) = (Some(b"http/1.1".to_vec()), Some(b"h2".to_vec()));

    let proxy = config(&backend, &[&issued]).start();
    let version = |v| Some(v);
    use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
    assert_eq!(
        spoken(&proxy, offer(tls12, both)),
        Some((version(TLSv1_2), h2.clone()))
    );
    assert_eq!(
        spoken(&proxy, offer(tls13, both)),
        Some((version(TLSv1_3), h2))
    );
    assert_eq!(
        spoken(&proxy, offer(tls13, &[])),
        Some((version(TLSv1_3), None))
    );
    assert_eq!(spoken(&proxy, offer(tls13, &[b"spdy/3"])), None);

    let proxy = config(&backend, &[&issued])
        .set("server.tls.min_version", "1.3")
        .set("server.http2", false)
        .start();
    assert_eq!(spoken(&proxy, offer(tls12, both)), None);
    assert_eq!(
        spoken(&proxy, offer(tls13, both)),
        Some((version(TLSv1_3), h1))
    );
}

#[test]
fn a_session_is_resumed_whichever_worker_answers() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issued = authority.issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.workers", 4)
        .start();
    let client = Arc::new(authority.client(None));
    let mut resumed = 0;
    for _ in 0..12 {
        let mut connection = tls::connect(&client, "a.example", proxy.addr()).unwrap();
        // Tickets come after the handshake, with the first answer.
        assert_eq!(connection.request(&Request::get("/public")).status, 200);
        let kind = connection.stream().conn.handshake_kind();
        resumed += usize::from(kind == Some(rustls::HandshakeKind::Resumed));
    }
    assert_eq!(resumed, 11);
}

#[test]
fn clients_must_show_a_certificate_of_the_authority() {
    let backend = Backend::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let issued = authority.issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .file("tls/clients.pem", clients.pem())
        .set("server.tls.client_ca", "tls/clients.pem")
        .start();
    let ask = |own: Option<&Issued>| {
        let config = Arc::new(authority.client(own));
        let mut client = tls::connect(&config, "a.example", proxy.addr()).ok()?;
        client
            .try_send(Request::get("/public").bytes("a.example"))
            .ok()?;
        client.try_read("GET").ok().map(|response| response.status)
    };
    assert_eq!(ask(Some(&clients.issue(&["me"], 2090))), Some(200));
    assert_eq!(ask(None), None);
    assert_eq!(ask(Some(&authority.issue(&["me"], 2090))), None);
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn new_certificates_are_taken_while_connections_live() {
    let backend = Backend::start();
    let authority = Authority::new();
    let (old, new) = (
        authority.issue(&["a.example"], 2090),
        authority.issue(&["a.example"], 2091),
    );
    let proxy = config(&backend, &[&old]).start();
    let client = Arc::new(authority.client(None));
    let shown = || {
        let mut connection = tls::connect(&client, "a.example", proxy.addr()).unwrap();
        tls::shown(&mut connection)
    };
    let mut living = tls::connect(&client, "a.example", proxy.addr()).unwrap();
    assert_eq!(shown(), tls::der(&old));

    // Half of a change, which stays: the old one goes on, and it is said.
    let at = |name: &str| proxy.folder().join(name);
    std::fs::write(at("tls/0.pem"), &new.cert).unwrap();
    proxy.output().wait_for_json(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("does not belong to the certificate")
    });
    assert_eq!(shown(), tls::der(&old));
    let metrics = proxy.admin_get("/metrics").text();
    assert!(metrics.contains("cloakroom_certificate_reload_failures_total 1"));

    std::fs::write(at("tls/0.key"), &new.key).unwrap();
    eventually("the new certificate", || {
        (shown() == tls::der(&new)).then_some(())
    });
    assert_eq!(living.request(&Request::get("/public")).status, 200);
    let metrics = proxy.admin_get("/metrics").text();
    assert!(
        metrics.contains("certificate=\"0\"} 3849897600"),
        "{metrics}"
    );
}

#[test]
fn a_silent_or_slow_handshake_ends() {
    let backend = Backend::start();
    let issued = Authority::new().issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.limits.header_timeout", "300ms")
        .start();
    assert!(Client::connect(proxy.addr()).is_closed());
    let mut slow = Client::connect(proxy.addr());
    slow.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    assert!(slow.is_closed());
    // Plaintext is no handshake.
    let mut plain = TcpStream::connect(proxy.addr()).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain
        .write_all(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"));
    eventually("the failure to be counted", || {
        let metrics = proxy.admin_get("/metrics").text();
        let line = "cloakroom_tls_handshake_failures_total 1";
        metrics.contains(line).then_some(())
    });
}

/// RUSTSEC-2024-0399.
#[test]
fn a_client_hello_in_single_bytes_is_understood() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issued = authority.issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued]).start();
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let config = Arc::new(authority.client(None));
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let mut socket = TcpStream::connect(proxy.addr()).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in hello {
        socket.write_all(&[byte]).unwrap();
    }
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
}

#[test]
fn plain_http_is_sent_to_https() {
    let backend = Backend::start();
    let issued = Authority::new().issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.tls.redirect_http", "127.0.0.1:0")
        .start();
    let send = |request: Request| request.send(proxy.redirect());
    let request = Request::get("/a?b=c").header("host", "a.example:8080");
    let answer = send(request.header("cookie", "cloakroom.sid=x"));
    assert_eq!(answer.status, 308);
    let place = format!("https://a.example:{}/a?b=c", proxy.addr().port());
    assert_eq!(answer.header("location"), Some(place));
    assert!(answer.set_cookies().is_empty());
    let answer = send(Request::post("/auth/login").header("host", "a.example"));
    assert_eq!(
        (answer.status, answer.refusal().as_deref()),
        (403, Some("https_required"))
    );
    let answer = send(Request::get("/").header("host", "a.example/@evil"));
    assert_eq!(
        (answer.status, answer.refusal().as_deref()),
        (400, Some("bad_host"))
    );
    let mut client = Client::connect(proxy.redirect());
    client.send("nonsense\r\n\r\n");
    let answer = client.read("GET");
    assert_eq!(
        (answer.status, answer.refusal().as_deref()),
        (400, Some("bad_framing"))
    );
    assert!(answer.header("x-request-id").is_some());
    assert!(backend.requests().is_empty());
    for (method, host, path, status, reason) in [
        ("GET", Some("a.example"), "/a", 308, None),
        (
            "POST",
            Some("a.example"),
            "/auth/login",
            403,
            Some("https_required"),
        ),
        ("GET", None, "/", 400, Some("bad_host")),
        ("-", None, "-", 400, Some("bad_framing")),
    ] {
        let line = proxy.output().wait_for_json(|line| {
            line["kind"] == "access" && line["method"] == method && line["path"] == path
        });
        assert_eq!(line["host"], serde_json::json!(host), "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["reason"], serde_json::json!(reason), "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
    }
    let metrics = proxy.admin_get("/metrics").text();
    let line = "cloakroom_refusals_total{reason=\"https_required\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn with_a_public_url_its_port_is_the_one() {
    let backend = Backend::start();
    let issued = Authority::new().issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.public_url", "https://a.example")
        .set("server.tls.redirect_http", "127.0.0.1:0")
        .start();
    let answer = Request::get("/")
        .header("host", "a.example")
        .send(proxy.redirect());
    assert_eq!(
        answer.header("location").as_deref(),
        Some("https://a.example/")
    );
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let backend = Backend::start();
    let authority = Authority::new();
    let issued = authority.issue(&["a.example"], 2090);
    let proxy = config(&backend, &[&issued])
        .set("server.proxy_protocol", true)
        .with("trust.proxies = [\"loopback\"]")
        .start();
    let mut socket = TcpStream::connect(proxy.addr()).unwrap();
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let config = Arc::new(authority.client(None));
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    // In one piece, so that the handshake is read together with the header.
    let mut bytes = b"PROXY TCP4 192.0.2.7 198.51.100.2 56789 443\r\n".to_vec();
    connection.write_tls(&mut bytes).unwrap();
    socket.write_all(&bytes).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    let stream = rustls::StreamOwned::new(connection, socket);
    let mut client = Client::over(stream, "a.example");
    assert_eq!(client.request(&Request::get("/public")).status, 200);
    let sent = backend.only_request();
    assert_eq!(sent.header("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    assert_eq!(sent.header("x-forwarded-proto").as_deref(), Some("https"));

    let client = Arc::new(authority.client(None));
    assert!(tls::connect(&client, "a.example", proxy.addr()).is_err());
}

#[test]
fn it_does_not_start_with_bad_files() {
    let backend = Backend::start();
    let authority = Authority::new();
    let (one, other) = (
        authority.issue(&["a.example"], 2090),
        authority.issue(&["a.example"], 2090),
    );
    let mixed = Issued {
        cert: one.cert.clone(),
        key: other.key,
    };
    let empty = Issued {
        cert: String::new(),
        key: one.key.clone(),
    };
    for (issued, wanted) in [(mixed, "does not belong to"), (empty, "is empty")] {
        let ran = config(&backend, &[&issued]).try_start().err().unwrap();
        assert!(ran.text().contains(wanted), "{}", ran.text());
        assert_eq!(ran.code, Some(1));
    }
    let old = authority.issue(&["a.example"], 2020);
    let proxy = config(&backend, &[&old]).start();
    assert!(proxy.output().text().contains("has expired"));
}
