//! Digests of what an execd enforces on its processes and of its program file. A broker that comes
//! back compares them with what it would start itself. Everything counts that a process could
//! notice: the meaning of the options on this machine, the limits, and what execd inherited and
//! hands down. `spawn` and `child_setup` do the enforcing.

use super::options::{Failure, Options};
use super::spawn::SpawnConfig;
use nix::sys::resource::{Resource, getrlimit};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process;
use sys::proc::{self, Stat};

/// Bytes of the hash that a digest shows, as hexadecimal digits.
const DIGEST_BYTES: usize = 16;

/// What this process hands down and no option sets: rights, confinement, processors. Lines of
/// `/proc/self/status` (proc_pid_status(5)).
const INHERITED: &[&str] = &[
    "Uid:",
    "Gid:",
    "Groups:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Seccomp:",
    "Cpus_allowed_list:",
    "Mems_allowed_list:",
];

/// Limits that are handed down unless an option sets them; `spawn` has the limit of
/// descriptors.
const LIMITS: &[Resource] = &[
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_STACK,
];

/// Files of `/proc/self` that say how this process is confined.
const FILES: &[&str] = &["cgroup", "oom_score_adj", "attr/current"];

/// Links of `/proc/self` that say how this process is confined.
const LINKS: &[&str] =
    &["root", "ns/mnt", "ns/net", "ns/pid", "ns/ipc", "ns/uts", "ns/user", "ns/cgroup", "ns/time"];

/// The digests that identify an execd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Digest of what it enforces on its processes.
    pub policy: String,
    /// Digest of the program file that it runs.
    pub binary: String,
}

/// The identity that an execd with these options would have if this process started it and its
/// children got this limit (soft, hard) of descriptors.
///
/// # Errors
/// The options are not valid on this machine.
pub fn expected(options: &Options, descriptors: (u64, u64)) -> Result<Identity, Failure> {
    options.check()?;
    Ok(of(options, &SpawnConfig::settle(options, descriptors)?))
}

/// The identity of this execd.
pub(super) fn of(options: &Options, spawn_config: &SpawnConfig) -> Identity {
    let mut facts = spawn_config.facts();
    facts.push(format!("bounds {:?}", options.limits));
    facts.extend(inherited());
    Identity { policy: digest(&facts.join("\n")), binary: digest(&binary()) }
}

fn inherited() -> Vec<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let status = read("status");
    let is_ours = |line: &&str| INHERITED.iter().any(|name| line.starts_with(name));
    let mut facts: Vec<String> = status.lines().filter(is_ours).map(str::to_owned).collect();
    facts.extend(scheduling().map(|(at, field)| format!("stat {at} {field:?}")));
    facts.extend(LIMITS.iter().map(|limit| format!("own {limit:?} {:?}", getrlimit(*limit))));
    facts.extend(FILES.iter().map(|name| format!("{name} {}", read(name))));
    let link = |name: &&str| fs::read_link(format!("/proc/self/{name}")).unwrap_or_default();
    facts.extend(LINKS.iter().map(|name| format!("{name} {:?}", link(name))));
    facts
}

/// Nice value, real-time priority and scheduling policy, each with its place after the program's
/// name in `/proc/self/stat`.
fn scheduling() -> [(u32, Option<String>); 3] {
    let stat = proc::stat(process::id());
    let field = |of: fn(&Stat) -> Option<String>| stat.as_ref().and_then(of);
    [
        (16, field(|stat| Some(stat.nice.to_string()))),
        (37, field(|stat| Some(stat.rt_priority?.to_string()))),
        (38, field(|stat| Some(stat.policy?.to_string()))),
    ]
}

/// Identifies the program file of this process, not its name, which may belong to another file by
/// now.
fn binary() -> String {
    fs::metadata("/proc/self/exe").map_or_else(
        |error| error.to_string(),
        |meta| {
            let (size, second, nanos) = (meta.size(), meta.mtime(), meta.mtime_nsec());
            format!("{} {} {size} {second}.{nanos}", meta.dev(), meta.ino())
        },
    )
}

fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..DIGEST_BYTES])
}

#[cfg(test)]
mod tests {
    use super::super::options::Listen;
    use super::super::permit::{NamePattern, PermittedUser};
    use super::super::rlimits::RLimit;
    use super::super::user;
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    fn options(allow: &Path) -> Options {
        Options {
            allow: vec![allow.into(), "/usr".into()],
            allow_root_workers: true,
            ..Options::new(Listen::Unix(PathBuf::from("/x")))
        }
    }

    fn policy(options: &Options) -> String {
        expected(options, (10, 20)).unwrap().policy
    }

    #[test]
    fn the_same_policy_has_one_digest_and_each_part_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) =
            (folder.path().join("one"), folder.path().join("two"), folder.path().join("link"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        symlink(&one, &link).unwrap();
        let first = policy(&options(&link));
        assert_eq!(policy(&options(&link)), first);
        assert_eq!(policy(&options(&one)), first, "what counts is where it leads");
        let mut turned = options(&one);
        turned.allow.reverse();
        assert_eq!(policy(&turned), first, "the order does not matter");
        type Change = fn(&mut Options);
        let changed: [(&str, Change); 12] = [
            ("allow", |options| options.allow.push("/etc".into())),
            ("limit", |options| options.rlimits.push(RLimit::parse("core=0").unwrap())),
            ("umask", |options| options.umask = 0o077),
            ("directory", |options| options.directory = "/usr".into()),
            ("variable", |options| options.env.push(("A".into(), Some("b".into())))),
            ("permitted variable", |options| {
                options.allow_env.patterns.push(NamePattern::parse("A").unwrap());
            }),
            ("permitted beginning", |options| {
                options.allow_env.patterns.push(NamePattern::parse("A*").unwrap());
            }),
            ("all variables", |options| options.allow_env.is_open = true),
            ("scheduling", |options| options.batch = false),
            ("state", |options| options.state = Some("/x".into())),
            ("rate", |options| options.limits.starts_per_second += 1),
            ("orphans", |options| options.limits.orphan_ms += 1),
        ];
        let mut seen = vec![first.clone()];
        for (what, change) in changed {
            let mut options = options(&one);
            change(&mut options);
            let other = policy(&options);
            assert!(!seen.contains(&other), "{what}");
            seen.push(other);
        }
        if user::may_change() {
            for text in ["4711:1", "4711:2", "4712:1"] {
                let mut options = options(&one);
                options.allow_users.push(PermittedUser::find(text).unwrap());
                let other = policy(&options);
                assert!(!seen.contains(&other), "{text}");
                seen.push(other);
            }
        }
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert_ne!(policy(&options(&link)), first, "the link leads elsewhere");
        assert_ne!(expected(&options(&one), (11, 20)).unwrap().policy, first, "descriptors");
        assert!(expected(&options(&folder.path().join("none")), (10, 20)).is_err());
    }
}
