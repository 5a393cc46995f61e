//! The tests.

mod cors;
mod anonymous;
mod cookie;
mod examples;
mod express;
mod fixation;
mod harness;
mod layers;
mod refusals;
