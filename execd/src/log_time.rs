//! The time of a log line, for isectd and execd: local time with its offset, as `listevents` shows
//! it. JSON logs have UTC, which tracing writes by itself.

use jiff::ZonedDateTime;
use std::fmt;
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
