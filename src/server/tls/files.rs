//! The certificate files: what tells that they have changed, and their
//! contents.
//!
//! Kubernetes replaces mounted files by swapping a symbolic link in their
//! path, so stamps are those of the files that the paths lead to.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;

use crate::server::settings::TlsSettings;

/// The largest file that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// A file that was written this recently may be written again without its
/// time of change telling.
const SETTLING: Duration = Duration::from_secs(3);

/// Tells a change of the files without reading them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamps {
    /// Of the files as they are now.
    pub(super) fn of(settings: &TlsSettings) -> Self {
        let stamp = |path: &Path| {
            let data = fs::metadata(path).ok()?;
            Some(Stamp {
                device: data.dev(),
                inode: data.ino(),
                length: data.len(),
                changed: (data.ctime(), data.ctime_nsec()),
            })
        };
        Self(paths(settings).map(stamp).collect())
    }

    /// Whether another change would show.
    pub(super) fn settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.0.iter().flatten().all(|stamp| {
            let changed = Duration::from_secs(u64::try_from(stamp.changed.0).unwrap_or(0));
            // A time to come is a clock that was set back, and tells nothing.
            now.checked_sub(changed).is_none_or(|age| age > SETTLING)
        })
    }
}

/// Tells one content from another.
pub(super) type Digest = Vec<u8>;

/// What stands in the files.
pub(super) struct Contents {
    /// Of each certificate: the chain and the key.
    pub(super) pairs: Vec<(Vec<u8>, zeroize::Zeroizing<Vec<u8>>)>,
    /// The authorities of clients.
    pub(super) client_ca: Option<Vec<u8>>,
}

impl Contents {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Which one cannot be read, and why.
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for files in &settings.certificates {
            let cert = read("the certificate", &files.cert)?;
            let key = read("the private key", &files.key)?;
            pairs.push((cert, zeroize::Zeroizing::new(key)));
        }
        let client_ca = settings
            .client_ca
            .as_deref()
            .map(|path| read("server.tls.client_ca", path))
            .transpose()?;
        Ok(Self { pairs, client_ca })
    }

    /// Of all of it, each piece with its length.
    pub(super) fn digest(&self) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        };
        for (cert, key) in &self.pairs {
            add(cert);
            add(key);
        }
        add(self.client_ca.as_deref().unwrap_or_default());
        context.finish().as_ref().to_vec()
    }
}

fn paths(settings: &TlsSettings) -> impl Iterator<Item = &Path> {
    settings
        .certificates
        .iter()
        .flat_map(|files| [files.cert.as_path(), files.key.as_path()])
        .chain(settings.client_ca.as_deref())
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let explain = |error: std::io::Error| {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "; paths are counted from the folder of the configuration file"
            }
            std::io::ErrorKind::PermissionDenied => {
                "; the user that Cloakroom runs as must be allowed to read it"
            }
            _ => "",
        };
        format!("{what} {shown} cannot be read: {error}{fix}")
    };
    let file = fs::File::open(path).map_err(explain)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(explain)?;
    if bytes.is_empty() {
        return Err(format!("{what} {shown} is empty"));
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(format!("{what} {shown} is larger than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}
