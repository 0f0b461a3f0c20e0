//! Finds peers whose machine no longer acknowledges sent bytes. The kernel sends no keepalive
//! probes while bytes are unacknowledged, and gives up only after about a quarter of an hour; so
//! the reactor reads `TCP_INFO` of each connection to which it sent something and from which
//! nothing has come since. Two other cases are handled elsewhere: the engine's heartbeat finds
//! peers that owe a sign of life, and keepalive finds quiet connections (`stream`).

use super::conn::Conn;
use super::io::Io;
use super::stream::Stream;
use crate::engine::input::Close;
use nix::getsockopt_impl;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use protocol::ids::LinkId;
use protocol::time::{Micros, Tick};
use std::mem;
use std::time::Duration;

/// Checks of the connections per `silence_ms`. A machine counts as gone after two checks, so within
/// `silence_ms`, and never while its last probe may still be answered.
const LOOKS: u32 = 12;

/// Least number of unanswered retransmissions or probes; a single one can be lost.
const QUESTIONS: u8 = 2;

/// The beginning of the kernel's `tcp_info`, the same in every kernel; times in milliseconds. Plain
/// numbers only: nix's macro below lets the kernel write into it, and any bytes are good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct TcpState {
    _states: [u8; 2],
    /// Retransmissions of the first unacknowledged bytes.
    retransmits: u8,
    /// Unanswered probes: of a full window, or of a quiet connection.
    probes: u8,
    /// How often the wait for the next of either was doubled.
    backoff: u8,
    _options: [u8; 3],
    _timeouts: [u32; 4],
    /// Segments that are under way.
    unacked: u32,
    _segments: [u32; 4],
    _sent_ms: [u32; 2],
    data_heard_ms: u32,
    ack_heard_ms: u32,
}

/// The option of that name.
#[derive(Clone, Copy, Debug)]
struct TcpInfo;

getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, TcpState, GetStruct<TcpState>);

impl TcpState {
    /// All sent bytes are acknowledged.
    const fn is_at_rest(&self) -> bool {
        self.unacked == 0 && self.retransmits == 0 && self.probes == 0 && self.backoff == 0
    }

    /// The peer's kernel has left probes unanswered and sent nothing else for `silence`. (The
    /// kernel of a peer that does not read still answers probes of its full window.)
    fn is_silent(&self, silence: Duration) -> bool {
        let heard_ms = self.data_heard_ms.min(self.ack_heard_ms);
        self.retransmits.saturating_add(self.probes) >= QUESTIONS
            && Duration::from_millis(u64::from(heard_ms)) >= silence
    }
}

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
            let Some(conn) = self.links.get(link) else {
                return false;
            };
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
    match stream.tcp().map(|tcp| getsockopt(tcp, TcpInfo)) {
        Some(Ok(state)) if state.is_silent(silence) => PeerLiveness::Silent,
        Some(Ok(state)) if !state.is_at_rest() => PeerLiveness::Sent,
        // If the kernel gives no information, its own timeouts must suffice.
        Some(Ok(_) | Err(_)) | None => PeerLiveness::AtRest,
    }
}

fn interval_ms(silence: Duration) -> u64 {
    u64::try_from((silence / LOOKS).as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_tells_what_it_knows_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let state = getsockopt(&near, TcpInfo).unwrap();
        assert!(state.is_at_rest() && !state.is_silent(Duration::ZERO), "{state:?}");
        assert_eq!(size_of::<TcpState>(), 60);
    }

    #[test]
    fn only_unanswered_questions_make_a_silence() {
        let silence = Duration::from_millis(2500);
        let state = |retransmits, probes, ack_heard_ms, data_heard_ms| TcpState {
            retransmits,
            probes,
            ack_heard_ms,
            data_heard_ms,
            unacked: 1,
            ..TcpState::default()
        };
        assert!(state(2, 0, 2500, 2500).is_silent(silence));
        assert!(state(0, 2, 9000, 9000).is_silent(silence));
        assert!(state(1, 1, 2500, 9000).is_silent(silence));
        assert!(!state(1, 0, 9000, 9000).is_silent(silence), "it may just be lost");
        assert!(!state(9, 0, 2499, 9000).is_silent(silence), "it acknowledges");
        assert!(!state(9, 0, 9000, 2499).is_silent(silence), "it sends");
        // A full window: probes are answered, at growing intervals.
        assert!(!state(0, 1, 60_000, 60_000).is_silent(silence));
        let full = TcpState { backoff: 5, ..TcpState::default() };
        assert!(!full.is_at_rest() && TcpState::default().is_at_rest());
    }
}
