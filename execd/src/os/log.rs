//! Notes of the engine as lines in the log: one exhaustive match. No secret is ever in a note.
//! What a peer can cause as often as it likes has a rate, its text a length; what is left out is
//! counted.

use crate::engine::action::Note;
use protocol::quota::{Quota, Rate};
use protocol::show::{brief, log_line};
use protocol::time::Tick;
use std::io::{self, Write};
use sys::signals::Came;
use tracing::{debug, info, warn};

/// Lines about connections.
const LINES: Rate = Rate { burst: 100, per_second: 10 };
/// Most bytes of a peer's text in a line.
const TEXT_BYTES_MAX: usize = 256;

/// How many lines peers may still cause.
#[derive(Debug)]
pub(super) struct Gate {
    quota: Quota,
    left_out: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { quota: Quota::new(LINES), left_out: 0 }
    }
}

impl Gate {
    /// Whether a line that a peer caused may be written; before the next one it is said how many
    /// were not.
    pub(super) fn has_room(&mut self, now: Tick) -> bool {
        if !self.quota.take(now) {
            self.left_out += 1;
            return false;
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            warn!(left_out, "lines about connections were left out: there were too many");
        }
        true
    }
}

/// A log's way out, for lines of which all can be seen.
#[derive(Debug)]
pub struct Clean<W> {
    /// Where they go, each with one `write`.
    pub to: W,
    /// The lines are JSON.
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

/// Logs a note.
pub(super) fn note(note: &Note, now: Tick, gate: &mut Gate) {
    let is_of_peer = match note {
        Note::BrokerUp { .. } | Note::BrokerGone { .. } => true,
        Note::Refused { .. } | Note::Told { .. } => true,
        Note::Started { .. }
        | Note::Failed { .. }
        | Note::Adopted { .. }
        | Note::Stopping { .. }
        | Note::Exited { .. }
        | Note::ReportDropped { .. }
        | Note::Leaving { .. } => false,
    };
    if is_of_peer && !gate.has_room(now) {
        return;
    }
    match note {
        Note::BrokerUp { link, broker, host, children } => {
            info!(%link, %broker, host, children, "broker connected");
        }
        Note::BrokerGone { broker, why, in_order: true, children } => {
            info!(%broker, why, children, "broker disconnected");
        }
        Note::BrokerGone { broker, why, in_order: false, children } => {
            warn!(%broker, why, children, "broker disconnected; its workers go on");
        }
        Note::Refused { link, text } => {
            warn!(%link, text = brief(text, TEXT_BYTES_MAX), "connection refused");
        }
        Note::Told { broker, text } => {
            warn!(%broker, text = brief(text, TEXT_BYTES_MAX), "the broker reports an error");
        }
        Note::Started { who, pid } => {
            debug!(broker = %who.broker, worker = %who.worker, run = %who.run, pid, "up");
        }
        Note::Failed { who, text } => {
            warn!(
                broker = %who.broker, worker = %who.worker, run = %who.run, text,
                "could not be started"
            );
        }
        Note::Adopted { who, pid } => {
            info!(broker = %who.broker, worker = %who.worker, run = %who.run, pid, "adopted");
        }
        Note::Stopping { who, pid, kill } => {
            let signal = if *kill { "KILL" } else { "TERM" };
            info!(
                broker = %who.broker, worker = %who.worker, run = %who.run, pid, signal,
                "ending"
            );
        }
        Note::Exited { who, pid, ending } => {
            info!(
                broker = %who.broker, worker = %who.worker, run = %who.run, pid, %ending,
                "ended"
            );
        }
        Note::ReportDropped { broker } => {
            warn!(%broker, "the oldest report for an absent broker was dropped");
        }
        Note::Leaving { why, children } => info!(why, children, "leaving"),
    }
}

/// Logs a signal that asks for nothing, once aloud.
pub(super) fn unused(came: Came, is_news: bool) {
    let (name, from) = (came.name(), came.sender());
    let text = "means nothing to execd and is ignored; HUP has its files read again, TERM ends it \
                and its workers";
    if is_news {
        warn!("signal {name} from {from} {text}");
    } else {
        debug!("signal {name} from {from} {text}");
    }
}
