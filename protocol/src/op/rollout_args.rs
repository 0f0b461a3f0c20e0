//! Reads the arguments of commands that replace workers by new processes, or change how many there
//! are.

use super::args::Args;
use super::parse::OpError;
use super::spec::SCALE_MAX;
use super::words;
use crate::names::HostName;

impl Args<'_> {
    /// Takes `min N`.
    pub(super) fn min_ready(&mut self) -> Result<u64, OpError> {
        let word = self.next("min n")?;
        if word != "min" {
            return Err(self.error(format_args!(
                "unexpected '{}'{}",
                words::shown(word),
                words::meant(Some("min"))
            )));
        }
        self.number("min n", "number of workers that stay ready", 0, SCALE_MAX)
    }

    /// Takes the number of workers of a service; none is no number for it.
    pub(super) fn scale_count(&mut self) -> Result<u64, OpError> {
        if self.peek() == Some("0") {
            let service = self.words.first().map_or("SERVICE", String::as_str);
            return Err(self.error(format_args!(
                "a service keeps at least one worker; 'stop {service}' ends all of them"
            )));
        }
        self.number("n", "number of workers", 1, SCALE_MAX)
    }

    /// Takes the names of hosts, as many as there are.
    pub(super) fn hosts(&mut self) -> Result<Vec<HostName>, OpError> {
        let mut hosts = Vec::new();
        while self.peek().is_some() {
            hosts.push(self.host("host")?);
        }
        Ok(hosts)
    }
}
