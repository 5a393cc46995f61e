//! How often each client may ask: the generic cell rate algorithm, in bounded
//! memory.
//!
//! For each client one number is kept: the time at which it will have used up
//! nothing. A client that keeps to the rate is never refused, and one that has
//! been away may send a whole period's requests at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts of the table, each with a lock of its own, so that workers seldom
/// meet. All workers share the table: the limit is that of the whole process.
const SHARDS: usize = 64;

/// Clients that a part remembers. With 48 bytes each, the table never takes
/// more than about 10 MiB.
const SHARD_CLIENTS: usize = 2048;

/// How many clients are looked at to find one to forget in a full part.
const SAMPLE: usize = 16;

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    /// Longer than zero.
    pub period: Duration,
}

/// Counts each client's requests.
#[derive(Debug)]
pub struct RateLimiter {
    began: Instant,
    /// Nanoseconds that one request uses up.
    step: u64,
    /// Nanoseconds that may be used up ahead of time.
    burst: u64,
    shards: Vec<Mutex<HashMap<u128, u64>>>,
}

impl RateLimiter {
    /// Nobody has asked yet.
    pub fn new(rate: Rate) -> Self {
        let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX / 4);
        let requests = u64::from(rate.requests.max(1));
        let step = (period / requests).max(1);
        Self {
            began: Instant::now(),
            step,
            burst: step.saturating_mul(requests),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a request of a client now.
    ///
    /// # Errors
    ///
    /// How long to wait, if it is one too many; it is not counted then.
    pub fn count(&self, client: IpAddr) -> Result<(), Duration> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.count_at(client, now)
    }

    fn count_at(&self, client: IpAddr, now: u64) -> Result<(), Duration> {
        let key = key(client);
        let Some(shard) = self.shards.get(place(key)) else {
            return Ok(());
        };
        // A panic elsewhere leaves numbers, which are right or make nobody wait.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let free_at = shard.get(&key).copied().unwrap_or(0).max(now);
        let next = free_at.saturating_add(self.step);
        let ahead = next - now;
        if ahead > self.burst {
            return Err(Duration::from_nanos(ahead - self.burst));
        }
        if shard.len() >= SHARD_CLIENTS && !shard.contains_key(&key) {
            make_room(&mut shard, now);
        }
        shard.insert(key, next);
        Ok(())
    }
}

/// Forgets those that have nothing used up, or else the one of a few that has
/// the least: many addresses can make a client's past forgotten, never the
/// table grow.
fn make_room(shard: &mut HashMap<u128, u64>, now: u64) {
    shard.retain(|_, free_at| *free_at > now);
    if shard.len() < SHARD_CLIENTS {
        return;
    }
    let least = shard
        .iter()
        .take(SAMPLE)
        .min_by_key(|(_, free_at)| **free_at)
        .map(|(key, _)| *key);
    if let Some(key) = least {
        shard.remove(&key);
    }
}

/// A client is an IPv4 address, or an IPv6 network of 64 bits: whoever has one
/// address of that has all of them.
fn key(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64) | 1 << 63,
    }
}

/// Neighbours are spread over the parts.
fn place(key: u128) -> usize {
    let folded = (key ^ (key >> 64)) as u64;
    let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or(0) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn limiter(requests: u32, period: Duration) -> RateLimiter {
        RateLimiter::new(Rate { requests, period })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_s_requests_at_once_then_the_rate() {
        let limiter = limiter(10, Duration::from_secs(1));
        let client = ip("192.0.2.1");
        for _ in 0..10 {
            assert_eq!(limiter.count_at(client, 0), Ok(()));
        }
        assert_eq!(limiter.count_at(client, 0), Err(Duration::from_millis(100)));
        assert_eq!(
            limiter.count_at(client, 99 * MS),
            Err(Duration::from_millis(1))
        );
        assert_eq!(limiter.count_at(client, 100 * MS), Ok(()));
        assert!(limiter.count_at(client, 100 * MS).is_err());
        // Refused requests cost nothing: after a period all is as at first.
        for _ in 0..10 {
            assert_eq!(limiter.count_at(client, 1_100 * MS), Ok(()));
        }
    }

    #[test]
    fn clients_do_not_share_and_networks_do() {
        let limiter = limiter(1, Duration::from_secs(60));
        for client in [
            "192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "2001:db8:0:1::1",
            "::1",
        ] {
            assert_eq!(limiter.count_at(ip(client), 0), Ok(()), "{client}");
        }
        for client in ["::ffff:192.0.2.1", "2001:db8::2", "2001:db8::ffff:0:0:1"] {
            assert!(limiter.count_at(ip(client), 0).is_err(), "{client}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = limiter(1, Duration::from_secs(3600));
        for number in 0..(SHARDS * SHARD_CLIENTS * 2) as u32 {
            let _ = limiter.count_at(IpAddr::V4(number.into()), 0);
        }
        for shard in &limiter.shards {
            assert!(shard.lock().unwrap().len() <= SHARD_CLIENTS);
        }
    }

    #[test]
    fn who_is_idle_is_forgotten_first() {
        let mut shard: HashMap<u128, u64> = (0..SHARD_CLIENTS as u128).map(|k| (k, 5)).collect();
        shard.insert(1, 50);
        make_room(&mut shard, 10);
        assert_eq!(shard.into_iter().collect::<Vec<_>>(), [(1, 50)]);
    }
}
