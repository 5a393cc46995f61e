//! Who a session belongs to.

use serde_json::{Map, Value};

/// What a login method says of a person whose credentials were right.
///
/// `claims` are the fields that go into the session record as they are (name,
/// e-mail, roles, any others); the record's user id is written at the
/// configured path from `user`.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The user id that the application knows.
    pub user: String,
    /// Roles, for access rules.
    pub roles: Vec<String>,
    /// Every other field of the session record.
    pub claims: Map<String, Value>,
}
