//! A PostgreSQL server of its own for a test: its data and its socket in a
//! temporary folder, stopped when dropped.
//!
//! PostgreSQL refuses to run as root, so tests that are run as root start it as
//! the user `postgres`, or as `nobody` where there is none.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The owner of everything, who needs no password.
pub(crate) const KEEPER: &str = "keeper";

const PATIENCE: Duration = Duration::from_secs(60);

/// A running `postgres`. It must be installed. Roles need a password, but for
/// [`KEEPER`].
pub(crate) struct PostgresServer {
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    /// On loopback too, if any; in any case a part of the socket's name.
    port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl PostgresServer {
    /// Starts a server on a socket alone.
    pub(crate) fn start() -> Self {
        let mut server = Self::new(5432);
        server.restart();
        server
    }

    /// Starts a server on a free port of the loopback interface too, with these
    /// files in its data folder, and these lines first in `pg_hba.conf`.
    pub(crate) fn on_loopback(options: &[&str], files: &[(&str, &str)], access: &str) -> Self {
        // Somebody else may take a free port before the server does.
        for _ in 0..5 {
            let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut server = Self::new(port);
            server.options = options.iter().map(|o| (*o).to_owned()).collect();
            for (name, content) in files {
                server.put(name, content);
            }
            let rules = std::fs::read_to_string(server.data().join("pg_hba.conf")).unwrap();
            server.put("pg_hba.conf", &format!("{access}\n{rules}"));
            if server.launch().is_ok() {
                return server;
            }
        }
        panic!("postgres does not start on any port");
    }

    fn new(port: u16) -> Self {
        let server = Self {
            folder: tempfile::Builder::new().prefix("pg").tempdir().unwrap(),
            programs: programs(),
            user: unprivileged(),
            port,
            options: Vec::new(),
            child: None,
        };
        if let Some((user, group)) = server.user {
            chown(server.folder.path(), Some(user), Some(group)).unwrap();
        }
        let output = server
            .program("initdb")
            .args(["-U", KEEPER, "-A", "trust", "-E", "UTF8", "--no-locale"])
            .args(["--no-sync", "--wal-segsize=1", "-D"])
            .arg(server.data())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {said}");
        let rules = format!(
            "local all {KEEPER} trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        );
        server.put("pg_hba.conf", &rules);
        server
    }

    /// Writes a file into the data folder, as the server wants it: for its eyes
    /// only.
    fn put(&self, name: &str, content: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.data().join(name);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        file.write_all(content.as_bytes()).unwrap();
        if let Some((user, group)) = self.user {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The server's own socket.
    pub(crate) fn socket(&self) -> PathBuf {
        let name = format!(".s.PGSQL.{}", self.port);
        self.folder.path().join(name)
    }

    /// A URL for `store.url`, as the owner.
    pub(crate) fn url(&self) -> String {
        self.url_of(KEEPER)
    }

    /// A URL for `store.url`; `who` is a name, or a name and a password.
    pub(crate) fn url_of(&self, who: &str) -> String {
        url_at(self.folder.path(), who, self.port)
    }

    /// Runs SQL as the owner. What it prints: values alone, each row on a line,
    /// with `|` between columns.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|said| panic!("{sql}: {said}"))
    }

    fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                KEEPER,
            ])
            .arg("-h")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-d", "postgres", "-c", sql])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Ends it at once, without an orderly goodbye, and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // To the main process, which takes all others with it.
        let asked = Command::new("sh")
            .args(["-c", "kill -s QUIT \"$0\"", &child.id().to_string()])
            .status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while asked.as_ref().is_ok_and(|status| status.success()) && Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it (again) at the same place, with what it had.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.launch()
            .unwrap_or_else(|said| panic!("postgres: {said}"));
    }

    fn launch(&mut self) -> Result<(), String> {
        let listens = match self.port {
            5432 => "",
            _ => "127.0.0.1",
        };
        let log = self.folder.path().join("log");
        let child = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-h", listens])
            .args(["-c", "fsync=off", "-c", "max_connections=40"])
            .args(["-c", "min_wal_size=2MB", "-c", "max_wal_size=16MB"])
            .args(["-c", "shared_buffers=16MB", "-c", "autovacuum=off"])
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let child = self.child.insert(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().unwrap().is_some() {
                self.child = None;
                return Err(std::fs::read_to_string(&log).unwrap());
            }
            // The socket is there before it is of use.
            if std::os::unix::net::UnixStream::connect(
                self.folder.path().join(format!(".s.PGSQL.{}", self.port)),
            )
            .is_ok()
            {
                break;
            }
            assert!(Instant::now() < deadline, "postgres does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        while let Err(said) = self.try_sql("select 1") {
            assert!(
                Instant::now() < deadline,
                "postgres does not answer: {said}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A program of the server's, run as who may.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(self.folder.path())
            .env_remove("PGDATA")
            .stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A URL for `store.url` over the socket in a folder.
pub(crate) fn url_at(folder: &Path, who: &str, port: u16) -> String {
    let folder = folder.to_str().unwrap().replace('/', "%2F");
    format!("postgres://{who}@{folder}:{port}/postgres?application_name=cloakroom")
}

/// Where Debian has the server's programs, the newest; else on the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    versions
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .max()
        .map(|(_, folder)| folder)
        .or_else(|| {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
        })
        .expect("postgresql must be installed for this test")
}

/// Whom to run as; `None`: as who runs the test.
fn unprivileged() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let all = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = all
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    let found = find("postgres").or_else(|| find("nobody"));
    Some(found.expect("neither a user postgres nor nobody"))
}
