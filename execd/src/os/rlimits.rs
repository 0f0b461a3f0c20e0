//! Parses `--limit NAME=SOFT[:HARD]` to the resource limits of the workers. `child_setup` sets
//! them.

use super::child_setup::Limit;
use nix::libc::{self, rlim_t};
use nix::sys::resource::{Resource, getrlimit};
use protocol::process::limit_number;
use sys::proc;
use sys::processes::{CapabilitySet, has_capability};

/// The limits that may be named, by the names that `prlimit` and `limits.conf` use.
const NAMES: &[(&str, Resource)] = &[
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("stack", Resource::RLIMIT_STACK),
];

/// One limit of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RLimit(pub(super) Limit);

impl RLimit {
    /// Parses `NAME=SOFT[:HARD]`; each value is a number, with K, M or G behind it, or `unlimited`.
    ///
    /// # Errors
    /// The name or a number is not valid, the soft limit is above the hard one, or the hard one is
    /// above what this process may set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let form = || format!("'{shown}' is not NAME=SOFT[:HARD], as in nofile=1024 or core=0:0");
        let (name, values) = text.split_once('=').ok_or_else(form)?;
        let Some((_, resource)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let (name, names) = (name.escape_debug(), names.join(", "));
            return Err(format!("there is no limit '{name}'; there are {names}"));
        };
        let (soft, hard) = match values.split_once(':') {
            Some((soft, hard)) => (limit_number(soft), limit_number(hard)),
            None => {
                (limit_number(values), limit_number(values).map(|value| room(*resource, value)))
            }
        };
        let (soft, hard) = (soft.ok_or_else(form)?, hard.ok_or_else(form)?);
        if soft > hard {
            return Err(format!("'{shown}': the soft limit is above the hard one"));
        }
        // The kernel refuses everybody a limit above this number.
        let most = proc::kernel("fs/nr_open").ok();
        let most = most.and_then(|text| text.parse::<rlim_t>().ok());
        if *resource == Resource::RLIMIT_NOFILE
            && let Some(most) = most.filter(|most| hard > *most)
        {
            return Err(format!(
                "'{shown}': this machine gives a process at most {most} descriptors \
                 (/proc/sys/fs/nr_open); name no more"
            ));
        }
        let own = getrlimit(*resource).map_or(libc::RLIM_INFINITY, |(_, hard)| hard);
        // Root in a container may lack this capability, so the user id says nothing.
        if hard > own && !has_capability(CapabilitySet::SYS_RESOURCE) {
            return Err(format!(
                "'{shown}': execd's own hard limit is {own}, and only root (with CAP_SYS_RESOURCE) \
                 may give more than it has"
            ));
        }
        Ok(Self((*resource, soft, hard)))
    }
}

/// The hard limit where only one number is given. At the hard limit of processor time the kernel
/// kills with SIGKILL, which tells nobody why, and does not send SIGXCPU of the soft limit first.
/// With one second more, SIGXCPU comes before.
fn room(resource: Resource, soft: rlim_t) -> rlim_t {
    let own = getrlimit(resource).map_or(libc::RLIM_INFINITY, |(_, hard)| hard);
    match resource {
        // The kernel treats 0 as 1.
        Resource::RLIMIT_CPU if soft < own => soft.max(1).saturating_add(1).min(own),
        _ => soft,
    }
}

/// A value as the command line has it.
pub(super) fn text(value: rlim_t) -> String {
    if value == libc::RLIM_INFINITY { "unlimited".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_or_refused_with_the_right_form() {
        assert_eq!(RLimit::parse("core=0"), Ok(RLimit((Resource::RLIMIT_CORE, 0, 0))));
        assert_eq!(RLimit::parse("cpu=0"), Ok(RLimit((Resource::RLIMIT_CPU, 0, 2))));
        assert_eq!(RLimit::parse("cpu=7"), Ok(RLimit((Resource::RLIMIT_CPU, 7, 8))));
        assert_eq!(RLimit::parse("cpu=7:7"), Ok(RLimit((Resource::RLIMIT_CPU, 7, 7))));
        let nofile = RLimit((Resource::RLIMIT_NOFILE, 10, 20));
        assert_eq!(RLimit::parse("nofile=10:20"), Ok(nofile));
        assert_eq!(
            RLimit::parse("fsize=2M"),
            Ok(RLimit((Resource::RLIMIT_FSIZE, 2 << 20, 2 << 20)))
        );
        for (bad, part) in [
            ("core", "NAME=SOFT"),
            ("core=", "NAME=SOFT"),
            ("core=x", "NAME=SOFT"),
            ("core=+1", "NAME=SOFT"),
            ("core=-1", "NAME=SOFT"),
            ("core=1k", "NAME=SOFT"),
            ("core=18446744073709551615", "NAME=SOFT"),
            ("nofile=unlimited", "nr_open"),
            ("nofile=1:99999999999", "nr_open"),
            ("core=1:", "NAME=SOFT"),
            ("core=99999999999G", "NAME=SOFT"),
            ("cores=1", "there are as, core"),
            ("core=2:1", "above the hard one"),
        ] {
            let error = RLimit::parse(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
