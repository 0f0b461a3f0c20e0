//! What is kept of an unexpected end of a worker's process: how it ended, as `supervision` knows,
//! and the requests that it had, as `dispatch` knows.

use bytes::Bytes;
use protocol::{
    ClientId, ExitCause, HostName, Micros, RunId, ServiceName, TransactionId, Wall, WorkerId,
};

/// An end of a worker's process that was a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    /// Counted from 1 since the broker started; `death ID` shows it.
    pub(crate) id: u64,
    /// When it was recorded. A clock that is set later does not change it.
    pub(crate) at: Wall,
    /// The worker; it may be deleted by now.
    pub(crate) worker: WorkerId,
    /// Name of its service, which may be deleted by now.
    pub(crate) service: ServiceName,
    /// Name of its host, which may be deleted by now.
    pub(crate) host: HostName,
    /// The start that made the process.
    pub(crate) run: RunId,
    /// How long it ran, from its start, or from when this broker took it over.
    pub(crate) ran: Micros,
    /// Whether an earlier broker had started it.
    pub(crate) is_adopted: bool,
    /// What its host said of its end.
    pub(crate) report: ProcessReport,
    /// The cause in words, as in the fact about it.
    pub(crate) how: String,
    /// Why the broker had it killed, after "it"; `None` = the broker did not.
    pub(crate) killed: Option<String>,
    /// Its last lines on stderr, oldest first.
    pub(crate) tail: Vec<String>,
    /// What the broker did then, after "the worker".
    pub(crate) follows: String,
}

/// How a process ended, as its host said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessReport {
    /// The process id that it had; 0 = not known.
    pub(crate) pid: u32,
    /// Exit status or signal.
    pub(crate) exit_cause: ExitCause,
    /// Processor time in milliseconds, with that of the children it waited for.
    pub(crate) cpu_ms: u64,
    /// Largest resident size in KiB; 0 = not known.
    pub(crate) rss_kib_max: u64,
    /// The kernel wrote a core file.
    pub(crate) has_core: bool,
    /// It was killed by a signal that its host did not send, when the kernel killed a process for
    /// want of memory.
    pub(crate) is_oom: bool,
}

/// A request that a worker had when its connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostRequest {
    /// Id of its transaction.
    pub(crate) transaction: TransactionId,
    /// Id of its client; `None` = it was a message of a topic, or that is not known.
    pub(crate) client: Option<ClientId>,
    /// The name of the client's program, as it gave it at its login; `None` = it gave none, or it
    /// was gone by then.
    pub(crate) name: Option<String>,
    /// Host, process, address, user and token of the client, as far as they are known; empty = it
    /// was gone by then.
    pub(crate) from: String,
    /// The number that its client gave it; 0 = not known.
    pub(crate) sequence: u32,
    /// How far the worker was with it.
    pub(crate) state: LostState,
    /// For how long the worker had it; of one that it held, since when it had come.
    pub(crate) had: Micros,
    /// Bytes of it that came from its client.
    pub(crate) size: u64,
    /// The first of them, as many as are kept.
    pub(crate) bytes: Bytes,
}

/// How far a worker was with a request when it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostState {
    /// It worked on it.
    Runs,
    /// It worked on it, or had not noticed that nobody waits for it any more.
    Overdue,
    /// It was a conversation without a deadline.
    Parked,
    /// It was sent ahead, and perhaps not begun.
    Held,
    /// An operator's `idle` had taken it away from the worker, which may have worked on it still.
    TakenAway,
}

impl LostState {
    /// The word for it in answers.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Runs => "running",
            Self::Overdue => "overdue",
            Self::Parked => "parked",
            Self::Held => "held",
            Self::TakenAway => "taken_away",
        }
    }
}

/// What a worker had when its connection was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostRequests {
    /// Those that are kept, in the order in which it was given them.
    pub(crate) kept: Vec<LostRequest>,
    /// How many more it had.
    pub(crate) more: usize,
}

/// About how many bytes one of these takes beside its texts.
const EACH: u64 = 256;

impl Death {
    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> u64 {
        let texts = [&self.how, &self.follows].into_iter().chain(&self.tail).chain(&self.killed);
        EACH + texts.map(|text| text.len() as u64).sum::<u64>()
    }
}

impl LostRequests {
    /// About how many bytes they take in memory.
    pub(crate) fn size(&self) -> u64 {
        let size = |lost: &LostRequest| {
            let texts = lost.from.len() + lost.name.as_ref().map_or(0, String::len);
            EACH + (texts + lost.bytes.len()) as u64
        };
        self.kept.iter().map(size).sum()
    }

    /// Drops the bytes of all; what is known of them stays.
    pub(crate) fn drop_bytes(&mut self) {
        self.kept.iter_mut().for_each(|lost| lost.bytes = Bytes::new());
    }
}
