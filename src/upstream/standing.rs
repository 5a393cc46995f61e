//! How the addresses of the upstreams are doing, as far as all workers
//! together know: which fail their health checks, and which are left out for a
//! while because requests failed there.
//!
//! While all goes well requests only read here, so that no worker waits for
//! another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::settings::{UpstreamAddress, UpstreamSettings};
use crate::base::metrics::{Metrics, UpstreamMetrics};

/// Requests that have to fail in a row at an address that accepts connections
/// before it is left out. A connection that cannot be made is enough by itself.
const FAILURES: u32 = 5;

/// How long an address is left out the first time; each further time in a row
/// twice as long.
const SHORTEST: Duration = Duration::from_secs(1);

/// It is never left out for longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The addresses of every upstream.
#[derive(Clone)]
pub struct Fleet(Vec<Arc<Group>>);

/// The addresses of one upstream.
pub struct Group {
    name: String,
    members: Vec<Member>,
    begin: Instant,
    /// Its series.
    pub metrics: UpstreamMetrics,
}

struct Member {
    shown: String,
    /// Fails its health checks.
    unhealthy: AtomicBool,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// How often it was left out in a row.
    ejections: AtomicU32,
    /// Until when it is left out, in milliseconds since `begin`.
    until: AtomicU64,
}

impl Fleet {
    /// Of all of them nothing bad is known.
    pub fn new(upstreams: &[UpstreamSettings], metrics: &Metrics) -> Self {
        let group = |settings: &UpstreamSettings| {
            let metrics = metrics.upstream(&settings.name);
            Arc::new(Group::new(&settings.name, &settings.addresses, metrics))
        };
        Self(upstreams.iter().map(group).collect())
    }

    /// The upstreams, in the order of the settings.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.0
    }
}

impl Group {
    fn new(name: &str, addresses: &[UpstreamAddress], metrics: UpstreamMetrics) -> Self {
        let member = |address: &UpstreamAddress| Member {
            shown: address.to_string(),
            unhealthy: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            until: AtomicU64::new(0),
        };
        Self {
            name: name.to_owned(),
            members: addresses.iter().map(member).collect(),
            begin: Instant::now(),
            metrics,
        }
    }

    /// Whether requests should go to this address now.
    pub fn is_usable(&self, member: usize, now: Instant) -> bool {
        self.members.get(member).is_some_and(|member| {
            !member.unhealthy.load(Ordering::Relaxed)
                && member.until.load(Ordering::Relaxed) <= self.milliseconds(now)
        })
    }

    /// A request was answered, with whatever status.
    pub fn answered(&self, member: usize, now: Instant) {
        let Some(member) = self.members.get(member) else {
            return;
        };
        if member.failures.load(Ordering::Relaxed) != 0 {
            member.failures.store(0, Ordering::Relaxed);
        }
        // An answer to a request from before says nothing about now.
        if member.ejections.load(Ordering::Relaxed) != 0
            && member.until.load(Ordering::Relaxed) <= self.milliseconds(now)
        {
            member.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// A request was not answered in time, or its answer broke off.
    pub fn failed(&self, member: usize, now: Instant) {
        let Some(found) = self.members.get(member) else {
            return;
        };
        let before = found.failures.fetch_add(1, Ordering::Relaxed);
        if before.saturating_add(1) >= FAILURES {
            self.eject(found, now);
        }
    }

    /// No connection could be made.
    pub fn connect_failed(&self, member: usize, now: Instant) {
        self.metrics.connect_failures.inc();
        if let Some(found) = self.members.get(member) {
            self.eject(found, now);
        }
    }

    /// What a health check found out.
    pub fn checked(&self, member: usize, healthy: bool) {
        let Some(found) = self.members.get(member) else {
            return;
        };
        let was_unhealthy = found.unhealthy.swap(!healthy, Ordering::Relaxed);
        if was_unhealthy != healthy {
            return;
        }
        let (upstream, address) = (&self.name, &found.shown);
        if healthy {
            self.metrics.unhealthy.dec();
            tracing::info!(%upstream, %address, "the address is healthy again");
        } else {
            self.metrics.unhealthy.inc();
            tracing::warn!(%upstream, %address, "the address fails its health checks");
        }
    }

    /// Leaves an address out for a while. The only one of an upstream stays:
    /// there is nothing to use instead.
    fn eject(&self, member: &Member, now: Instant) {
        let now = self.milliseconds(now);
        let until = member.until.load(Ordering::Relaxed);
        if self.members.len() < 2 || until > now {
            return;
        }
        let times = member.ejections.load(Ordering::Relaxed);
        let pause = SHORTEST.saturating_mul(1 << times.min(16)).min(LONGEST);
        let end = now.saturating_add(milliseconds(pause));
        let won = member
            .until
            .compare_exchange(until, end, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_err() {
            // Another worker was faster.
            return;
        }
        member
            .ejections
            .store(times.saturating_add(1), Ordering::Relaxed);
        member.failures.store(0, Ordering::Relaxed);
        self.metrics.ejections.inc();
        tracing::warn!(upstream = %self.name, address = %member.shown, "the address failed and is left out for {pause:?}");
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.begin))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Scheme;
    use super::*;

    fn group(size: u16) -> Group {
        let addresses: Vec<_> = (0..size)
            .map(|port| UpstreamAddress::tcp(Scheme::Http, "app", port))
            .collect();
        Group::new("app", &addresses, UpstreamMetrics::default())
    }

    #[test]
    fn a_failed_connection_leaves_the_address_out_longer_each_time() {
        let group = group(2);
        let mut now = group.begin;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            group.connect_failed(0, now);
            // Those that come late change nothing.
            group.connect_failed(0, now);
            let end = now + Duration::from_secs(seconds);
            assert!(!group.is_usable(0, end - Duration::from_millis(1)));
            assert!(group.is_usable(0, end));
            assert!(group.is_usable(1, now));
            now = end;
        }
        assert_eq!(group.metrics.ejections.get(), 8);
        group.answered(0, now);
        group.connect_failed(0, now);
        assert!(group.is_usable(0, now + Duration::from_secs(1)));
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let group = group(2);
        let now = group.begin;
        for _ in 0..10 {
            (1..FAILURES).for_each(|_| group.failed(0, now));
            group.answered(0, now);
        }
        assert!(group.is_usable(0, now));
        (0..FAILURES).for_each(|_| group.failed(0, now));
        assert!(!group.is_usable(0, now));
        // One from before the ejection does not take it back.
        group.answered(0, now);
        assert!(!group.is_usable(0, now));
    }

    #[test]
    fn the_only_address_is_never_left_out() {
        let group = group(1);
        group.connect_failed(0, group.begin);
        assert!(group.is_usable(0, group.begin));
        assert_eq!(group.metrics.ejections.get(), 0);
        assert_eq!(group.metrics.connect_failures.get(), 1);
    }

    #[test]
    fn checks_are_counted_when_they_change() {
        let group = group(2);
        for healthy in [true, false, false] {
            group.checked(1, healthy);
        }
        assert!(!group.is_usable(1, group.begin));
        assert_eq!(group.metrics.unhealthy.get(), 1);
        group.checked(1, true);
        assert!(group.is_usable(1, group.begin));
        assert_eq!(group.metrics.unhealthy.get(), 0);
    }
}
