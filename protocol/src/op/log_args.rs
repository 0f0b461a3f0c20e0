//! Reads the arguments of `logs`.

use super::args::Args;
use super::parse::OpError;
use super::spec::{LOG_LINES, LOG_LINES_MAX, LogsWanted};

impl Args<'_> {
    /// Takes a target, `-n LINES` and `-f`, in any order.
    pub(super) fn logs_wanted(&mut self) -> Result<LogsWanted, OpError> {
        let (mut target, mut lines, mut follow) = (None, LOG_LINES, false);
        loop {
            match self.peek() {
                Some("-f") => {
                    self.skip(())?;
                    follow = true;
                }
                Some("-n") => {
                    self.skip(())?;
                    let count = self.number("-n lines", "number of lines", 0, LOG_LINES_MAX)?;
                    lines = u32::try_from(count).unwrap_or(LOG_LINES);
                }
                Some(_) | None if target.is_some() => break,
                Some(_) | None => target = Some(self.target()?),
            }
        }
        match target {
            Some(target) => Ok(LogsWanted { target, lines, follow }),
            None => Err(self.error("the service or worker is missing")),
        }
    }
}
