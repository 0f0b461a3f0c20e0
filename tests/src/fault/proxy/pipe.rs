//! One direction of a connection through the proxy: the bytes it holds back, and when they are
//! sent.

use super::CloseBy;
use crate::sim::rng::Rng;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Most bytes held back in one direction; then the sender feels it.
const HELD_MAX: usize = 256 * 1024;
/// Most writes in one turn of the thread that serves all connections; the rest is for the next.
const GIVES_MAX: usize = 64;

/// What is wrong with one direction of a connection; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Each byte is this much later.
    pub delay: Duration,
    /// At most so many bytes leave at once; 0 = as they come.
    pub piece: usize,
    /// Bytes a second; 0 = as fast as they come.
    pub rate: u64,
    /// After so many bytes the direction stands still; `None` = for ever.
    pub stall_at: Option<(u64, Option<Duration>)>,
    /// After so many bytes the connection is half-open.
    pub half_open_at: Option<u64>,
    /// After so many bytes, inside a frame or not, the connection is closed.
    pub close_at: Option<(u64, CloseBy)>,
}

impl Impairment {
    /// One kind or another.
    pub fn random(rng: &mut Rng) -> Self {
        let mut impairment = Self::default();
        // An early one meets the login, a later one any byte of any frame.
        let at = |rng: &mut Rng| {
            if rng.hits(400) { rng.below(300) } else { rng.below(60_000) }
        };
        match rng.below(8) {
            0 | 1 => impairment.delay = Duration::from_millis(rng.between(1, 150)),
            2 => impairment.piece = rng.pick(&[1, 1, 2, 7, 63, 64, 65]),
            3 => impairment.rate = rng.between(20_000, 400_000),
            4 => {
                let span = Duration::from_millis(rng.between(50, 3000));
                impairment.stall_at = Some((at(rng), (!rng.hits(250)).then_some(span)));
            }
            5 => impairment.half_open_at = Some(at(rng)),
            _ => impairment.close_at = Some((at(rng), rng.pick(&[CloseBy::Fin, CloseBy::Rst]))),
        }
        impairment
    }
}

/// What became of a direction.
#[derive(Debug)]
pub(super) enum Moved {
    /// All is well.
    On,
    /// It stands still now.
    Stalls(Option<Duration>),
    /// The connection is half-open from now on.
    HalfOpens,
    /// The connection is to be closed now.
    Close(CloseBy),
    /// One of the ends is gone.
    Broken,
}

/// One direction.
pub(super) struct Pipe {
    pub(super) impairment: Impairment,
    /// Bytes that are due at a moment, in order.
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
    /// Bytes that left.
    passed: u64,
    stalled_until: Option<Instant>,
    is_stalled_for_ever: bool,
    /// Not before then, at this rate.
    next_write: Instant,
    /// What is read is thrown away.
    pub(super) is_blackhole: bool,
    /// The sender sent its last byte.
    pub(super) is_ended: bool,
    /// And the receiver knows.
    pub(super) is_shut: bool,
}

impl Pipe {
    pub(super) fn new(impairment: Impairment, now: Instant) -> Self {
        Self {
            impairment,
            held: VecDeque::new(),
            held_bytes: 0,
            passed: 0,
            stalled_until: None,
            is_stalled_for_ever: false,
            next_write: now,
            is_blackhole: false,
            is_ended: false,
            is_shut: false,
        }
    }

    /// Whether it never moves again.
    pub(super) const fn is_dead(&self) -> bool {
        self.is_stalled_for_ever
    }

    pub(super) fn heal(&mut self, now: Instant) {
        self.impairment = Impairment::default();
        self.stalled_until = None;
        self.next_write = now;
        for (due, _) in &mut self.held {
            *due = now;
        }
    }

    pub(super) fn stall(&mut self, now: Instant, span: Option<Duration>) {
        match span {
            Some(span) => self.stalled_until = Some(now + span),
            None => self.is_stalled_for_ever = true,
        }
    }

    pub(super) fn wants_read(&self) -> bool {
        !self.is_ended && (self.is_blackhole || self.held_bytes < HELD_MAX)
    }

    /// When the next byte (or the end) may leave; `None` = nothing is to leave.
    pub(super) fn write_due(&self) -> Option<Instant> {
        if self.is_blackhole || self.is_stalled_for_ever {
            return None;
        }
        let (due, _) = self.held.front()?;
        let stalled = self.stalled_until.unwrap_or(*due);
        Some((*due).max(stalled).max(self.next_write))
    }

    /// Moves what may move.
    pub(super) fn pump(&mut self, from: &TcpStream, to: &TcpStream, now: Instant) -> Moved {
        if self.wants_read() && !self.take(from, now) {
            return Moved::Broken;
        }
        // One that goes byte by byte must not hold up all others.
        for _ in 0..GIVES_MAX {
            match self.give(to, now) {
                Some(Moved::On) => {}
                Some(other) => return other,
                None => break,
            }
        }
        let is_done = self.is_ended && self.held.is_empty() && !self.is_blackhole;
        if is_done && !self.is_shut && !self.is_stalled_for_ever {
            self.is_shut = true;
            // It may be gone already.
            let _ = to.shutdown(Shutdown::Write);
        }
        Moved::On
    }

    /// Reads once; `false` = the sender is gone.
    fn take(&mut self, mut from: &TcpStream, now: Instant) -> bool {
        let mut bytes = [0; 65_536];
        match from.read(&mut bytes) {
            Ok(0) => self.is_ended = true,
            Ok(count) if !self.is_blackhole => {
                self.held.push_back((now + self.impairment.delay, bytes[..count].to_vec()));
                self.held_bytes += count;
            }
            Ok(_) => {}
            Err(error) => return is_later(&error),
        }
        true
    }

    /// Writes once; `None` = nothing more can leave now.
    fn give(&mut self, mut to: &TcpStream, now: Instant) -> Option<Moved> {
        if let Some(moved) = self.strike(now) {
            return Some(moved);
        }
        if self.write_due().is_none_or(|due| due > now) {
            return None;
        }
        let left = self.before_strike();
        let (_, bytes) = self.held.front_mut()?;
        let mut count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if self.impairment.piece != 0 {
            count = count.min(self.impairment.piece);
        }
        if self.impairment.rate != 0 {
            count = count.min(usize::try_from(self.impairment.rate / 50).unwrap_or(1).max(1));
        }
        match to.write(&bytes[..count]) {
            Ok(count) => {
                self.passed += count as u64;
                self.held_bytes -= count;
                bytes.drain(..count);
                if bytes.is_empty() {
                    self.held.pop_front();
                }
                if let Some(micros) = (count as u64 * 1_000_000).checked_div(self.impairment.rate) {
                    self.next_write = now + Duration::from_micros(micros);
                }
                Some(Moved::On)
            }
            Err(error) if is_later(&error) => None,
            Err(_) => Some(Moved::Broken),
        }
    }

    /// Bytes that may still leave before the impairment strikes.
    fn before_strike(&self) -> u64 {
        let impairment = &self.impairment;
        let at = [
            impairment.stall_at.map(|(at, _)| at),
            impairment.half_open_at,
            impairment.close_at.map(|c| c.0),
        ];
        at.into_iter().flatten().min().map_or(u64::MAX, |at| at.saturating_sub(self.passed))
    }

    /// What the impairment does at this byte.
    fn strike(&mut self, now: Instant) -> Option<Moved> {
        // Only when there is a next byte, so that what stands before it has left.
        if self.is_blackhole || self.held.is_empty() || self.before_strike() > 0 {
            return None;
        }
        let impairment = &mut self.impairment;
        if let Some((_, span)) = impairment.stall_at.take() {
            self.stall(now, span);
            return Some(Moved::Stalls(span));
        }
        if impairment.half_open_at.take().is_some() {
            return Some(Moved::HalfOpens);
        }
        impairment.close_at.take().map(|(_, how)| Moved::Close(how))
    }
}

/// Whether a read or write has to wait.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
