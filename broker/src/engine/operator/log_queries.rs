//! What `logs` needs until it is answered, and of those who follow lines as they come.

use protocol::bodies::Stream;
use protocol::{ClientId, Format, Header, LinkId, Target, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// A line that a worker wrote.
#[derive(Clone, Debug)]
pub(super) struct LogLine {
    pub(super) worker: WorkerId,
    /// Its number among those that its host keeps of the worker; 0 = it is not kept.
    pub(super) number: u64,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) stream: Stream,
    pub(super) text: String,
}

/// A `logs` that not all hosts have answered.
#[derive(Debug)]
pub(super) struct LogQuery {
    pub(super) client: ClientId,
    pub(super) head: Header,
    /// The lines so far, by time, worker and number.
    pub(super) lines: BTreeMap<(u64, WorkerId, u64), LogLine>,
    /// Most lines in the answer.
    pub(super) lines_max: usize,
    /// Bytes of the texts of the lines.
    pub(super) bytes: usize,
    /// Whether older lines were left out, because the answer would be too long.
    pub(super) is_truncated: bool,
    /// Workers for which no answer has come, by the number of the request to their host.
    pub(super) waiting: BTreeMap<u32, (WorkerId, LinkId)>,
    /// What is to be said besides the lines.
    pub(super) notes: Vec<(Option<WorkerId>, String)>,
    /// Lines that a host could not keep, by worker.
    pub(super) lost: BTreeMap<WorkerId, u64>,
    /// Whether one worker was asked for, so that its id need not stand before each line.
    pub(super) is_one: bool,
}

impl LogQuery {
    /// Adds a line; the oldest gives way if there are too many.
    pub(super) fn add(&mut self, line: LogLine, bytes_max: usize) {
        self.bytes += line.text.len();
        self.lines.insert((line.at_ms, line.worker, line.number), line);
        while self.lines.len() > self.lines_max || self.bytes > bytes_max {
            self.is_truncated |= self.lines.len() <= self.lines_max;
            let Some((_, oldest)) = self.lines.pop_first() else { return };
            self.bytes -= oldest.text.len();
        }
    }
}

/// An operator who follows: lines reach it as pieces of the reply to its `logs`.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) link: LinkId,
    /// Sequence of the command.
    pub(super) sequence: u32,
    pub(super) format: Format,
    /// The workers that it wants lines of.
    pub(super) target: Target,
    /// The number of the last line that it got of each worker, and the connection of its host on
    /// which the line came. On another one the numbers say nothing of what is missing.
    pub(super) last: BTreeMap<WorkerId, (LinkId, u64)>,
    /// Lines that it did not get, by worker, since the last one that it got.
    pub(super) missing: BTreeMap<WorkerId, u64>,
    /// Lines that came before its first answer; `None` = it has been answered.
    pub(super) early: Option<VecDeque<EarlyLine>>,
}

/// A line, the connection on which it came, and how many lines were dropped before it.
pub(super) type EarlyLine = (LinkId, LogLine, u64);

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// By number.
    pub(super) queries: BTreeMap<u64, LogQuery>,
    /// The number of the last request to a host.
    pub(super) requests: u32,
    pub(super) followers: BTreeMap<ClientId, Follower>,
}

impl Logs {
    /// Whether a client waits for an answer.
    pub(crate) fn owes_answer(&self, client: ClientId) -> bool {
        self.queries.values().any(|query| query.client == client)
    }

    /// Whether a client follows, and as the reply to which sequence.
    pub(crate) fn follows(&self, client: ClientId) -> Option<u32> {
        self.followers.get(&client).map(|follower| follower.sequence)
    }
}
