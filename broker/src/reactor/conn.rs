//! One connection: its socket, the received bytes that make no whole frame yet, and the bytes that
//! wait to be sent. An idle connection owns no buffer.

use super::liveness::PeerLiveness;
use super::outbox::Outbox;
use super::pre_login::Queued;
use super::socket_reader::{SocketReader, end_of};
use crate::engine::input::Close;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use protocol::{HostName, PeerGroup, Role, Tick};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use transport::stream::Stream;

/// The phases of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The connection to a host is being established.
    Dialling {
        /// The host that is dialled.
        host: HostName,
        /// The dial fails at this tick.
        until: Tick,
    },
    /// Frames are received and sent.
    Open,
    /// The peer sent a malformed frame: nothing more is read; the outbox is still sent. A peer that
    /// only shut its own writing does not come here: `SocketReader::ended` says so.
    Malformed,
    /// The engine closed it: the outbox is still sent, for a limited time.
    Closing {
        /// The connection is dropped at this tick, whatever is left to send.
        until: Tick,
    },
    /// All is sent. Received bytes are discarded until the peer closes, because closing a socket
    /// with unread bytes sends a reset, which can destroy the last frame at the peer (RFC 1122,
    /// 4.2.2.13).
    Lingering {
        /// The connection is dropped at this tick, closed by the peer or not.
        until: Tick,
    },
}

/// What the end of what a peer sends means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfClose {
    /// The connection ends.
    Refused,
    /// The engine is told, and the connection stays (`Action::AllowHalfClose`).
    Allowed,
    /// The engine has been told.
    Reported,
}

/// What the engine must be told of a connection that is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// The connection is gone.
    Closed(Close),
    /// The peer sends nothing more, but still reads.
    HalfClosed,
    /// Nothing that it does not know.
    Nothing,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) stream: Stream,
    /// The role of the peer, known from the listener or the dial.
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// Bytes that wait to be sent.
    pub(super) outbox: Outbox,
    /// When the socket last accepted bytes; valid while the outbox is not empty.
    pub(super) progress_at: Tick,
    pub(super) reader: SocketReader,
    /// Bytes reserved for its incomplete large frame, part of the sum in `partial_frames`; 0 =
    /// none.
    pub(super) counted: usize,
    /// The engine stopped its reading (back-pressure).
    pub(super) is_unread: bool,
    /// It is in the list of connections to read again.
    pub(super) is_listed: bool,
    /// It is in the list of connections to flush.
    pub(super) is_dirty: bool,
    /// It is in the list of connections whose socket did not accept everything.
    pub(super) is_waiting: bool,
    /// More than `outbox_bytes_high` waited at the last flush.
    pub(super) is_congested: bool,
    /// The peer takes too little: the engine has been told `OutboxFull` or `Stalled`, and is not
    /// told again until the outbox is empty.
    pub(super) is_too_slow: bool,
    /// How the connection broke, if it did: nothing more is sent, received bytes are still read.
    pub(super) broken: Option<Close>,
    pub(super) half_close: HalfClose,
    /// The system reported that neither side can send any more, so the peer reads nothing either.
    pub(super) is_shut_both: bool,
    /// When it was last read.
    pub(super) heard_at: Tick,
    /// The peer is on another machine, as far as its address tells, so `liveness` watches it. It is
    /// found out once, when the address becomes known: at accept or before a dial.
    pub(super) is_remote: bool,
    /// What `liveness` knows of that machine; only used if `is_remote`.
    pub(super) liveness: PeerLiveness,
    /// The write side is to be shut when the outbox is empty.
    pub(super) is_shutting: bool,
    /// It was refused at accept; the outbox holds the error.
    pub(super) is_refused: bool,
    /// The peer group that it shares turns with before its login (`pre_login`).
    pub(super) peer_group: PeerGroup,
    /// The queue of `pre_login` it waits in; `None` = in none.
    pub(super) queued: Option<Queued>,
    /// At least one step of its TLS handshake is done.
    pub(super) is_begun: bool,
}

impl Conn {
    /// Whether it is a client with more than the high mark in its outbox.
    pub(super) fn is_crowding(&self, high: usize) -> bool {
        self.role == Role::Client && self.outbox.bytes() > high
    }

    /// How the connection ended, once a read reached its end: the worst of a broken write or kernel
    /// timer (`broken`), an incomplete frame, and an error that the read did not report. After a
    /// FIN the kernel reports a reset only to writers, and it reports an error only once.
    pub(super) fn worst_known(&self) -> Close {
        let part = if self.reader.frames.has_partial() { Close::Torn } else { Close::Eof };
        let error = match self.stream.take_error() {
            Ok(None) => Close::Eof,
            Ok(Some(error)) | Err(error) => end_of(&error),
        };
        part.max(error).max(self.broken.unwrap_or(Close::Eof))
    }

    /// What is to be told once all is read, after a read that `ended` so.
    pub(super) fn at_end(&mut self, ended: Close) -> AtEnd {
        let how = ended.max(self.worst_known());
        // A frame that is not whole costs only its own request.
        let is_orderly = ended == Close::Eof && how <= Close::Torn;
        if !is_orderly || self.is_shut_both {
            return AtEnd::Closed(how);
        }
        match self.half_close {
            HalfClose::Refused => AtEnd::Closed(how),
            HalfClose::Allowed => {
                self.half_close = HalfClose::Reported;
                AtEnd::HalfClosed
            }
            HalfClose::Reported => AtEnd::Nothing,
        }
    }

    /// Makes a connection in the phase `Open`.
    pub(super) fn new(stream: Stream, role: Role, is_remote: bool) -> Self {
        Self {
            is_remote,
            stream,
            role,
            phase: Phase::Open,
            outbox: Outbox::default(),
            progress_at: Tick::default(),
            reader: SocketReader::default(),
            counted: 0,
            is_unread: false,
            is_listed: false,
            is_dirty: false,
            is_waiting: false,
            is_congested: false,
            is_too_slow: false,
            broken: None,
            half_close: HalfClose::Refused,
            is_shut_both: false,
            heard_at: Tick::default(),
            liveness: PeerLiveness::Unwatched,
            is_shutting: false,
            is_refused: false,
            peer_group: PeerGroup::default(),
            queued: None,
            is_begun: false,
        }
    }
}

/// Adds a socket to the loop, edge-triggered. TCP is registered for both directions once. A Unix
/// socket reports room for writing at every read of the peer, so it is registered for that only
/// while something waits ([`watch_writable`]).
pub(super) fn register(stream: &Stream, registry: &Registry, token: Token) -> io::Result<()> {
    let both = Interest::READABLE | Interest::WRITABLE;
    let interest = if stream.is_tcp() { both } else { Interest::READABLE };
    SourceFd(&stream.as_fd().as_raw_fd()).register(registry, token, interest)
}

/// Starts or ends reports of room for writing, where they are not on anyway.
pub(super) fn watch_writable(
    stream: &Stream,
    registry: &Registry,
    token: Token,
    on: bool,
) -> io::Result<()> {
    if stream.is_tcp() {
        return Ok(());
    }
    let both = Interest::READABLE | Interest::WRITABLE;
    let interest = if on { both } else { Interest::READABLE };
    SourceFd(&stream.as_fd().as_raw_fd()).reregister(registry, token, interest)
}

/// Takes a socket out of the loop. Closing it does so as well, so an error does not matter.
pub(super) fn deregister(stream: &Stream, registry: &Registry) {
    let _ = SourceFd(&stream.as_fd().as_raw_fd()).deregister(registry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn conn() -> (Conn, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (Conn::new(one.into(), Role::Client, false), other)
    }

    #[test]
    fn the_end_of_what_a_peer_sends_is_told_once_and_only_where_it_may_be_that() {
        let (mut conn, _peer) = conn();
        assert_eq!(conn.at_end(Close::Eof), AtEnd::Closed(Close::Eof));
        conn.half_close = HalfClose::Allowed;
        for how in [Close::Torn, Close::Reset, Close::TimedOut] {
            assert_eq!(conn.at_end(how), AtEnd::Closed(how));
        }
        assert_eq!(conn.at_end(Close::Eof), AtEnd::HalfClosed);
        assert_eq!(conn.at_end(Close::Eof), AtEnd::Nothing);
        // What breaks afterwards is the end of the connection.
        conn.broken = Some(Close::Reset);
        assert_eq!(conn.at_end(Close::Eof), AtEnd::Closed(Close::Reset));
    }

    #[test]
    fn a_peer_that_reads_nothing_any_more_is_gone() {
        for told in [HalfClose::Allowed, HalfClose::Reported] {
            let (mut conn, _peer) = conn();
            (conn.half_close, conn.is_shut_both) = (told, true);
            assert_eq!(conn.at_end(Close::Eof), AtEnd::Closed(Close::Eof));
        }
    }
}
