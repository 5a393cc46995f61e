//! Layer 2: sessions: what they are, how they are kept, when they end.

mod applications;
pub mod cache;
mod copies;
pub mod data;
pub mod devices;
pub mod find;
pub mod flights;
pub mod known;
pub mod layout;
pub mod live;
pub mod members;
mod memo;
pub mod pool;
pub mod record;
pub mod rules;
pub mod sessions;
pub mod settings;
pub mod shared;
mod shortcuts;
mod standing;
pub mod store;
pub mod texts;
pub mod token;
pub mod touches;
mod versions;

pub use devices::Device;
pub use known::Session;
pub use rules::SessionRules;
pub use sessions::{Lookup, Sessions};
pub use settings::{SessionSettings, StoreLocation, StoreSettings};
pub use shared::Shared;
