//! Reaps children that have ended, and how they ended. The engine decides what is reported.

use super::raw::{self, Reaped};
use nix::libc;

/// Reaps every child that has ended; returns those that were started for a broker.
///
/// It kills the rest of such a child's group first: until the reap nobody else can have that
/// number, so the KILL can't hit others. Processes that left the group on purpose (daemons with a
/// session of their own) are handled by `orphans`.
pub(super) fn all(is_ours: impl Fn(u32) -> bool) -> Vec<(u32, Reaped)> {
    let mut dead = Vec::new();
    while let Some(pid) = raw::next_dead() {
        let is_ours = is_ours(pid.unsigned_abs());
        if is_ours {
            let _ = raw::send_signal(-pid, libc::SIGKILL);
        }
        match raw::reap(pid) {
            Some(reaped) if is_ours => dead.push((pid.unsigned_abs(), reaped)),
            // An orphan whose parent this process became, for example as process 1 of a container.
            Some(_) => {}
            None => break,
        }
    }
    dead
}
