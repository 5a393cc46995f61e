//! The signature of the session cookie, exactly as `cookie-signature` makes it:
//! `s:` token `.` base64(HMAC-SHA-256(secret, token)) without padding.
//!
//! The MAC is compared as *text*. A comparison of decoded bytes would let in
//! spellings that Express refuses (padding, the URL alphabet, stray bits in the
//! last character).

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::base::secret::{Secret, same};

/// Length of a MAC in base64 without padding: 32 bytes.
const MAC_TEXT: usize = 43;

/// The signing secrets, prepared. The first signs, all verify.
pub struct Signer {
    keys: Vec<hmac::Key>,
    number: u32,
}

/// A cookie value of the right form, of which nothing is proven yet.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// What is said to be signed; never empty.
    pub token: &'a str,
    /// The signature, as text.
    pub mac: &'a [u8],
}

/// A cookie value in the form in which nearly all come: `s%3A`, a token of letters, digits,
/// `-` and `_`, a dot, and a MAC in which `+` and `/` are escaped. It is taken apart
/// where it stands. What the value says is what [`decode`](super::cookie::decode) and
/// [`Signed::split`] would find in it; nothing is proven of it either.
pub struct Usual<'a> {
    token: &'a [u8],
    mac: [u8; MAC_TEXT],
}

/// A signature that was verified, kept so that the same one is compared the next time
/// and not computed. Good for one token only: whose it is, its keeper knows.
#[derive(Clone)]
pub struct Genuine {
    mac: [u8; MAC_TEXT],
    secret: u8,
    signer: u32,
}

/// What a cookie value turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Genuine.
    Verified {
        /// What was signed; never empty, any text otherwise.
        token: &'a str,
        /// Index of the secret that verified it; 0 is the one that signs.
        secret: usize,
    },
    /// Not of the form `s:` token `.` signature, or one of the two is empty.
    Malformed,
    /// The right form, but no secret made this signature.
    BadSignature,
}

impl Signer {
    /// Prepares one key per secret. The bytes are used as they are: not
    /// trimmed, not decoded, not normalised.
    pub fn new(secrets: &[Secret]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        Self {
            keys: secrets
                .iter()
                .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
                .collect(),
            number: MADE.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The signed value, not yet percent-encoded: `s:` token `.` MAC.
    ///
    /// A signer without secrets signs with nothing: the value ends in its dot,
    /// which never verifies.
    pub fn sign(&self, token: &str) -> String {
        let mut value = String::with_capacity(2 + token.len() + 1 + MAC_TEXT);
        value.push_str("s:");
        value.push_str(token);
        value.push('.');
        if let Some(key) = self.keys.first() {
            let mac = hmac::sign(key, token.as_bytes());
            STANDARD_NO_PAD.encode_string(mac, &mut value);
        }
        value
    }

    /// Judges a decoded cookie value. Splits at the *last* dot, so a token may
    /// hold dots; tries the secrets in order; compares in constant time.
    pub fn verify<'a>(&self, decoded: &'a [u8]) -> Verdict<'a> {
        let Some(signed) = Signed::split(decoded) else {
            return Verdict::Malformed;
        };
        match self.secret_of(signed) {
            Some(secret) => Verdict::Verified {
                token: signed.token,
                secret,
            },
            None => Verdict::BadSignature,
        }
    }

    /// Index of the secret that made this signature, if one did. In constant time.
    pub fn secret_of(&self, signed: Signed<'_>) -> Option<usize> {
        self.keys.iter().position(|key| {
            let mut text = [0_u8; MAC_TEXT];
            let tag = hmac::sign(key, signed.token.as_bytes());
            STANDARD_NO_PAD.encode_slice(tag, &mut text) == Ok(MAC_TEXT) && same(&text, signed.mac)
        })
    }
}

impl<'a> Signed<'a> {
    /// Takes a decoded cookie value apart, at the *last* dot. `None`: it has another form,
    /// or one of the two is empty.
    pub fn split(decoded: &'a [u8]) -> Option<Self> {
        let signed = decoded.strip_prefix(b"s:")?;
        let dot = signed.iter().rposition(|byte| *byte == b'.')?;
        let (token, rest) = signed.split_at_checked(dot)?;
        let mac = rest.get(1..)?;
        if token.is_empty() || mac.is_empty() {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        Some(Self { token, mac })
    }
}

impl<'a> Usual<'a> {
    /// Of a raw value. `None`: it has another form, which may be as good.
    pub fn of(raw: &'a [u8]) -> Option<Self> {
        let signed = raw.strip_prefix(b"s%3A")?;
        let dot = memchr::memrchr(b'.', signed)?;
        let (token, rest) = signed.split_at_checked(dot)?;
        if token.is_empty() || !are_plain(token) {
            return None;
        }
        let mac = unescaped(rest.get(1..)?)?;
        Some(Self { token, mac })
    }

    /// What is said to be signed; never empty, letters, digits, `-` and `_` only.
    pub fn token(&self) -> &'a [u8] {
        self.token
    }

    /// The MAC as text.
    pub fn mac(&self) -> &[u8] {
        &self.mac
    }
}

/// Whether tokens of Cloakroom may hold this character: the alphabet of base64url.
pub fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_')
}

/// Whether all of them are. Without a way out in between, many are looked at together.
fn are_plain(bytes: &[u8]) -> bool {
    fn all(bytes: &[u8]) -> bool {
        bytes.iter().fold(true, |all, byte| all & is_plain(*byte))
    }
    let (sixteens, rest) = bytes.as_chunks::<16>();
    let are_plain = sixteens.iter().fold(true, |are, bytes| are & all(bytes));
    are_plain & all(rest)
}

/// A MAC without the escapes that `encodeURIComponent` makes in one.
fn unescaped(text: &[u8]) -> Option<[u8; MAC_TEXT]> {
    let mut mac = [0; MAC_TEXT];
    let mut rest = text.iter();
    for byte in &mut mac {
        *byte = match rest.next()? {
            b'%' => match (rest.next()?, rest.next()?) {
                (b'2', b'B') => b'+',
                (b'2', b'F') => b'/',
                _ => return None,
            },
            plain => *plain,
        };
    }
    (rest.len() == 0 && mac.is_ascii()).then_some(mac)
}

impl Genuine {
    /// Of what `signer` has verified by the secret of this index. `None`: it cannot be
    /// kept.
    pub fn new(signer: &Signer, signed: Signed<'_>, secret: usize) -> Option<Self> {
        Some(Self {
            mac: signed.mac.try_into().ok()?,
            secret: secret.try_into().ok()?,
            signer: signer.number,
        })
    }

    /// The secret's index, if this is the same signature, verified by the same signer. In
    /// constant time. `mac`: as text.
    pub fn secret_of(&self, signer: &Signer, mac: &[u8]) -> Option<usize> {
        let is_same = self.signer == signer.number && same(&self.mac, mac);
        is_same.then_some(self.secret.into())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.keys.len())
    }
}

#[cfg(test)]
mod tests;
