//! Finds peers whose machine no longer acknowledges sent bytes. The kernel sends no keepalive
//! probes while bytes are unacknowledged, and gives up only after about a quarter of an hour; so
//! the reactor reads `TCP_INFO` of each connection to which it sent something and from which
//! nothing has come since. Two other cases are handled elsewhere: the engine's heartbeat finds
//! peers that owe a sign of life, and keepalive finds quiet connections (`Stream::tune`).

use super::conn::Conn;
use super::io::Io;
use crate::engine::input::Close;
use protocol::{LinkId, Micros, Tick};
use std::mem;
use std::time::Duration;
use sys::tcp_info::tcp_info;
use transport::stream::Stream;

/// Checks of the connections per `silence_ms`. A machine counts as gone after two checks, so within
/// `silence_ms`, and never while its last probe may still be answered.
const LOOKS: u32 = 12;

/// The result of the last check of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PeerLiveness {
    /// Nothing was sent since all was found acknowledged, or the peer is of this machine.
    #[default]
    Unwatched,
    /// Something was sent.
    Sent,
    /// All that was sent is acknowledged.
    AtRest,
    /// Its machine has not answered at one check; a second such check closes the connection.
    Silent,
}

/// The connections to check: those to which something was sent.
#[derive(Debug, Default)]
pub(super) struct LivenessWatch {
    links: Vec<LinkId>,
    /// Tick of the next check.
    pub(super) look_at: Option<Tick>,
}

impl LivenessWatch {
    /// Adds a connection on which something is sent.
    pub(super) fn sent(&mut self, link: LinkId, conn: &mut Conn, now: Tick, silence: Duration) {
        if conn.is_remote && conn.liveness == PeerLiveness::Unwatched {
            conn.liveness = PeerLiveness::Sent;
            self.links.push(link);
            self.look_at.get_or_insert_with(|| now.plus_millis(interval_ms(silence)));
        }
    }
}

impl Io {
    /// Closes the connections whose machine has acknowledged nothing for too long.
    pub(super) fn check_liveness(&mut self) {
        let silence = self.limits.silence;
        let interval = Duration::from_millis(interval_ms(silence));
        // A peer that was heard since this tick need not be checked.
        let fresh = Micros::from_millis(silence.as_millis() as u64 / 2);
        let silence = silence.saturating_sub(interval * 2);
        let mut list = mem::take(&mut self.liveness.links);
        let mut timed_out = Vec::new();
        list.retain(|&link| {
            let Some(conn) = self.links.get(link) else { return false };
            if self.now.since(conn.heard_at) < fresh {
                conn.liveness = PeerLiveness::Sent;
                return true;
            }
            let before = conn.liveness;
            conn.liveness = ask(&conn.stream, silence);
            if conn.liveness == PeerLiveness::Silent && before == PeerLiveness::Silent {
                timed_out.push(link);
            } else if conn.liveness != PeerLiveness::AtRest || before != PeerLiveness::AtRest {
                return true;
            }
            conn.liveness = PeerLiveness::Unwatched;
            false
        });
        self.liveness.look_at =
            (!list.is_empty()).then(|| self.now.plus_millis(interval_ms(silence)));
        self.liveness.links = list;
        for link in timed_out {
            self.broke(link, Close::TimedOut);
        }
    }
}

fn ask(stream: &Stream, silence: Duration) -> PeerLiveness {
    match tcp_info(stream) {
        Ok(state) if state.is_silent(silence) => PeerLiveness::Silent,
        Ok(state) if !state.is_at_rest() => PeerLiveness::Sent,
        // If the kernel gives no information, its own timeouts must suffice.
        Ok(_) | Err(_) => PeerLiveness::AtRest,
    }
}

fn interval_ms(silence: Duration) -> u64 {
    u64::try_from((silence / LOOKS).as_millis()).unwrap_or(u64::MAX).max(1)
}
