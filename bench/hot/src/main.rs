//! The load and the static application of Cloakroom's measurements.
//!
//! ```text
//! cloakroom-bench backend              serves GET /N with N bytes, on a free port that it prints
//! cloakroom-bench load ADDRESS [...]   asks, and prints what came of it as JSON
//! ```
//!
//! `load` takes `--path /N`, `--connections N`, `--cookie VALUE`, `--ca FILE` (TLS),
//! `--new` (a connection for each request), and one of `--seconds N`,
//! `--requests N` (in all) and `--rate N` (each second, with `--seconds`: latency
//! counts from the moment when a request was due). `--cookies FILE` has a cookie in
//! each line, for one request after the other, from the line `--first N`. `--samples`
//! prints each answer: when it was due and how long it took in microseconds, and its
//! status. `--hold N` opens that many connections, has one answer on each, says so, and
//! keeps them until its input ends.

mod alarm;
mod backend;
mod client;
mod load;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use client::Target;
use load::{Amount, Load};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some("backend") => runtime.block_on(backend::serve()),
        Some("load") => parse(arguments).and_then(|load| runtime.block_on(load.run())),
        _ => Err("usage: cloakroom-bench backend | load ADDRESS [OPTIONS]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloakroom-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What goes wrong, in a sentence.
pub type Failed = Box<dyn std::error::Error>;

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Load, Failed> {
    let address: SocketAddr = arguments.next().ok_or("load needs an address")?.parse()?;
    let (mut path, mut cookies, mut ca) = ("/200".to_owned(), Vec::new(), None);
    let (mut connections, mut first, mut fresh, mut samples) = (64, 0, false, false);
    let (mut seconds, mut requests, mut rate, mut hold) = (None, None, None, None);
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--new" => {
                fresh = true;
                continue;
            }
            "--samples" => {
                samples = true;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or(format!("{option} needs a value"))?;
        match option.as_str() {
            "--path" => path = value,
            "--cookie" => cookies.push(value),
            "--cookies" => {
                cookies.extend(std::fs::read_to_string(value)?.lines().map(str::to_owned))
            }
            "--ca" => ca = Some(value),
            "--connections" => connections = value.parse()?,
            "--first" => first = value.parse()?,
            "--seconds" => seconds = Some(Duration::from_secs_f64(value.parse()?)),
            "--requests" => requests = Some(value.parse()?),
            "--rate" => rate = Some(value.parse()?),
            "--hold" => hold = Some(value.parse()?),
            _ => return Err(format!("no such option: {option}").into()),
        }
    }
    let amount = match (hold, requests, seconds, rate) {
        (Some(count), None, None, None) => Amount::Hold(count),
        (None, Some(count), None, None) => Amount::Requests(count),
        (None, None, Some(span), None) => Amount::Time(span),
        (None, None, Some(span), Some(rate)) => Amount::Rate(rate, span),
        _ => return Err("one of --hold, --requests, --seconds, --seconds with --rate".into()),
    };
    Ok(Load {
        target: Target::new(address, &path, &cookies, ca.as_deref(), fresh)?,
        connections,
        first,
        fresh,
        amount,
        samples,
    })
}
