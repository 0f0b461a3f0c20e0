//! Reads processor time, memory and idle time of processes and of the machine from /proc (Linux).

use std::fs;
use std::path::Path;

/// Processor time of a process with all its threads, in nanoseconds.
///
/// # Errors
/// The process is gone.
pub fn cpu_nanos(pid: u32) -> Result<u64, String> {
    let dir = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&dir).map_err(|e| format!("{dir}: {e}"))?;
    let mut sum = 0;
    for entry in entries.flatten() {
        // A thread may end while it is looked at.
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    if sum > 0 { Ok(sum) } else { cpu_ticks(pid) }
}

/// The same from `stat`, in steps of 10 ms, where the kernel keeps no schedstat.
fn cpu_ticks(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let field = |index: usize| {
        after.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    // utime and stime are fields 14 and 15; the first after the name is field 3.
    Ok((field(11) + field(12)) * 10_000_000)
}

/// A line of `/proc/PID/status` in bytes, for example `VmRSS`, `RssAnon`, `VmHWM`.
///
/// # Errors
/// The process is gone, or the kernel does not say.
pub fn memory_bytes(pid: u32, name: &str) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| format!("{path} has no {name}"))
}

/// Time of all cores since the machine started: idle, and all of it, in ticks.
pub fn machine() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    (idle, fields.iter().sum())
}

/// What the machine is, for the record: cores, processor, kernel.
pub fn describe() -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("", |(_, name)| name.trim());
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    serde_json::json!({
        "cores": cores,
        "processor": model,
        "kernel": kernel.trim(),
        "loadavg": load.split(' ').next().unwrap_or(""),
    })
}
