//! The tests.

mod examples;
mod express;
mod harness;
mod layers;
mod refusals;
