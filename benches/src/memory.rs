//! Measures the resident memory of a broker: alone, per idle connection, after each connection
//! asked, after a burst of large requests, and after all have left. The kernel's own buffers for a
//! socket are not counted.

use crate::clock;
use crate::load::{Load, Plan};
use crate::peers::{Peer, Running, Setup};
use crate::round::say;
use crate::shape::Shape;
use crate::stop::Stop;
use crate::usage;
use serde_json::{Value, json};
use std::time::Duration;

/// Clients of the burst, and how many requests of 64 KiB each has under way.
const BURST: &str = "c64w4p65536d8";
/// Time in which a broker may give memory back.
const SETTLE: Duration = Duration::from_millis(4000);

/// The broker's memory after each stage of a measurement, in order.
#[derive(Clone, Debug)]
pub struct Footprint {
    /// Label of the peer.
    pub peer: String,
    /// Number of idle connections at the peak.
    pub connections: usize,
    /// Stage and bytes.
    pub stages: Vec<(&'static str, u64)>,
}

impl Footprint {
    fn at(&self, stage: &str) -> u64 {
        self.stages.iter().find(|(name, _)| *name == stage).map_or(0, |(_, bytes)| *bytes)
    }

    /// Bytes for each idle connection.
    pub fn per_connection(&self) -> f64 {
        let grown = self.at("connected").saturating_sub(self.at("alone"));
        grown as f64 / self.connections.max(1) as f64
    }

    /// The figures as JSON.
    pub fn json(&self) -> Value {
        let stages: serde_json::Map<String, Value> =
            self.stages.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect();
        json!({
            "peer": self.peer, "connections": self.connections,
            "bytes_per_connection": self.per_connection(), "rss_bytes": stages,
        })
    }
}

/// Measures one peer.
///
/// # Errors
/// Something failed, or the peer has no broker.
pub fn measure(
    peer: &Peer,
    setup: &Setup,
    connections: usize,
    stop: &Stop,
) -> Result<Footprint, String> {
    let burst: Shape = BURST.parse()?;
    let shape = Shape { clients: connections, payload: 64, depth: 1, ..burst };
    let running = peer.start(setup, &shape)?;
    let pid = running.broker.ok_or_else(|| format!("{} has no broker", peer.label))?;
    let mut stages = Vec::new();
    let mut note = |name| {
        say(&format!("{}: {name}", peer.label));
        stages.push((name, usage::rss_bytes(pid)?));
        Ok::<(), String>(())
    };
    note("alone")?;
    let mut load = connect(&running, shape, stop)?;
    note("connected")?;
    load.run(stop, |_| Ok(()))?;
    clock::pause(SETTLE);
    note("asked")?;
    drop(load);
    clock::pause(SETTLE);
    note("left")?;
    if peer.refuses(&burst).is_none() {
        let mut load = connect(&running, burst, stop)?;
        load.run(stop, |_| Ok(()))?;
        drop(load);
        clock::pause(SETTLE);
        note("burst over")?;
    }
    Ok(Footprint { peer: peer.label.clone(), connections, stages })
}

fn connect(running: &Running, shape: Shape, stop: &Stop) -> Result<Load, String> {
    let span = Duration::from_secs(1);
    let plan = Plan { shape, rate: None, warm: Duration::ZERO, span };
    Load::connect(&running.endpoint, plan, &*running.new_client, stop)
}

/// The table for people.
pub fn render(footprints: &[Footprint]) -> String {
    let mut out = format!(
        "{:<24}{:>12}{:>12}{:>12}{:>12}{:>12}{:>14}\n",
        "resident KiB", "alone", "connected", "asked", "left", "burst over", "a connection"
    );
    for footprint in footprints {
        out.push_str(&format!("{:<24}", footprint.peer));
        for stage in ["alone", "connected", "asked", "left", "burst over"] {
            out.push_str(&format!("{:>12}", footprint.at(stage) / 1024));
        }
        out.push_str(&format!("{:>10.2} KiB\n", footprint.per_connection() / 1024.0));
    }
    out
}
