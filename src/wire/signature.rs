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
    mac: &'a [u8],
}

/// A signature that was verified, kept so that the same one is compared the next time
/// and not computed. Good for one token only: whose it is, its keeper knows.
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
    /// constant time.
    pub fn secret_of(&self, signer: &Signer, signed: Signed<'_>) -> Option<usize> {
        let is_same = self.signer == signer.number && same(&self.mac, signed.mac);
        is_same.then_some(self.secret.into())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use http::{HeaderMap, HeaderValue};
    use serde_json::Value;

    use super::*;
    use crate::wire::cookie::{CookieSpec, SameSite, Secure, decode, encode};

    fn vectors(part: &str) -> Vec<Value> {
        let all: Value =
            serde_json::from_str(include_str!("../../tests/vectors/express-cookies.json")).unwrap();
        all[part].as_array().unwrap().clone()
    }

    fn signer<'a>(secrets: impl IntoIterator<Item = &'a Value>) -> Signer {
        let secrets: Vec<_> = secrets
            .into_iter()
            .map(|secret| Secret::new(secret.as_str().unwrap()))
            .collect();
        Signer::new(&secrets)
    }

    fn spec(name: &str) -> CookieSpec {
        CookieSpec {
            name: name.to_owned(),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: Secure::Auto,
            persistent: false,
            partitioned: false,
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    fn headers(case: &Value) -> HeaderMap {
        let lines: Vec<Vec<u8>> = match case.get("cookie_headers") {
            Some(lines) => lines
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line.as_str().unwrap().as_bytes().to_vec())
                .collect(),
            None => case["cookie_headers_hex"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| unhex(line.as_str().unwrap()))
                .collect(),
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(&line).unwrap());
        }
        headers
    }

    #[test]
    fn signs_as_express_does() {
        let cases = vectors("sign");
        assert_eq!(cases.len(), 26);
        for case in cases {
            let value = signer([&case["secret"]]).sign(case["value"].as_str().unwrap());
            assert_eq!(
                value,
                case["cookie_value_decoded"].as_str().unwrap(),
                "{}",
                case["note"]
            );
            assert_eq!(
                encode(&value),
                case["cookie_value_encoded"].as_str().unwrap(),
                "{}",
                case["note"]
            );
        }
    }

    /// The rule of Express: the first occurrence of the name counts, whatever
    /// it holds. S-47.
    #[test]
    fn accepts_and_refuses_what_express_does() {
        let cases = vectors("unsign");
        assert_eq!(cases.len(), 62);
        for case in cases {
            let note = &case["note"];
            let headers = headers(&case);
            let spec = spec(case["cookie_name"].as_str().unwrap());
            let signer = signer(case["secrets"].as_array().unwrap());
            let decoded = spec.values(&headers).next().map(decode);
            let verdict = decoded
                .as_deref()
                .map_or(Verdict::Malformed, |value| signer.verify(value));
            match verdict {
                Verdict::Verified { token, secret } => {
                    assert_eq!(case["accepted"], true, "{note}");
                    assert_eq!(case["sid"], token, "{note}");
                    assert_eq!(case["secret_index"], secret, "{note}");
                }
                Verdict::Malformed | Verdict::BadSignature => {
                    assert_eq!(case["accepted"], false, "{note}");
                }
            }
        }
    }

    #[test]
    fn what_is_signed_verifies() {
        let signer = Signer::new(&[Secret::new("a"), Secret::new("b")]);
        let old = Signer::new(&[Secret::new("b")]);
        let value = old.sign("some.token");
        assert_eq!(
            signer.verify(value.as_bytes()),
            Verdict::Verified {
                token: "some.token",
                secret: 1
            }
        );
    }

    #[test]
    fn form_and_signature_are_told_apart() {
        let signer = Signer::new(&[Secret::new("a")]);
        for malformed in [
            "", "s:", "s:x", "s:x.", "s:.y", "S:x.y", "x.y", "j:x.y", "s:.", ".",
        ] {
            assert_eq!(
                signer.verify(malformed.as_bytes()),
                Verdict::Malformed,
                "{malformed}"
            );
        }
        assert_eq!(signer.verify(b"s:\xff.y"), Verdict::Malformed);
        assert_eq!(signer.verify(b"s:x.y"), Verdict::BadSignature);
    }

    #[test]
    fn a_signer_without_secrets_trusts_nothing() {
        let signer = Signer::new(&[]);
        let value = signer.sign("x");
        assert_eq!(signer.verify(value.as_bytes()), Verdict::Malformed);
        assert_eq!(signer.verify(b"s:x.y"), Verdict::BadSignature);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Signer::new(&[Secret::new("hunter2")]));
        assert_eq!(shown, "Signer(1 secrets)");
    }
}
