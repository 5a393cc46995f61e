//! What the configuration says of signing in, as plain data.

use std::path::PathBuf;

/// `[login]`.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// Whether the built-in page is served.
    pub page: bool,
    /// Its title.
    pub title: String,
    /// Where to after signing in, where the request does not say.
    pub after_login: String,
    /// Where to after signing out.
    pub after_logout: String,
    /// Hosts that may be returned to, besides our own origin; lower case, with
    /// a port where it is not the scheme's own.
    pub redirect_hosts: Vec<String>,
    /// Password hashes computed at once. At least 1.
    pub hash_concurrency: usize,
    /// The users files, in the order they are asked.
    pub users_files: Vec<PathBuf>,
}
