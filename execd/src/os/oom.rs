//! Tells whether the kernel killed for want of memory when a process was killed. The kernel says
//! so of no process; it counts its kills, in each cgroup and in all, so what is found here is that
//! a count rose. A cgroup that others are in, too, counts theirs as well.

use std::collections::BTreeMap;
use std::fs;

/// Most cgroups that are remembered.
const CGROUPS_MAX: usize = 1024;

/// How many kills were counted when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct OomCounts {
    /// By the file that has the count.
    known: BTreeMap<String, u64>,
}

/// Where the count of all kills of the machine stands.
const ALL: &str = "/proc/vmstat";

impl OomCounts {
    /// A process was started: what was counted until now is not of it.
    pub(super) fn started(&mut self, pid: u32) {
        if self.known.len() > CGROUPS_MAX {
            self.known.clear();
        }
        let files = file_of(pid).into_iter().chain([ALL.to_owned()]);
        let counts = files.filter_map(|file| Some((count(&file)?, file)));
        self.known.extend(counts.map(|(count, file)| (file, count)));
    }

    /// Whether a process that was killed by KILL, which was not ours, may have been killed for want
    /// of memory; `file` may have the count of its cgroup. Each kill is found once. A cgroup that
    /// was not looked at before is one that the process made for itself, or was put into.
    pub(super) fn has_killed(&mut self, file: Option<String>) -> bool {
        let mut all = file.into_iter().map(|file| (file, 0)).chain([(ALL.to_owned(), u64::MAX)]);
        let found = all.find_map(|(file, unknown)| Some((count(&file)?, file, unknown)));
        let Some((count, file, unknown)) = found else { return false };
        let Some(before) = self.known.get(&file).copied() else {
            self.known.insert(file, count);
            return count > unknown;
        };
        let before = before.min(count);
        let has_risen = count > before;
        self.known.insert(file, before + u64::from(has_risen));
        has_risen
    }
}

/// The file that may have the count of a process's cgroup, while it is not reaped yet.
pub(super) fn file_of(pid: u32) -> Option<String> {
    file_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The same, from what `/proc/PID/cgroup` says. Of a process that has ended, the kernel still says
/// its cgroup of version 2, and `/` for those of version 1.
fn file_in(cgroups: &str) -> Option<String> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path).trim_end_matches('/');
    Some(format!("/sys/fs/cgroup{path}/memory.events"))
}

/// The count in such a file; `None` = there is none.
fn count(file: &str) -> Option<u64> {
    count_in(&fs::read_to_string(file).ok()?)
}

fn count_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_a_cgroup_is_found() {
        let found = |cgroups| file_in(cgroups).unwrap_or_default();
        assert_eq!(found("0::/a/b\n"), "/sys/fs/cgroup/a/b/memory.events");
        assert_eq!(found("0::/\n"), "/sys/fs/cgroup/memory.events");
        let both = "4:cpu,cpuacct:/x\n3:memory:/\n0::/u (deleted)\n";
        assert_eq!(found(both), "/sys/fs/cgroup/u/memory.events");
        assert_eq!(file_in("3:memory:/\n"), None);
        assert_eq!(file_in("nonsense"), None);
        assert_eq!(count_in("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count_in("oom 3\n"), None);
    }

    #[test]
    fn each_kill_is_found_once() {
        let path = std::env::temp_dir().join(format!("oom-{}", std::process::id()));
        let file = path.to_str().expect("a path in UTF-8").to_owned();
        let says = |count| fs::write(&path, format!("oom_kill {count}\n")).expect("a file");
        let mut counts = OomCounts::default();
        says(5);
        counts.known.insert(file.clone(), 5);
        assert!(!counts.has_killed(Some(file.clone())), "none since the start");
        says(7);
        assert!(counts.has_killed(Some(file.clone())));
        assert!(counts.has_killed(Some(file.clone())));
        assert!(!counts.has_killed(Some(file.clone())), "two were killed");
        says(0);
        assert!(!counts.has_killed(Some(file.clone())), "another cgroup of this name");
        says(1);
        assert!(counts.has_killed(Some(file)));
        fs::remove_file(path).expect("the file is there");
    }
}
