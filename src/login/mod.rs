//! Layer 2: signing in: methods, passwords, the page, where to go afterwards.

pub mod htpasswd;
pub mod method;
pub mod page;
pub mod password;
pub mod return_to;
pub mod settings;
pub mod users_file;

pub use method::{CredentialVerifier, Credentials, LoginError, Outcome};
pub use settings::LoginSettings;
