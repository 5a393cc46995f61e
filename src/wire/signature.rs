//! The signature of the session cookie, exactly as `cookie-signature` makes it:
//! `s:` token `.` base64(HMAC-SHA-256(secret, token)) without padding.
//!
//! The MAC is compared as *text*. A comparison of decoded bytes would let in
//! spellings that Express refuses (padding, the URL alphabet, stray bits in the
//! last character).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::base::secret::{Secret, same};

/// Length of a MAC in base64 without padding: 32 bytes.
const MAC_TEXT: usize = 43;

/// The signing secrets, prepared. The first signs, all verify.
pub struct Signer {
    keys: Vec<hmac::Key>,
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
        Self {
            keys: secrets
                .iter()
                .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
                .collect(),
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
        let Some((token, mac)) = split(decoded) else {
            return Verdict::Malformed;
        };
        let genuine = |key: &hmac::Key| {
            let mut text = [0_u8; MAC_TEXT];
            let tag = hmac::sign(key, token.as_bytes());
            STANDARD_NO_PAD.encode_slice(tag, &mut text) == Ok(MAC_TEXT) && same(&text, mac)
        };
        match self.keys.iter().position(genuine) {
            Some(secret) => Verdict::Verified { token, secret },
            None => Verdict::BadSignature,
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.keys.len())
    }
}

/// Token and MAC text, neither of them empty.
fn split(decoded: &[u8]) -> Option<(&str, &[u8])> {
    let signed = decoded.strip_prefix(b"s:")?;
    let dot = signed.iter().rposition(|byte| *byte == b'.')?;
    let (token, rest) = signed.split_at_checked(dot)?;
    let mac = rest.get(1..)?;
    if token.is_empty() || mac.is_empty() {
        return None;
    }
    Some((std::str::from_utf8(token).ok()?, mac))
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
