//! A Redis server of its own for a test: on a socket in a temporary folder,
//! without anything on disk, killed when dropped.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running `redis-server`. It must be installed.
pub(crate) struct RedisServer {
    folder: TempDir,
    options: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// Starts a server with further options, and waits until it answers.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        let child = spawn(&folder, &options);
        let mut server = Self {
            folder,
            options,
            child,
        };
        server.wait();
        server
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

    /// Starts it again, empty, at the same place.
    pub(crate) fn restart(&mut self) {
        // It may not remove the socket of a server that was killed.
        let _ = std::fs::remove_file(self.socket());
        self.child = spawn(&self.folder, &self.options);
        self.wait();
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

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.say("PING") {
                Ok(answer) if answer.starts_with("+PONG") || answer.starts_with("-NOAUTH") => {
                    return;
                }
                answer => {
                    if let Some(status) = self.child.try_wait().unwrap() {
                        panic!("redis-server ended: {status}");
                    }
                    assert!(Instant::now() < deadline, "redis-server: {answer:?}");
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

fn spawn(folder: &TempDir, options: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "redis.sock", "--dir"])
        .arg(folder.path())
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(options)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be installed for this test")
}
