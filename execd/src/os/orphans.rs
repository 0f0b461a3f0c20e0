//! Handles processes that workers leave behind when they daemonise. execd is a "subreaper"
//! (prctl(2)): it becomes the parent of such orphans, finds out which worker they came from, and
//! ends those whose worker has ended. `reap` ends the members of a worker's group.

use super::launch;
use nix::libc;
use nix::sys::stat::fstat;
use nix::unistd::getsid;
use protocol::ids::RunId;
use protocol::limits::RUN_VARIABLE;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process;
use sys::{proc, processes};

/// Most bytes of an orphan's environment that are read.
const ENVIRONMENT_BYTES_MAX: u64 = 256 << 10;

/// Where an orphan came from, as far as can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The id of its session, which is the process id of the session's leader.
    pub(super) session: u32,
    /// The start of a worker that its environment names; `None` if it cleared that.
    pub(super) run: Option<RunId>,
}

/// The directory id of an execd without a state directory. It tells this execd's starts from those
/// of all other execds of this machine, which may have the same numbers.
pub(super) fn directory_id() -> String {
    format!("execd-{}", process::id())
}

/// The value of [`RUN_VARIABLE`] for a start.
pub(super) fn value(run: RunId, directory_id: &str) -> String {
    format!("{run}.{directory_id}")
}

/// Makes this process the parent of all orphans below it, from now on.
pub(super) fn take_in() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Ends the orphans that `is_wanted` does not want; it is asked only about processes that execd did
/// not start. Returns whether there were any.
///
/// All of them are children of this process, so their numbers can't be reused before they are
/// reaped. When one of them is ended, its children become orphans, and its end calls this again.
pub(super) fn end(
    directory_id: &str,
    is_known: impl Fn(u32) -> bool,
    is_wanted: impl Fn(Origin) -> bool,
) -> bool {
    let mut has_ended = false;
    let own = getsid(None).map_or(0, |sid| sid.as_raw().cast_unsigned());
    for pid in proc::children() {
        if is_known(pid) {
            continue;
        }
        let Some(stat) = proc::running(pid) else { continue };
        // One that ends just now has none.
        let Ok(session) = u32::try_from(stat.session) else { continue };
        // Every worker has a session of its own, and its processes can't enter this one. A process
        // of this session was started by the script that became execd.
        if session == own {
            continue;
        }
        if !is_wanted(Origin { session, run: run(pid, directory_id) }) {
            tracing::info!(pid, "ending what a worker left behind");
            let _ = processes::send_signal(pid.cast_signed(), libc::SIGKILL);
            has_ended = true;
        }
    }
    has_ended
}

/// Ends what names this directory id and comes from none of these starts, the ones that are known
/// to live. That is what workers left behind which ended while no execd was there to take it in;
/// and a worker of an execd that died before it had written it down, which nobody could find again.
/// One whose program does not run yet has the file of the directory id open instead.
pub(super) fn end_unknown(
    living: &BTreeSet<RunId>,
    is_known: impl Fn(u32) -> bool,
    directory_id: &str,
    directory_file: &OwnedFd,
) {
    for pid in proc::others() {
        let is_ours = match run(pid, directory_id) {
            Some(run) => !living.contains(&run),
            None => has_instance_file(pid, directory_file) && !is_known(pid),
        };
        if is_ours {
            tracing::info!(pid, "ending what is not written down, or a worker left behind");
            let _ = processes::send_signal(pid.cast_signed(), libc::SIGKILL);
        }
    }
}

/// Whether a process is a start whose program does not run yet, of this state directory.
fn has_instance_file(pid: u32, directory_file: &OwnedFd) -> bool {
    if proc::stat(pid).is_none_or(|stat| stat.comm.as_bytes() != launch::NAME.to_bytes()) {
        return false;
    }
    let theirs = fs::metadata(format!("/proc/{pid}/fd/{}", launch::INSTANCE_FD));
    let ours = fstat(directory_file).map(|ours| (ours.st_dev, ours.st_ino));
    theirs.is_ok_and(|theirs| ours == Ok((theirs.dev(), theirs.ino())))
}

/// The run that the environment of a process names, if it belongs to this directory id.
fn run(pid: u32, directory_id: &str) -> Option<RunId> {
    let value = proc::variable(pid, RUN_VARIABLE, ENVIRONMENT_BYTES_MAX)?;
    let (run, whose) = std::str::from_utf8(&value).ok()?.split_once('.')?;
    (whose == directory_id).then_some(RunId(run.parse().ok()?))
}
