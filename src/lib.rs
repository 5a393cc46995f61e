//! Cloakroom, a standalone authenticating reverse proxy.

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod login;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod session;
pub mod upstream;
pub mod wire;
