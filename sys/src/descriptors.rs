//! Makes the kernel enlarge this process's table of descriptors before it is needed. Linux enlarges
//! the table when a call such as `accept` or `pipe` finds it full. Where several threads share the
//! table, that call waits for all processors (`synchronize_rcu`): about 20 ms, on a busy machine
//! more than a second, during which an event loop serves nobody.

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::unistd::close;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_room_for_all_that_may_be_opened() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let count = make_room();
        assert_eq!(count, limit.min(ROOM_MAX));
        assert!(size() >= count, "{}", size());
        let last = format!("/proc/self/fd/{}", count - 1);
        assert!(!std::path::Path::new(&last).exists(), "nothing stays open");
    }
}
