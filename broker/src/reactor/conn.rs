//! One connection as the loop knows it: its socket, what came and is not understood yet, what waits
//! to be sent. An idle connection owns no buffer. How bytes become frames: `frame_reader`.

use super::frame_reader::{FrameReader, end_of};
use super::liveness::PeerLiveness;
use super::outbox::Outbox;
use super::pre_login::Queued;
use super::stream::Stream;
use crate::engine::input::Close;
use protocol::kinds::Role;
use protocol::names::HostName;
use protocol::peer_group::PeerGroup;
use protocol::time::Tick;

/// Where a connection is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A dial is under way to this host; it fails at this moment.
    Dialling {
        /// Which host.
        host: HostName,
        /// When it fails.
        until: Tick,
    },
    /// Frames come and go.
    Open,
    /// Garbage came: nothing more is read, what waits is still sent.
    Deaf,
    /// The engine has closed it: what waits is sent until then.
    Closing {
        /// Until when.
        until: Tick,
    },
    /// All is sent; what still comes is thrown away, so that the peer sees the last frame and not a
    /// reset.
    Lingering {
        /// Until when.
        until: Tick,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    /// The socket.
    pub(super) stream: Stream,
    /// Who is at the other end.
    pub(super) role: Role,
    /// Where it is in its life.
    pub(super) phase: Phase,
    /// What waits to be sent.
    pub(super) outbox: Outbox,
    /// When it last took bytes, while some wait.
    pub(super) progress_at: Tick,
    /// What came.
    pub(super) reader: FrameReader,
    /// Bytes set aside for its large frame that has come in part.
    pub(super) counted: usize,
    /// The engine wants nothing from it for now.
    pub(super) is_paused: bool,
    /// It stands in the list of those to be read again.
    pub(super) is_listed: bool,
    /// It stands in the list of those to be flushed.
    pub(super) is_dirty: bool,
    /// It stands in the list of those that took not all.
    pub(super) is_waiting: bool,
    /// More than `outbox_bytes_high` waited at the last flush.
    pub(super) is_congested: bool,
    /// `OutboxFull` or `Stalled` was told.
    pub(super) is_told: bool,
    /// It broke, so: nothing more is sent, what came is still read.
    pub(super) broken: Option<Close>,
    /// When it was last read.
    pub(super) heard_at: Tick,
    /// The peer is on another machine.
    pub(super) is_remote: bool,
    /// Whether its machine answers, as far as was asked.
    pub(super) liveness: PeerLiveness,
    /// It is to be shut for writing when all is sent.
    pub(super) is_shutting: bool,
    /// It was never let in: the error in its outbox says why.
    pub(super) is_refused: bool,
    /// The peers that it shares queues with.
    pub(super) peer_group: PeerGroup,
    /// In which queue it waits before its login.
    pub(super) queued: Option<Queued>,
    /// A step of its handshake was done.
    pub(super) is_begun: bool,
}

impl Conn {
    /// Whether it is a client for whom much waits.
    pub(super) fn is_crowding(&self, high: usize) -> bool {
        self.role == Role::Client && self.outbox.bytes() > high
    }

    /// The worst that is known of how it ended, when a read has come to its end: what a write or
    /// the kernel's timers found out before, half a frame, or an error that the read did not give.
    /// (After a FIN the kernel reports a reset to writers alone; and an error that a write got is
    /// not told again.)
    pub(super) fn worst_known(&self) -> Close {
        let part = if self.reader.has_partial() { Close::Torn } else { Close::Eof };
        let error = match self.stream.take_error() {
            Ok(None) => Close::Eof,
            Ok(Some(error)) | Err(error) => end_of(&error),
        };
        part.max(error).max(self.broken.unwrap_or(Close::Eof))
    }

    /// A connection that is open.
    pub(super) fn new(stream: Stream, role: Role) -> Self {
        Self {
            is_remote: stream.is_remote(),
            stream,
            role,
            phase: Phase::Open,
            outbox: Outbox::default(),
            progress_at: Tick::default(),
            reader: FrameReader::default(),
            counted: 0,
            is_paused: false,
            is_listed: false,
            is_dirty: false,
            is_waiting: false,
            is_congested: false,
            is_told: false,
            broken: None,
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
