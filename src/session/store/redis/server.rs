//! Redis servers of their own for a test: in a temporary folder, on a socket and, if
//! asked for, a port that was free; killed when dropped.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::pki::Pki;

/// How a server is reached, beside its socket.
#[derive(Clone)]
pub(crate) enum Port {
    None,
    Plain,
    /// Only with a certificate that this authority has issued.
    Tls(Arc<Pki>),
}

/// What a server is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Role {
    Server,
    Sentinel,
    ClusterNode,
}

/// A running `redis-server`. It must be installed.
pub(crate) struct RedisServer {
    folder: TempDir,
    role: Role,
    options: Vec<String>,
    child: Child,
    /// 0 without a port.
    pub(crate) port: u16,
    /// Of the cluster's own connections.
    pub(crate) bus: u16,
}

impl RedisServer {
    /// Starts a server on a socket with further options, and waits until it answers.
    pub(crate) fn start(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        Self::launch(Role::Server, &Port::None, &[], &options)
    }

    /// Starts a server with a port and these lines in its configuration.
    pub(crate) fn listen(role: Role, port: &Port, lines: &[String]) -> Self {
        Self::launch(role, port, lines, &[])
    }

    fn launch(role: Role, port: &Port, lines: &[String], options: &[String]) -> Self {
        let mut last = String::new();
        // A port may be taken between the look and the use.
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let (number, bus) = match port {
                Port::None => (0, 0),
                Port::Plain | Port::Tls(_) => (free_port(), free_port()),
            };
            let text = configuration(role, port, number, bus, folder.path(), lines);
            std::fs::write(folder.path().join("redis.conf"), text).unwrap();
            let mut server = Self {
                child: spawn(&folder, role, options),
                folder,
                role,
                options: options.to_vec(),
                port: number,
                bus,
            };
            match server.wait() {
                Ok(()) => return server,
                Err(why) => last = why,
            }
        }
        panic!("redis-server does not start: {last}");
    }

    /// The socket that it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// A URL for `store.url`.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same place, with what it has kept on the disk.
    pub(crate) fn restart(&mut self) {
        // It may not remove the socket of a server that was killed.
        let _ = std::fs::remove_file(self.socket());
        self.child = spawn(&self.folder, self.role, &self.options);
        self.wait().unwrap();
    }

    /// Sends the process a signal by name, such as STOP or CONT.
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Sends a line and gives the first bytes of the answer.
    pub(crate) fn say(&self, line: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(self.socket())?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = vec![0; 64 * 1024];
        let length = socket.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Sends a line that has to be obeyed.
    pub(crate) fn obey(&self, line: &str) -> String {
        let answer = self.say(line).unwrap();
        assert!(!answer.starts_with('-'), "{line}: {answer}");
        answer
    }

    fn wait(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.say("PING") {
                Ok(answer) if answer.starts_with("+PONG") || answer.starts_with("-NOAUTH") => {
                    return Ok(());
                }
                answer => {
                    if let Some(status) = self.child.try_wait().unwrap() {
                        return Err(status.to_string());
                    }
                    if Instant::now() > deadline {
                        return Err(format!("{answer:?}"));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn configuration(
    role: Role,
    port: &Port,
    number: u16,
    bus: u16,
    folder: &Path,
    lines: &[String],
) -> String {
    let mut all = vec![
        "unixsocket redis.sock".to_owned(),
        format!("dir {}", folder.display()),
        "bind 127.0.0.1".to_owned(),
    ];
    match port {
        Port::None => all.push("port 0".into()),
        Port::Plain => all.push(format!("port {number}")),
        Port::Tls(pki) => all.extend([
            "port 0".into(),
            format!("tls-port {number}"),
            format!("tls-ca-cert-file {}", pki.ca().display()),
            format!("tls-cert-file {}", pki.cert().display()),
            format!("tls-key-file {}", pki.key().display()),
            "tls-auth-clients yes".into(),
            "tls-replication yes".into(),
        ]),
    }
    if role != Role::Sentinel {
        all.push("save \"\"".into());
        // The second synchronisation of a replica must not wait for a minute.
        all.push("repl-diskless-sync-delay 0".into());
    }
    if role == Role::ClusterNode {
        all.extend([
            "cluster-enabled yes".into(),
            format!("cluster-port {bus}"),
            "cluster-node-timeout 1000".into(),
        ]);
        if let Port::Tls(_) = port {
            all.push("tls-cluster yes".into());
        }
    }
    all.extend_from_slice(lines);
    all.join("\n") + "\n"
}

fn spawn(folder: &TempDir, role: Role, options: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.arg("redis.conf").args(options);
    if role == Role::Sentinel {
        command.arg("--sentinel");
    }
    command
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be installed for this test")
}
