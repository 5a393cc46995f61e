//! The gRPC service and its client in `tests/apps/grpc`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::PATIENCE;
use super::cookies::CookieJar;
use super::express::app;
use super::pki::Certified;
use super::process::Process;

/// The longest that the client may take for all its calls.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// The service, running.
pub struct Grpc {
    addr: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Grpc {
    /// With TLS where there is a certificate.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(certified: Option<&Certified>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("node");
        command.arg("server.mjs").current_dir(app("grpc"));
        if let Some(certified) = certified {
            for (variable, text) in [("CERT", &certified.cert), ("KEY", &certified.key)] {
                let file = folder.path().join(variable);
                std::fs::write(&file, text).unwrap();
                command.env(variable, file);
            }
        }
        let process = Process::start(&mut command);
        let port = |line: &str| line.strip_prefix("listening ")?.parse::<u16>().ok();
        let Some(port) = process.output().find(PATIENCE, port) else {
            panic!("no gRPC service:\n{}", process.output().text());
        };
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            process,
            _folder: folder,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it notices that a caller has gone.
    pub fn sees_cancellation(&self) -> bool {
        let cancelled = |line: &str| (line == "cancelled").then_some(());
        self.process.output().find(PATIENCE, cancelled).is_some()
    }
}

/// Calls the service behind `addr` in every way.
///
/// # Panics
/// If it finds anything wrong.
pub fn call(addr: SocketAddr, jar: &CookieJar, user: &str) {
    let cookie = jar.header().unwrap_or_default();
    let mut process = Process::start(
        Command::new("node")
            .arg("client.mjs")
            .args([&addr.to_string(), &cookie, user])
            .current_dir(app("grpc")),
    );
    let status = process.wait(CLIENT_PATIENCE);
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}\n{}",
        process.output().text()
    );
}
