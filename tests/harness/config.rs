//! Configurations for a proxy under test.

use std::net::SocketAddr;
use std::path::Path;

use toml::{Table, Value};

use super::cli::{self, Ran};
use super::proxy::Proxy;
use super::users;

/// The session secret of every proxy under test, unless set otherwise.
pub const SECRET: &str = "a secret that only the tests know, 4f1d8c";

/// The variable that holds it.
pub const SECRET_VARIABLE: &str = "CLOAKROOM_SECRET";

/// A configuration to be changed and started. A relative path in it is
/// relative to the folder of the proxy.
#[derive(Clone, Debug)]
pub struct Config {
    table: Table,
    text: Option<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    open_files: Option<usize>,
}

const DEFAULTS: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 2

[[routes]]
path = "/"
access = "login"

[[routes]]
path = "/public"
access = "public"

[[routes]]
path = "/optional"
access = "optional"

[[routes]]
path = "/admin"
access = "login"
roles = ["admin"]

[[routes]]
path = "/denied"
access = "deny"

[session]
secrets = [{ env = "CLOAKROOM_SECRET" }]

[store]
url = "memory:"
timeout = "10s"

[[login.methods]]
kind = "users_file"
path = "users.toml"

[identity.headers]
"X-User-Id" = "userId"
"X-User-Email" = "email"
"X-User-Roles" = "roles"

[admin]
listen = "127.0.0.1:0"

[log]
format = "json"
"#;

impl Config {
    /// In front of one backend: everything needs a login but `/public`,
    /// `/optional`, `/admin` (which needs the role `admin`) and `/denied`;
    /// sessions are in memory; the users are those of [`users`]; listeners are
    /// on free loopback ports; the store may take its time, since a busy machine
    /// is no outage.
    pub fn to(backend: SocketAddr) -> Self {
        let mut table: Table = DEFAULTS.parse().unwrap();
        let upstream = format!("app.urls = [\"http://{backend}\"]")
            .parse()
            .unwrap();
        table.insert("upstreams".to_owned(), Value::Table(upstream));
        Self {
            table,
            text: None,
            ..Self::text("")
        }
    }

    /// Exactly this text, with the secret in the environment.
    pub fn text(text: &str) -> Self {
        Self {
            table: Table::new(),
            text: Some(text.to_owned()),
            environment: vec![(SECRET_VARIABLE.to_owned(), SECRET.to_owned())],
            files: Vec::new(),
            open_files: None,
        }
    }

    /// Sets one key: `set("session.idle_timeout", "2s")`.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let (folder, name) = key.rsplit_once('.').unwrap_or(("", key));
        self.section(folder).insert(name.to_owned(), value.into());
        self
    }

    /// Removes one key or section.
    pub fn unset(mut self, key: &str) -> Self {
        let (folder, name) = key.rsplit_once('.').unwrap_or(("", key));
        self.section(folder).remove(name);
        self
    }

    /// Lays a piece of TOML over the configuration: tables are merged, anything
    /// else (arrays too, so routes and login methods) is replaced.
    pub fn with(mut self, piece: &str) -> Self {
        merge(&mut self.table, piece.parse().unwrap());
        self
    }

    /// Where the sessions are kept.
    pub fn store(self, url: &str) -> Self {
        self.set("store.url", url)
    }

    /// An environment variable of the proxy.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(n, _)| n != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file in the folder of the proxy.
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.retain(|(n, _)| n != name);
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// Lets the proxy have this many files and sockets open.
    pub fn limit_open_files(mut self, most: usize) -> Self {
        self.open_files = Some(most);
        self
    }

    pub fn open_files(&self) -> Option<usize> {
        self.open_files
    }

    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// As it stands in the file.
    pub fn render(&self) -> String {
        match &self.text {
            Some(text) => text.clone(),
            None => toml::to_string(&self.table).unwrap(),
        }
    }

    /// Writes `cloakroom.toml`, `users.toml` (where it is mentioned) and the
    /// other files into a folder.
    pub fn write(&self, folder: &Path) {
        let text = self.render();
        let own_users = self.files.iter().any(|(name, _)| name == "users.toml");
        if text.contains("users.toml") && !own_users {
            std::fs::write(folder.join("users.toml"), users::file()).unwrap();
        }
        for (name, contents) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        std::fs::write(folder.join("cloakroom.toml"), text).unwrap();
    }

    /// Starts a proxy with it.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn start(self) -> Proxy {
        self.try_start()
            .unwrap_or_else(|ran| panic!("the proxy does not start\n{}", ran.text()))
    }

    /// Starts a proxy with it; if that ends instead of getting ready, what it
    /// said.
    pub fn try_start(self) -> Result<Proxy, Ran> {
        Proxy::launch(self)
    }

    /// `cloakroom check` over it.
    pub fn check(&self) -> Ran {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        let mut command = cli::command(folder.path());
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        cli::run(command.args(["check", "-c", "cloakroom.toml"]), "")
    }

    fn section(&mut self, path: &str) -> &mut Table {
        assert!(
            self.text.is_none(),
            "a configuration given as text cannot be changed"
        );
        let mut table = &mut self.table;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            let entry = table
                .entry(name)
                .or_insert_with(|| Value::Table(Table::new()));
            table = entry
                .as_table_mut()
                .unwrap_or_else(|| panic!("{path} is no table"));
        }
        table
    }
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}
