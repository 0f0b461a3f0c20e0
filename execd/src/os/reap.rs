//! Reaps children that have ended, and how they ended. The engine decides what is reported.

use super::{oom, state_dir};
use nix::libc;
use sys::processes::{self, Reaped};

/// A process that was started for a broker, and has ended.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) pid: u32,
    pub(super) reaped: Reaped,
    /// Whether its program had begun to run.
    pub(super) has_begun: bool,
    /// The file that may have the count of kills of its cgroup.
    pub(super) oom_file: Option<String>,
}

/// Reaps every child that has ended, and tells of those that were started for a broker, and whether
/// their program had begun to run.
///
/// What is left of the group of such a one is killed first: until the reap its number can't be
/// anyone else's, so the KILL hits nothing else. What left the group on purpose (a daemon with a
/// session of its own) is for `orphans`.
pub(super) fn all(is_ours: impl Fn(u32) -> bool) -> Vec<Dead> {
    let mut dead = Vec::new();
    while let Some(pid) = processes::next_dead() {
        let is_ours = is_ours(pid.unsigned_abs());
        let has_begun = is_ours && state_dir::has_begun(pid.unsigned_abs());
        if is_ours {
            let _ = processes::send_signal(-pid, libc::SIGKILL);
        }
        let pid_of_it = pid.unsigned_abs();
        let oom_file = if is_ours { oom::file_of(pid_of_it) } else { None };
        match processes::reap(pid) {
            Some(reaped) if is_ours => {
                dead.push(Dead { pid: pid_of_it, reaped, has_begun, oom_file });
            }
            // An orphan that fell to us (execd may be process 1 of a container).
            Some(_) => {}
            None => break,
        }
    }
    dead
}
