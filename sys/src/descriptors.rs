//! Descriptors by number, and room for them.
//!
//! [`make_room`] makes the kernel enlarge this process's table of descriptors before it is needed.
//! Linux enlarges the table when a call such as `accept` or `pipe` finds it full. Where several
//! threads share the table, that call waits for all processors (`synchronize_rcu`): about 20 ms, on
//! a busy machine more than a second, during which an event loop serves nobody.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::unistd::close;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// Most descriptors that the table is enlarged for; it takes half a megabyte in the kernel. A
/// process with more open descriptors waits once at 65,536, once at 131,072 and so on.
pub const ROOM_MAX: u64 = 65_536;

/// Makes the kernel enlarge the table for as many descriptors as this process may open, at most
/// [`ROOM_MAX`]. Call it at the start, after the limit was raised. Returns that number, or 0 if the
/// kernel refused for lack of memory; then only the waits described above remain.
pub fn make_room() -> u64 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let count = limit.min(ROOM_MAX);
    let Some(last) = count.checked_sub(1).and_then(|last| i32::try_from(last).ok()) else {
        return 0;
    };
    let Ok(null) = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else {
        return 0;
    };
    // The table never shrinks.
    match fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(last)) {
        Ok(high) => {
            let _ = close(high);
            count
        }
        Err(_) => 0,
    }
}

/// Occupies the numbers below this one where nothing is open, for good: a forked child puts there
/// what it needs, and must not find it there already.
pub fn occupy_below(number: i32) {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    while let Ok(null) = open("/dev/null", flags, Mode::empty()) {
        if null.as_raw_fd() >= number {
            return;
        }
        let _ = null.into_raw_fd();
    }
}

/// Puts an open descriptor at a number, and closes what was there. It stays open over an exec
/// unless it is to close there.
pub fn put_at(fd: &OwnedFd, at: i32, closes_at_exec: bool) -> nix::Result<()> {
    let (from, flags) = (fd.as_raw_fd(), if closes_at_exec { libc::O_CLOEXEC } else { 0 });
    if from == at {
        let flags = if closes_at_exec { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
        return fcntl(fd, FcntlArg::F_SETFD(flags)).map(|_| ());
    }
    #[expect(unsafe_code, reason = "nix owns what it puts there")]
    // SAFETY: dup3 takes numbers. Only a forked child calls this, in which nothing else uses the
    // descriptor at that number any more.
    let result = unsafe { libc::dup3(from, at, flags) };
    Errno::result(result).map(|_| ())
}

/// Closes all descriptors from this number on. A kernel before 5.9 can't; there they close at the
/// exec, because all descriptors of execd have that flag.
pub fn close_from(first: i32) {
    #[expect(unsafe_code, reason = "nix has no close_range")]
    // SAFETY: close_range takes numbers. Only a forked child calls this: what owns a descriptor
    // there is never dropped.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc;

    #[test]
    fn the_table_has_room_for_all_that_may_be_opened() {
        let size = || u64::from(proc::status(std::process::id()).unwrap().fdsize);
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let count = make_room();
        assert_eq!(count, limit.min(ROOM_MAX));
        assert!(size() >= count, "{}", size());
        let last = format!("/proc/self/fd/{}", count - 1);
        assert!(!std::path::Path::new(&last).exists(), "nothing stays open");
    }
}
