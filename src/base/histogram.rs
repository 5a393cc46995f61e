//! A histogram of durations for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Cumulative buckets of durations, without a lock.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    /// One more than there are bounds: the last is everything above.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// Upper bounds in microseconds, from below a cached answer to a slow report.
const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000, 30_000_000,
];

impl Histogram {
    /// An empty histogram from 50 µs to 30 s.
    pub fn fine() -> Self {
        Self(Arc::new(HistogramCells {
            counts: Default::default(),
            sum_us: AtomicU64::new(0),
        }))
    }

    /// Adds one observation.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(cell) = self.0.counts.get(bucket) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut count = 0;
        let buckets: Vec<(f64, u64)> = BOUNDS_US
            .iter()
            .map(|us| Duration::from_micros(*us).as_secs_f64())
            .chain([f64::INFINITY])
            .zip(&self.0.counts)
            .map(|(bound, cell)| {
                let inside = cell.load(Ordering::Relaxed);
                count += inside;
                (bound, inside)
            })
            .collect();
        let sum = Duration::from_micros(self.0.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
