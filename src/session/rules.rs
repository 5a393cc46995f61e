//! What the configuration says of sessions, ready for use, and the cookies that
//! a request presents, checked by it.

use http::HeaderMap;

use super::layout::sealed::Sealer;
use super::settings::SessionSettings;
use super::token::Token;
use crate::base::refusal::Refusal;
use crate::wire::cookie::{self, CookieSpec};
use crate::wire::signature::{Signer, Verdict};

/// Cookies of our name that are looked up at most, if they verify.
pub const MOST_LOOKED_UP: usize = 4;

/// What the configuration says of sessions, ready for use.
pub struct SessionRules {
    /// Timeouts and paths.
    pub settings: SessionSettings,
    /// What the names of session keys begin with.
    pub prefix: String,
    /// Signs and verifies cookies.
    pub signer: Signer,
    /// Seals and opens records.
    pub sealer: Sealer,
    /// The session cookie.
    pub cookie: CookieSpec,
}

/// Session cookies of a request, after their signatures were checked.
pub enum Presented {
    /// None that could name a session, and why.
    None(Refusal),
    /// Tokens that a secret verified, with its number.
    Tokens(Vec<(Token, usize)>),
}

impl SessionRules {
    /// Prepares keys from the settings.
    pub fn new(settings: SessionSettings, prefix: String, cookie: CookieSpec) -> Self {
        Self {
            signer: Signer::new(&settings.secrets),
            sealer: Sealer::new(&settings.secrets),
            settings,
            prefix,
            cookie,
        }
    }

    /// The session cookies of a request whose signatures are right, `most` of
    /// them.
    pub fn presented(&self, headers: &HeaderMap, most: usize) -> Presented {
        let mut tokens: Vec<(Token, usize)> = Vec::new();
        let mut reason = Refusal::NoCookie;
        for raw in self.cookie.values(headers) {
            let decoded = cookie::decode(raw);
            match self.signer.verify(&decoded) {
                Verdict::Verified { token, secret } => match Token::verified(token) {
                    Some(token) if tokens.iter().all(|(known, _)| *known != token) => {
                        tokens.push((token, secret));
                        if tokens.len() >= most {
                            break;
                        }
                    }
                    Some(_) => {}
                    // Genuine, but no session of ours has such an id.
                    None => reason = Refusal::UnknownSession,
                },
                Verdict::BadSignature if reason != Refusal::UnknownSession => {
                    reason = Refusal::BadSignature;
                }
                Verdict::Malformed if reason == Refusal::NoCookie => {
                    reason = Refusal::MalformedCookie;
                }
                Verdict::BadSignature | Verdict::Malformed => {}
            }
        }
        if tokens.is_empty() {
            Presented::None(reason)
        } else {
            Presented::Tokens(tokens)
        }
    }
}
