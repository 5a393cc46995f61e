//! What the tests are made with. Each part stands alone and is itself tested
//! in `suite::harness`.

#![allow(dead_code, reason = "a toolbox: not every tool is in use at all times")]

pub mod backend;
pub mod cli;
pub mod config;
pub mod cookies;
pub mod express;
pub mod fronts;
pub mod grpc;
pub mod h2;
pub mod http;
pub mod load;
pub mod message;
pub mod modern;
pub mod pki;
#[path = "../../src/session/store/postgres/server.rs"]
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod session;
pub mod sharing;
pub mod streams;
pub mod tls;
pub mod topology;
pub mod users;

use std::time::{Duration, Instant};

/// How long anything may take before a test calls it failed. It is never slept
/// through: each wait ends as soon as what is waited for has happened.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
