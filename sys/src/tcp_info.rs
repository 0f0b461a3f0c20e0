//! What the kernel tells of a TCP connection (`TCP_INFO`, tcp(7)): whether the other machine
//! acknowledges what is sent to it.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use nix::{getsockopt_impl, libc};
use std::os::fd::AsFd;
use std::time::Duration;

/// Least number of unanswered retransmissions or probes; a single one can be lost.
const QUESTIONS: u8 = 2;

/// The beginning of the kernel's `tcp_info`, the same in every kernel; times in milliseconds. Plain
/// numbers only: nix's macro below lets the kernel write into it, and any bytes are good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpState {
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

/// Asks the kernel for the state of a TCP connection.
///
/// # Errors
/// The kernel gives no information, or the descriptor is no TCP socket.
pub fn tcp_info(socket: &impl AsFd) -> nix::Result<TcpState> {
    getsockopt(socket, TcpInfo)
}

impl TcpState {
    /// All sent bytes are acknowledged.
    pub const fn is_at_rest(&self) -> bool {
        self.unacked == 0 && self.retransmits == 0 && self.probes == 0 && self.backoff == 0
    }

    /// The peer's kernel has left probes unanswered and sent nothing else for `silence`. (The
    /// kernel of a peer that does not read still answers probes of its full window.)
    pub fn is_silent(&self, silence: Duration) -> bool {
        let heard_ms = self.data_heard_ms.min(self.ack_heard_ms);
        self.retransmits.saturating_add(self.probes) >= QUESTIONS
            && Duration::from_millis(u64::from(heard_ms)) >= silence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_tells_what_it_knows_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let state = tcp_info(&near).unwrap();
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
