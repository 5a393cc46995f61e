//! Layer 6: sockets, connections, protocols and their timers.

pub mod deadlines;
pub mod listener;
pub mod runtime;
pub mod serve;
pub mod settings;
pub mod stream;

pub use settings::ServerSettings;
