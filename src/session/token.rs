//! The session id: what the client holds, and what the store is told of it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::wire::signature::{Usual, is_plain};

/// Random bytes in a token: 192 bits, as express-session has.
const TOKEN_BYTES: usize = 24;

/// Characters of a token that Cloakroom makes; those of express-session have as many.
const TOKEN_TEXT: usize = 32;

/// Length of a SHA-256 in base64 without padding.
const HASH_TEXT: usize = 43;

/// The session id as the client holds it. Whoever knows it is the user, so it
/// has no `Debug` that shows it and never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Text);

/// Every request has a token, and nearly all have this length: they take no memory of
/// their own.
#[derive(Clone, PartialEq, Eq)]
enum Text {
    /// UTF-8, since it is made from text alone.
    Usual([u8; TOKEN_TEXT]),
    Other(Arc<str>),
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

impl Token {
    /// A new token: 24 random bytes in base64url, 32 characters.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`], in which case nobody may be signed in.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self::of(&URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The token of a cookie whose signature was verified, if it has the form
    /// that Cloakroom gives tokens: 16 to 128 characters of base64url.
    pub fn verified(text: &str) -> Option<Self> {
        ((16..=128).contains(&text.len()) && text.bytes().all(is_plain)).then(|| Self::of(text))
    }

    /// The same of a value that has the usual form, whose characters were looked at.
    pub fn usual(value: &Usual<'_>) -> Option<Self> {
        let text = value.token();
        match text.try_into() {
            Ok(bytes) => Some(Self(Text::Usual(bytes))),
            Err(_) => Self::verified(str::from_utf8(text).ok()?),
        }
    }

    /// The token of a cookie whose signature was verified, in whatever form an
    /// application gives them: up to 1024 bytes of text.
    pub fn of_application(text: &str) -> Option<Self> {
        (1..=1024).contains(&text.len()).then(|| Self::of(text))
    }

    fn of(text: &str) -> Self {
        Self(match text.as_bytes().try_into() {
            Ok(bytes) => Text::Usual(bytes),
            Err(_) => Text::Other(text.into()),
        })
    }

    /// The token itself, for the cookie and for key derivation.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Text::Usual(bytes) => str::from_utf8(bytes).unwrap_or_default(),
            Text::Other(text) => text,
        }
    }

    /// The name of the store's key in the sealed layout: the prefix and the
    /// base64url of the token's SHA-256. A dump of the store shows no token.
    pub fn key(&self, prefix: &str) -> String {
        let hash = digest(&SHA256, self.expose().as_bytes());
        let mut key = String::with_capacity(prefix.len() + HASH_TEXT);
        key.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(hash, &mut key);
        key
    }

    /// What logs call the session: 12 characters that lead to neither the
    /// token nor the store's key.
    pub fn handle(&self) -> Arc<str> {
        handle(&self.key(""))
    }

    /// The same where the token itself is the name of the key.
    pub fn shared_handle(&self) -> Arc<str> {
        handle(self.expose())
    }
}

/// What logs call the session under this key, as [`Token::handle`] says it, for
/// those who hold no token. `None` where the key does not begin with `prefix`.
pub fn handle_of(key: &str, prefix: &str) -> Option<Arc<str>> {
    key.strip_prefix(prefix).map(handle)
}

/// Of the key without its prefix, so that both ways lead to the same.
fn handle(name: &str) -> Arc<str> {
    let hash = digest(&SHA256, format!("cloakroom/handle/1:{name}").as_bytes());
    let short = hash.as_ref().get(..9).unwrap_or_default();
    // On a command line a hyphen in front would make it an option.
    URL_SAFE_NO_PAD.encode(short).replace('-', ".").into()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_handle_looks_like_an_option() {
        for number in 0..2000 {
            let handle = handle(&number.to_string());
            assert_eq!(handle.len(), 12);
            assert!(!handle.contains('-'), "{handle}");
        }
    }

    #[test]
    fn tokens_are_32_characters_and_differ() {
        let (a, b) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(a.expose().len(), 32);
        assert!(a != b);
        assert_eq!(Token::verified(a.expose()), Some(a));
        let longer = "x".repeat(33);
        assert_eq!(Token::verified(&longer).unwrap().expose(), longer);
    }

    #[test]
    fn foreign_forms_are_not_tokens() {
        for text in [
            "",
            "short",
            &"a".repeat(129),
            "sixteen-bytes-ü-",
            "a/b/c/d/e/f/g/h/i",
        ] {
            assert_eq!(Token::verified(text), None, "{text}");
        }
    }

    #[test]
    fn key_and_handle_do_not_show_the_token() {
        let token = Token::verified("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_").unwrap();
        assert_eq!(
            token.key("sess:"),
            "sess:iTZKQOpzyOcJpxyju-5qlTDgsk6teSSVipQjJKoNwYA"
        );
        assert_eq!(token.handle().len(), 12);
        assert_eq!(handle_of(&token.key("x:"), "x:"), Some(token.handle()));
        assert_eq!(handle_of(&token.key("x:"), "sess:"), None);
        assert!(!token.key("").contains(&*token.handle()));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
