//! How a record is written: what the store sees of it.

pub mod sealed;
