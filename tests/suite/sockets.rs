//! Applications with sockets, and their clients: Socket.IO, ws, a browser.

use std::path::Path;
use std::process::Command;

use super::clients::{succeeds, url, with_tls};
use crate::harness::config::Config;
use crate::harness::express::{Express, app, browse_sockets};
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::users::ALICE;

fn start() -> Express {
    Express::run("sockets", "server.mjs")
}

fn visit(client: &str, proxy: &Proxy, scheme: &str) {
    let mut command = Command::new("node");
    command
        .current_dir(app("sockets"))
        .args(["client.mjs", client, &url(scheme, proxy.addr())])
        .args([ALICE.name, ALICE.password, ALICE.id])
        .env("NODE_EXTRA_CA_CERTS", proxy.folder().join("ca.pem"));
    succeeds(&mut command);
}

/// The access lines of open sockets so far, once one of them has come.
fn tunnels(proxy: &Proxy, status: u16) -> Vec<serde_json::Value> {
    let is_tunnel = |line: &serde_json::Value| {
        line["kind"] == "access" && line["status"] == status && line["user"] == ALICE.id
    };
    proxy.output().wait_for_json(is_tunnel);
    let text = proxy.output().text();
    let lines = text.lines();
    let values = lines.filter_map(|line| serde_json::from_str(line).ok());
    values.filter(is_tunnel).collect()
}

#[test]
fn socket_io_and_ws() {
    let backend = start();
    let authority = Authority::new();
    let config = || with_tls(Config::to(backend.addr()), &authority);
    let plain = config().unset("server.tls").start();
    let secure = config().start();
    for (proxy, scheme) in [(&plain, "http"), (&secure, "https")] {
        for client in ["socket.io", "socket.io-websocket", "ws"] {
            visit(client, proxy, scheme);
        }
        for line in tunnels(proxy, 101) {
            assert_eq!(line["protocol"], "HTTP/1.1", "{line}");
            assert_eq!(line["method"], "GET", "{line}");
        }
    }
}

/// The browser opens sockets over HTTP/2, since the server says that it may.
#[test]
fn a_browser_over_http2() {
    let backend = start();
    let proxy = with_tls(Config::to(backend.addr()), &Authority::new()).start();
    let base = url("https", proxy.addr());
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sockets");
    browse_sockets(&base, ALICE.name, ALICE.password, ALICE.id, &pictures);
    let json = |wanted: &dyn Fn(&serde_json::Value) -> bool| proxy.output().wait_for_json(wanted);
    for path in ["/echo", "/socket.io/"] {
        let line = json(&|line| {
            line["path"] == path && line["method"] == "CONNECT" && line["status"] == 200
        });
        assert_eq!(line["protocol"], "HTTP/2", "{line}");
        assert_eq!(line["user"], ALICE.id, "{line}");
    }
    // And without a session it was refused there.
    let refused = json(&|line| line["path"] == "/echo" && line["status"] == 401);
    assert_eq!(refused["method"], "CONNECT", "{refused}");
    assert_eq!(refused["reason"], "no_cookie", "{refused}");
}
