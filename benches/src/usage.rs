//! Reads processor time, memory and idle time of processes and of the machine from /proc (Linux).

use procfs_core::LoadAverage;
use procfs_core::process::Schedstat;
use procfs_core::{CpuInfo, CpuTime, ExplicitSystemInfo, FromRead, FromReadSI, KernelStats};
use std::fs;
use sys::proc::{self, Status};

/// Processor time of a process with all its threads, in nanoseconds.
///
/// # Errors
/// The process is gone.
pub fn cpu_nanos(pid: u32) -> Result<u64, String> {
    let dir = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&dir).map_err(|e| format!("{dir}: {e}"))?;
    // A thread may end while it is looked at.
    let threads =
        entries.flatten().filter_map(|at| Schedstat::from_file(at.path().join("schedstat")).ok());
    let sum: u64 = threads.map(|thread| thread.sum_exec_runtime).sum();
    if sum > 0 { Ok(sum) } else { cpu_ticks(pid) }
}

/// The same from `stat`, in steps of 10 ms, where the kernel keeps no schedstat.
fn cpu_ticks(pid: u32) -> Result<u64, String> {
    let stat = proc::stat(pid).ok_or_else(|| format!("process {pid} is gone"))?;
    Ok((stat.utime + stat.stime) * 10_000_000)
}

/// Memory of a process that is in use now, in bytes.
///
/// # Errors
/// The process is gone, or the kernel does not say.
pub fn rss_bytes(pid: u32) -> Result<u64, String> {
    memory_bytes(pid, |status| status.vmrss)
}

/// Most memory of a process that was in use so far, in bytes.
///
/// # Errors
/// The process is gone, or the kernel does not say.
pub fn peak_bytes(pid: u32) -> Result<u64, String> {
    memory_bytes(pid, |status| status.vmhwm)
}

fn memory_bytes(pid: u32, kib: impl Fn(&Status) -> Option<u64>) -> Result<u64, String> {
    let kib = proc::status(pid).and_then(|status| kib(&status));
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("/proc/{pid}/status says nothing of memory"))
}

/// Time of all cores since the machine started: idle, and all of it, in ticks.
pub fn machine() -> (u64, u64) {
    // Only what is asked for in other units than the file's needs these.
    let ticks = ExplicitSystemInfo {
        ticks_per_second: 100,
        boot_time_secs: 0,
        page_size: 0,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let Ok(KernelStats { total, .. }) = KernelStats::from_file("/proc/stat", &ticks) else {
        return (0, 0);
    };
    let CpuTime { user, nice, system, idle, iowait, irq, softirq, steal, .. } = total;
    let [iowait, irq, softirq, steal] = [iowait, irq, softirq, steal].map(|time| time.unwrap_or(0));
    let idle = idle + iowait;
    (idle, user + nice + system + idle + irq + softirq + steal)
}

/// What the machine is, for the record: cores, processor, kernel.
pub fn describe() -> serde_json::Value {
    let cpus = CpuInfo::from_file("/proc/cpuinfo").ok();
    let model = cpus.as_ref().and_then(|cpus| cpus.model_name(0)).unwrap_or_default();
    let cores = cpus.as_ref().map_or(0, CpuInfo::num_cores);
    let load = LoadAverage::from_file("/proc/loadavg").map_or(0.0, |load| load.one);
    serde_json::json!({
        "cores": cores,
        "processor": model,
        "kernel": proc::kernel("kernel/osrelease").unwrap_or_default(),
        "loadavg": format!("{load:.2}"),
    })
}
