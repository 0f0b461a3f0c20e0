//! The form of a line in the log of isectd and execd: hidden characters are made visible, and the
//! time is local time with its offset, as `listevents` shows it. JSON logs have UTC, which tracing
//! writes by itself.

use jiff::ZonedDateTime;
use protocol::show::log_line;
use std::fmt;
use std::io::{self, Write};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Formats the time as `2026-01-31T23:59:59.123456+01:00`.
#[derive(Clone, Copy, Debug)]
pub struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", ZonedDateTime::now().strftime("%Y-%m-%dT%H:%M:%S%.6f%:z"))
    }
}

/// Writes log lines with hidden characters made visible.
#[derive(Debug)]
pub struct Clean<W> {
    /// The output; each line is one `write`.
    pub to: W,
    /// Whether the lines are JSON.
    pub is_json: bool,
}

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.to.write_all(&log_line(line, self.is_json))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
