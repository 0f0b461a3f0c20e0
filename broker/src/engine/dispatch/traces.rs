//! How requests went: the time line of one, and a ring of those of requests that ended, for `why`.
//! A time line has ids and names as values, so that it outlives what it names. `trace_notes` makes
//! them.

use super::trace::Attempt;
use crate::engine::keys::TransactionKey;
use protocol::{ClientId, ErrorCode, Micros, Ran, ServiceName, Tick, TransactionId, Wall};
use std::collections::VecDeque;

/// How one request went.
#[derive(Clone, Debug)]
pub(crate) struct TimeLine {
    /// Its key, which is another one's once the worker is done with it.
    pub(crate) key: TransactionKey,
    /// Its number.
    pub(crate) transaction: TransactionId,
    /// Name of its service, which may be deleted by now.
    pub(crate) service: ServiceName,
    /// Its client, which may be gone.
    pub(crate) client: ClientId,
    /// Host, process and address of the client; empty = not known.
    pub(crate) from: String,
    /// The number that its client gave it.
    pub(crate) sequence: u32,
    /// Of its header; zeros = none.
    pub(crate) trace_id: [u8; 16],
    /// The priority in force.
    pub(crate) priority: u8,
    /// Bytes of it that came.
    pub(crate) received: u64,
    /// Bytes of the reply that came.
    pub(crate) replied: u64,
    /// When its first frame came.
    pub(crate) arrived: Tick,
    /// What the clock showed then.
    pub(crate) wall: Wall,
    /// Time from its arrival to its deadline; `None` = it has none.
    pub(crate) allowed: Option<Micros>,
    /// How long it waited until its last worker began it, or has waited so far.
    pub(crate) waited: Micros,
    /// How many requests it had to wait for when it came.
    pub(crate) ahead: u32,
    /// How many workers it was given to, without those that surely never began it.
    pub(crate) attempt: u32,
    /// How many workers died of it, as counted in `Transaction::deaths`.
    pub(crate) deaths: u64,
    /// Those workers, in order; some in the middle may be left out.
    pub(crate) attempts: Vec<Attempt>,
    /// When the first piece of a reply of several came.
    pub(crate) first_piece: Option<Tick>,
    /// Where it is.
    pub(crate) standing: Standing,
}

/// Where a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In the queue.
    Waits {
        /// How many are before it.
        ahead: usize,
        /// All were looked at; if not, there may be more.
        is_all: bool,
    },
    /// Its client is blocked.
    Blocked,
    /// Sent ahead to a busy worker.
    Held,
    /// A worker has it.
    Runs,
    /// A worker has it as a conversation without a deadline.
    Parked,
    /// It has its outcome, its worker is not done with it, and its time line was not kept.
    Unheard,
    /// It has its outcome.
    Ended {
        /// Since when.
        at: Tick,
        /// The outcome.
        outcome: Outcome,
        /// Why its time line is kept.
        kept: Kept,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A worker answered.
    Answered {
        /// The number of the worker's own error; 0 = it answered without one.
        error: i16,
    },
    /// It got an error.
    Failed {
        /// Which.
        code: ErrorCode,
        /// Whether it ran, as its client was told.
        ran: Ran,
        /// The text of the error.
        text: String,
    },
    /// Its client was gone before.
    Left,
}

/// Why a time line is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The request failed, or its client was gone.
    Failed,
    /// It took `trace_slow_ms` or longer.
    Slow,
    /// It is one of `trace_sample`.
    Sampled,
}

impl Kept {
    /// The word in answers.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Sampled => "sampled",
        }
    }
}

impl TimeLine {
    /// About how many bytes it takes.
    fn size(&self) -> u64 {
        let text = match &self.standing {
            Standing::Ended { outcome: Outcome::Failed { text, .. }, .. } => text.len(),
            Standing::Ended { .. }
            | Standing::Waits { .. }
            | Standing::Blocked
            | Standing::Held
            | Standing::Runs
            | Standing::Parked
            | Standing::Unheard => 0,
        };
        let of = |attempt: &Attempt| {
            size_of::<Attempt>() + attempt.lost.as_ref().map_or(0, |(_, why)| why.len())
        };
        let attempts: usize = self.attempts.iter().map(of).sum();
        (size_of::<Self>() + text + self.from.len() + attempts) as u64
    }
}

/// The time lines that are kept, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    kept: VecDeque<TimeLine>,
    /// About how many bytes they take.
    bytes: u64,
    /// How many of the newest have clients who are still to be named.
    unnamed: usize,
}

impl Traces {
    /// Keeps one. Returns whether it is the first whose client is to be named.
    pub(super) fn add(&mut self, line: TimeLine) -> bool {
        self.bytes += line.size();
        self.kept.push_back(line);
        self.unnamed += 1;
        self.unnamed == 1
    }

    /// Keeps at most so many, and so many bytes.
    pub(crate) fn drop_oldest(&mut self, most: u64, most_bytes: u64) {
        while self.kept.len() as u64 > most || self.bytes > most_bytes {
            let Some(line) = self.kept.pop_front() else { break };
            self.bytes -= line.size();
        }
        self.unnamed = self.unnamed.min(self.kept.len());
    }

    /// Names the clients of the newest, as `name` calls them.
    pub(crate) fn name(&mut self, name: impl Fn(ClientId) -> String) {
        for line in self.kept.iter_mut().rev().take(std::mem::take(&mut self.unnamed)) {
            self.bytes -= line.size();
            line.from = name(line.client);
            self.bytes += line.size();
        }
    }

    /// All, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &TimeLine> {
        self.kept.iter().rev()
    }

    /// How many are kept.
    pub(crate) fn count(&self) -> usize {
        self.kept.len()
    }

    /// Whether the count of bytes is what counting gives.
    pub(super) fn is_sound(&self) -> bool {
        self.bytes == self.kept.iter().map(TimeLine::size).sum::<u64>()
            && self.unnamed <= self.kept.len()
    }
}
