//! Input: everything that can happen to execd, a closed list. `os` notices it.

use super::child::ChildId;
use protocol::bodies::Stream;
use protocol::{ExecStart, ExitCause, Frame, LinkId, PeerGroup, RunId, WireError, WorkerId};

/// Something that happened.
#[expect(missing_docs, reason = "each variant says what happened; the rest are its facts")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection was accepted.
    Opened {
        /// The id of the link from now on.
        link: LinkId,
        /// Why the peer may not use this execd; `None` = it may.
        denied: Option<String>,
        /// Whether the peer must prove a token before any other frame is accepted.
        must_prove: bool,
        peer_group: PeerGroup,
    },
    /// The result of [`Action::Verify`](super::action::Action::Verify): the signature that answers
    /// the proof, or the error text for the broker.
    Proven { link: LinkId, proven: Result<String, String> },
    /// The token that was proved on this link was removed or renewed.
    Revoked { link: LinkId },
    /// A whole frame arrived.
    Frame { link: LinkId, frame: Frame },
    /// Some bytes of a frame arrived, but not all.
    PartialFrame {
        link: LinkId,
        /// Bytes of the frame that are there.
        bytes: usize,
    },
    /// Bytes arrived that are not a frame.
    Garbled { link: LinkId, error: WireError },
    /// A link is gone: closed by the other side, broken, or too slow.
    Closed {
        link: LinkId,
        /// The reason, for the log.
        why: &'static str,
    },
    /// The process for [`Action::Spawn`](super::action::Action::Spawn) was forked; its program does
    /// not run yet. `Spawned` or `SpawnFailed` follows, however late.
    Forked {
        child: ChildId,
        /// Process id, and later also process group.
        pid: u32,
    },
    /// The program of a child runs.
    Spawned {
        child: ChildId,
        /// Process id and process group.
        pid: u32,
    },
    /// The program of a child can't be started.
    SpawnFailed {
        child: ChildId,
        /// Whether the same start fails again until somebody changes something.
        permanent: bool,
        /// What failed, for which path, and the cure.
        text: String,
    },
    /// A child wrote something.
    Output {
        child: ChildId,
        stream: Stream,
        /// The bytes as they were read, not split into lines.
        bytes: Vec<u8>,
    },
    /// This stream of a child has ended: nobody has it open for writing any more.
    OutputEnd { child: ChildId, stream: Stream },
    /// A child ended and was reaped. The rest of its group has been killed.
    Exited { child: ChildId, end: ProcessEnd },
    /// The answer to [`Action::Measure`](super::action::Action::Measure).
    Memory {
        child: ChildId,
        /// The resident size in bytes of its process and of all that descend from it.
        bytes: u64,
    },
    /// The state directory names a process of an earlier execd. All of these come before other
    /// inputs.
    Recorded(RecordedProcess),
    /// The operator or the system asks execd to end; the second time: at once.
    Terminate,
    /// The tick of [`next_deadline`](super::Engine::next_deadline) has come.
    Deadline,
}

/// A process that an earlier execd started and recorded in the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedProcess {
    /// The broker that asked for the start.
    pub broker: String,
    /// The worker that the process is.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The `digest` of the `exec-start`; 0 = not known.
    pub digest: u32,
    /// The process id.
    pub pid: u32,
    /// Whether the process still runs; if not, its end is reported as [`ExitCause::Unknown`].
    pub alive: bool,
    /// Whether it was started under another policy than the one in force.
    pub is_older: bool,
    /// How it is watched and ended.
    pub watched: Watched,
}

/// What an `exec-start` says of how its process is watched and ended, which the next execd has to
/// know, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The number of the signal that asks it to end; 0 = TERM.
    pub stop_signal: i32,
    /// Bytes of memory past which its broker is told; 0 = it is not told.
    pub memory_max: u64,
    /// Bytes of one file in which its output is kept; 0 = nothing is kept.
    pub output_bytes: u64,
    /// How many such files are kept.
    pub output_files: u32,
}

impl Watched {
    /// What this start says.
    pub fn of(start: &ExecStart) -> Self {
        Self {
            stop_signal: start.process.as_ref().and_then(|set| set.stop_signal).unwrap_or(0),
            memory_max: start.memory_max,
            output_bytes: start.output_bytes,
            output_files: start.output_files,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Exit status or signal.
    pub exit_cause: ExitCause,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident size in KiB.
    pub rss_kib_max: u64,
    /// The kernel wrote a core file. Independent of `oom`: that kill writes none.
    pub core: bool,
    /// It was killed by KILL, and the kernel killed a process for want of memory at that time.
    pub oom: bool,
}

impl ProcessEnd {
    /// An end of which nothing else is known.
    pub const fn of(exit_cause: ExitCause) -> Self {
        Self { exit_cause, cpu_ms: 0, rss_kib_max: 0, core: false, oom: false }
    }
}
