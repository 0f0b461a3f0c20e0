//! The dead: which children have ended, and how. Not what is reported of it: the engine decides.

use super::spawn::{self, Reaped};
use nix::libc;

/// Reaps every child that has ended.
///
/// What is left of its group is killed first: until the reap its number can't be anyone else's, so
/// the KILL can't hit a stranger. What left the group on purpose (a daemon with a session of its
/// own) is beyond reach.
pub(super) fn all(mut each: impl FnMut(u32, Reaped)) {
    while let Some(pid) = spawn::next_dead() {
        let _ = spawn::send_signal(-pid, libc::SIGKILL);
        let Some(reaped) = spawn::reap(pid) else { return };
        each(pid.unsigned_abs(), reaped);
    }
}
