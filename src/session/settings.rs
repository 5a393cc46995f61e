//! What the configuration says of sessions, as plain data.

use std::path::PathBuf;
use std::time::Duration;

use super::store::postgres::url::PostgresUrl;
use super::store::redis::RedisUrl;
use crate::base::secret::Secret;

/// `[session]`, without its cookie.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The first signs and seals, all verify. Never empty.
    pub secrets: Vec<Secret>,
    /// A session that is not used for this long ends.
    pub idle_timeout: Duration,
    /// A session ends this long after its login, however much it is used.
    pub absolute_timeout: Duration,
    /// At most one write per session in this time. Never more than a tenth of
    /// `idle_timeout`.
    pub touch_interval: Duration,
    /// The most sessions of one user; 0: no limit.
    pub max_per_user: usize,
    /// Dotted path of the user id in the record.
    pub user: String,
    /// Dotted path of the roles in the record.
    pub roles: String,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where the sessions are.
    pub location: StoreLocation,
    /// How records are written.
    pub layout: LayoutKind,
    /// What the names of session keys begin with.
    pub prefix: String,
    /// The longest that one operation may take before it counts as an outage.
    pub timeout: Duration,
    /// `[store.cache]`.
    pub cache: CacheSettings,
}

/// `store.layout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LayoutKind {
    /// Encrypted; the store never learns a token.
    #[default]
    Sealed,
    /// As express-session writes them, so that applications share them.
    Express {
        /// Where the user id is in a record; a dotted path.
        user: String,
    },
}

/// `[store.cache]`: copies of sessions in this process.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// The most sessions that are copied; 0: none is.
    pub entries: usize,
    /// How long copies are believed after the channel that tells of changes was
    /// last proven alive.
    pub staleness: Duration,
    /// While the store is down, sessions that were seen within this time go on.
    pub serve_stale_for: Duration,
}

impl Default for CacheSettings {
    /// What the configuration says where it is silent.
    fn default() -> Self {
        Self {
            entries: 100_000,
            staleness: Duration::from_secs(1),
            serve_stale_for: Duration::ZERO,
        }
    }
}

/// `store.url`, understood.
#[derive(Clone)]
pub enum StoreLocation {
    /// `memory:`: gone with the process.
    Memory,
    /// `file:DIR`: embedded, in this folder.
    File(PathBuf),
    /// `redis://…` and the like: one server, Sentinels, or a cluster.
    Redis(Box<RedisUrl>),
    /// `postgres://…`: a database.
    Postgres(Box<PostgresUrl>),
}

impl std::fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(folder) => write!(f, "file:{}", folder.display()),
            Self::Redis(url) => write!(f, "{url:?}"),
            Self::Postgres(url) => f.write_str(url.shown()),
        }
    }
}

impl StoreLocation {
    /// Whether several replicas can use it at once.
    pub fn can_be_shared(&self) -> bool {
        matches!(self, Self::Redis(_) | Self::Postgres(_))
    }
}
