//! Counters, gauges and histograms. Every label is known at start, so that a
//! request only adds to atomics that it already holds: no look-up, no lock, and
//! no series that an outsider can multiply.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Histogram;
use super::refusal::Refusal;

/// Everything that `/metrics` shows, and the handles that requests add to.
pub struct Metrics {
    registry: Registry,
    refusals: Vec<Counter>,
    logins: [Counter; LOGIN_RESULTS.len()],
    created: Counter,
    ended: [Counter; END_CAUSES.len()],
    store: Vec<StoreSeries>,
    cached: [Counter; CACHE_RESULTS.len()],
    requests: Family<Labels, Counter>,
    upstreams: UpstreamFamilies,
    certificates: Family<Labels, Gauge>,
    failed_reloads: Counter,
    /// Handshakes of clients that failed.
    pub failed_handshakes: Counter,
    /// Time from a request's head to the end of its response, in the proxy.
    pub duration: Histogram,
    /// Time from sending a request upstream to the head of its response.
    pub upstream: Histogram,
    /// From hearing that a session may be over to telling what is open for it.
    pub revocation_lag: Histogram,
    /// Open connections from clients.
    pub connections: Gauge,
    /// 1 while draining, else 0.
    pub draining: Gauge,
}

/// How a sign-in ended; a label of `cloakroom_logins`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginResult {
    /// A session was created.
    Success,
    /// Wrong user name or password.
    Rejected,
    /// No place in the queue.
    Busy,
    /// The users or the store could not be asked.
    Failed,
}

const LOGIN_RESULTS: [&str; 4] = ["success", "rejected", "busy", "failed"];

/// Why a session was ended; a label of `cloakroom_sessions_ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Its user signed out.
    Logout,
    /// A new login in the same browser took its place.
    Replaced,
    /// Its user signed out everywhere (counted once, however many there were).
    LogoutAll,
    /// There were more than `session.max_per_user` of its user.
    Limit,
    /// Its user, or the operator, ended it from elsewhere.
    Revoked,
}

const END_CAUSES: [&str; 5] = [
    "logout",
    "replaced",
    "logout_all",
    "max_per_user",
    "revoked",
];

/// Where what is known of a session came from; a label of
/// `cloakroom_session_lookups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// The copy in this process.
    Hit,
    /// The store.
    Miss,
    /// A copy that no longer counts, while the store is down.
    Stale,
}

const CACHE_RESULTS: [&str; 3] = ["hit", "miss", "stale"];

/// An operation of the session store; a label of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOperation {
    /// Reading the store's clock.
    Now,
    /// Making a record.
    Create,
    /// Reading a record.
    Load,
    /// Extending a record's life.
    Touch,
    /// Replacing a record's value.
    Update,
    /// Removing a record.
    Delete,
    /// Reading a user's epoch.
    Epoch,
    /// Raising a user's epoch.
    RaiseEpoch,
    /// Asking whether it is there.
    Ping,
    /// Finding all records of a user.
    OfUser,
    /// Reading a part of all records.
    Scan,
}

const STORE_OPERATIONS: [&str; 11] = [
    "now",
    "create",
    "load",
    "touch",
    "update",
    "delete",
    "epoch",
    "raise_epoch",
    "ping",
    "of_user",
    "scan",
];

struct StoreSeries {
    done: Counter,
    failed: Counter,
    latency: Histogram,
}

/// The counters of one route, one for each class of status.
#[derive(Clone, Default)]
pub struct RouteMetrics([Counter; CLASSES.len()]);

/// The series of one upstream, by its name in the configuration.
#[derive(Clone, Default)]
pub struct UpstreamMetrics {
    /// Open connections to it.
    pub connections: Gauge,
    /// Connections that could not be made.
    pub connect_failures: Counter,
    /// Requests that were sent again.
    pub retries: Counter,
    /// How often one of its addresses was left out for a while.
    pub ejections: Counter,
    /// Its addresses that fail their health checks.
    pub unhealthy: Gauge,
}

#[derive(Default)]
struct UpstreamFamilies {
    connections: Family<Labels, Gauge>,
    connect_failures: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    ejections: Family<Labels, Counter>,
    unhealthy: Family<Labels, Gauge>,
}

impl UpstreamFamilies {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_connections",
            "Open connections to applications",
            self.connections.clone(),
        );
        registry.register(
            "upstream_connect_failures",
            "Connections to applications that could not be made",
            self.connect_failures.clone(),
        );
        registry.register(
            "upstream_retries",
            "Requests that were sent again on another connection",
            self.retries.clone(),
        );
        registry.register(
            "upstream_ejections",
            "How often an address was left out for a while because it failed",
            self.ejections.clone(),
        );
        registry.register(
            "upstream_unhealthy",
            "Addresses that fail their health checks",
            self.unhealthy.clone(),
        );
    }
}

/// The series of the TLS certificates.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    /// When each ends, in seconds since the Unix epoch, in the order of the
    /// configuration.
    pub expiry: Vec<Gauge>,
    /// Changes of the files that could not be used.
    pub failed_reloads: Counter,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

type Labels = Vec<(&'static str, String)>;

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cloakroom");
        let refusals = Family::<Labels, Counter>::default();
        let logins = Family::<Labels, Counter>::default();
        let ended = Family::<Labels, Counter>::default();
        let operations = Family::<Labels, Counter>::default();
        let latency =
            Family::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(Histogram::fine);
        let requests = Family::<Labels, Counter>::default();
        let certificates = Family::<Labels, Gauge>::default();
        let failed_reloads = Counter::default();
        let failed_handshakes = Counter::default();
        let created = Counter::default();
        let duration = Histogram::fine();
        let upstream = Histogram::fine();
        let revocation_lag = Histogram::fine();
        let lookups = Family::<Labels, Counter>::default();
        let connections = Gauge::default();
        let draining = Gauge::default();
        registry.register(
            "requests",
            "Requests by route and class of status",
            requests.clone(),
        );
        registry.register(
            "refusals",
            "Answers given instead of forwarding, by reason",
            refusals.clone(),
        );
        registry.register("logins", "Sign-ins by result", logins.clone());
        registry.register(
            "sessions_created",
            "Sessions created by a sign-in",
            created.clone(),
        );
        registry.register("sessions_ended", "Sessions ended, by cause", ended.clone());
        registry.register(
            "store_operations",
            "Session store operations by result",
            operations.clone(),
        );
        registry.register_with_unit(
            "store_duration",
            "Session store latency",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register(
            "session_lookups",
            "Sessions of requests, by where they were found: a copy in this process (hit), the store (miss), a copy while the store is down (stale)",
            lookups.clone(),
        );
        registry.register_with_unit(
            "revocation_lag",
            "From hearing that a session is over to ending what is open for it",
            Unit::Seconds,
            revocation_lag.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the end of its response",
            Unit::Seconds,
            duration.clone(),
        );
        registry.register_with_unit(
            "upstream_duration",
            "From forwarding a request to the head of the application's response",
            Unit::Seconds,
            upstream.clone(),
        );
        registry.register(
            "connections",
            "Open client connections",
            connections.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When each TLS certificate ends, in seconds since 1970, by its place in the configuration",
            Unit::Seconds,
            certificates.clone(),
        );
        registry.register(
            "certificate_reload_failures",
            "Changes of the TLS files that could not be used",
            failed_reloads.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes of clients that failed",
            failed_handshakes.clone(),
        );
        registry.register("draining", "1 while shutting down", draining.clone());
        let upstreams = UpstreamFamilies::default();
        upstreams.register(&mut registry);
        let one = |family: &Family<Labels, Counter>, key, value: &str| {
            family.get_or_create_owned(&vec![(key, value.to_owned())])
        };
        Self {
            refusals: Refusal::ALL
                .iter()
                .map(|r| one(&refusals, "reason", r.label()))
                .collect(),
            logins: LOGIN_RESULTS.map(|r| one(&logins, "result", r)),
            ended: END_CAUSES.map(|c| one(&ended, "cause", c)),
            cached: CACHE_RESULTS.map(|r| one(&lookups, "result", r)),
            store: STORE_OPERATIONS
                .iter()
                .map(|operation| {
                    let labels = |result: &str| {
                        vec![
                            ("operation", (*operation).to_owned()),
                            ("result", result.to_owned()),
                        ]
                    };
                    StoreSeries {
                        done: operations.get_or_create_owned(&labels("ok")),
                        failed: operations.get_or_create_owned(&labels("error")),
                        latency: latency
                            .get_or_create_owned(&vec![("operation", (*operation).to_owned())]),
                    }
                })
                .collect(),
            registry,
            certificates,
            failed_reloads,
            failed_handshakes,
            created,
            requests,
            upstreams,
            duration,
            upstream,
            revocation_lag,
            connections,
            draining,
        }
    }

    /// The counters of a route, by its label.
    pub fn route(&self, label: &str) -> RouteMetrics {
        RouteMetrics(CLASSES.map(|class| {
            self.requests.get_or_create_owned(&vec![
                ("route", label.to_owned()),
                ("class", class.to_owned()),
            ])
        }))
    }

    /// The series of an upstream, by its name.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let labels = vec![("upstream", name.to_owned())];
        let families = &self.upstreams;
        UpstreamMetrics {
            connections: families.connections.get_or_create_owned(&labels),
            connect_failures: families.connect_failures.get_or_create_owned(&labels),
            retries: families.retries.get_or_create_owned(&labels),
            ejections: families.ejections.get_or_create_owned(&labels),
            unhealthy: families.unhealthy.get_or_create_owned(&labels),
        }
    }

    /// The series of so many TLS certificates.
    pub fn tls(&self, certificates: usize) -> TlsMetrics {
        let expiry = |number: usize| {
            self.certificates
                .get_or_create_owned(&vec![("certificate", number.to_string())])
        };
        TlsMetrics {
            expiry: (0..certificates).map(expiry).collect(),
            failed_reloads: self.failed_reloads.clone(),
        }
    }

    /// Counts a refusal.
    pub fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refusals.get(refusal as usize) {
            counter.inc();
        }
    }

    /// Counts a sign-in.
    pub fn login(&self, result: LoginResult) {
        if let Some(counter) = self.logins.get(result as usize) {
            counter.inc();
        }
        if result == LoginResult::Success {
            self.created.inc();
        }
    }

    /// Counts the end of a session.
    pub fn ended(&self, cause: EndCause) {
        if let Some(counter) = self.ended.get(cause as usize) {
            counter.inc();
        }
    }

    /// Counts the look-up of a session.
    pub fn cached(&self, result: CacheResult) {
        if let Some(counter) = self.cached.get(result as usize) {
            counter.inc();
        }
    }

    /// Counts a store operation and how long it took.
    pub fn store(&self, operation: StoreOperation, ok: bool, took: Duration) {
        if let Some(series) = self.store.get(operation as usize) {
            if ok { &series.done } else { &series.failed }.inc();
            series.latency.observe(took);
        }
    }

    /// The exposition format of OpenMetrics 1.0, which Prometheus reads.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RouteMetrics {
    /// Counts a response by its status.
    pub fn responded(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(counter) = self.0.get(class) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().encode();
        for refusal in Refusal::ALL {
            let line = format!(
                "cloakroom_refusals_total{{reason=\"{}\"}} 0",
                refusal.label()
            );
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn counts_reach_the_text() {
        let metrics = Metrics::new();
        metrics.route("/").responded(204);
        metrics.login(LoginResult::Success);
        metrics.store(StoreOperation::Load, false, Duration::from_micros(70));
        metrics.duration.observe(Duration::from_secs(60));
        let text = metrics.encode();
        for line in [
            "cloakroom_requests_total{route=\"/\",class=\"2xx\"} 1",
            "cloakroom_logins_total{result=\"success\"} 1",
            "cloakroom_sessions_created_total 1",
            "cloakroom_store_operations_total{operation=\"load\",result=\"error\"} 1",
            "cloakroom_store_duration_seconds_bucket{le=\"0.0001\",operation=\"load\"} 1",
            "cloakroom_request_duration_seconds_bucket{le=\"+Inf\"} 1",
            "cloakroom_request_duration_seconds_sum 60.0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
