//! The real binary, running.
//!
//! What it has to print (on either stream, as text or as a JSON log line) is
//! read in [`Announced`], and nowhere else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use tempfile::TempDir;

use super::PATIENCE;
use super::cli::{self, Ran};
use super::config::Config;
use super::cookies::CookieJar;
use super::http::{Request, Response};
use super::process::{Output, Process, Signal, Stream};
use super::users::Person;

/// A running proxy in a folder of its own. Dropping it kills it.
pub struct Proxy {
    config: Config,
    announced: Announced,
    process: Process,
    // Last, so that the process is gone when its folder goes.
    folder: TempDir,
}

/// What `run` says while it starts.
#[derive(Clone, Debug, Default)]
struct Announced {
    listeners: Vec<SocketAddr>,
    redirect: Option<SocketAddr>,
    sockets: usize,
    admin: Option<SocketAddr>,
}

impl Announced {
    /// Takes in one line; whether it was the last one of the start.
    fn take_in(&mut self, line: &str) -> bool {
        // An address ends where a JSON string or a sentence goes on.
        let address = |after: &str| -> Option<SocketAddr> {
            let (_, rest) = line.split_once(after)?;
            let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
            let text = &rest[..end.unwrap_or(rest.len())];
            text.trim_end_matches(['.', ':']).parse().ok()
        };
        let tls = || address("listening on https://");
        if let Some(found) = address("listening on http://").or_else(tls) {
            self.listeners.push(found);
        } else if line.contains("listening on unix:") {
            self.sockets += 1;
        } else if let Some(found) = address("redirecting http://") {
            self.redirect = Some(found);
        } else if let Some(found) = address("admin on http://") {
            self.admin = Some(found);
        }
        is_ready(line)
    }
}

/// `ready`, also as a line of a text log, or a JSON line with the message
/// `ready`.
fn is_ready(line: &str) -> bool {
    if line.trim() == "ready" || line.ends_with(" INFO ready") {
        return true;
    }
    let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
        return false;
    };
    let places = [
        &value["message"],
        &value["msg"],
        &value["fields"]["message"],
    ];
    places.into_iter().any(|message| message == "ready")
}

impl Proxy {
    pub(super) fn launch(config: Config) -> Result<Self, Ran> {
        let folder = tempfile::tempdir().unwrap();
        config.write(folder.path());
        let (process, announced) = start(&config, folder.path())?;
        Ok(Self {
            config,
            announced,
            process,
            folder,
        })
    }

    /// The first listener.
    pub fn addr(&self) -> SocketAddr {
        self.announced.listeners[0]
    }

    /// Every listener, in the order of the configuration.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.announced.listeners
    }

    /// The listener that only sends clients to https.
    ///
    /// # Panics
    /// If there is none.
    pub fn redirect(&self) -> SocketAddr {
        self.announced.redirect.expect("there is no redirect_http")
    }

    /// The most memory that it has ever had in use, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The admin listener.
    ///
    /// # Panics
    /// If it is off.
    pub fn admin(&self) -> SocketAddr {
        self.announced.admin.expect("the admin listener is off")
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where its files are; its current folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("cloakroom.toml")
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has printed since it was last started.
    pub fn output(&self) -> &Arc<Output> {
        self.process.output()
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::Term);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait(PATIENCE);
        status.unwrap_or_else(|| panic!("the proxy does not end:\n{}", self.output().text()))
    }

    /// Ends it (SIGKILL) if it still runs, and starts it again with the same
    /// folder, configuration and ports.
    pub fn restart(&mut self) {
        self.kill();
        let listeners: Vec<_> = self.addrs().iter().map(|a| format!("\"{a}\"")).collect();
        let listeners = format!("[{}]", listeners.join(", "));
        let mut config = self
            .config
            .clone()
            .env("CLOAKROOM__SERVER__LISTEN", &listeners);
        if let Some(admin) = self.announced.admin {
            config = config.env("CLOAKROOM__ADMIN__LISTEN", &format!("\"{admin}\""));
        }
        let started = start(&config, self.folder.path());
        let (process, announced) =
            started.unwrap_or_else(|ran| panic!("no restart\n{}", ran.text()));
        self.process = process;
        self.announced = announced;
    }

    /// Writes another configuration file; the running process is not told.
    pub fn rewrite(&mut self, change: impl FnOnce(Config) -> Config) {
        self.config = change(self.config.clone());
        self.config.write(self.folder.path());
    }

    /// Runs another command of the binary with the same folder, configuration
    /// and environment: `proxy.cli(&["sessions", "count"])`.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = command(&self.config, self.folder());
        command.env("CLOAKROOM_CONFIG", self.config_file());
        cli::run(command.args(arguments), "")
    }

    /// Sends a request on a connection of its own.
    pub fn send(&self, request: &Request) -> Response {
        request.send(self.addr())
    }

    pub fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    pub fn get_as(&self, target: &str, jar: &CookieJar) -> Response {
        self.send(&Request::get(target).cookies(jar))
    }

    /// A GET on the admin listener.
    pub fn admin_get(&self, target: &str) -> Response {
        Request::get(target).send(self.admin())
    }

    /// Sends credentials as JSON.
    pub fn try_sign_in(&self, name: &str, password: &str) -> Response {
        let body = serde_json::json!({ "username": name, "password": password });
        self.send(&Request::post("/auth/login").json(&body))
    }

    /// Signs somebody in.
    ///
    /// # Panics
    /// If that fails.
    pub fn sign_in(&self, person: &Person) -> CookieJar {
        let response = self.try_sign_in(person.name, person.password);
        let said = || format!("{}\n{}", response.text(), self.output().text());
        assert_eq!(
            response.status,
            200,
            "{} cannot sign in: {}",
            person.name,
            said()
        );
        let mut jar = CookieJar::new();
        jar.store(&response);
        assert!(!jar.is_empty(), "signing in set no cookie: {response:?}");
        jar
    }

    pub fn sign_out(&self, jar: &CookieJar) -> Response {
        self.send(&Request::post("/auth/logout").cookies(jar))
    }
}

fn command(config: &Config, folder: &Path) -> Command {
    let mut command = cli::command(folder);
    command.envs(config.environment().iter().map(|(n, v)| (n, v)));
    command
}

fn start(config: &Config, folder: &Path) -> Result<(Process, Announced), Ran> {
    let mut command = command(config, folder);
    if let Some(most) = config.open_files() {
        let run = format!("ulimit -n {most} && exec \"$0\" run -c cloakroom.toml");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &run, cli::BINARY]).env_clear();
        shell.current_dir(folder);
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        command = shell;
    } else {
        command.args(["run", "-c", "cloakroom.toml"]);
    }
    let mut process = Process::start(&mut command);
    let mut announced = Announced::default();
    let ready = |line: &str| announced.take_in(line).then_some(());
    let started = process.output().find(PATIENCE, ready).is_some();
    if started && announced.listeners.len() + announced.sockets > 0 {
        return Ok((process, announced));
    }
    let code = match process.wait(PATIENCE / 10) {
        Some(status) => status.code(),
        None => process.kill().code(),
    };
    let output = process.output();
    Err(Ran {
        code,
        stdout: output.of(Stream::Stdout),
        stderr: output.of(Stream::Stderr),
    })
}

#[test]
fn what_a_start_announces_is_understood() {
    let mut text = Announced::default();
    assert!(!text.take_in("listening on http://127.0.0.1:41234, 2 workers"));
    assert!(!text.take_in("listening on http://[::1]:41235"));
    assert!(!text.take_in("admin on http://127.0.0.1:9180."));
    assert!(!text.take_in("not yet ready"));
    assert!(text.take_in("ready"));
    assert_eq!(
        text.listeners,
        [
            "127.0.0.1:41234".parse().unwrap(),
            "[::1]:41235".parse().unwrap()
        ]
    );
    assert_eq!(text.admin, Some("127.0.0.1:9180".parse().unwrap()));

    let mut json = Announced::default();
    assert!(!json.take_in(r#"{"level":"info","message":"listening on http://127.0.0.1:80"}"#));
    assert!(!json.take_in(r#"{"fields":{"message":"admin on http://127.0.0.1:81"}}"#));
    assert!(json.take_in(r#"{"fields":{"message":"ready"}}"#));
    assert_eq!(json.listeners, ["127.0.0.1:80".parse().unwrap()]);
    assert_eq!(json.admin, Some("127.0.0.1:81".parse().unwrap()));
}
