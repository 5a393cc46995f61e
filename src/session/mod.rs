//! Layer 2: sessions: what they are, how they are kept, when they end.

pub mod data;
pub mod layout;
pub mod record;
pub mod rules;
pub mod sessions;
pub mod settings;
pub mod store;
pub mod token;
pub mod touches;

pub use record::Session;
pub use rules::SessionRules;
pub use sessions::{Lookup, Sessions};
pub use settings::{SessionSettings, StoreLocation, StoreSettings};
pub use touches::Touches;
