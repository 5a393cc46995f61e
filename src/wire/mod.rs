//! Layer 1: pure HTTP rules. Nothing here does I/O or knows of sessions.

pub mod body;
pub mod caching;
pub mod client;
pub mod cookie;
pub mod cors;
pub mod cross_site;
pub mod fields;
pub mod frames;
pub mod framing;
pub mod hop;
pub mod negotiate;
pub mod present;
pub mod proxy_status;
pub mod reserved;
pub mod signature;
pub mod target;
pub mod upgrade;
