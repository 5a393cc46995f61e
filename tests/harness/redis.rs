//! A real Redis of the test's own, which can be stopped, paused and asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Signal};
use super::{PATIENCE, eventually};

/// A server on loopback without persistence: what it held is gone when it is
/// stopped.
pub struct Redis {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// # Panics
    /// If there is no `redis-server` that starts.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more command line options, such as `["--requirepass", "secret"]`.
    pub fn with(options: &[&str]) -> Self {
        let mut redis = Self {
            port: 0,
            folder: tempfile::tempdir().unwrap(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            process: None,
        };
        // Somebody else may take a free port before Redis does.
        let mut why = String::new();
        for _ in 0..5 {
            redis.port = TcpListener::bind(("127.0.0.1", 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            match redis.launch() {
                Ok(()) => return redis,
                Err(output) => why = output,
            }
        }
        panic!("redis-server does not start:\n{why}");
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Kills it at once.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) {
        self.stop();
        eventually("Redis starts again", || self.launch().ok());
    }

    /// Stops it from answering; connections stay open.
    pub fn pause(&mut self) {
        self.running().signal(Signal::Stop);
    }

    /// Lets it answer again.
    pub fn resume(&mut self) {
        self.running().signal(Signal::Cont);
    }

    /// Runs a command on a connection of its own.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, command: &[&str]) -> Value {
        match self.try_run(command) {
            Ok(Value::Error(error)) => panic!("{command:?}: {error}"),
            Ok(value) => value,
            Err(e) => panic!("{command:?}: {e}"),
        }
    }

    pub fn try_run(&self, command: &[&str]) -> io::Result<Value> {
        Connection::open(self.addr())?.run(command)
    }

    /// The keys that match a pattern, in order.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = self.run(&["KEYS", pattern]).texts();
        keys.sort();
        keys
    }

    /// How many keys there are.
    pub fn size(&self) -> i64 {
        self.run(&["DBSIZE"]).int()
    }

    /// Seconds until a key expires; -1: never; -2: there is no such key.
    pub fn ttl(&self, key: &str) -> i64 {
        self.run(&["TTL", key]).int()
    }

    /// The string at a key.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.run(&["GET", key]) {
            Value::Bulk(bytes) => Some(bytes),
            Value::Nil => None,
            other => panic!("GET {key}: {other:?}"),
        }
    }

    /// The fields of the hash at a key.
    pub fn hash(&self, key: &str) -> Vec<(String, Vec<u8>)> {
        let Value::Array(items) = self.run(&["HGETALL", key]) else {
            panic!("HGETALL {key}")
        };
        items
            .chunks(2)
            .map(|pair| (pair[0].text(), pair[1].bytes()))
            .collect()
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("Redis was stopped")
    }

    /// Starts the process; on failure, what it printed.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--unixsocket", &self.socket().to_string_lossy()])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options)
            .current_dir(self.folder.path());
        let process = Process::start(&mut command);
        let ready = |line: &str| line.contains("Ready to accept connections").then_some(());
        match process.output().find(PATIENCE, ready) {
            Some(()) => {
                self.process = Some(process);
                Ok(())
            }
            None => Err(process.output().text()),
        }
    }
}

/// A reply (RESP2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Nil,
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Array(Vec<Value>),
}

impl Value {
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(n) => *n,
            other => panic!("not a number: {other:?}"),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bulk(bytes) => bytes.clone(),
            Self::Simple(text) => text.clone().into_bytes(),
            other => panic!("not a string: {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Array(items) => items.iter().map(Self::text).collect(),
            other => panic!("not an array: {other:?}"),
        }
    }
}

/// One connection, for commands that belong together.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn run(&mut self, command: &[&str]) -> io::Result<Value> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
        self.0.get_mut().write_all(&bytes)?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| broken("closed"))?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken(line))?;
        let number = || rest.parse::<i64>().map_err(|_| broken(line));
        match kind {
            "+" => Ok(Value::Simple(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => number().map(Value::Int),
            "$" => {
                let Ok(length) = usize::try_from(number()?) else {
                    return Ok(Value::Nil);
                };
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Value::Bulk(bytes))
            }
            "*" => {
                let Ok(length) = usize::try_from(number()?) else {
                    return Ok(Value::Nil);
                };
                (0..length)
                    .map(|_| self.read())
                    .collect::<io::Result<_>>()
                    .map(Value::Array)
            }
            _ => Err(broken(line)),
        }
    }
}

fn broken(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {line:?}"))
}
