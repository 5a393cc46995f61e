//! Layer 4: how a permitted request reaches the application.

pub mod connect;
pub mod forward;
pub mod pool;
pub mod request;
pub mod settings;

pub use forward::{Answer, Upstreams};
pub use settings::{HostHeader, UpstreamAddress, UpstreamSettings};
