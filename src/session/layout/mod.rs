//! How a record is written: what the store sees of it.

pub mod express;
pub mod sealed;

use std::sync::Arc;

use bytes::Bytes;

use self::express::{Damaged, ExpressLayout};
use self::sealed::{SealError, Sealer};
use super::data::Data;
use super::record::{Head, Opened, Terms};
use super::token::Token;

/// `store.layout`, ready for use.
pub enum Layout {
    /// Nobody but Cloakroom can read or change a record.
    Sealed(Sealer),
    /// Express applications read and write the records too.
    Express(Box<ExpressLayout>),
}

/// Why a record did not open, or could not be written.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Of a sealed record.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Of a shared one.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

impl LayoutError {
    /// Whether it was sealed with a secret that is not configured (any more).
    pub fn is_of_unknown_secret(&self) -> bool {
        *self == Self::Seal(SealError::UnknownSecret)
    }
}

impl Layout {
    /// The token of a cookie whose signature was verified. Applications give theirs any
    /// form.
    pub fn token(&self, text: &str) -> Option<Token> {
        match self {
            Self::Sealed(_) => Token::verified(text),
            Self::Express(_) => Token::of_application(text),
        }
    }

    /// The name of the store's key.
    pub fn key(&self, prefix: &str, token: &Token) -> String {
        match self {
            Self::Sealed(_) => token.key(prefix),
            Self::Express(_) => format!("{prefix}{}", token.expose()),
        }
    }

    /// What logs call a session.
    pub fn handle(&self, token: &Token) -> Arc<str> {
        match self {
            Self::Sealed(_) => token.handle(),
            Self::Express(_) => token.shared_handle(),
        }
    }

    /// What can be known of a record without its token: its head, and its own terms if
    /// applications share it. `None`: it is no record.
    pub fn outline(&self, stored: &Bytes) -> Option<(Head, Option<Terms>)> {
        match self {
            Self::Sealed(_) => Some((sealed::head_of(stored)?, None)),
            Self::Express(layout) => {
                let opened = opened_by(layout, stored.clone()).ok().flatten()?;
                Some((opened.head, opened.terms))
            }
        }
    }

    /// The value for a new session. `secure`: whether the browser's connection is.
    ///
    /// # Errors
    ///
    /// If its head is too large.
    pub fn compose(
        &self,
        key: &str,
        token: &Token,
        head: &Head,
        data: &Data,
        secure: bool,
    ) -> Result<Bytes, LayoutError> {
        Ok(match self {
            Self::Sealed(sealer) => sealer.seal(key, token, head, data)?,
            Self::Express(layout) => layout.compose(head, data, secure)?,
        })
    }

    /// Opens what the store has under `key`. `None`: as good as nothing. Of what
    /// applications keep in a record there is only what an identity is made from.
    ///
    /// # Errors
    ///
    /// If it was sealed with an unknown secret, or is damaged.
    pub fn open(
        &self,
        key: &str,
        token: &Token,
        stored: Bytes,
    ) -> Result<Option<Opened>, LayoutError> {
        match self {
            Self::Sealed(sealer) => Ok(Some(sealer.open(key, token, stored)?)),
            Self::Express(layout) => Ok(opened_by(layout, stored)?.map(|opened| Opened {
                data: layout.shown(&opened.data),
                ..opened
            })),
        }
    }
}

fn opened_by(layout: &ExpressLayout, stored: Bytes) -> Result<Option<Opened>, Damaged> {
    let Some(opened) = layout.open(&stored)? else {
        return Ok(None);
    };
    let user = layout.user_of(&opened.record).unwrap_or_default();
    let (data, cookie) = opened.record.into_parts();
    Ok(Some(Opened {
        head: match opened.head {
            Some(head) => head.now_of(user),
            None => Head::of_application(user),
        },
        data,
        sealed_with: 0,
        stored,
        terms: Some(Terms {
            cookie,
            endless: opened.endless,
        }),
    }))
}
