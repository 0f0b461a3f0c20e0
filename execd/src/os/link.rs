//! One connection: bytes in, split into frames, and frames out through a bounded outbox. The engine
//! knows what the frames mean.

use bytes::{Buf, BytesMut};
use protocol::decode::Limits;
use protocol::frame_reader::Inbox;
use protocol::limits::{CONTROL_BODY_BYTES_MAX, HEADER_BYTES};
use protocol::{Bindings, ErrorCode, Frame, LinkId, PeerGroup, Tick, WireError, encode};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use transport::stream::Stream;

/// Most bytes that wait to be sent on one connection; past that the connection is closed.
pub(super) const OUTBOX_BYTES_MAX: usize = 8 << 20;

/// Milliseconds for the other side of a closed connection to take the last bytes and close.
pub(super) const LINGER_MS: u64 = 500;

/// Most bytes of one read from a connection.
const READ_BYTES: usize = 64 << 10;

/// The result of taking from the inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A whole frame.
    Frame(Frame),
    /// Bytes that are not a frame; nothing more is taken from this link.
    Garbled(WireError),
    /// Nothing for now.
    Nothing,
}

/// Orders the connections without a broker for reading.
pub(super) fn in_turn(
    links: &BTreeMap<LinkId, Link>,
    pre_login: Vec<LinkId>,
) -> impl Iterator<Item = LinkId> + use<> {
    let mut sizes: BTreeMap<PeerGroup, usize> = BTreeMap::new();
    for link in pre_login.iter().filter_map(|id| links.get(id)) {
        *sizes.entry(link.peer_group).or_default() += 1;
    }
    let mut turns = BTreeMap::new();
    for id in pre_login.into_iter().rev() {
        let Some(link) = links.get(&id) else { continue };
        let size = sizes.get(&link.peer_group).copied().unwrap_or_default();
        // The last number grows as the loop goes to older links.
        turns.insert((link.is_new, size, turns.len()), id);
    }
    turns.into_values()
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    inbox: Inbox,
    outbox: BytesMut,
    /// The tick until which a closing link is kept. What comes in is discarded; what is queued is
    /// still sent.
    pub(super) linger_until: Option<Tick>,
    is_shut: bool,
    /// Whether the failure of its TLS session was reported.
    is_told: bool,
    pub(super) peer_group: PeerGroup,
    /// Whether nothing was read from it yet.
    pub(super) is_new: bool,
    /// Whether a broker was welcomed on it.
    pub(super) is_in: bool,
    /// Whether bytes came since [`take_partial`](Self::take_partial) was last called.
    has_heard: bool,
}

impl Link {
    pub(super) fn new(stream: Stream, peer_group: PeerGroup) -> Self {
        Self {
            stream,
            inbox: Inbox::new(Limits::new(CONTROL_BODY_BYTES_MAX)),
            outbox: BytesMut::new(),
            linger_until: None,
            is_shut: false,
            is_told: false,
            peer_group,
            is_new: true,
            is_in: false,
            has_heard: false,
        }
    }

    /// Reads once. An error is the reason why the link is gone.
    pub(super) fn read(&mut self) -> Result<(), &'static str> {
        self.is_new = false;
        let mut bytes = [0; READ_BYTES];
        let read = match self.linger_until {
            Some(_) => self.stream.discard(&mut bytes),
            None => self.stream.read(&mut bytes),
        };
        match read {
            Ok(0) => Err("closed by the other side"),
            Ok(_) if self.linger_until.is_some() => Ok(()),
            Ok(count) => {
                self.inbox.push(&bytes[..count]);
                self.has_heard = true;
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
                // TLS failed: `take` reports it, after the frames that came before.
                ErrorKind::InvalidData => Ok(()),
                ErrorKind::UnexpectedEof => Err("ended without the end of its TLS session"),
                ErrorKind::ConnectionReset => Err("reset by the other side"),
                _ => Err("broken"),
            },
        }
    }

    /// Whether the inbox has room for a read; it always has if all frames were taken.
    pub(super) fn wants_bytes(&self) -> bool {
        self.inbox.bytes_count() < HEADER_BYTES + CONTROL_BODY_BYTES_MAX
    }

    /// How many bytes of a partial frame are there, if some came since the last call.
    pub(super) fn take_partial(&mut self) -> Option<usize> {
        let has_heard = std::mem::take(&mut self.has_heard);
        (has_heard && self.inbox.has_bytes()).then(|| self.inbox.bytes_count())
    }

    /// Takes the next frame out of the inbox.
    pub(super) fn take(&mut self) -> Received {
        if self.linger_until.is_some() {
            return Received::Nothing;
        }
        match self.inbox.next_frame() {
            Ok(None) => match self.stream.fault_text() {
                Some(text) if !std::mem::replace(&mut self.is_told, true) => {
                    Received::Garbled(WireError::fatal(ErrorCode::Tls, text, 0))
                }
                Some(_) | None => Received::Nothing,
            },
            Ok(Some(frame)) => Received::Frame(frame),
            Err(error) => {
                self.inbox.set_malformed();
                Received::Garbled(error)
            }
        }
    }

    /// How many bytes wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Queues a frame; `false` = the outbox is past its limit.
    #[must_use]
    pub(super) fn send(&mut self, frame: Frame) -> bool {
        self.is_in |= matches!(frame, Frame::ExecWelcome(_));
        encode::append(frame, &mut self.outbox);
        self.outbox.len() <= OUTBOX_BYTES_MAX
    }

    /// Writes what the socket takes. An error is the reason why the link is gone.
    pub(super) fn flush(&mut self) -> Result<(), &'static str> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) => self.outbox.advance(count),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted => {}
                    _ => return Err("broken"),
                },
            }
        }
        match self.stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err("broken"),
        }
        if self.linger_until.is_some() && !self.is_shut {
            self.is_shut = true;
            self.stream.shut_write();
        }
        Ok(())
    }

    /// Whether bytes wait to be sent that the socket could take.
    pub(super) fn has_unsent(&self) -> bool {
        self.stream.has_unsent() || (!self.outbox.is_empty() && !self.stream.is_handshaking())
    }

    /// Whether a read would return something without the socket being readable.
    pub(super) fn has_more(&self) -> bool {
        self.linger_until.is_none() && !self.is_told && self.stream.has_more()
    }

    /// What proofs on this link can be bound to; `None` = it has no TLS.
    pub(super) fn bindings(&self) -> Result<Option<Bindings>, String> {
        self.stream.bindings()
    }

    /// Starts to close the link: what is queued is sent, then the other side has [`LINGER_MS`] to
    /// close. Closing at once with unread bytes would make the kernel drop the error that says why.
    pub(super) fn linger(&mut self, now: Tick) {
        self.linger_until = Some(now.plus_millis(LINGER_MS));
        self.inbox.clear();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
