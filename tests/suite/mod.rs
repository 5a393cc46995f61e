//! The tests.

mod cors;
mod examples;
mod express;
mod harness;
mod layers;
mod refusals;
