//! Notes of the engine as lines in the log: one exhaustive match. No secret is ever in a note.

use crate::engine::action::Note;
use sys::signals::Came;
use tracing::{debug, info, warn};

/// Logs a note.
pub(super) fn note(note: &Note) {
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
        Note::Refused { link, text } => warn!(%link, text, "connection refused"),
        Note::Told { broker, text } => warn!(%broker, text, "the broker reports an error"),
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
