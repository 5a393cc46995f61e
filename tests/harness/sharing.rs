//! The application in `tests/apps/sharing`, which keeps sessions in Redis or PostgreSQL by
//! itself, and a proxy that shares them.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::PATIENCE;
use super::config::{Config, SECRET};
use super::cookies::CookieJar;
use super::express;
use super::http::{Request, Response};
use super::postgres::{KEEPER, PostgresServer};
use super::process::Process;
use super::redis::Redis;

/// The cookie that both have.
pub const COOKIE: &str = "connect.sid";

/// The application, running.
pub struct Sharing {
    addr: SocketAddr,
    process: Process,
}

impl Sharing {
    /// With its own settings in the environment, as `app.mjs` explains them.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(redis: &Redis, settings: &[(&str, &str)]) -> Self {
        Self::launch(("REDIS", redis.url()), settings)
    }

    /// The same with sessions in PostgreSQL, in the table that connect-pg-simple's own
    /// file makes.
    ///
    /// # Panics
    /// If it does not start.
    pub fn on_postgres(server: &PostgresServer, settings: &[(&str, &str)]) -> Self {
        let packages = express::app("sharing").join("node_modules");
        let table = packages.join("connect-pg-simple/table.sql");
        server.sql(&std::fs::read_to_string(table).unwrap());
        Self::on_bare_postgres(server, settings)
    }

    /// The same without the table.
    ///
    /// # Panics
    /// If it does not start.
    pub fn on_bare_postgres(server: &PostgresServer, settings: &[(&str, &str)]) -> Self {
        let socket = server.socket();
        let pool = serde_json::json!({
            "host": socket.parent().unwrap(),
            "port": server.port(),
            "user": KEEPER,
            "database": "postgres",
        });
        Self::launch(("POSTGRES", pool.to_string()), settings)
    }

    fn launch(store: (&str, String), settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command
            .arg("app.mjs")
            .env(store.0, store.1)
            .env("SECRETS", serde_json::json!([SECRET]).to_string())
            .envs(settings.iter().copied())
            .current_dir(express::app("sharing"));
        let process = Process::start(&mut command);
        let port = |line: &str| line.strip_prefix("listening ")?.parse::<u16>().ok();
        let Some(port) = process.output().find(PATIENCE, port) else {
            panic!("it does not start:\n{}", process.output().text());
        };
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            process,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until it says so.
    pub fn says(&self, wanted: &str) {
        let said = |line: &str| (line == wanted).then_some(());
        let found = self.process.output().find(PATIENCE, said);
        assert!(found.is_some(), "{}", self.process.output().text());
    }

    /// The configuration of a proxy in front of it.
    pub fn config(&self, redis: &Redis) -> Config {
        self.config_at(&redis.url())
    }

    /// The same for a store at this URL.
    pub fn config_at(&self, url: &str) -> Config {
        Config::to(self.addr)
            .store(url)
            .set("store.layout", "express")
            .set("session.share_with_app", true)
            .set("session.cookie.name", COOKIE)
    }

    /// Signs somebody in at `addr`, which is the application's or a proxy's, by the
    /// application's own login.
    ///
    /// # Panics
    /// If that fails.
    pub fn sign_in(addr: SocketAddr, user: &Value) -> CookieJar {
        let body = serde_json::json!({ "user": user });
        let response = Request::post("/public/app-login").json(&body).send(addr);
        assert_eq!(response.status, 200, "{}", response.text());
        let mut jar = CookieJar::new();
        jar.store(&response);
        assert!(jar.get(COOKIE).is_some(), "{response:?}");
        jar
    }
}

/// What the application sees of the visitor on a page, by way of `addr`.
pub fn seen(addr: SocketAddr, page: &str, jar: &CookieJar) -> Value {
    let response = Request::get(page).cookies(jar).send(addr);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Posts JSON as the visitor.
pub fn post(addr: SocketAddr, page: &str, jar: &CookieJar, body: &Value) -> Response {
    Request::post(page).json(body).cookies(jar).send(addr)
}
