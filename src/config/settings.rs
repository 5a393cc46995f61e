//! The settings of a file, each understood by itself and with its place; what
//! the compiler works on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Method};

use super::keys::{self, Kind};
use super::problem::Place;
use super::tree;
use super::value::{self, Context};
use crate::base::rate::Rate;
use crate::base::secret::Secret;
use crate::policy::route::HostPattern;
use crate::server::settings::ListenAddress;
use crate::session::settings::StoreLocation;
use crate::upstream::settings::{HostHeader, UpstreamAddress};
use crate::wire::client::Origin;

/// A value and where it stands. Equal where the values are, wherever they
/// stand.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub value: T,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A value, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A string, checked as its kind asks.
    Text(String),
    /// A span of time.
    Duration(Duration),
    /// Bytes; `None`: no limit.
    Size(Option<u64>),
    /// Where to listen.
    Listen(ListenAddress),
    /// A rate; `None`: no limit.
    Rate(Option<Rate>),
    /// A listening address; `None`: off.
    Socket(Option<SocketAddr>),
    /// Peers that are meant.
    Network(Network),
    /// Scheme and host, and whether the scheme is https.
    Origin(PublicUrl),
    /// An origin, or any.
    CorsOrigin(CorsOrigin),
    /// An upstream's address.
    Upstream(UpstreamAddress),
    /// What an upstream gets as `Host`.
    HostHeader(HostHeader),
    /// A route's host.
    Host(HostPattern),
    /// A method.
    Method(Method),
    /// A field name.
    Header(HeaderName),
    /// A file or folder; `None`: none.
    File(Option<PathBuf>),
    /// A cookie's domain.
    Domain(Option<String>),
    /// A secret.
    Secret(Secret),
    /// A store.
    Store(StoreUrl),
    /// `"auto"`, or yes or no.
    Secure(Option<bool>),
    /// Several.
    List(Vec<At<Setting>>),
}

/// `trust.proxies`, one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// These networks.
    Nets(Vec<ipnet::IpNet>),
    /// Peers on Unix sockets.
    Unix,
}

/// `server.public_url`.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicUrl {
    /// Scheme, host and port.
    pub origin: Origin,
    /// Whether the scheme is https.
    pub https: bool,
    /// The host, in lower case, without port.
    pub host: String,
    /// The whole, as it was written.
    pub text: String,
}

/// An item of `cors.origins`.
#[derive(Clone, Debug, PartialEq)]
pub enum CorsOrigin {
    /// `*`.
    Any,
    /// This one.
    One(PublicUrl),
}

/// `store.url`.
#[derive(Clone, Debug)]
pub struct StoreUrl {
    /// Where the sessions are.
    pub location: StoreLocation,
    /// The same in words, without a password.
    pub shown: String,
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        match (&self.location, &other.location) {
            (StoreLocation::Memory, StoreLocation::Memory) => true,
            (StoreLocation::File(a), StoreLocation::File(b)) => a == b,
            (StoreLocation::Redis(a), StoreLocation::Redis(b)) => a == b,
            (StoreLocation::Postgres(a), StoreLocation::Postgres(b)) => a == b,
            _ => false,
        }
    }
}

/// The key table and the compiler disagree: a defect of Cloakroom, not of the
/// file.
#[derive(Debug)]
pub struct Defect(pub String);

/// What the compiler takes out of a [`Setting`].
pub trait FromSetting: Sized {
    /// The value, if the setting is of this kind.
    fn from_setting(setting: Setting) -> Option<Self>;
}

macro_rules! from_setting {
    ($($type:ty = $variant:ident;)+) => {
        $(impl FromSetting for $type {
            fn from_setting(setting: Setting) -> Option<Self> {
                match setting {
                    Setting::$variant(value) => Some(value),
                    _ => None,
                }
            }
        })+
    };
}

from_setting! {
    bool = Boolean;
    String = Text;
    Duration = Duration;
    ListenAddress = Listen;
    Option<Rate> = Rate;
    Network = Network;
    PublicUrl = Origin;
    CorsOrigin = CorsOrigin;
    UpstreamAddress = Upstream;
    HostHeader = HostHeader;
    HostPattern = Host;
    Method = Method;
    HeaderName = Header;
    Secret = Secret;
    StoreUrl = Store;
    Option<u64> = Size;
    Option<SocketAddr> = Socket;
    Option<PathBuf> = File;
    Option<String> = Domain;
    Option<bool> = Secure;
}

impl FromSetting for usize {
    fn from_setting(setting: Setting) -> Option<Self> {
        match setting {
            Setting::Integer(number) => Self::try_from(number).ok(),
            Setting::Size(Some(bytes)) => Self::try_from(bytes).ok(),
            _ => None,
        }
    }
}

impl FromSetting for u32 {
    fn from_setting(setting: Setting) -> Option<Self> {
        match setting {
            Setting::Integer(number) => Self::try_from(number).ok(),
            _ => None,
        }
    }
}

impl<T: FromSetting> FromSetting for Vec<At<T>> {
    fn from_setting(setting: Setting) -> Option<Self> {
        let Setting::List(items) = setting else {
            return None;
        };
        items
            .into_iter()
            .map(|item| {
                Some(At {
                    place: item.place,
                    value: T::from_setting(item.value)?,
                })
            })
            .collect()
    }
}

/// A setting that was given.
#[derive(Debug)]
pub struct Given {
    /// Where it stands.
    pub place: Place,
    /// What it is, as far as it could be understood.
    pub value: Option<Setting>,
    /// Whether a problem of it was reported.
    pub faulty: bool,
}

/// Every setting that was given, by its place in the file (`routes[0].path`).
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Given>,
    sections: BTreeMap<String, Vec<At<String>>>,
    places: BTreeMap<String, Place>,
    folder: PathBuf,
}

impl Settings {
    /// No settings; paths in defaults are counted from this folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            ..Self::default()
        }
    }

    /// The folder from which relative paths are counted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a setting, as far as it could be understood.
    pub fn insert(&mut self, path: String, given: Given) {
        self.values.insert(path, given);
    }

    /// Keeps that a section stands at a place.
    pub fn place_section(&mut self, path: String, place: Place) {
        self.places.insert(path, place);
    }

    /// Keeps that a section with names of the operator's choosing has this one.
    pub fn name(&mut self, section: &str, name: At<String>) {
        self.sections
            .entry(section.to_string())
            .or_default()
            .push(name);
    }

    /// The names in such a section (or the numbers of an array of tables), in
    /// the order of the file where it is one file.
    pub fn names(&self, section: &str) -> &[At<String>] {
        self.sections.get(section).map_or(&[], Vec::as_slice)
    }

    /// Whether the section stands in the file, even if empty.
    pub fn has_section(&self, section: &str) -> bool {
        self.places.contains_key(section)
    }

    /// One section. `pattern` is its path in the key table.
    pub fn section<'a>(&'a self, path: &str, pattern: &'a str) -> Section<'a> {
        Section {
            settings: self,
            place: self.places.get(path).cloned().unwrap_or(Place::Whole),
            path: path.to_string(),
            pattern,
        }
    }
}

/// One section of the settings.
#[derive(Debug)]
pub struct Section<'a> {
    settings: &'a Settings,
    pattern: &'a str,
    /// Where it is, such as `routes[0]`.
    pub path: String,
    /// Where it stands.
    pub place: Place,
}

impl Section<'_> {
    fn given(&self, name: &str) -> Option<&Given> {
        self.settings.values.get(&format!("{}.{name}", self.path))
    }

    /// Whether the key was given at all, be it with a faulty value.
    pub fn is_set(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// Whether the key was given with a value that could not be understood, or
    /// not all of it; it is reported already, and nothing should be concluded
    /// from what stands in for it.
    pub fn is_faulty(&self, name: &str) -> bool {
        self.given(name).is_some_and(|given| given.faulty)
    }

    /// Where the key stands, or else its section.
    pub fn place(&self, name: &str) -> Place {
        self.given(name)
            .map_or_else(|| self.place.clone(), |at| at.place.clone())
    }

    /// The value, or the default where there is none or a faulty one.
    ///
    /// # Errors
    ///
    /// The table has no such key, no default, or another type.
    pub fn get<T: FromSetting>(&self, name: &str) -> Result<T, Defect> {
        if let Some(value) = self.optional(name)? {
            return Ok(value);
        }
        let path = format!("{}.{name}", self.pattern);
        let key = keys::find(&path).ok_or_else(|| Defect(format!("no key `{path}`")))?;
        let text = key
            .default
            .ok_or_else(|| Defect(format!("`{path}` has no default")))?;
        let setting = default_of(&key.kind, text, &self.settings.folder)?;
        T::from_setting(setting).ok_or_else(|| Defect(format!("`{path}` is of another type")))
    }

    /// The value, if there is one that could be understood.
    ///
    /// # Errors
    ///
    /// It is of another type.
    pub fn optional<T: FromSetting>(&self, name: &str) -> Result<Option<T>, Defect> {
        let Some(setting) = self.given(name).and_then(|at| at.value.clone()) else {
            return Ok(None);
        };
        match T::from_setting(setting) {
            Some(value) => Ok(Some(value)),
            None => Err(Defect(format!("`{}.{name}` is of another type", self.path))),
        }
    }
}

/// A default of the key table, understood. Paths in it are counted from the
/// folder.
///
/// # Errors
///
/// The table is wrong; a test reads every default.
pub fn default_of(kind: &Kind, text: &str, folder: &Path) -> Result<Setting, Defect> {
    let node = tree::parse_value(text, &Place::Whole)
        .map_err(|error| Defect(format!("default `{text}`: {error}")))?;
    let context = Context {
        folder,
        environment: None,
    };
    let reading = value::read(kind, &node, &context);
    match reading.value {
        Some(value) if reading.problems.is_empty() => Ok(value),
        _ => Err(Defect(format!("default `{text}`: {:?}", reading.problems))),
    }
}
