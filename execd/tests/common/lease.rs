//! Programs whose file does not answer, as on a file server that is away: it has a lease.

use super::Execd;
use nix::libc;
use std::fs;
use std::os::fd::AsRawFd;

/// `fcntl`'s `F_SETSIG` on Linux.
const F_SETSIG: i32 = 10;

/// Makes everybody wait who opens the file, as long as what this returns is there; none on a file
/// system that has no leases.
#[allow(clippy::print_stderr, reason = "a test that tries less than it could says so")]
pub(crate) fn hold(path: &str) -> Option<fs::File> {
    let file = fs::File::open(path).unwrap();
    #[expect(unsafe_code, reason = "nix has no leases")]
    // SAFETY: both calls take numbers alone.
    let taken = unsafe {
        // Whoever holds a lease is told by a signal that it is wanted; of this one the default is
        // to be ignored.
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    let error = std::io::Error::last_os_error();
    if taken == -1 && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) {
        eprintln!("not tried: the file system of {path} has no leases");
        return None;
    }
    assert_eq!(taken, 0, "a lease: {error}");
    Some(file)
}

/// The processes that execd has forked and that do not run their program yet.
pub(crate) fn beginning(execd: &Execd) -> Vec<u32> {
    let list = format!("/proc/{0}/task/{0}/children", execd.pid());
    let list = fs::read_to_string(list).unwrap_or_default();
    let pids = list.split_ascii_whitespace().map(|pid| pid.parse().unwrap());
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.filter(|pid| name(pid) == "isdexecd-start\n").collect()
}
