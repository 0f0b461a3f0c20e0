//! Reaps children that have ended, and how they ended. The engine decides what is reported.

use super::state_dir;
use nix::libc;
use sys::processes::{self, Reaped};

/// Reaps every child that has ended, and tells of those that were started for a broker, and whether
/// their program had begun to run.
///
/// What is left of the group of such a one is killed first: until the reap its number can't be
/// anyone else's, so the KILL hits nothing else. What left the group on purpose (a daemon with a
/// session of its own) is for `orphans`.
pub(super) fn all(is_ours: impl Fn(u32) -> bool) -> Vec<(u32, Reaped, bool)> {
    let mut dead = Vec::new();
    while let Some(pid) = processes::next_dead() {
        let is_ours = is_ours(pid.unsigned_abs());
        let has_begun = is_ours && state_dir::has_begun(pid.unsigned_abs());
        if is_ours {
            let _ = processes::send_signal(-pid, libc::SIGKILL);
        }
        match processes::reap(pid) {
            Some(reaped) if is_ours => dead.push((pid.unsigned_abs(), reaped, has_begun)),
            // An orphan that fell to us (execd may be process 1 of a container).
            Some(_) => {}
            None => break,
        }
    }
    dead
}
