//! The one place that chooses the cryptographic library of TLS, on both sides.

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// AWS-LC: with the key exchange that withstands quantum computers
/// (X25519MLKEM768) first, TLS 1.2 and 1.3 only. Made once, then shared.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
        .clone()
}
