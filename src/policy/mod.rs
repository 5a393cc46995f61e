//! Layer 3: who may pass. Only this layer makes a [`Permit`], and only a
//! permit can be forwarded.

pub mod decide;
pub mod route;
pub mod table;

pub use decide::{Asker, Decision, Permit, decide};
pub use route::{Access, AmbiguousPaths, OnRefusal, Route};
pub use table::Table;
