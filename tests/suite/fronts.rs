//! nginx and HAProxy in front, as people put them: TLS ends there, or passes
//! through, and the address of the client comes in a field or ahead of it all.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::backend::{Backend, Recorded};
use crate::harness::config::Config;
use crate::harness::fronts::Front;
use crate::harness::proxy::Proxy;
use crate::harness::tls::{Authority, Issued};
use crate::harness::users::ALICE;

/// Where the client comes from. It is another loopback address than the
/// front's, since trusting all of them would be trusting the client as well.
const CLIENT: &str = "127.0.0.2";

/// What a client says of itself, none of which may be believed.
const LIES: [&str; 8] = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: gopher",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "X-Real-IP: 203.0.113.9",
    "Forwarded: for=203.0.113.9;proto=gopher;host=evil.example",
    "X-User-Id: u-carol",
    "X-User-Roles: admin",
];

/// A proxy that believes the front, what stands behind it, and the authority
/// that the client believes.
struct Setting {
    backend: Backend,
    authority: Authority,
    issued: Issued,
}

impl Setting {
    fn new() -> Self {
        let authority = Authority::new();
        let issued = authority.issue(&["a.example"], 2090);
        Self {
            backend: Backend::start(),
            authority,
            issued,
        }
    }

    fn config(&self) -> Config {
        Config::to(self.backend.addr())
            .with("trust.proxies = [\"127.0.0.1\"]")
            .file("ca.pem", self.authority.pem())
    }

    /// With TLS of its own.
    fn with_tls(&self, config: Config) -> Config {
        config
            .file("tls.pem", self.issued.cert.as_str())
            .file("tls.key", self.issued.key.as_str())
            .with("server.tls.certificates = [{ cert = \"tls.pem\", key = \"tls.key\" }]")
    }
}

/// A client that signs in through a front and comes back, all of it with lies.
struct Visitor<'a> {
    setting: &'a Setting,
    proxy: &'a Proxy,
    front: SocketAddr,
}

impl Visitor<'_> {
    /// The whole answer, in lower case.
    fn curl(&self, path: &str, more: &[&str]) -> String {
        let port = self.front.port();
        let folder = self.proxy.folder();
        let jar = folder.join("jar");
        let output = Command::new("curl")
            .args(["-sS", "-i", "--noproxy", "*", "--interface"])
            .arg(format!("host!{CLIENT}"))
            .args(["--resolve", &format!("a.example:{port}:127.0.0.1")])
            .arg("--cacert")
            .arg(folder.join("ca.pem"))
            .arg("-b")
            .arg(&jar)
            .arg("-c")
            .arg(&jar)
            .args(LIES.iter().flat_map(|lie| ["-H", lie]))
            .args(more)
            .arg(format!("https://a.example:{port}{path}"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let said = || self.proxy.output().text();
        assert!(output.status.success(), "{errors}\n{}", said());
        String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
    }

    /// Signs in, and gives what then arrives at the application.
    fn visit(&self) -> Recorded {
        let anonymous = self.curl("/", &[]);
        assert!(anonymous.contains(" 401"), "{anonymous}");
        assert!(self.setting.backend.requests().is_empty());

        let body = serde_json::json!({ "username": ALICE.name, "password": ALICE.password });
        let body = body.to_string();
        let json = ["-H", "content-type: application/json", "-d", &body];
        let signed_in = self.curl("/auth/login", &json);
        assert!(signed_in.contains(" 200"), "{signed_in}");
        let cookie = signed_in.lines().find(|l| l.starts_with("set-cookie:"));
        let cookie = cookie.unwrap_or_else(|| panic!("no cookie: {signed_in}"));
        assert!(cookie.contains("; secure"), "{cookie}");

        // What changes something is subject to the rules for cross-site
        // requests, which compare with the origin as browsers see it.
        let origin = format!("Origin: https://a.example:{}", self.front.port());
        let answer = self.curl("/x?a=b", &["-H", &origin, "-d", "text"]);
        assert!(answer.contains(" 200"), "{answer}");
        let sent = self.setting.backend.only_request();
        assert_eq!(sent.body.content, b"text");
        assert_eq!(sent.fields().all("x-user-id"), [ALICE.id]);
        assert_eq!(sent.fields().all("x-user-roles"), [ALICE.roles.join(",")]);
        for name in ["x-real-ip", "forwarded", "x-forwarded-port", "cookie"] {
            assert!(!sent.fields().has(name), "{name} passes: {sent:?}");
        }
        let text = String::from_utf8_lossy(&sent.head.raw).into_owned();
        for lie in ["203.0.113.9", "gopher", "evil.example", "u-carol"] {
            assert!(!text.contains(lie), "{lie} is believed: {text}");
        }
        let host = format!("a.example:{}", self.front.port());
        assert_eq!(sent.header("x-forwarded-host"), Some(host));

        let signed_out = self.curl("/auth/logout", &["-H", &origin, "-d", ""]);
        assert!(signed_out.contains(" 303"), "{signed_out}");
        assert!(self.curl("/", &[]).contains(" 401"));
        self.proxy.output().wait_for_json(|line| {
            // The client is the one that the front saw, in the log too.
            line["path"] == "/auth/logout" && line["client"] == CLIENT
        });
        sent
    }
}

fn visit(setting: &Setting, proxy: &Proxy, front: &Front) -> (Option<String>, Option<String>) {
    let sent = Visitor {
        setting,
        proxy,
        front: front.addr(),
    }
    .visit();
    (
        sent.header("x-forwarded-for"),
        sent.header("x-forwarded-proto"),
    )
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// The folders that nginx would otherwise want to have below `/var`.
const NGINX_FOLDERS: &str = "access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;";

#[test]
fn nginx_ends_tls_and_says_so_in_fields() {
    let setting = Setting::new();
    let proxy = setting.config().start();
    let blocks = format!(
        "http {{
    {NGINX_FOLDERS}
    upstream cloakroom {{ server {}; keepalive 4; }}
    server {{
        listen 127.0.0.1:PORT ssl http2;
        ssl_certificate front.pem;
        ssl_certificate_key front.pem;
        location / {{
            proxy_pass http://cloakroom;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
}}",
        proxy.addr()
    );
    let front = Front::nginx(&blocks, &setting.issued);
    let (client, scheme) = visit(&setting, &proxy, &front);
    assert_eq!(client, text("127.0.0.2, 127.0.0.1"));
    assert_eq!(scheme, text("https"));
}

#[test]
fn haproxy_ends_tls_and_says_so_in_fields() {
    let setting = Setting::new();
    let proxy = setting.config().start();
    let sections = format!(
        "frontend public
  mode http
  bind 127.0.0.1:PORT ssl crt front.pem alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend cloakroom
backend cloakroom
  mode http
  server one {}
",
        proxy.addr()
    );
    let front = Front::haproxy(&sections, &setting.issued);
    let (client, scheme) = visit(&setting, &proxy, &front);
    assert_eq!(client, text("127.0.0.2, 127.0.0.1"));
    assert_eq!(scheme, text("https"));
}

/// TLS passes through, so the address is all that the front can tell.
#[test]
fn haproxy_and_nginx_pass_tls_through_behind_a_proxy_header() {
    let setting = Setting::new();
    let config = setting.config().set("server.proxy_protocol", true);
    let proxy = setting.with_tls(config).start();
    let haproxy = |version: &str| {
        let sections = format!(
            "listen public
  mode tcp
  bind 127.0.0.1:PORT
  server one {} {version}
",
            proxy.addr()
        );
        Front::haproxy(&sections, &setting.issued)
    };
    let stream = format!(
        "stream {{
    server {{
        listen 127.0.0.1:PORT;
        proxy_pass {};
        proxy_protocol on;
    }}
}}",
        proxy.addr()
    );
    for front in [
        haproxy("send-proxy"),
        haproxy("send-proxy-v2"),
        Front::nginx(&stream, &setting.issued),
    ] {
        let (client, scheme) = visit(&setting, &proxy, &front);
        assert_eq!(client, text(CLIENT));
        assert_eq!(scheme, text("https"));
        setting.backend.clear();
        std::fs::remove_file(proxy.folder().join("jar")).unwrap();
    }
}

/// The PROXY header makes the client the peer, and the client is not believed,
/// neither is what HAProxy adds to its fields. That browsers are on https has
/// to be said in the configuration.
#[test]
fn haproxy_ends_tls_and_sends_a_proxy_header() {
    for version in ["send-proxy", "send-proxy-v2-ssl"] {
        let setting = Setting::new();
        // Each has to be told the other's port: the proxy keeps its own when
        // it is started again.
        let mut proxy = setting.config().set("server.proxy_protocol", true).start();
        let sections = format!(
            "listen public
  mode tcp
  bind 127.0.0.1:PORT ssl crt front.pem
  server one {} {version}
",
            proxy.addr()
        );
        let front = Front::haproxy(&sections, &setting.issued);
        let origin = format!("https://a.example:{}", front.addr().port());
        proxy.rewrite(|config| config.set("server.public_url", origin));
        proxy.restart();
        let (client, scheme) = visit(&setting, &proxy, &front);
        assert_eq!(client, text(CLIENT));
        assert_eq!(scheme, text("http"));
    }
}
