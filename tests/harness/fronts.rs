//! nginx and HAProxy, in front of the proxy under test.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::eventually;
use super::process::Process;
use super::tls::Issued;

/// A server in front of another, on a free loopback port. Dropping it kills it.
pub struct Front {
    addr: SocketAddr,
    _process: Process,
    // Last, so that the process is gone when its folder goes.
    _folder: TempDir,
}

impl Front {
    /// nginx with these blocks (`http { … }`, `stream { … }`), which say
    /// `PORT` for the port to listen on. The certificate is in `front.pem`
    /// together with its key.
    ///
    /// # Panics
    /// If it does not start.
    pub fn nginx(blocks: &str, issued: &Issued) -> Self {
        // One process in all, so that nothing is left when it is killed.
        let common = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\n\
                      events { worker_connections 256; }\n";
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let load = match blocks.contains("stream {") {
            true => format!("load_module {module};\n"),
            false => String::new(),
        };
        Self::start(&format!("{load}{common}{blocks}"), issued, |folder| {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(folder);
            command.arg("-c").arg(folder.join("front.conf"));
            command.args(["-e", "stderr"]);
            command
        })
    }

    /// HAProxy with these sections, `PORT` and `front.pem` as above.
    ///
    /// # Panics
    /// If it does not start.
    pub fn haproxy(sections: &str, issued: &Issued) -> Self {
        let common =
            "defaults\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n";
        Self::start(&format!("{common}{sections}"), issued, |folder| {
            let mut command = Command::new("haproxy");
            command.args(["-db", "-q", "-f"]);
            command.arg(folder.join("front.conf")).current_dir(folder);
            command
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn start(conf: &str, issued: &Issued, command: impl Fn(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pem = [issued.cert.as_str(), issued.key.as_str()].concat();
        std::fs::write(folder.path().join("front.pem"), pem).unwrap();
        let mut why = String::new();
        // Somebody else may take a free port before the server does.
        for _ in 0..5 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            drop(listener);
            let conf = conf.replace("PORT", &addr.port().to_string());
            std::fs::write(folder.path().join("front.conf"), conf).unwrap();
            let mut command = command(folder.path());
            // Debian keeps servers where not everybody's path leads.
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{path}:/usr/sbin"));
            let mut process = Process::start(&mut command);
            let runs = eventually("the front listens or ends", || {
                if process.wait(std::time::Duration::ZERO).is_some() {
                    return Some(false);
                }
                TcpStream::connect(addr).is_ok().then_some(true)
            });
            // One that answers may be somebody else's.
            if runs && process.wait(std::time::Duration::from_millis(50)).is_none() {
                return Self {
                    addr,
                    _process: process,
                    _folder: folder,
                };
            }
            why = process.output().text();
        }
        panic!("the front does not start (scripts/setup-tests.sh installs it):\n{why}");
    }
}
