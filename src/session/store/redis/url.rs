//! `store.url` for Redis.
//!
//! The messages name what is wrong and quote nothing: where a password has
//! characters that belong to the URL, any part may be a piece of it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::base::secret::Secret;

/// Where Redis is, and how to get in. Its `Debug` and [`RedisUrl::shown`] hold no
/// user name and no password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) servers: Servers,
    pub(super) login: Login,
    pub(super) database: u32,
    /// Whether workers speak the newer protocol. The channel that tells of changes
    /// always does.
    pub(super) resp3: bool,
    pub(super) tls: Option<TlsFiles>,
}

/// Which servers there are.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Servers {
    One(Address),
    Sentinel {
        sentinels: Vec<Address>,
        master: String,
        login: Login,
    },
    Cluster(Vec<Address>),
}

/// A place to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Address {
    /// Host (an IPv6 address without brackets) and port.
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Who we say we are.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
}

/// What secures the connections. Certificates are always verified.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Authorities in PEM; without it, those that the system trusts.
    pub(super) ca: Option<PathBuf>,
    /// Our certificate with its chain, and its key, in PEM.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// What each server's certificate must hold; without it, its host.
    pub(super) server_name: Option<String>,
}

/// What is wrong with a URL, and what to write instead; nothing of the URL itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlFault {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

const ENCODE: &str = "percent-encode characters such as / ? # @ : % in user names and passwords";

/// The schemes: name, TLS, form.
const SCHEMES: [(&str, bool, Form); 7] = [
    ("redis", false, Form::One),
    ("rediss", true, Form::One),
    ("redis+unix", false, Form::Unix),
    ("redis+sentinel", false, Form::Sentinel),
    ("rediss+sentinel", true, Form::Sentinel),
    ("redis+cluster", false, Form::Cluster),
    ("rediss+cluster", true, Form::Cluster),
];

#[derive(Clone, Copy, PartialEq)]
enum Form {
    One,
    Unix,
    Sentinel,
    Cluster,
}

impl Form {
    fn example(self, tls: bool) -> String {
        let s = if tls { "s" } else { "" };
        match self {
            Self::One => format!("write redis{s}://[user:password@]host[:port][/database]"),
            Self::Unix => "write redis+unix:///path/of/the/socket[?db=0&user=…&pass=…]".into(),
            Self::Sentinel => format!(
                "write redis{s}+sentinel://[user:password@]host[:port],host[:port][/database]?master=NAME"
            ),
            Self::Cluster => {
                format!("write redis{s}+cluster://[user:password@]host[:port],host[:port]")
            }
        }
    }

    fn parameters(self, tls: bool) -> Vec<&'static str> {
        let mut names: Vec<&str> = match self {
            Self::One | Self::Cluster => vec!["protocol"],
            Self::Unix => vec!["db", "user", "pass", "protocol"],
            Self::Sentinel => vec!["master", "sentinel_user", "sentinel_password", "protocol"],
        };
        if tls {
            names.extend(["ca", "cert", "key", "server_name"]);
        }
        names
    }
}

impl RedisUrl {
    /// Whether this is the scheme of a URL that [`RedisUrl::parse`] takes.
    pub fn knows(scheme: &str) -> bool {
        SCHEMES.iter().any(|(name, ..)| *name == scheme)
    }

    /// Understands a URL. No file is looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what to write instead.
    pub fn parse(url: &str) -> Result<Self, UrlFault> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
        let Some(&(name, tls, form)) = known else {
            return Err(UrlFault {
                what: "this is not a Redis URL".into(),
                help: Form::One.example(false),
            });
        };
        let rest = url.get(name.len() + 3..).unwrap_or_default();
        parse(rest, tls, form).map_err(|what| UrlFault {
            what,
            help: format!("{}; {ENCODE}", form.example(tls)),
        })
    }

    /// The URL without user names, passwords and files.
    pub fn shown(&self) -> String {
        let s = if self.tls.is_some() { "s" } else { "" };
        let database = self.database;
        match &self.servers {
            Servers::One(Address::Unix(path)) => format!("redis+unix://{}", path.display()),
            Servers::One(address) => format!("redis{s}://{address}/{database}"),
            Servers::Sentinel {
                sentinels, master, ..
            } => format!(
                "redis{s}+sentinel://{}/{database}?master={master}",
                joined(sentinels)
            ),
            Servers::Cluster(seeds) => format!("redis{s}+cluster://{}", joined(seeds)),
        }
    }

    /// Whether keys are spread over nodes by their names.
    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// Where Redis is, for messages.
    pub(super) fn place(&self) -> String {
        match &self.servers {
            Servers::One(address) => address.to_string(),
            Servers::Sentinel { master, .. } => format!("the Sentinels' master {master}"),
            Servers::Cluster(seeds) => format!("the cluster of {}", joined(seeds)),
        }
    }

    /// The same with each path put through `place`, which knows what relative ones
    /// are relative to.
    #[must_use]
    pub fn with_paths(mut self, place: impl Fn(&Path) -> PathBuf) -> Self {
        if let Some(files) = &mut self.tls {
            files.ca = files.ca.take().map(|path| place(&path));
            files.identity = files
                .identity
                .take()
                .map(|(cert, key)| (place(&cert), place(&key)));
        }
        self
    }

    /// Reads the files of TLS, if there are any.
    ///
    /// # Errors
    ///
    /// Which one cannot be used, and why; nothing of what is in it.
    pub fn check_files(&self) -> Result<(), String> {
        match &self.tls {
            Some(files) => super::tls::load(files).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn joined(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn parse(rest: &str, tls: bool, form: Form) -> Result<RedisUrl, String> {
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a Redis URL has no spaces".into());
    }
    if rest.contains('#') {
        return Err("a # means nothing in a Redis URL".into());
    }
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match before.find('/') {
        Some(at) => before.split_at(at),
        None => (before, ""),
    };
    let mut query = Query::read(query, &form.parameters(tls))?;
    let (mut login, hosts) = user_info(authority)?;
    let servers = match form {
        Form::Unix if !authority.is_empty() => {
            return Err("the URL of a socket has no host".into());
        }
        Form::Unix => {
            if path.len() < 2 {
                return Err("the path of the socket is missing".into());
            }
            login = Login::new(query.take("user"), query.take("pass"))?;
            Servers::One(Address::Unix(decoded(path)?.into()))
        }
        Form::One if hosts.contains(',') => {
            return Err("several hosts need Sentinel or a cluster".into());
        }
        Form::One => Servers::One(host(hosts, 6379)?),
        Form::Sentinel => Servers::Sentinel {
            sentinels: several(hosts, 26379)?,
            master: query
                .take("master")
                .ok_or("the name of the master is missing")?,
            login: Login::new(query.take("sentinel_user"), query.take("sentinel_password"))?,
        },
        Form::Cluster => Servers::Cluster(several(hosts, 6379)?),
    };
    let database = match form {
        Form::Unix => number(query.take("db").as_deref().unwrap_or_default())?,
        _ => number(path.strip_prefix('/').unwrap_or(path))?,
    };
    if form == Form::Cluster && database != 0 {
        return Err("a cluster has no database but 0".into());
    }
    Ok(RedisUrl {
        servers,
        login,
        database,
        resp3: match query.take("protocol").as_deref() {
            None | Some("resp2" | "2") => false,
            Some("resp3" | "3") => true,
            Some(_) => return Err("`protocol` is neither resp2 nor resp3".into()),
        },
        tls: tls.then(|| tls_files(&mut query)).transpose()?,
    })
}

fn tls_files(query: &mut Query) -> Result<TlsFiles, String> {
    let server_name = query.take("server_name");
    if let Some(name) = &server_name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        return Err("`server_name` is no name that a certificate can hold".into());
    }
    Ok(TlsFiles {
        ca: query.take("ca").map(PathBuf::from),
        identity: match (query.take("cert"), query.take("key")) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            _ => return Err("`cert` and `key` belong together".into()),
        },
        server_name,
    })
}

/// User information, and what follows it.
fn user_info(authority: &str) -> Result<(Login, &str), String> {
    let Some((info, hosts)) = authority.rsplit_once('@') else {
        return Ok((Login::default(), authority));
    };
    if info.contains('@') {
        return Err("there are two @ before the path".into());
    }
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let some = |text: &str| match text.is_empty() {
        true => Ok(None),
        false => decoded(text).map(Some),
    };
    Ok((Login::new(some(user)?, some(password)?)?, hosts))
}

impl Login {
    fn new(user: Option<String>, password: Option<String>) -> Result<Self, String> {
        if user.is_some() && password.is_none() {
            return Err("there is a user name, and no password".into());
        }
        Ok(Self {
            user,
            password: password.map(Secret::new),
        })
    }
}

fn several(hosts: &str, port: u16) -> Result<Vec<Address>, String> {
    hosts.split(',').map(|one| host(one, port)).collect()
}

fn host(text: &str, port: u16) -> Result<Address, String> {
    let (name, after) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, after) = rest.split_once(']').ok_or("a [ has no ]")?;
            name.parse::<std::net::Ipv6Addr>()
                .map_err(|_| "what stands in [ ] is not an IPv6 address")?;
            (name, after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            text.split_at(end)
        }
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("a host is missing, or is not a name or an address".into());
    }
    let unspecified = name
        .parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip.is_unspecified());
    if unspecified {
        return Err("0.0.0.0 and [::] are addresses to listen on, not to connect to".into());
    }
    let port = match after.strip_prefix(':') {
        None if after.is_empty() => port,
        Some(digits) => match digits.parse() {
            Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => port,
            _ => return Err("a port is not a number from 1 to 65535".into()),
        },
        None => return Err("a host is followed by something that is no port".into()),
    };
    Ok(Address::Tcp(name.into(), port))
}

fn number(digits: &str) -> Result<u32, String> {
    match digits {
        "" => Ok(0),
        _ if digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| "the database".into())
        }
        _ => Err("the database is not a number".into()),
    }
}

/// Percent-decoded text. Unlike the decoder's own reading, a % must begin an escape.
fn decoded(text: &str) -> Result<String, String> {
    let whole = text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    });
    let decoded = percent_decode_str(text).decode_utf8();
    match decoded {
        Ok(text) if whole => Ok(text.into_owned()),
        _ => Err("a % does not begin an escape of UTF-8 text".into()),
    }
}

/// What stands after the question mark.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(format!("after the ? only these names are known: {known}"));
            }
            if found.iter().any(|(other, _)| other == name) {
                return Err(format!("`{name}` is there twice"));
            }
            if value.is_empty() {
                return Err(format!("`{name}` has no value"));
            }
            found.push((name.to_owned(), decoded(value)?));
        }
        Ok(Self(found))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1)
    }
}
