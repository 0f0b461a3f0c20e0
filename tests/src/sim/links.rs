//! Simulated connections: bytes in order, each direction at its own speed, split at random, closed
//! in order or broken.

use super::rng::Rng;
use broker::engine::input::Close;
use bytes::Bytes;
use protocol::decode::{self, Limits, WireError};
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::{Kind, Role};
use protocol::time::Tick;
use std::collections::VecDeque;

/// Something in transit on a pipe.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(Bytes),
    End(Close),
}

/// The result of one read.
#[derive(Debug)]
pub enum ReadResult {
    /// A whole frame.
    Frame(Kind, Header, Bytes),
    /// Bytes that are no frame.
    Bad(WireError),
    /// The end of the stream; returned once.
    Ended(Close),
    /// No whole frame has arrived yet.
    Nothing,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub struct Pipe {
    pieces: VecDeque<(Tick, Piece)>,
    inbox: Inbox,
    /// When the last bytes arrived that are in the inbox.
    filled: Tick,
    last_due: Tick,
    /// Bytes that have not arrived.
    pub waiting: u64,
    /// The writer has ended it.
    pub is_closed: bool,
    is_over: bool,
}

impl Pipe {
    /// Sends bytes so that they arrive at `due` or later, but never before what was sent earlier,
    /// in two pieces if `split` says where. The moments at which something arrives.
    pub fn write(&mut self, bytes: Bytes, due: Tick, split: Option<(usize, Tick)>) -> Vec<Tick> {
        if self.is_closed {
            return Vec::new();
        }
        self.waiting += bytes.len() as u64;
        let mut first = bytes;
        let rest = split.filter(|(at, _)| *at > 0 && *at < first.len());
        let rest = rest.map(|(at, later)| (first.split_off(at), later));
        let mut dues = vec![self.push(Piece::Bytes(first), due)];
        if let Some((rest, later)) = rest {
            dues.push(self.push(Piece::Bytes(rest), later));
        }
        dues
    }

    /// Ends it after what is under way. When the end arrives.
    pub fn end(&mut self, how: Close, due: Tick) -> Option<Tick> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        Some(self.push(Piece::End(how), due))
    }

    fn push(&mut self, piece: Piece, due: Tick) -> Tick {
        self.last_due = self.last_due.max(due);
        self.pieces.push_back((self.last_due, piece));
        self.last_due
    }

    /// Loses a part of what is under way, and ends broken. When that is noticed.
    pub fn break_off(&mut self, rng: &mut Rng, due: Tick) -> Tick {
        let keep = rng.index(self.pieces.len() + 1);
        let whole = keep + usize::from(rng.hits(500) && keep < self.pieces.len());
        self.pieces.truncate(whole);
        if let Some((_, Piece::Bytes(bytes))) = self.pieces.back_mut().filter(|_| whole > keep) {
            let left = rng.index(bytes.len() + 1);
            bytes.truncate(left);
        }
        self.pieces.retain(|(_, piece)| matches!(piece, Piece::Bytes(_)));
        let bytes = self.pieces.iter().map(|(_, piece)| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::End(_) => 0,
        });
        self.waiting = bytes.sum();
        self.is_closed = true;
        self.last_due = self.last_due.min(due);
        self.push(Piece::End(Close::Reset), due)
    }

    /// It has ended, and the connection has not: that may still end.
    pub fn reopen(&mut self) {
        (self.is_closed, self.is_over) = (false, false);
    }

    /// The reader is gone: nothing is kept.
    pub fn discard(&mut self) {
        *self = Self { is_closed: true, is_over: true, ..Self::default() };
    }

    /// Whether the reader has read all that was sent.
    pub fn is_read(&self) -> bool {
        !self.inbox.has_bytes()
            && self.pieces.iter().all(|(_, piece)| matches!(piece, Piece::End(_)))
    }

    /// Whether a frame of this kind was sent that the reader has not read.
    pub fn has_unread(&self, wanted: Kind) -> bool {
        let sent = self.pieces.iter().filter_map(|(_, piece)| match piece {
            Piece::Bytes(bytes) => Some(bytes),
            Piece::End(_) => None,
        });
        let mut rest = self.inbox.clone();
        sent.for_each(|piece| rest.push(piece));
        std::iter::from_fn(|| rest.take().ok()?).any(|(kind, ..)| kind == wanted)
    }

    /// Whether such a frame had arrived by then that the reader has not read.
    pub fn had_arrived(&self, by: Tick, is_wanted: impl Fn(Frame) -> bool) -> bool {
        if self.filled > by {
            return false;
        }
        let mut rest = self.inbox.clone();
        for (_, piece) in self.pieces.iter().take_while(|(due, _)| *due <= by) {
            if let Piece::Bytes(bytes) = piece {
                rest.push(bytes);
            }
        }
        std::iter::from_fn(|| rest.take().ok()?)
            .filter_map(|(kind, head, body)| decode::frame(kind, head, body).ok())
            .any(is_wanted)
    }

    /// What the reader gets now.
    pub fn pull(&mut self, now: Tick, body_bytes_max: usize) -> ReadResult {
        loop {
            if self.is_over || self.inbox.is_malformed() {
                return ReadResult::Nothing;
            }
            self.inbox.limits = Limits::new(body_bytes_max);
            match self.inbox.take() {
                Ok(Some((kind, head, body))) => return ReadResult::Frame(kind, head, body),
                Err(error) => return ReadResult::Bad(error),
                Ok(None) => {}
            }
            if self.pieces.front().is_none_or(|(due, _)| *due > now) {
                return ReadResult::Nothing;
            }
            match self.pieces.pop_front() {
                Some((due, Piece::Bytes(bytes))) => {
                    self.waiting -= bytes.len() as u64;
                    self.filled = due;
                    self.inbox.push(&bytes);
                }
                Some((_, Piece::End(how))) => {
                    self.is_over = true;
                    return ReadResult::Ended(match how {
                        Close::Eof if self.inbox.has_bytes() => Close::Torn,
                        how => how,
                    });
                }
                None => return ReadResult::Nothing,
            }
        }
    }
}

/// Who stands at the far end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client, by index.
    Client(usize),
    /// A worker's process, by pid.
    Proc(u32),
    /// A client of topics, by index.
    Bus(usize),
    /// A program with instances, by index.
    Program(usize),
    /// A host's execd: which host, and the link as execd knows it.
    Execd(usize, LinkId),
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the broker.
    Up,
    /// From the broker.
    Down,
}

/// One connection of the broker.
#[derive(Debug)]
pub struct Conn {
    /// As the broker knows it.
    pub link: LinkId,
    /// What the far end may say.
    pub role: Role,
    /// The far end.
    pub peer: Peer,
    /// The direction to the broker.
    pub up: Pipe,
    /// The direction from the broker.
    pub down: Pipe,
    /// The broker has not closed it.
    pub at_broker: bool,
    /// The far end has not closed it.
    pub at_peer: bool,
    /// `Congested` was told.
    pub is_congested: bool,
    /// `OutboxFull` or `Stalled` was told.
    pub is_too_slow: bool,
    /// When something was last taken from the broker's outbox.
    pub moved: Tick,
    /// Nothing arrives before this, either way.
    pub frozen: Tick,
    /// Its client sent nonsense: the model says nothing about what it gets.
    pub is_wild: bool,
    /// The broker takes an end of what comes for no end of the connection.
    pub may_half_close: bool,
    /// The far end sends nothing more, and still reads.
    pub is_shut: bool,
}

impl Conn {
    /// The pipe of this direction.
    pub fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// A new connection.
    pub fn new(link: LinkId, role: Role, peer: Peer, now: Tick) -> Self {
        Self {
            link,
            role,
            peer,
            up: Pipe::default(),
            down: Pipe::default(),
            at_broker: true,
            at_peer: true,
            is_congested: false,
            is_too_slow: false,
            moved: now,
            frozen: Tick(0),
            is_wild: false,
            may_half_close: false,
            is_shut: false,
        }
    }
}
