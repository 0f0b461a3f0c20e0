//! The result for people and for machines: medians over the rounds, ratios within a round to the
//! peer that was named first.

use super::Sample;
use crate::peers::Hub;
use crate::table::Spread;
use serde_json::{Value, json};
use std::fmt::Write as _;

struct Row<'a> {
    hub: Hub,
    samples: Vec<&'a Sample>,
    first: Vec<&'a Sample>,
}

impl Row<'_> {
    fn over(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().map(|sample| value(sample))).unwrap_or(Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        })
    }

    /// To the first peer, in the same round.
    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| {
            let other = self.first.iter().find(|other| other.round == sample.round)?;
            Some(value(sample) / value(other))
        }))
    }
}

fn rows(samples: &[Sample]) -> Vec<Row<'_>> {
    let mut hubs: Vec<Hub> = Vec::new();
    for sample in samples {
        if !hubs.contains(&sample.hub) {
            hubs.push(sample.hub);
        }
    }
    let of = |hub: Hub| samples.iter().filter(move |sample| sample.hub == hub).collect();
    let first = hubs.first().copied();
    hubs.iter()
        .map(|&hub| Row { hub, samples: of(hub), first: first.map_or_else(Vec::new, of) })
        .collect()
}

/// How much the stopped subscriber changed the 99 % of the others.
fn change(sample: &Sample) -> f64 {
    sample.beside.latency_us[1] / sample.open.latency_us[1]
}

/// The table for people.
pub fn render(samples: &[Sample]) -> String {
    let mut out = String::new();
    let rows = rows(samples);
    let Some(first) = rows.first().map(|row| row.hub) else {
        return out;
    };
    let _ = writeln!(
        out,
        "{:<12}{:>14}{:>9}{:>13}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>13}{:>10}",
        "peer",
        "deliveries/s",
        format!("× {first}"),
        "spread",
        "cpu µs",
        "p50 µs",
        "p99 µs",
        "× p99",
        "beside",
        "changes",
        "spread",
        "peak MiB"
    );
    let range = |spread: Spread| format!("{:.2}–{:.2}", spread.min, spread.max);
    for row in &rows {
        let ratio = row.ratio(|s| s.closed.throughput);
        let p99 = row.ratio(|s| s.open.latency_us[1]);
        let changes = row.over(change);
        let _ = writeln!(
            out,
            "{:<12}{:>14.0}{:>9}{:>13}{:>9.2}{:>9.0}{:>9.0}{:>9}{:>9.0}{:>9.2}{:>13}{:>10.1}",
            row.hub,
            row.over(|s| s.closed.throughput).median,
            ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median)),
            ratio.map_or_else(String::new, range),
            row.over(|s| s.closed.cpu_us).median,
            row.over(|s| s.open.latency_us[0]).median,
            row.over(|s| s.open.latency_us[1]).median,
            p99.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median)),
            row.over(|s| s.beside.latency_us[1]).median,
            changes.median,
            range(changes),
            row.over(|s| s.peak as f64 / 1_048_576.0).median,
        );
    }
    for row in &rows {
        let unsent: u64 = row.samples.iter().map(|s| s.open.unsent + s.beside.unsent).sum();
        if unsent > 0 {
            let _ = writeln!(out, "{}: {unsent} messages could not be sent at the rate", row.hub);
        }
        if let Some(last) = row.samples.last() {
            let _ = writeln!(out, "{}, the one that stopped: {}", row.hub, last.stopped);
        }
    }
    out
}

/// Everything, for machines.
pub fn json(samples: &[Sample]) -> Value {
    let part = |part: &super::Part| {
        json!({
            "deliveries_per_s": part.throughput, "p50_us": part.latency_us[0],
            "p99_us": part.latency_us[1], "cpu_us": part.cpu_us, "unsent": part.unsent,
        })
    };
    let summary: Vec<Value> = rows(samples)
        .iter()
        .map(|row| {
            json!({
                "peer": row.hub.to_string(),
                "deliveries_per_s": row.over(|s| s.closed.throughput).json(),
                "to_first": row.ratio(|s| s.closed.throughput).map(Spread::json),
                "p99_us": row.over(|s| s.open.latency_us[1]).json(),
                "p99_to_first": row.ratio(|s| s.open.latency_us[1]).map(Spread::json),
                "beside_stopped": row.over(change).json(),
            })
        })
        .collect();
    let rounds: Vec<Value> = samples
        .iter()
        .map(|s| {
            json!({
                "peer": s.hub.to_string(), "round": s.round, "closed": part(&s.closed),
                "open": part(&s.open), "beside_stopped": part(&s.beside),
                "stopped": s.stopped, "peak_bytes": s.peak,
            })
        })
        .collect();
    json!({ "summary": summary, "samples": rounds })
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    fn sample(hub: Hub, round: usize, throughput: f64, p99: f64) -> Sample {
        let part = Part { throughput, latency_us: [1.0, p99], cpu_us: 1.0, unsent: 0 };
        let beside = Part { latency_us: [1.0, p99 * 1.1], ..part };
        let stopped = "it got 1 of 2, 1 were dropped".to_owned();
        Sample { hub, round, closed: part, open: part, beside, stopped, peak: 1 << 20 }
    }

    #[test]
    fn ratios_are_to_the_first_peer_in_the_same_round() {
        let samples = [
            sample(Hub::Isect, 0, 100.0, 10.0),
            sample(Hub::Nats, 0, 50.0, 20.0),
            sample(Hub::Nats, 1, 100.0, 40.0),
            sample(Hub::Isect, 1, 200.0, 20.0),
        ];
        let value = json(&samples);
        assert_eq!(value["summary"][1]["to_first"]["median"], 0.5);
        assert_eq!(value["summary"][1]["p99_to_first"]["max"], 2.0);
        let text = render(&samples);
        assert!(text.contains("× isect") && text.contains("1.10–1.10"), "{text}");
    }
}
