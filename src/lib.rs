//! Cloakroom, a standalone authenticating reverse proxy.

pub mod base;
pub mod wire;
