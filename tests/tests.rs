//! The tests of the whole program: they start the real binary, a real Redis
//! or PostgreSQL and a scripted backend, and look at the bytes that pass between them.
//!
//! `harness` holds the tools, `suite` the tests. Nothing here uses a fixed port
//! or leaves a process or a file behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected should fail loudly"
)]

mod harness;
mod suite;
