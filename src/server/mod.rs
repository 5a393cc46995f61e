//! Layer 6: sockets, connections, protocols and their timers.

pub mod bare;
pub mod connection;
pub mod deadlines;
pub mod frames;
pub mod listener;
pub mod proxy_protocol;
pub mod redirect;
pub mod runtime;
pub mod scan;
pub mod sending;
pub mod serve;
pub mod settings;
pub mod stream;
pub mod tls;

pub use settings::ServerSettings;
