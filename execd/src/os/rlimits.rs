//! `--limit NAME=SOFT[:HARD]` → the resource limits of the workers. Not where they are set:
//! `enter`.

use super::enter::Limit;
use nix::libc::{self, rlim_t};
use nix::sys::resource::{Resource, getrlimit};

/// The limits that may be named, as `prlimit` and `limits.conf` call them.
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

/// One limit as the command line gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RLimit(pub(super) Limit);

impl RLimit {
    /// Reads `NAME=SOFT[:HARD]`; each a number with K, M or G behind it, or `unlimited`.
    ///
    /// # Errors
    /// The name or a number is none, the soft limit is above the hard one, or the hard one above
    /// what this process may give.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let form = || format!("'{shown}' is not NAME=SOFT[:HARD], as in nofile=1024 or core=0:0");
        let (name, values) = text.split_once('=').ok_or_else(form)?;
        let Some((_, resource)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let (name, names) = (name.escape_debug(), names.join(", "));
            return Err(format!("there is no limit '{name}'; there are {names}"));
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let soft = number(soft).ok_or_else(form)?;
        let hard = number(hard).ok_or_else(form)?;
        if soft > hard {
            return Err(format!("'{shown}': the soft limit is above the hard one"));
        }
        let own = getrlimit(*resource).map_or(libc::RLIM_INFINITY, |(_, hard)| hard);
        if hard > own && !nix::unistd::geteuid().is_root() {
            return Err(format!(
                "'{shown}': execd's own hard limit is {own}, and only root may give more than it \
                 has"
            ));
        }
        Ok(Self((*resource, soft, hard)))
    }
}

fn number(text: &str) -> Option<rlim_t> {
    if text == "unlimited" {
        return Some(libc::RLIM_INFINITY);
    }
    let (digits, factor) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<rlim_t>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_or_refused_with_the_right_form() {
        assert_eq!(RLimit::parse("core=0"), Ok(RLimit((Resource::RLIMIT_CORE, 0, 0))));
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
