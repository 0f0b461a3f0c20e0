//! What the kernel shows of processes and of itself under `/proc` (proc(5)). `procfs-core` parses
//! what has fields. The files are opened here, each with one descriptor and nothing else, so that
//! an execd at its limit of descriptors still finds what its workers leave behind.

use procfs_core::FromRead;
pub use procfs_core::process::{Stat, Status};
use std::fs::{self, File};
use std::io::{self, Read};
use std::process;

/// What the kernel says of a process (proc_pid_stat(5)); of one that has ended, too, until it is
/// reaped. `None` = there is none with this id.
pub fn stat(pid: u32) -> Option<Stat> {
    Stat::from_file(format!("/proc/{pid}/stat")).ok()
}

/// The same of a process that runs.
pub fn running(pid: u32) -> Option<Stat> {
    stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Memory and rights of a process (proc_pid_status(5)).
pub fn status(pid: u32) -> Option<Status> {
    Status::from_file(format!("/proc/{pid}/status")).ok()
}

/// The process ids of all processes except this one.
pub fn others() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != process::id())
}

/// The children of this process that its main thread has started or taken in.
pub fn children() -> Vec<u32> {
    let me = process::id();
    if let Ok(text) = fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        return text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    }
    // For a kernel that was built without that list.
    let is_mine = |pid: &u32| running(*pid).is_some_and(|stat| stat.ppid.cast_unsigned() == me);
    others().filter(is_mine).collect()
}

/// The resident size in bytes of a process and of all that descend from it, as far as the first
/// `most` of their threads are concerned; `None` = there is no such process. What several of them
/// share counts for each.
pub fn resident_tree(pid: u32, most: usize) -> Option<u64> {
    let page = page_bytes();
    let (mut bytes, mut left) = (0, most);
    let mut pids = vec![pid];
    while let Some(next) = pids.pop() {
        if let Some(stat) = running(next) {
            bytes += stat.rss * page;
        } else if next == pid {
            return None;
        }
        // The list is one for each thread that has started processes.
        for thread in fs::read_dir(format!("/proc/{next}/task")).into_iter().flatten() {
            left = left.saturating_sub(1);
            let path = thread.ok().map(|thread| thread.path().join("children"));
            let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
            pids.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            if left == 0 {
                return Some(bytes);
            }
        }
    }
    Some(bytes)
}

fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

/// The value of a variable in the environment that a process was started with, as far as it is
/// within this many bytes; `None` = it has none, or is not to be looked at.
pub fn variable(pid: u32, name: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let mut environment = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(bytes_max).read_to_end(&mut environment).ok()?;
    let pairs = environment.split(|byte| *byte == 0);
    let mut values =
        pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.next().map(<[u8]>::to_vec)
}

/// A value of the kernel, by its name below `/proc/sys`, without the end of its line.
///
/// # Errors
/// The kernel does not have it, or does not show it.
pub fn kernel(name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process that this crate may look at")]
    fn a_process_is_seen_until_it_is_reaped_and_runs_until_it_ends() {
        let own = running(process::id()).unwrap();
        assert_eq!(own.pid.cast_unsigned(), process::id());
        assert!(status(process::id()).unwrap().vmrss.unwrap() > 0);
        let alone = running(process::id()).unwrap().rss * page_bytes();
        assert!(resident_tree(process::id(), 1).unwrap() > alone / 2);
        let mut child = Command::new("/bin/sh");
        // Its name may contain anything.
        let child = child.args(["-c", "printf ') Z 1 (' >/proc/self/comm; read line"]);
        let mut child = child.env("NAME", "a=b").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        while running(pid).unwrap().comm != ") Z 1 (" {
            std::thread::yield_now();
        }
        let stat = running(pid).unwrap();
        assert_eq!((stat.ppid.cast_unsigned(), stat.session), (process::id(), own.session));
        assert!(stat.starttime >= own.starttime);
        assert!(others().any(|other| other == pid));
        assert!(!others().any(|other| other == process::id()));
        assert_eq!(variable(pid, "NAME", 1 << 16).unwrap(), b"a=b");
        assert_eq!(variable(pid, "NAM", 1 << 16), None);
        assert_eq!(variable(pid, "NAME", 0), None);
        drop(child.stdin.take());
        while running(pid).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(super::stat(pid).unwrap().state, 'Z');
        child.wait().unwrap();
        assert!(super::stat(pid).is_none() && status(pid).is_none());
    }

    #[test]
    fn a_value_of_the_kernel_is_one_word() {
        assert_eq!(kernel("kernel/random/boot_id").unwrap().len(), 36);
        assert!(kernel("kernel/none").is_err());
    }
}
