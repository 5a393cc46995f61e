//! The tests.

mod cors;
mod anonymous;
mod cookie;
mod cross_site;
mod crowd;
mod durability;
mod access;
mod examples;
mod expect;
mod express;
mod fixation;
mod harness;
mod identity;
mod layers;
mod login;
mod login_page;
mod logout;
mod outage;
mod refusals;
mod rotation;
mod tamper;
mod timeouts;
mod users;
mod targets;
