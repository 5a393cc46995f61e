use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::*;
use crate::wire::cookie::{CookieSpec, SameSite, Secure, decode, encode};

fn vectors(part: &str) -> Vec<Value> {
    let all: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/express-cookies.json")).unwrap();
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
fn tokens_have_letters_digits_hyphens_and_underscores() {
    for byte in 0..=u8::MAX {
        let expected = byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert_eq!(is_plain(byte), expected, "{byte}");
    }
}

/// Whoever takes the short way must read what all others do.
#[test]
fn what_has_the_usual_form_reads_as_it_would_in_general() {
    let signer = Signer::new(&[Secret::new("a")]);
    for number in 0..300 {
        let token = format!("{number}-token_of_32_characters__________");
        let value = encode(&signer.sign(&token));
        let usual = Usual::of(value.as_bytes()).unwrap();
        assert_eq!(usual.token(), token.as_bytes());
        reads_alike(value.as_bytes());
        for at in 0..value.len() {
            for byte in b"%.2BFbf3As:\"-+/ \xe4\0" {
                let mut other = value.clone().into_bytes();
                other[at] = *byte;
                reads_alike(&other);
                other.insert(at, *byte);
                reads_alike(&other);
            }
            reads_alike(&value.as_bytes()[..at]);
            reads_alike(&value.as_bytes()[at..]);
        }
    }
}

fn reads_alike(raw: &[u8]) {
    if let Some(usual) = Usual::of(raw) {
        let decoded = decode(raw);
        let signed = Signed::split(&decoded).unwrap();
        assert_eq!(signed.token.as_bytes(), usual.token());
        assert_eq!(signed.mac, usual.mac());
    }
}

#[test]
fn what_has_another_form_goes_the_long_way() {
    let mac = "a".repeat(MAC_TEXT);
    for value in [
        format!("s%3Atoken.{mac}"),
        format!("s%3Atoken.{}%2B%2F", &mac[2..]),
    ] {
        assert!(Usual::of(value.as_bytes()).is_some(), "{value}");
    }
    for value in [
        format!("s:token.{mac}"),
        format!("s%3atoken.{mac}"),
        format!("\"s%3Atoken.{mac}\""),
        format!("s%3A.{mac}"),
        format!("s%3At%41ken.{mac}"),
        format!("s%3Ato.ken.{mac}"),
        format!("s%3Atoken.{}%2b", &mac[1..]),
        format!("s%3Atoken.{}%61", &mac[1..]),
        format!("s%3Atoken.{}%2", &mac[1..]),
        format!("s%3Atoken.{}%2B", &mac),
        format!("s%3Atoken.{}", &mac[1..]),
        format!("s%3Atoken.{mac}a"),
        format!("s%3Atoken.{}ü", &mac[2..]),
        "s%3Atoken".to_owned(),
        String::new(),
    ] {
        assert!(Usual::of(value.as_bytes()).is_none(), "{value}");
    }
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
