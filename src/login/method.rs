//! The login port: who says whether credentials are right.

use std::net::IpAddr;

use crate::base::BoxFuture;
use crate::base::identity::Identity;
use crate::base::secret::Secret;

/// What a person typed, byte for byte.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// The verdict of a method that could decide.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The credentials are right, and this is who it is.
    Accepted(Identity),
    /// They are not. Unknown user and wrong password are the same answer, in
    /// the same time.
    Rejected,
}

/// The method could not decide. Never a "no".
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoginError {
    /// No place in the queue became free in time.
    #[error("the queue for password checks is full")]
    Busy,
    /// The users could not be read.
    #[error("{0}")]
    Unavailable(String),
}

/// A place that knows users and their passwords.
pub trait CredentialVerifier: Send + Sync {
    /// Checks credentials. `from` is the client's address, by which waiting is
    /// kept fair.
    fn verify(
        &self,
        credentials: Credentials,
        from: IpAddr,
    ) -> BoxFuture<'_, Result<Outcome, LoginError>>;
}
