//! Counts the broker's system calls for one request with strace. strace slows the broker down, so
//! no other figure of such a run is valid.

use crate::clock;
use crate::load::{Load, Plan};
use crate::peers::{Peer, Setup};
use crate::proc::{Scheduling, Start, find_program};
use crate::shape::Shape;
use crate::stop::Stop;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const SPAN: Duration = Duration::from_secs(3);

/// Counts by name, and replies meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Syscalls {
    /// Name and calls.
    pub calls: BTreeMap<String, u64>,
    /// Replies in the same time.
    pub replies: u64,
}

impl Syscalls {
    /// Calls for one request.
    pub fn per_request(&self) -> f64 {
        self.calls.values().sum::<u64>() as f64 / self.replies.max(1) as f64
    }
}

/// Runs a shape under strace.
///
/// # Errors
/// strace is not installed or may not trace, or the load fails.
pub fn count(peer: &Peer, shape: Shape, setup: &Setup, stop: &Stop) -> Result<Syscalls, String> {
    let strace = find_program("strace").ok_or("strace is not installed: apt-get install strace")?;
    let running = peer.start(setup, &shape)?;
    let pid = running.broker.ok_or_else(|| format!("{} has no broker", peer.label))?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let output = dir.path().join("counts");
    let warm = Duration::from_millis(300);
    let plan = Plan { shape, rate: None, warm, span: SPAN };
    let mut load = Load::connect(&running.endpoint, plan, &*running.new_client, stop)?;
    let [pid, output_text] = [pid.to_string(), output.display().to_string()];
    let log = dir.path().join("strace.log");
    let start = Start {
        program: &strace,
        args: ["-c", "-f", "-p", &pid, "-o", &output_text].map(str::to_owned).to_vec(),
        core: None,
        log: &log,
        talks: false,
        in_order: true,
        scheduling: Scheduling::Plain,
    };
    let mut tracer = None;
    let tally = load.run(stop, |is_over| {
        if is_over {
            // Ended in order it writes its table.
            tracer = None;
            return Ok(());
        }
        tracer = Some(start.spawn()?);
        clock::until("strace", Duration::from_secs(5), || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            Ok(text.contains("attached").then_some(()))
        })
    })?;
    let text = fs::read_to_string(&output)
        .map_err(|e| format!("strace wrote nothing: {e}; {}", read(&log)))?;
    let calls = parse(&text);
    if calls.is_empty() {
        return Err(format!("strace counted nothing: {text}{}", read(&log)));
    }
    Ok(Syscalls { calls, replies: tally.replies })
}

fn read(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The lines of `strace -c`: per cent, seconds, µs a call, calls, errors if any, name.
fn parse(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = *words.last().filter(|name| **name != "total")?;
            words.first()?.parse::<f64>().ok()?;
            Some((name.to_owned(), words.get(3)?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    \x20 72.00    0.261354           9     26464           sendto\n\
                    \x20 23.65    0.085833           3     26465         7 recvfrom\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.362986           6     52929         7 total\n";
        let calls = parse(text);
        assert_eq!(calls.len(), 2);
        assert_eq!(calls["recvfrom"], 26465);
        let all = Syscalls { calls, replies: 13232 };
        assert!((all.per_request() - 4.0).abs() < 0.01);
    }
}
