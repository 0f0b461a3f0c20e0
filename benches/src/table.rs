//! Formats the result as a table and as JSON: medians over the rounds, and the ratio to `limit`
//! within each round with its spread.

use crate::round::Sample;
use crate::shape::Shape;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The yardstick that ratios are taken to, if it was measured.
pub const YARDSTICK: &str = "limit";

/// A value over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` = there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min: first, max: last })
    }

    pub(crate) fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// All samples of one peer with one shape.
struct Row<'a> {
    peer: &'a str,
    samples: Vec<&'a Sample>,
    ratio: Option<Spread>,
    cpu_ratio: Option<Spread>,
}

impl Row<'_> {
    fn over(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(|sample| value(sample))).unwrap_or(Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        })
    }

    fn over_some(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| value(sample)))
    }
}

fn shapes(samples: &[Sample]) -> Vec<Shape> {
    // The first round has them in the order in which they were named.
    let mut shapes = Vec::new();
    for sample in samples {
        if !shapes.contains(&sample.shape) {
            shapes.push(sample.shape);
        }
    }
    shapes
}

fn rows<'a>(samples: &'a [Sample], shape: &Shape, order: &'a [String]) -> Vec<Row<'a>> {
    let of = |peer: &str| {
        samples.iter().filter(|s| s.peer == peer && s.shape == *shape).collect::<Vec<_>>()
    };
    let yard = of(YARDSTICK);
    let within = |sample: &Sample, value: &dyn Fn(&Sample) -> Option<f64>| {
        let other = yard.iter().find(|other| other.round == sample.round)?;
        Some(value(sample)? / value(other).filter(|value| *value > 0.0)?)
    };
    order
        .iter()
        .map(|peer| (peer, of(peer)))
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(peer, samples)| Row {
            peer,
            ratio: Spread::of(samples.iter().filter_map(|s| within(s, &|s| Some(s.throughput)))),
            cpu_ratio: Spread::of(samples.iter().filter_map(|s| within(s, &|s| s.cpu_us))),
            samples,
        })
        .collect()
}

fn text(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.2}", spread.median))
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |s| format!("{:.2}–{:.2}", s.min, s.max))
}

/// The value that so many per cent of these are below; 0 of none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// The table for people, one part for each shape; peers in the order given.
pub fn render(samples: &[Sample], order: &[String]) -> String {
    let mut out = String::new();
    for shape in shapes(samples) {
        let _ = writeln!(
            out,
            "{shape}\n  {:<24}{:>10}{:>9}{:>12}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>7}",
            "peer",
            "req/s",
            "× limit",
            "spread",
            "p50 µs",
            "p99 µs",
            "p99.9",
            "cpu µs",
            "× limit",
            "peak MiB",
            "idle"
        );
        let mut unsent = 0;
        for row in rows(samples, &shape, order) {
            let latency = |index: usize| row.over(|s| s.latency_us[index]).median;
            let cpu = row.over_some(|s| s.cpu_us);
            let rss = row.over_some(|s| s.rss.map(|bytes| bytes as f64 / 1_048_576.0));
            let _ = writeln!(
                out,
                "  {:<24}{:>10.0}{:>9}{:>12}{:>9.0}{:>9.0}{:>9.0}{:>9}{:>9}{:>9}{:>6.0}%",
                row.peer,
                row.over(|s| s.throughput).median,
                text(row.ratio),
                range(row.ratio),
                latency(0),
                latency(1),
                latency(2),
                text(cpu),
                text(row.cpu_ratio),
                rss.map_or_else(|| "–".to_owned(), |rss| format!("{:.1}", rss.median)),
                row.over(|s| s.idle).median * 100.0
            );
            unsent += row.samples.iter().map(|s| s.unsent).sum::<u64>();
        }
        if unsent > 0 {
            let _ = writeln!(
                out,
                "  {unsent} requests could not be sent at the rate: some peer is slower than that"
            );
        }
        out.push('\n');
    }
    out
}

/// Everything, for machines.
pub fn json(samples: &[Sample], order: &[String], about: Value) -> Value {
    let summary: Vec<Value> = shapes(samples)
        .iter()
        .flat_map(|shape| {
            rows(samples, shape, order).into_iter().map(|row| {
                json!({
                    "shape": shape.to_string(),
                    "peer": row.peer,
                    "throughput": row.over(|s| s.throughput).json(),
                    "throughput_to_limit": row.ratio.map(Spread::json),
                    "p50_us": row.over(|s| s.latency_us[0]).json(),
                    "p99_us": row.over(|s| s.latency_us[1]).json(),
                    "p999_us": row.over(|s| s.latency_us[2]).json(),
                    "cpu_us": row.over_some(|s| s.cpu_us).map(Spread::json),
                    "cpu_to_limit": row.cpu_ratio.map(Spread::json),
                    "idle": row.over(|s| s.idle).json(),
                })
            })
        })
        .collect();
    let rounds: Vec<Value> = samples
        .iter()
        .map(|s| {
            json!({
                "shape": s.shape.to_string(), "peer": s.peer, "round": s.round,
                "throughput": s.throughput, "p50_us": s.latency_us[0],
                "p99_us": s.latency_us[1], "p999_us": s.latency_us[2],
                "max_us": s.latency_us[3], "cpu_us": s.cpu_us, "rss_bytes": s.rss,
                "idle": s.idle, "unsent": s.unsent,
            })
        })
        .collect();
    json!({ "about": about, "summary": summary, "samples": rounds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(peer: &str, round: usize, throughput: f64) -> Sample {
        Sample {
            peer: peer.to_owned(),
            shape: "c1w1p0".parse().unwrap(),
            round,
            throughput,
            latency_us: [1.0, 2.0, 3.0, 4.0],
            cpu_us: (peer != "direct").then_some(throughput / 10.0),
            rss: None,
            idle: 0.5,
            unsent: 0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is twice as fast in the second round: the ratio stays.
        let samples = [
            sample("limit", 0, 100.0),
            sample("isect", 0, 150.0),
            sample("limit", 1, 200.0),
            sample("isect", 1, 300.0),
            sample("direct", 1, 400.0),
        ];
        let order = ["isect", "limit", "direct"].map(str::to_owned);
        let shape = "c1w1p0".parse().unwrap();
        let rows = rows(&samples, &shape, &order);
        assert_eq!(
            rows.iter().map(|row| row.peer).collect::<Vec<_>>(),
            ["isect", "limit", "direct"]
        );
        assert_eq!(rows[0].ratio, Some(Spread { median: 1.5, min: 1.5, max: 1.5 }));
        assert_eq!(rows[2].ratio.unwrap().median, 2.0);
        assert_eq!(rows[2].cpu_ratio, None);
        let text = render(&samples, &order);
        assert!(text.contains("c1w1p0") && text.contains("1.50–1.50"), "{text}");
        let value = json(&samples, &order, Value::Null);
        assert_eq!(value["summary"][0]["throughput_to_limit"]["median"], 1.5);
        assert_eq!(value["samples"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
    }
}
