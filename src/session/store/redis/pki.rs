//! An authority for a test, with one certificate that servers and clients share.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

pub(crate) struct Pki {
    folder: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of what it issues, which would look self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let pki = Self { folder };
        std::fs::write(pki.ca(), issuer.pem()).unwrap();
        std::fs::write(pki.cert(), certificate.pem()).unwrap();
        std::fs::write(pki.key(), key.serialize_pem()).unwrap();
        pki
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// For `store.url`, after its question mark.
    pub(crate) fn query(&self) -> String {
        format!(
            "ca={}&cert={}&key={}",
            self.ca().display(),
            self.cert().display(),
            self.key().display()
        )
    }
}
