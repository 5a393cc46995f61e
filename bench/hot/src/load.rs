//! How often is asked, and what came of it.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::Failed;
use crate::alarm::Alarm;
use crate::client::{Connection, Target};

/// A load.
pub struct Load {
    pub target: Target,
    pub connections: u32,
    /// The place of the first request's cookie among them all.
    pub first: usize,
    /// A connection for each request.
    pub fresh: bool,
    pub amount: Amount,
    /// Prints each answer, whatever its status, instead of a summary.
    pub samples: bool,
}

/// How much of it.
pub enum Amount {
    /// This many requests in all.
    Requests(u64),
    /// As many as go into a span of time.
    Time(Duration),
    /// So many each second, whatever becomes of those before.
    Rate(f64, Duration),
    /// One request on each of so many connections, which are then kept.
    Hold(u32),
}

#[derive(Default)]
struct Tally {
    /// Requests that were answered.
    answered: u64,
    /// In microseconds. At a rate, without those for which a connection had to be made.
    latencies: Vec<u32>,
    left: u64,
    resumed: u64,
    failed: Option<String>,
    /// When each request was due, how long it took, and its status.
    samples: Vec<(Duration, Duration, u16)>,
}

impl Load {
    /// Does it, and prints the result. Anything but 200 ends it, unless each answer is
    /// printed; what sets a cookie ends it in any case.
    pub async fn run(self) -> Result<(), Failed> {
        if let Amount::Hold(count) = self.amount {
            return self.hold(count).await;
        }
        let tally = Rc::new(RefCell::new(Tally::default()));
        if let Amount::Requests(count) = self.amount {
            tally.borrow_mut().left = count;
        }
        let prints_samples = self.samples;
        let (load, tasks) = (Rc::new(self), LocalSet::new());
        let start = Instant::now();
        for number in 0..load.connections {
            let (load, tally) = (load.clone(), tally.clone());
            tasks.spawn_local(async move {
                if let Err(error) = load.one(number, start, &tally).await {
                    tally.borrow_mut().failed.get_or_insert(error.to_string());
                }
            });
        }
        tasks.await;
        let took = start.elapsed().as_secs_f64();
        let tally = &mut *tally.borrow_mut();
        if let Some(failed) = tally.failed.take() {
            return Err(failed.into());
        }
        if prints_samples {
            tally.samples.sort_unstable();
            for (due, took, status) in &tally.samples {
                println!("{} {} {status}", due.as_micros(), took.as_micros());
            }
            return Ok(());
        }
        tally.latencies.sort_unstable();
        let quantile = |share: f64| {
            let at = (tally.latencies.len() as f64 * share) as usize;
            let last = tally.latencies.len().saturating_sub(1);
            tally.latencies.get(at.min(last)).copied().unwrap_or(0)
        };
        println!(
            "{{\"requests\":{},\"seconds\":{took:.4},\"p50\":{},\"p99\":{},\"resumed\":{}}}",
            tally.answered,
            quantile(0.5),
            quantile(0.99),
            tally.resumed,
        );
        Ok(())
    }

    async fn one(&self, number: u32, start: Instant, tally: &RefCell<Tally>) -> Result<(), Failed> {
        let mut kept: Option<Connection> = None;
        let alarm = match self.amount {
            Amount::Rate(..) => Some(Alarm::new()?),
            _ => None,
        };
        for turn in 0_u32.. {
            let mut due = Instant::now();
            match self.amount {
                Amount::Requests(_) => {
                    let mut tally = tally.borrow_mut();
                    if tally.left == 0 {
                        return Ok(());
                    }
                    tally.left -= 1;
                }
                Amount::Time(span) if due >= start + span => return Ok(()),
                Amount::Rate(rate, span) => {
                    let place = f64::from(number) + f64::from(turn) * f64::from(self.connections);
                    due = start + Duration::from_secs_f64(place / rate);
                    if due >= start + span {
                        return Ok(());
                    }
                    if let Some(alarm) = &alarm {
                        alarm.until(due).await?;
                    }
                }
                Amount::Time(_) | Amount::Hold(_) => {}
            }
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.target.connect().await?,
            };
            let place = number as usize + turn as usize * self.connections as usize;
            let answer = self.target.ask(&mut connection, self.first + place).await?;
            if answer.sets_cookie {
                return Err("an answer sets a cookie".into());
            }
            if answer.status != 200 && !self.samples {
                return Err(format!("not 200: {}", answer.status).into());
            }
            let micros = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
            let mut tally = tally.borrow_mut();
            tally.answered += 1;
            if turn > 0 || alarm.is_none() {
                tally.latencies.push(micros);
            }
            if self.samples {
                let sample = (due - start, due.elapsed(), answer.status);
                tally.samples.push(sample);
            }
            if self.fresh || turn == 0 {
                tally.resumed += u64::from(connection.resumed);
            }
            if !self.fresh {
                kept = Some(connection);
            }
            if tally.failed.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn hold(&self, count: u32) -> Result<(), Failed> {
        let mut kept = Vec::new();
        for _ in 0..count {
            let mut connection = self.target.connect().await?;
            self.target.ask(&mut connection, 0).await?;
            kept.push(connection);
        }
        println!("{count} connections");
        // Nothing is written to it: this waits for its end.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }
}
