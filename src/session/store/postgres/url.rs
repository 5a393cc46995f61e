//! `store.url` for PostgreSQL.
//!
//! The messages name what is wrong and quote nothing: where a password has
//! characters that belong to the URL, any part may be a piece of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Material, Mode};
use crate::base::secret::Secret;

const ENCODE: &str =
    "characters such as @ : / ? # % in the user name or password must be percent-encoded";

/// What may follow the `?` and is handed on as it is.
const HANDED_ON: [&str; 15] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// What may follow the `?` and is understood here.
const OWN: [&str; 6] = [
    "schema",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "table",
];

/// The table of connect-pg-simple, where nothing else is said.
const TABLE: &str = "session";

/// PostgreSQL cuts off what is longer (`NAMEDATALEN`).
const LONGEST_NAME: usize = 63;

/// `postgres://[user[:password]@]host[:port][,…]/database[?name=value&…]`,
/// understood. The files that it names have been read.
#[derive(Clone)]
pub struct PostgresUrl {
    /// As it was written.
    text: Secret,
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// The schema of the tables; `None`: as the search path says.
    pub(super) schema: Option<String>,
    table: Option<String>,
    /// Where it is, for messages: hosts and database.
    place: String,
    /// TLS is used, or may be, and nobody checks who answers.
    unverified: bool,
}

/// Shows no password.
impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// Equal where the texts are.
impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PostgresUrl {
    /// Understands a URL. `path` makes a path of the configuration absolute.
    ///
    /// # Errors
    ///
    /// What is wrong with it or with a file that it names, without a word of
    /// the URL that may be secret.
    pub fn parse(text: &str, path: impl Fn(&str) -> PathBuf) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err("it begins with neither postgres:// nor postgresql://".into());
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("it holds a blank or a control character".into());
        }
        let (who, rest) = match rest.split_once('@') {
            Some((who, rest)) => (Some(who), rest),
            None => (None, rest),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains(['@', '#']) || place.matches('/').count() > 1 {
            return Err(format!("its host or database is unclear; {ENCODE}"));
        }
        let query = Query::read(query)?;
        let who = who.map(|who| format!("{who}@")).unwrap_or_default();
        let rest = query.handed_on.join("&");
        // The library's own words are dropped: they may repeat a part of it.
        let mut config: Config = format!("postgres://{who}{place}?{rest}")
            .parse()
            .map_err(|_| format!("its host, port or a value after the ? is wrong; {ENCODE}"))?;
        check_hosts(&config)?;
        let local = config
            .get_hosts()
            .iter()
            .all(|h| matches!(h, Host::Unix(_)));
        let material = query.material(local, path)?;
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        if direct && matches!(material.mode, Mode::Disable | Mode::Prefer) {
            return Err("sslnegotiation=direct needs sslmode=require or a stricter one".into());
        }
        let tls = tls::connector(&material, direct)?;
        config.ssl_mode(match material.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        defaults(&mut config);
        Ok(Self {
            text: Secret::new(text),
            place: shown(&config),
            unverified: material.mode == Mode::Require && material.roots.is_none(),
            config,
            tls: MakeRustlsConnect::new(tls),
            schema: query.schema,
            table: query.table,
        })
    }

    /// The URL in words: hosts and database, neither user nor password.
    pub fn shown(&self) -> &str {
        &self.place
    }

    /// Whether TLS is asked for, and nothing would tell the server from
    /// somebody between: `sslmode=require` without `sslrootcert`.
    pub fn is_unverified(&self) -> bool {
        self.unverified
    }

    /// The table of the application that shares its sessions: `table`, or `session`.
    pub fn table(&self) -> &str {
        self.table.as_deref().unwrap_or(TABLE)
    }

    /// Whether it says which table that is.
    pub fn names_a_table(&self) -> bool {
        self.table.is_some()
    }

    /// A text without the password, if it holds it.
    pub(super) fn without_password(&self, text: String) -> String {
        match self.config.get_password().map(std::str::from_utf8) {
            Some(Ok(password)) if !password.is_empty() => text.replace(password, "…"),
            _ => text,
        }
    }
}

/// What follows the `?`.
#[derive(Default)]
struct Query<'a> {
    handed_on: Vec<&'a str>,
    schema: Option<String>,
    table: Option<String>,
    mode: Option<Mode>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl<'a> Query<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("after the ? something has no value; {ENCODE}"))?;
            if HANDED_ON.contains(&name) {
                query.handed_on.push(pair);
                continue;
            }
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| "a value after the ? is not UTF-8")?
                .into_owned();
            match name {
                "schema" | "table"
                    if value.is_empty() || value.len() > LONGEST_NAME || value.contains('\0') =>
                {
                    return Err(format!("{name} is no name"));
                }
                "schema" => query.schema = Some(value),
                "table" => query.table = Some(value),
                "sslmode" => query.mode = Some(mode(&value)?),
                "sslrootcert" => query.roots = Some(value),
                "sslcert" => query.certificate = Some(value),
                "sslkey" => query.key = Some(value),
                _ => {
                    let mut known: Vec<_> = HANDED_ON.into_iter().chain(OWN).collect();
                    known.sort_unstable();
                    return Err(format!(
                        "after the ? only these names are known: {}; {ENCODE}",
                        known.join(", ")
                    ));
                }
            }
        }
        Ok(query)
    }

    fn material(&self, local: bool, path: impl Fn(&str) -> PathBuf) -> Result<Material, String> {
        let mode = match self.mode {
            // PostgreSQL speaks no TLS on Unix sockets.
            _ if local => Mode::Disable,
            None => Mode::Prefer,
            Some(mode) => mode,
        };
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((path(certificate), path(key))),
            (None, None) => None,
            _ => return Err("sslcert and sslkey belong together".into()),
        };
        Ok(Material {
            mode,
            // The word that libpq has for the authorities of the system.
            roots: match self.roots.as_deref() {
                None => None,
                Some("system") => Some(tls::Roots::System),
                Some(file) => Some(tls::Roots::File(path(file))),
            },
            identity,
        })
    }
}

fn mode(word: &str) -> Result<Mode, String> {
    match word {
        "disable" => Ok(Mode::Disable),
        "prefer" => Ok(Mode::Prefer),
        "require" => Ok(Mode::Require),
        "verify-ca" => Ok(Mode::VerifyCa),
        "verify-full" => Ok(Mode::VerifyFull),
        _ => Err("sslmode is disable, prefer, require, verify-ca or verify-full".into()),
    }
}

fn check_hosts(config: &Config) -> Result<(), String> {
    if config.get_hosts().is_empty() {
        return Err(
            "it names no host; a socket's folder is written postgres:///database?host=/run/postgresql"
                .into(),
        );
    }
    let clean = |host: &Host| match host {
        Host::Tcp(name) => {
            let word = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
            !name.is_empty() && name.bytes().all(word)
        }
        Host::Unix(_) => true,
    };
    match config.get_hosts().iter().all(clean) {
        true => Ok(()),
        false => Err(format!("its host is not a name or an address; {ENCODE}")),
    }
}

/// What is not said in the URL, and what must not be said otherwise.
fn defaults(config: &mut Config) {
    // Of several hosts one may be a standby, which may be behind: what it has, may have
    // ended.
    if config.get_hosts().len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name("cloakroom");
    }
    // A peer that has vanished without a word must not be believed for hours.
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(10));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_idle(Duration::from_secs(30));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
    }
}

fn shown(config: &Config) -> String {
    let port = |n: usize| {
        let ports = config.get_ports();
        let port = ports.get(n).or_else(|| ports.first());
        port.copied().unwrap_or(5432)
    };
    let hosts = config.get_hosts().iter().enumerate();
    let hosts: Vec<String> = hosts
        .map(|(n, host)| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", port(n)),
            Host::Tcp(name) => format!("{name}:{}", port(n)),
            Host::Unix(folder) => socket(folder, port(n)),
        })
        .collect();
    let database = config.get_dbname().unwrap_or_default();
    format!("postgres://{}/{database}", hosts.join(","))
}

/// The file that a server's socket is.
fn socket(folder: &Path, port: u16) -> String {
    folder
        .join(format!(".s.PGSQL.{port}"))
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(url, |path| Path::new("/etc/cloakroom").join(path))
    }

    #[test]
    fn urls_are_understood() {
        for (url, shown) in [
            ("postgres://localhost", "postgres://localhost:5432/"),
            (
                "postgresql://carl:p%40ss%2Fw@db.example:6432/sessions?sslmode=require",
                "postgres://db.example:6432/sessions",
            ),
            (
                "postgres://u:p/?#w@[::1]/s?application_name=x&options=-csearch_path%3Dauth",
                "postgres://[::1]:5432/s",
            ),
            (
                "postgres://a:5433,b:5434/s?target_session_attrs=read-write",
                "postgres://a:5433,b:5434/s",
            ),
            (
                "postgres:///s?host=/run/postgresql&schema=auth&sslmode=verify-full",
                "postgres:///run/postgresql/.s.PGSQL.5432/s",
            ),
            (
                "postgres://u@%2Frun%2Fpostgresql:5433/s",
                "postgres:///run/postgresql/.s.PGSQL.5433/s",
            ),
        ] {
            let parsed = parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            assert_eq!(parsed.shown(), shown, "{url}");
            assert_eq!(format!("{parsed:?}"), shown, "{url}");
        }
        let parsed = parse("postgres://carl:p%40ss@h/d?schema=my%20own").unwrap();
        assert_eq!(parsed.config.get_user(), Some("carl"));
        assert_eq!(parsed.config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(parsed.config.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(parsed.schema.as_deref(), Some("my own"));
        assert_eq!((parsed.table(), parsed.names_a_table()), ("session", false));
        let named = parse("postgres://h/d?table=web%20sessions").unwrap();
        assert_eq!(
            (named.table(), named.names_a_table()),
            ("web sessions", true)
        );
        assert_eq!(
            parsed.without_password("what is p@ss to me".into()),
            "what is … to me"
        );
    }

    #[test]
    fn encryption_without_a_check_is_known() {
        for (query, unverified) in [
            ("", false),
            ("?sslmode=disable", false),
            ("?sslmode=prefer", false),
            ("?sslmode=require", true),
        ] {
            let url = format!("postgres://db/s{query}");
            assert_eq!(parse(&url).unwrap().is_unverified(), unverified, "{url}");
        }
    }

    #[test]
    fn urls_that_are_wrong_are_refused_and_not_quoted() {
        for url in [
            "",
            "localhost/s",
            "mysql://hunter2@localhost/s",
            "postgres://",
            "postgres://user:hunter2@",
            "postgres://user:hunter2@/s",
            "postgres://user:pass@hunter2@localhost/s",
            "postgres://user:pass@hunter2/x@localhost/s",
            "postgres://user:pass@hunter2#x@localhost/s",
            "postgres://localhost/s/hunter2",
            "postgres://localhost:hunter2/s",
            "postgres://localhost:99999/s",
            "postgres://user:a b@hunter2/s",
            "postgres://localhost/s?hunter2",
            "postgres://localhost/s?hunter2=1",
            "postgres://localhost/s?sslmode=hunter2",
            "postgres://localhost/s?sslmode=allow",
            "postgres://localhost/s?keepalives=hunter2",
            "postgres://localhost/s?schema=",
            "postgres://localhost/s?table=",
            "postgres://localhost/s?sslcert=hunter2",
            "postgres://localhost/s?sslnegotiation=direct",
            "postgres://localhost/s?target_session_attrs=hunter2",
            "postgres://lo$cal/hunter2",
        ] {
            let Err(why) = parse(url) else {
                panic!("{url} was accepted");
            };
            assert!(!why.contains("hunter2"), "{url}: {why}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        for (query, file) in [
            (
                "sslmode=verify-full&sslrootcert=ca.pem",
                "/etc/cloakroom/ca.pem",
            ),
            (
                "sslmode=require&sslcert=c.pem&sslkey=k.pem",
                "/etc/cloakroom/c.pem",
            ),
        ] {
            let why = parse(&format!("postgres://db/s?{query}")).unwrap_err();
            assert!(why.contains(file), "{why}");
        }
    }
}
