//! The tests.

mod cors;
mod anonymous;
mod cookie;
mod durability;
mod examples;
mod express;
mod fixation;
mod harness;
mod layers;
mod logout;
mod outage;
mod refusals;
mod rotation;
mod timeouts;
