//! Cloakroom, a standalone authenticating reverse proxy.

pub mod base;
pub mod session;
pub mod wire;
