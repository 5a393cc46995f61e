//! Layer 4: how a permitted request reaches the application.
//!
//! [`request`] makes the head that the application gets; [`forward`] sends it
//! and reads the head of the answer. [`balance`] picks one of several
//! addresses by their [`standing`], which requests and [`health`] checks make
//! known to all workers. Each worker keeps its own connections to an address
//! ([`pool`], [`multiplex`]), which [`connect`] makes; [`http1`] is what is spoken on
//! most of them.

pub mod balance;
pub mod connect;
pub mod forward;
pub mod head;
pub mod health;
pub mod http1;
pub mod multiplex;
pub mod opening;
mod patience;
pub mod pool;
pub mod request;
pub mod settings;
pub mod standing;
pub mod tls;

pub use forward::{Answer, Upgrade, Upstreams};
pub use settings::{HostHeader, UpstreamAddress, UpstreamSettings};
pub use standing::Fleet;
