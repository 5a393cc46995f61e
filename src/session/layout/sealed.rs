//! The sealed layout: the store never learns a token, and what it holds can
//! neither be read nor changed without one.
//!
//! ```text
//! value = 0x01 ‖ head length (u16, big endian) ‖ head (JSON) ‖ nonce (12) ‖ AES-256-GCM(data)
//! head  = {"secret": id of the secret, "user", "epoch", "created", "ends", "addr", "agent"}
//! key   = HKDF-SHA256(ikm = token, salt = secret, info = "cloakroom/seal/1")
//! associated data = length of the key's name (u16) ‖ key's name ‖ 0x01 ‖ head length ‖ head
//! ```
//!
//! Each session has its own key, which nobody holds but the client (the token)
//! and Cloakroom (the secret) together. So a dump of the store lets nobody in,
//! and write access to the store is not enough to become somebody else: a
//! record moved to another key, or with another head, does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::secret::Secret;
use crate::session::data::Data;
use crate::session::record::{Head, Opened};
use crate::session::token::Token;

const VERSION: u8 = 1;
const INFO: &[u8] = b"cloakroom/seal/1";

/// Seals and opens records. Built once from the configured secrets.
pub struct Sealer {
    secrets: Vec<SealingSecret>,
}

struct SealingSecret {
    /// Names the secret without giving anything of it away.
    id: String,
    salt: hkdf::Salt,
}

/// Why a record did not open.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// It was sealed with a secret that is not configured (any more).
    #[error("the record was sealed with a secret that is not configured")]
    UnknownSecret,
    /// It was changed, moved, cut off, or is no record at all.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
    /// The head is too large to be written, or encryption failed.
    #[error("the record cannot be sealed: {0}")]
    CannotSeal(&'static str),
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    secret: String,
    #[serde(flatten)]
    head: Head,
}

impl Sealer {
    /// Derives what sealing needs from each secret. The first one seals.
    pub fn new(secrets: &[Secret]) -> Self {
        let secrets = secrets
            .iter()
            .map(|secret| SealingSecret {
                id: secret_id(secret),
                salt: hkdf::Salt::new(hkdf::HKDF_SHA256, secret.expose()),
            })
            .collect();
        Self { secrets }
    }

    /// The value to be stored under `key`.
    ///
    /// # Errors
    ///
    /// [`SealError::CannotSeal`] if the head has more than 65 535 bytes.
    pub fn seal(
        &self,
        key: &str,
        token: &Token,
        head: &Head,
        data: &Data,
    ) -> Result<Bytes, SealError> {
        let secret = self
            .secrets
            .first()
            .ok_or(SealError::CannotSeal("no secret"))?;
        let stored = StoredHead {
            secret: secret.id.clone(),
            head: head.clone(),
        };
        let head =
            serde_json::to_vec(&stored).map_err(|_| SealError::CannotSeal("head is not JSON"))?;
        let length =
            u16::try_from(head.len()).map_err(|_| SealError::CannotSeal("head is too large"))?;
        let mut value = Vec::with_capacity(3 + head.len() + NONCE_LEN + data.text().len() + 16);
        value.push(VERSION);
        value.extend_from_slice(&length.to_be_bytes());
        value.extend_from_slice(&head);
        let aad = associated(key, &value)?;
        let mut sealed = data.text().as_bytes().to_vec();
        let nonce = secret
            .key(token)?
            .seal_in_place_append_tag(Aad::from(aad), &mut sealed)
            .map_err(|_| SealError::CannotSeal("encryption failed"))?;
        value.extend_from_slice(nonce.as_ref());
        value.extend_from_slice(&sealed);
        Ok(value.into())
    }

    /// Opens what is stored under `key`.
    ///
    /// # Errors
    ///
    /// [`SealError::UnknownSecret`] after a secret was removed,
    /// [`SealError::Damaged`] for everything that [`Sealer::seal`] did not write
    /// for this key and token.
    pub fn open(&self, key: &str, token: &Token, stored: Bytes) -> Result<Opened, SealError> {
        let (clear, head, rest) = parts(&stored).ok_or(SealError::Damaged("no head"))?;
        let head: StoredHead =
            serde_json::from_slice(head).map_err(|_| SealError::Damaged("unreadable head"))?;
        let (sealed_with, secret) = self
            .secrets
            .iter()
            .enumerate()
            .find(|(_, secret)| secret.id == head.secret)
            .ok_or(SealError::UnknownSecret)?;
        let (nonce, sealed) = rest
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::Damaged("cut off"))?;
        let nonce =
            Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged("cut off"))?;
        let mut sealed = sealed.to_vec();
        let text = secret
            .key(token)?
            .open_in_place(nonce, Aad::from(associated(key, clear)?), &mut sealed)
            .map_err(|_| SealError::Damaged("not sealed for this key and token"))?;
        let text = String::from_utf8(text.to_vec())
            .map_err(|_| SealError::Damaged("data is not UTF-8"))?;
        let data = Data::parse(text).map_err(|_| SealError::Damaged("data is not an object"))?;
        Ok(Opened {
            head: head.head,
            data,
            sealed_with,
            stored,
            terms: None,
        })
    }
}

/// What the clear head of a stored value says. Nothing has vouched for it: only
/// [`Sealer::open`], with the token, tells whether it was changed. `None` where
/// there is no such head.
pub fn head_of(stored: &[u8]) -> Option<Head> {
    let (_, head, _) = parts(stored)?;
    let stored: StoredHead = serde_json::from_slice(head).ok()?;
    Some(stored.head)
}

impl SealingSecret {
    fn key(&self, token: &Token) -> Result<RandomizedNonceKey, SealError> {
        let mut key = [0; 32];
        self.salt
            .extract(token.expose().as_bytes())
            .expand(&[INFO], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .map_err(|_| SealError::CannotSeal("key derivation failed"))?;
        RandomizedNonceKey::new(&AES_256_GCM, &key)
            .map_err(|_| SealError::CannotSeal("key derivation failed"))
    }
}

/// The clear part, the head in it, and what follows.
fn parts(stored: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[version, high, low], _) = stored.split_first_chunk::<3>()?;
    if version != VERSION {
        return None;
    }
    let end = 3 + usize::from(u16::from_be_bytes([high, low]));
    Some((stored.get(..end)?, stored.get(3..end)?, stored.get(end..)?))
}

/// Binds the sealed data to its key's name and its whole clear part.
fn associated(key: &str, clear: &[u8]) -> Result<Vec<u8>, SealError> {
    let length =
        u16::try_from(key.len()).map_err(|_| SealError::CannotSeal("key name is too long"))?;
    Ok([length.to_be_bytes().as_slice(), key.as_bytes(), clear].concat())
}

fn secret_id(secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let tag = hmac::sign(&key, b"cloakroom/secret-id/1");
    URL_SAFE_NO_PAD.encode(tag.as_ref().get(..6).unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::session::settings::SessionSettings;
    use crate::session::store::Epoch;
    use std::time::Duration;

    fn secrets(names: &[&str]) -> Vec<Secret> {
        names.iter().map(|n| Secret::new(n.repeat(32))).collect()
    }

    fn head() -> Head {
        let settings = SessionSettings {
            secrets: secrets(&["a"]),
            idle_timeout: Duration::from_secs(60),
            absolute_timeout: Duration::from_secs(600),
            touch_interval: Duration::from_secs(6),
            max_per_user: 0,
            user: "userId".into(),
            roles: "roles".into(),
        };
        Head::new(
            "u1",
            Epoch(5),
            Timestamp(1_000),
            &settings,
            "::1".into(),
            "curl",
        )
    }

    fn data() -> Data {
        Data::parse(r#"{"userId":"u1","email":"secret@example.com"}"#.into()).unwrap()
    }

    /// A value of the user `u1` under this key.
    pub(crate) fn sample(key: &str) -> Bytes {
        let sealer = Sealer::new(&secrets(&["a"]));
        let token = Token::random().unwrap();
        sealer.seal(key, &token, &head(), &data()).unwrap()
    }

    #[test]
    fn what_was_sealed_opens() {
        let sealer = Sealer::new(&secrets(&["a", "b"]));
        let token = Token::random().unwrap();
        let value = sealer.seal("sess:k", &token, &head(), &data()).unwrap();
        let opened = sealer.open("sess:k", &token, value.clone()).unwrap();
        assert_eq!(
            (opened.head, opened.data, opened.sealed_with),
            (head(), data(), 0)
        );
        assert_eq!(head_of(&value), Some(head()));
        assert_eq!(head_of(b"one"), None);
        let rotated = Sealer::new(&secrets(&["n", "a"]));
        assert_eq!(
            rotated
                .open("sess:k", &token, value.clone())
                .unwrap()
                .sealed_with,
            1
        );
        let removed = Sealer::new(&secrets(&["n"]));
        assert_eq!(
            removed.open("sess:k", &token, value).unwrap_err(),
            SealError::UnknownSecret
        );
    }

    #[test]
    fn the_store_sees_no_data_and_no_token() {
        let sealer = Sealer::new(&secrets(&["a"]));
        let token = Token::random().unwrap();
        let value = sealer.seal("sess:k", &token, &head(), &data()).unwrap();
        let text = String::from_utf8_lossy(&value);
        assert!(!text.contains("secret@example.com") && !text.contains(token.expose()));
    }

    #[test]
    fn another_key_token_or_any_changed_byte_does_not_open() {
        let sealer = Sealer::new(&secrets(&["a"]));
        let token = Token::random().unwrap();
        let value = sealer.seal("sess:k", &token, &head(), &data()).unwrap();
        assert!(sealer.open("sess:other", &token, value.clone()).is_err());
        assert!(
            sealer
                .open("sess:k", &Token::random().unwrap(), value.clone())
                .is_err()
        );
        for at in 0..value.len() {
            let mut bad = value.to_vec();
            bad[at] ^= 1;
            assert!(
                sealer.open("sess:k", &token, bad.into()).is_err(),
                "byte {at}"
            );
            assert!(
                sealer.open("sess:k", &token, value.slice(..at)).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        let sealer = Sealer::new(&secrets(&["a"]));
        let token = Token::random().unwrap();
        let seal = || sealer.seal("sess:k", &token, &head(), &data()).unwrap();
        assert_ne!(seal(), seal());
    }
}
