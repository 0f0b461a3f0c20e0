//! The numbers of runs: no start ever gets the number of an earlier one, even if the clock was set
//! back.

use super::{StateDir, replace, wrong};
use crate::exit::Fatal;
use auth::own;

/// Run numbers reserved for one broker, until the next one starts on this directory.
const RUNS_RESERVED: u64 = 1 << 36;

/// Largest run number; a file with a larger one was not written by a broker.
const RUN_MAX: u64 = 1 << 62;

impl StateDir {
    /// The number after which the run numbers of this broker begin: at least as high as any that an
    /// earlier broker on this directory gave, even if the clock was set back since. `wall_ms` is
    /// the wall clock's time.
    ///
    /// # Errors
    /// The file can't be read, or has no valid run number.
    pub(in crate::reactor) fn run_base(&self, wall_ms: u64) -> Result<u64, Fatal> {
        let clock = wall_ms.saturating_mul(1000).min(RUN_MAX);
        if self.is_private {
            return Ok(clock);
        }
        let path = self.paths.dir.join("runs");
        let kept = match own::read(&path).map_err(|error| wrong(&path, &error))? {
            None => 0,
            Some(text) => match text.trim().parse() {
                Ok(kept) if kept <= RUN_MAX => kept,
                // A full disk may have left an empty file.
                Err(_) if text.trim().is_empty() => 0,
                Ok(_) | Err(_) => {
                    return Err(Fatal::State(format!(
                        "{} is not the number of a start (0 to {RUN_MAX}); remove it, and running \
                         workers are started anew if the clock was set back",
                        path.display()
                    )));
                }
            },
        };
        let base = clock.max(kept);
        let next = base.saturating_add(RUNS_RESERVED).min(RUN_MAX);
        let Err(error) = replace(&path, format!("{next}\n").as_bytes()) else { return Ok(base) };
        // The broker serves all the same. The next one may then give the same run numbers, with a
        // probability of 2^-36.
        tracing::warn!("{}: {error}; the numbers of starts are not remembered", path.display());
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Fatal::State(format!("no random bytes: {e}")))?;
        Ok(base.saturating_add(u64::from_le_bytes(random) % RUNS_RESERVED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn numbers_of_starts_never_come_again_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let base = |wall_ms| StateDir::open(Some(dir.path())).unwrap().run_base(wall_ms);
        let first = base(1_700_000_000_000).unwrap();
        assert_eq!(first, 1_700_000_000_000_000);
        for wall_ms in [1_600_000_000_000, 0, 1, 1_700_000_000_000] {
            let before = dir.path().join("runs");
            let kept: u64 = fs::read_to_string(&before).unwrap().trim().parse().unwrap();
            let next = base(wall_ms).unwrap();
            assert_eq!(next, kept, "{wall_ms}");
            assert!(next >= first + RUNS_RESERVED);
        }
        assert_eq!(base(u64::MAX).unwrap(), RUN_MAX);
    }

    #[test]
    fn a_number_of_starts_that_is_none_is_refused_and_at_the_limit_it_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runs");
        let with = |text: &str| {
            drop(fs::remove_file(&file));
            let mut new = own::create(&file).unwrap();
            new.write_all(text.as_bytes()).unwrap();
            StateDir::open(Some(dir.path())).unwrap().run_base(5)
        };
        for (text, base) in [("0", 5000), ("1\n", 5000), ("", 5000)] {
            assert_eq!(with(text).unwrap(), base, "{text:?}");
        }
        for at in [RUN_MAX - 1, RUN_MAX] {
            assert_eq!(with(&at.to_string()).unwrap(), at);
        }
        for text in ["4611686018427387905", "18446744073709551615", "18446744073709551616", "x"] {
            let Err(Fatal::State(error)) = with(text) else { panic!("{text} is taken") };
            assert!(error.contains("remove it"), "{error}");
        }
    }
}
