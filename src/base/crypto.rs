//! The one place that chooses the cryptographic library of TLS, on both sides.

use std::sync::{Arc, OnceLock};

use ::aws_lc_rs::hmac;
use rustls::crypto::hmac::{Hmac as _, Tag};
use rustls::crypto::tls13::{Hkdf, HkdfExpander, HkdfUsingHmac, OkmBlock};
use rustls::crypto::{CryptoProvider, aws_lc_rs, hash};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

/// AWS-LC: with the key exchange that withstands quantum computers
/// (X25519MLKEM768) first, TLS 1.2 and 1.3 only. Made once, then shared.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut provider = aws_lc_rs::default_provider();
            for suite in &mut provider.cipher_suites {
                *suite = derived_by_hmac(*suite);
            }
            Arc::new(provider)
        })
        .clone()
}

/// The same suite, whose keys are derived by HKDF as rustls builds it of HMAC. AWS-LC's own
/// HKDF reads the secret anew for each key that comes of it, and a full handshake derives
/// some twenty: that was a tenth of its time.
fn derived_by_hmac(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(suite) = suite else {
        return suite;
    };
    // Three of them, once for the whole process.
    let hkdf_provider: &dyn Hkdf = match suite.common.hash_provider.algorithm() {
        hash::HashAlgorithm::SHA256 => {
            Box::leak(Box::new(Derivation::of(&Hmac(hmac::HMAC_SHA256))))
        }
        hash::HashAlgorithm::SHA384 => {
            Box::leak(Box::new(Derivation::of(&Hmac(hmac::HMAC_SHA384))))
        }
        _ => suite.hkdf_provider,
    };
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { ..suite.common },
        hkdf_provider,
        ..*suite
    })))
}

/// HKDF (RFC 5869) of HMAC. What a handshake begins with that resumes nothing comes of zeros
/// alone (RFC 8446 section 7.1), so it is kept.
struct Derivation {
    hkdf: HkdfUsingHmac<'static>,
    of_zeros: OkmBlock,
}

impl Derivation {
    fn of(hmac: &'static Hmac) -> Self {
        let zeros = vec![0; hmac.hash_output_len()];
        let of_zeros = OkmBlock::new(hmac.with_key(&zeros).sign(&[&zeros]).as_ref());
        Self {
            hkdf: HkdfUsingHmac(hmac),
            of_zeros,
        }
    }
}

impl Hkdf for Derivation {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        match salt {
            None => self.hkdf.expander_for_okm(&self.of_zeros),
            some => self.hkdf.extract_from_zero_ikm(some),
        }
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.hkdf.extract_from_secret(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        self.hkdf.expander_for_okm(okm)
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        self.hkdf.hmac_sign(key, message)
    }
}

/// AWS-LC's HMAC, as rustls wants to have it.
struct Hmac(hmac::Algorithm);

struct Key(hmac::Key);

impl rustls::crypto::hmac::Hmac for Hmac {
    fn with_key(&self, key: &[u8]) -> Box<dyn rustls::crypto::hmac::Key> {
        Box::new(Key(hmac::Key::new(self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.tag_len()
    }
}

impl rustls::crypto::hmac::Key for Key {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        middle.iter().for_each(|piece| context.update(piece));
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The suites of TLS 1.3, each as the library has it and as it is used.
    fn suites() -> Vec<(&'static Tls13CipherSuite, &'static Tls13CipherSuite)> {
        let before = aws_lc_rs::DEFAULT_CIPHER_SUITES;
        let after = &provider().cipher_suites;
        assert_eq!(before, after);
        let pairs = before.iter().zip(after);
        let pairs = pairs.filter_map(|(before, after)| Some((before.tls13()?, after.tls13()?)));
        pairs.collect()
    }

    #[test]
    fn all_suites_of_tls_1_3_derive_by_hmac_and_are_the_same_else() {
        let suites = suites();
        assert_eq!(suites.len(), 3);
        for (before, after) in suites {
            assert!(!std::ptr::addr_eq(
                before.hkdf_provider,
                after.hkdf_provider
            ));
            assert!(std::ptr::addr_eq(before.aead_alg, after.aead_alg));
            assert_eq!(
                before.common.confidentiality_limit,
                after.common.confidentiality_limit
            );
        }
    }

    /// RFC 5869 appendix A.1.
    #[test]
    fn keys_are_those_of_the_standard() {
        let info: Vec<u8> = (0xf0..0xfa).collect();
        let salt: Vec<u8> = (0x00..0x0d).collect();
        let hkdf = Derivation::of(&Hmac(hmac::HMAC_SHA256));
        let mut key = [0; 42];
        let expander = hkdf.extract_from_secret(Some(&salt), &[0x0b; 22]);
        assert!(expander.expand_slice(&[&info], &mut key).is_ok());
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    proptest! {
        /// Two ways to the same keys.
        #[test]
        fn keys_are_those_of_the_library(
            salt in proptest::option::of(vec(any::<u8>(), 0..70)),
            secret in vec(any::<u8>(), 0..200),
            info in vec(vec(any::<u8>(), 0..40), 0..5),
            length in 0..300_usize,
        ) {
            let salt = salt.as_deref();
            let info: Vec<&[u8]> = info.iter().map(Vec::as_slice).collect();
            for (before, after) in suites() {
                let all = [before, after].map(|suite| {
                    let hkdf = suite.hkdf_provider;
                    let mut keys = Vec::new();
                    let mut chain = hkdf.extract_from_secret(salt, &secret).expand_block(&info);
                    for expander in [
                        hkdf.extract_from_secret(salt, &secret),
                        hkdf.extract_from_zero_ikm(salt),
                        hkdf.expander_for_okm(&chain),
                    ] {
                        let mut key = vec![0; length];
                        assert!(expander.expand_slice(&info, &mut key).is_ok());
                        keys.push(key);
                        chain = expander.expand_block(&info);
                        keys.push(chain.as_ref().to_vec());
                        keys.push(hkdf.hmac_sign(&chain, &secret).as_ref().to_vec());
                        let mut long = vec![0; 255 * expander.hash_len() + 1];
                        assert!(expander.expand_slice(&info, &mut long).is_err());
                    }
                    keys
                });
                prop_assert_eq!(&all[0], &all[1]);
            }
        }
    }
}
