//! Writes the notes of the engine to the log: one exhaustive match. No note has a secret. Lines
//! that a peer can cause at will have a rate limit, and its texts a length limit; what is left out
//! is counted.

use crate::engine::action::Note;
use protocol::quota::{Quota, Rate};
use protocol::show::brief;
use protocol::time::Tick;
use sys::signals::ReceivedSignal;
use tracing::{debug, info, warn};

/// Rate of lines about connections.
const LINES: Rate = Rate { burst: 100, per_second: 10 };
/// Rate of lines about starts that failed. The broker is told of each start in any case.
const STARTS: Rate = Rate { burst: 200, per_second: 20 };
/// Most bytes of a peer's text in a line.
const TEXT_BYTES_MAX: usize = 256;
/// Most bytes of the reason of a failed start in a line; it has a path in it.
const START_BYTES_MAX: usize = 2048;

/// How many lines peers may still cause.
#[derive(Debug)]
pub(super) struct LogLimiter {
    lines: (Quota, u64),
    starts: (Quota, u64),
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self { lines: (Quota::new(LINES), 0), starts: (Quota::new(STARTS), 0) }
    }
}

/// Takes one line; returns how many were left out before it, or `None` if it is left out, too.
fn take((quota, left_out): &mut (Quota, u64), now: Tick) -> Option<u64> {
    let has_room = quota.take(now);
    *left_out += u64::from(!has_room);
    has_room.then(|| std::mem::take(left_out))
}

impl LogLimiter {
    /// Whether a line about a connection may be written. Before the next line that may, it logs how
    /// many were left out.
    pub(super) fn has_room(&mut self, now: Tick) -> bool {
        let left_out = take(&mut self.lines, now);
        if let Some(left_out) = left_out.filter(|count| *count > 0) {
            warn!(left_out, "lines about connections were left out: there were too many");
        }
        left_out.is_some()
    }

    /// Whether a line about a failed start may be written; like [`has_room`](Self::has_room).
    fn has_room_for_start(&mut self, now: Tick) -> bool {
        let left_out = take(&mut self.starts, now);
        if let Some(left_out) = left_out.filter(|count| *count > 0) {
            warn!(left_out, "lines about starts that failed were left out: there were too many");
        }
        left_out.is_some()
    }
}

/// Logs a note.
pub(super) fn note(note: &Note, now: Tick, log_limiter: &mut LogLimiter) {
    let has_room = match note {
        Note::BrokerUp { .. } | Note::BrokerGone { .. } => log_limiter.has_room(now),
        Note::Refused { .. } | Note::PeerError { .. } => log_limiter.has_room(now),
        Note::Failed { .. } => log_limiter.has_room_for_start(now),
        // A process causes at most a few of these, and --start-rate limits how many processes
        // begin.
        Note::Started { .. }
        | Note::Adopted { .. }
        | Note::Terminating { .. }
        | Note::Exited { .. }
        | Note::ReportDropped { .. }
        | Note::ShuttingDown { .. } => true,
    };
    if !has_room {
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
        Note::PeerError { broker, text } => {
            warn!(%broker, text = brief(text, TEXT_BYTES_MAX), "the broker reports an error");
        }
        Note::Started { who, pid } => {
            debug!(broker = %who.broker, worker = %who.worker, run = %who.run, pid, "up");
        }
        Note::Failed { who, text } => {
            let text = brief(text, START_BYTES_MAX);
            warn!(
                broker = %who.broker, worker = %who.worker, run = %who.run, text,
                "could not be started"
            );
        }
        Note::Adopted { who, pid } => {
            info!(broker = %who.broker, worker = %who.worker, run = %who.run, pid, "adopted");
        }
        Note::Terminating { who, pid, kill, stop_signal } => {
            let signal = match stop_signal {
                _ if *kill => "KILL".to_owned(),
                None => "TERM".to_owned(),
                Some(number) => number.to_string(),
            };
            info!(
                broker = %who.broker, worker = %who.worker, run = %who.run, pid, signal,
                "terminating"
            );
        }
        Note::Exited { who, pid, exit_cause } => {
            info!(
                broker = %who.broker, worker = %who.worker, run = %who.run, pid, %exit_cause,
                "ended"
            );
        }
        Note::ReportDropped { broker } => {
            warn!(%broker, "the oldest report for an absent broker was dropped");
        }
        Note::ShuttingDown { why, children } => info!(why, children, "shutting down"),
    }
}

/// Logs a signal that asks for nothing; only the first of its kind at a visible level.
pub(super) fn unused(received: ReceivedSignal, is_first: bool) {
    let (name, from) = (received.name(), received.sender());
    let text = "means nothing to execd and is ignored; HUP has its files read again, TERM ends it \
                and its workers";
    if is_first {
        warn!("signal {name} from {from} {text}");
    } else {
        debug!("signal {name} from {from} {text}");
    }
}
