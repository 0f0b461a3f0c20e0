//! Processes by their ids: who is there, and signals to them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;
use sys::proc;

/// Sends a signal to a process of this test.
pub fn signal_pid(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    assert!(pid > 1, "not a process of a test");
    // The process may just have ended.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Sends a signal by number, also one that nix has no name for, so many times. Real-time signals
/// are queued, so the process takes each of them.
///
/// # Panics
/// If the process is gone, or there is no bash.
#[expect(
    clippy::disallowed_methods,
    reason = "only kill(1) sends real-time signals without unsafe"
)]
pub fn signal_number(pid: u32, number: i32, times: usize) {
    assert!(pid > 1, "not a process of a test");
    let kill =
        format!("for ((at = 0; at < {times}; at++)); do kill -{number} {pid} || exit 1; done");
    let status = Command::new("/bin/bash").args(["-c", &kill]).status();
    assert!(status.expect("bash").success(), "{kill}");
}

/// Whether a process is there (and not a zombie).
pub fn is_alive(pid: u32) -> bool {
    proc::stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// When a process began, ticks since the machine's start (field 22 of its `stat`); `None` = it is
/// gone. Together with its id that names one process: ids are used again, within minutes where many
/// processes are started.
pub fn began_at(pid: u32) -> Option<u64> {
    proc::stat(pid).map(|stat| stat.starttime)
}

/// Processes whose command line contains this text.
pub fn processes_of(text: &str) -> Vec<u32> {
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text) && is_alive(*pid)
    };
    proc::others().filter(names).collect()
}
