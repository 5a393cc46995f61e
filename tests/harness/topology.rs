//! Sentinels and clusters of real servers, as the tests of the store have them.

#[path = "../../src/session/store/redis/pki.rs"]
pub mod pki;
#[path = "../../src/session/store/redis/server.rs"]
pub mod server;
#[path = "../../src/session/store/redis/topology.rs"]
pub mod servers;
