//! What is measured of topics and instances: a message to many subscribers, very many
//! subscriptions that change, values that are kept, and instances that say that they go on.

mod conns;
pub mod fanout;
pub mod instances;
pub mod retained;
pub mod subscriptions;

pub use conns::Conns;

use hdrhistogram::Histogram;
use std::time::Duration;

/// How long an answer may take that is no part of what is measured.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest latency that is told from longer ones, in nanoseconds.
const LATENCY_MAX: u64 = 120_000_000_000;

fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(|e| e.to_string())
}

/// Median and 99 % in microseconds.
fn p50_p99(latency: &Histogram<u64>) -> [f64; 2] {
    [0.5, 0.99].map(|quantile| latency.value_at_quantile(quantile) as f64 / 1000.0)
}

/// A span of seconds, and what is wrong with it if it is too long.
fn seconds(value: f64) -> Result<Duration, String> {
    if (0.0..=3600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("{value} seconds: 0 to 3600"))
    }
}
