//! Clients that people use: curl, axios, undici, the `fetch` of Node.js,
//! Python's own, requests, httpx, h2load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::backend::{self, Answer, Backend};
use crate::harness::config::Config;
use crate::harness::express::app;
use crate::harness::process::Process;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::users::ALICE;

/// The longest that one client may take for everything it does.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// What a large upload holds, in bytes.
const LARGE: usize = 8 * 1024 * 1024;

/// Sends bodies back from `/echo`, and tells of everything else.
fn echo() -> Backend {
    Backend::with(|request| match request.target.as_str() {
        "/echo" => Answer::new(200).body(request.body.content.clone()).into(),
        _ => backend::mirror(request),
    })
}

pub fn with_tls(config: Config, authority: &Authority) -> Config {
    let issued = authority.issue(&["localhost"], 2090);
    config
        .file("ca.pem", authority.pem())
        .file("tls.pem", issued.cert.as_str())
        .file("tls.key", issued.key.as_str())
        .with("server.tls.certificates = [{ cert = \"tls.pem\", key = \"tls.key\" }]")
}

/// By a name, for the sake of the certificate.
pub fn url(scheme: &str, addr: SocketAddr) -> String {
    format!("{scheme}://localhost:{}", addr.port())
}

pub fn succeeds(command: &mut Command) -> String {
    let mut process = Process::start(command);
    let status = process.wait(CLIENT_PATIENCE);
    let text = process.output().text();
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{command:?}: {status:?}\n{text}");
    text
}

/// One curl, which keeps its cookies from call to call.
struct Curl<'a> {
    folder: &'a Path,
    base: String,
    options: Vec<String>,
}

impl Curl<'_> {
    /// The body, `|`, HTTP version, `|`, status and how many connections were
    /// made.
    fn call(&self, paths: &[&str], more: &[&str]) -> String {
        let mut command = Command::new("curl");
        command
            .current_dir(self.folder)
            .args(["-sS", "--max-time", "30", "--noproxy", "*"])
            .args(["-b", "jar", "-c", "jar"])
            .args(["-w", "|%{http_version}|%{response_code}|%{num_connects}\n"])
            .args(&self.options)
            .args(more)
            .args(paths.iter().map(|path| format!("{}{path}", self.base)));
        succeeds(&mut command)
    }

    fn session(&self, version: &str) {
        self.session_but_for_keeping(version);
        // Ten requests on one connection.
        let kept = self.call(&["/public"; 10], &[]);
        let connects = |count: u8| {
            let end = format!("|{version}|200|{count}");
            kept.lines().filter(|line| line.ends_with(&end)).count()
        };
        assert_eq!((connects(1), connects(0)), (1, 9), "{kept}");
    }

    /// As [`Curl::session`], with a connection for each request: before 8.0.0,
    /// curl fails at the second request with prior knowledge of HTTP/2 on one
    /// connection, whoever answers (its pull request 10643).
    fn session_but_for_keeping(&self, version: &str) {
        let ends = |answer: &str, status: u16| {
            let wanted = format!("|{version}|{status}|");
            assert!(answer.contains(&wanted), "{wanted}: {answer}");
        };
        let _ = std::fs::remove_file(self.folder.join("jar"));
        ends(&self.call(&["/"], &[]), 401);
        let body = serde_json::json!({ "username": ALICE.name, "password": ALICE.password });
        let json = "content-type: application/json";
        let login = self.call(&["/auth/login"], &["-H", json, "-d", &body.to_string()]);
        ends(&login, 200);
        assert!(login.contains(ALICE.id), "{login}");
        ends(&self.call(&["/a"], &[]), 200);

        let large: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
        std::fs::write(self.folder.join("large"), &large).unwrap();
        for length in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
            // HTTP/2 has no such field, and curl does not send it there.
            let upload = ["--data-binary", "@large", "-o", "echoed"];
            let answer = self.call(&["/echo"], &[&upload, length].concat());
            ends(&answer, 200);
            let echoed = std::fs::read(self.folder.join("echoed")).unwrap();
            assert!(echoed == large, "{} bytes came back", echoed.len());
        }

        let before = std::fs::read(self.folder.join("jar")).unwrap();
        ends(&self.call(&["/auth/logout"], &["-X", "POST"]), 204);
        std::fs::write(self.folder.join("jar"), before).unwrap();
        ends(&self.call(&["/"], &[]), 401);
    }
}

#[test]
fn curl_over_tls_over_plaintext_and_over_a_unix_socket() {
    let backend = echo();
    let folder = tempfile::tempdir().unwrap();
    let curl = |base: String, options: &[&str]| Curl {
        folder: folder.path(),
        base,
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    };
    let socket = folder.path().join("http.sock");
    let listen = format!(
        "server.listen = [\"127.0.0.1:0\", \"unix:{}\"]",
        socket.display()
    );
    let proxy = Config::to(backend.addr()).with(&listen).start();
    let base = url("http", proxy.addr());
    curl(base.clone(), &["--http1.1"]).session("1.1");
    curl(base, &["--http2-prior-knowledge"]).session_but_for_keeping("2");
    let socket = socket.to_str().unwrap();
    curl("http://localhost".to_owned(), &["--unix-socket", socket]).session("1.1");
    let h2c = ["--http2-prior-knowledge", "--unix-socket", socket];
    curl("http://localhost".to_owned(), &h2c).session_but_for_keeping("2");

    let authority = Authority::new();
    let proxy = with_tls(Config::to(backend.addr()), &authority).start();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let base = url("https", proxy.addr());
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in ["1.2", "1.3"] {
            let options = [option, "--cacert", "ca.pem", "--tls-max", tls];
            curl(base.clone(), &options).session(version);
        }
    }
    assert!(backend.malformed().is_empty());
}

#[test]
fn curl_with_a_client_certificate() {
    let backend = echo();
    let (authority, people) = (Authority::new(), Authority::new());
    let proxy = with_tls(Config::to(backend.addr()), &authority)
        .file("people.pem", people.pem())
        .set("server.tls.client_ca", "people.pem")
        .start();
    let me = people.issue(&["me"], 2090);
    std::fs::write(proxy.folder().join("me.pem"), me.cert).unwrap();
    std::fs::write(proxy.folder().join("me.key"), me.key).unwrap();
    let mut curl = Curl {
        folder: proxy.folder(),
        base: url("https", proxy.addr()),
        options: ["--cacert", "ca.pem", "--cert", "me.pem", "--key", "me.key"]
            .map(str::to_owned)
            .to_vec(),
    };
    curl.session("2");
    curl.options.truncate(2);
    let seen = backend.requests().len();
    let refused = Command::new("curl")
        .current_dir(curl.folder)
        .args(["-sS", "--noproxy", "*"])
        .args(&curl.options)
        .arg(format!("{}/public", curl.base))
        .output()
        .unwrap();
    // Whether it says why depends on whether the alert or the reset wins.
    assert!(!refused.status.success());
    assert!(refused.stdout.is_empty());
    assert_eq!(backend.requests().len(), seen);
}

fn over_both(visit: impl Fn(&Proxy, &str)) {
    let backend = echo();
    let proxy = Config::to(backend.addr()).start();
    visit(&proxy, &url("http", proxy.addr()));
    let proxy = with_tls(Config::to(backend.addr()), &Authority::new()).start();
    visit(&proxy, &url("https", proxy.addr()));
    assert!(backend.malformed().is_empty());
}

#[test]
fn axios_undici_and_fetch() {
    over_both(|proxy, base| {
        for client in ["axios", "undici", "undici-h2", "fetch"] {
            let mut command = Command::new("node");
            command
                .current_dir(app("clients"))
                .args(["session.mjs", client, base])
                .args([ALICE.name, ALICE.password, ALICE.id]);
            if base.starts_with("https") {
                command.env("NODE_EXTRA_CA_CERTS", proxy.folder().join("ca.pem"));
            }
            succeeds(&mut command);
        }
    });
}

#[test]
fn python() {
    over_both(|proxy, base| {
        let script = app("clients").join("session.py");
        let mut command = Command::new("python3");
        command.current_dir(proxy.folder()).arg(script).args([
            base,
            ALICE.name,
            ALICE.password,
            ALICE.id,
        ]);
        if base.starts_with("https") {
            command.arg("ca.pem");
        }
        succeeds(&mut command);
    });
}

#[test]
fn requests_and_httpx() {
    over_both(|proxy, base| {
        let secure = base.starts_with("https");
        // httpx speaks HTTP/2 where TLS has chosen it.
        let libraries = ["requests", "httpx", "httpx-h2"];
        for library in &libraries[..if secure { 3 } else { 2 }] {
            // Debian's, whose packages these are.
            let mut command = Command::new("/usr/bin/python3");
            command
                .current_dir(proxy.folder())
                .arg(app("clients").join("libraries.py"))
                .args([library, base, ALICE.name, ALICE.password, ALICE.id]);
            if secure {
                command.arg("ca.pem");
            }
            succeeds(&mut command);
        }
    });
}

#[test]
fn h2load_s_requests_all_succeed() {
    over_both(|proxy, base| {
        let cookie = match base.starts_with("https") {
            // `sign_in` speaks plaintext: the public route has to do.
            true => None,
            false => proxy.sign_in(&ALICE).header(),
        };
        let path = if cookie.is_some() { "/" } else { "/public" };
        let mut command = Command::new("h2load");
        command.args(["-n", "2000", "-c", "8", "-m", "32"]);
        if let Some(cookie) = cookie {
            command.args(["-H", &format!("cookie: {cookie}")]);
        }
        let text = succeeds(command.arg(format!("{base}{path}")));
        let wanted = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored";
        assert!(text.contains(wanted), "{text}");
        assert!(text.contains("2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
    });
}
