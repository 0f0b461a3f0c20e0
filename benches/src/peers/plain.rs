//! The peers that need no other program: a direct connection without a broker, and the bare relay.

use super::{Running, START_LIMIT, Setup, temp_dir, workers};
use crate::proc::{Process, Scheduling, Start, own_program};
use crate::protocols::limit;
use crate::shape::Shape;
use crate::sock::Endpoint;
use std::path::Path;

/// Starts this program in a role, and reads the addresses that it prints.
fn start(
    role: &[&str],
    core: Option<usize>,
    dir: &Path,
) -> Result<(Process, serde_json::Value), String> {
    let mut process = Start {
        program: &own_program()?,
        args: role.iter().map(|word| (*word).to_owned()).collect(),
        core,
        log: &dir.join("peer.log"),
        talks: true,
        in_order: false,
        scheduling: Scheduling::Plain,
    }
    .spawn()?;
    let line = process.line(START_LIMIT)?;
    let endpoints = serde_json::from_str(&line).map_err(|e| format!("it said '{line}': {e}"))?;
    Ok((process, endpoints))
}

fn endpoint(endpoints: &serde_json::Value, name: &str) -> Result<Endpoint, String> {
    endpoints[name].as_str().ok_or_else(|| format!("it did not say where '{name}' is"))?.parse()
}

/// Clients and workers, nothing between.
pub(super) fn direct(setup: &Setup) -> Result<Running, String> {
    let dir = temp_dir()?;
    let (process, endpoints) =
        start(&["echo", "--listen", "127.0.0.1:0"], setup.load_core(), dir.path())?;
    Ok(Running {
        endpoint: endpoint(&endpoints, "client")?,
        new_client: Box::new(|| Box::new(limit::Client)),
        broker: None,
        held: None,
        processes: vec![process],
        _dir: dir,
    })
}

/// The bare relay.
pub(super) fn limit(setup: &Setup, shape: &Shape, is_unix: bool) -> Result<Running, String> {
    let dir = temp_dir()?;
    let [clients, workers_at] = ["client", "worker"].map(|name| {
        if is_unix {
            format!("unix:{}", dir.path().join(name).display())
        } else {
            "127.0.0.1:0".to_owned()
        }
    });
    let role = ["relay", &clients, &workers_at];
    let (relay, endpoints) = start(&role, setup.broker_core(), dir.path())?;
    let echo =
        workers(setup, dir.path(), ("limit", &endpoint(&endpoints, "worker")?), shape.workers)?;
    Ok(Running {
        endpoint: endpoint(&endpoints, "client")?,
        new_client: Box::new(|| Box::new(limit::Client)),
        broker: Some(relay.pid()),
        held: None,
        processes: vec![relay, echo],
        _dir: dir,
    })
}
