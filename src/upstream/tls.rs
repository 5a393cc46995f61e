//! TLS toward upstreams. The certificate is always verified: there is no
//! setting that turns it off.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::base::crypto;

/// What is offered by ALPN, the best first (RFC 7301, RFC 9113 section 3.2).
const PROTOCOLS: [&[u8]; 2] = [b"h2", HTTP1];

const HTTP1: &[u8] = b"http/1.1";

/// How connections to `https` addresses of one upstream are secured.
#[derive(Clone)]
pub struct TlsClient {
    /// Shared by all workers, and with it the sessions that can be resumed.
    pub config: Arc<ClientConfig>,
    /// The same, with HTTP/1.1 as the only choice.
    pub http1: Arc<ClientConfig>,
    /// The name that the certificate must hold; `None`: the host of the URL.
    pub server_name: Option<ServerName<'static>>,
}

/// Prints no key.
impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A certificate chain and its private key.
pub type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl TlsClient {
    /// Trusts these authorities, and shows this certificate where the upstream
    /// asks for one.
    ///
    /// # Errors
    ///
    /// The certificate and the key do not belong together, or cannot be used.
    pub fn new(
        roots: RootCertStore,
        identity: Option<ClientIdentity>,
        server_name: Option<ServerName<'static>>,
    ) -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let mut http1 = config.clone();
        http1.alpn_protocols.retain(|name| name == HTTP1);
        Ok(Self {
            config: Arc::new(config),
            http1: Arc::new(http1),
            server_name,
        })
    }
}

/// The authorities in a PEM file.
///
/// # Errors
///
/// What is wrong with it, in a few words.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// The authorities that this system trusts.
///
/// # Errors
///
/// There are none, and why.
pub fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems ship certificates that no implementation accepts.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(match reason.is_empty() {
            true => "this system has no certificates of authorities".to_owned(),
            false => reason.join(", "),
        });
    }
    Ok(roots)
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
///
/// What is wrong with it, in a few words.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not a valid PEM file: {error}"))?;
    match certificates.is_empty() {
        true => Err("holds no certificate".to_owned()),
        false => Ok(certificates),
    }
}

/// The first private key in a PEM file.
///
/// # Errors
///
/// What is wrong with it, in a few words; nothing of what it holds.
pub fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "holds no private key (an encrypted one cannot be read)".to_owned()
        }
        _ => "is not a valid PEM file".to_owned(),
    })
}

/// The name that a certificate must hold.
pub fn server_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}
