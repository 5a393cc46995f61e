//! TLS toward Redis. Certificates are always verified: there is no setting that
//! turns it off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::url::TlsFiles;
use crate::base::crypto;

/// The files as they are now: a connection that is made after they have changed
/// uses the new ones, if they can be used.
pub(super) struct Tls {
    files: TlsFiles,
    loaded: Mutex<(Stamps, Arc<ClientConfig>)>,
}

/// When each file was last written, and how long it is.
type Stamps = Vec<Option<(SystemTime, u64)>>;

impl Tls {
    /// Reads the files.
    pub(super) fn new(files: &TlsFiles) -> Result<Self, String> {
        let stamps = stamps(files);
        let config = load(files)?;
        Ok(Self {
            files: files.clone(),
            loaded: Mutex::new((stamps, config)),
        })
    }

    /// What a new connection is made with.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let stamps = stamps(&self.files);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.0 != stamps {
            // Looked at once for each change, whether they can be used or not.
            loaded.0 = stamps;
            match load(&self.files) {
                Ok(config) => loaded.1 = config,
                Err(why) => tracing::error!(
                    "the TLS files of store.url have changed and cannot be used, so those from before stay in force: {why}"
                ),
            }
        }
        loaded.1.clone()
    }

    /// The name that the certificate of a server must hold.
    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = self.files.server_name.as_deref().unwrap_or(host).to_owned();
        ServerName::try_from(name)
            .map_err(|_| "its host is no name that a certificate can hold".to_owned())
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let identity = files.identity.as_ref();
    [
        files.ca.as_ref(),
        identity.map(|(cert, _)| cert),
        identity.map(|(_, key)| key),
    ]
    .into_iter()
    .map(|path: Option<&PathBuf>| {
        let found = std::fs::metadata(path?).ok()?;
        Some((found.modified().ok()?, found.len()))
    })
    .collect()
}

/// Reads the files; says which one is wrong, and nothing of what is in it.
pub(super) fn load(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let roots = match &files.ca {
        Some(path) => authorities(path)?,
        None => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(chain(cert)?, private_key(key)?)
            .map_err(|error| {
                format!(
                    "the certificate {} and the key {} cannot be used together: {error}",
                    cert.display(),
                    key.display()
                )
            })?,
    };
    Ok(Arc::new(config))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| {
            format!(
                "{} holds a certificate that cannot be used: {error}",
                path.display()
            )
        })?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Some systems ship certificates that no implementation accepts.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(
            "this system has no certificates of authorities, so name one with ca=FILE".to_owned(),
        ),
        false => Ok(roots),
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{} is not a valid PEM file", path.display()))?;
    match certificates.is_empty() {
        true => Err(format!("{} holds no certificate", path.display())),
        false => Ok(certificates),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => format!(
            "{} holds no private key (an encrypted one cannot be read)",
            path.display()
        ),
        _ => format!("{} is not a valid PEM file", path.display()),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "reading it is not allowed".to_owned(),
            _ => error.to_string(),
        };
        format!("{} cannot be read: {why}", path.display())
    })
}
