//! Input: everything that can happen to execd, a closed list. Not how it was noticed: `os` knows.

use super::child::ChildId;
use protocol::bodies::{Ending, Stream};
use protocol::decode::WireError;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::peer_group::PeerGroup;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection was accepted.
    Opened {
        /// Its name from now on.
        link: LinkId,
        /// Why whoever stands at its other end may not use this execd, if so.
        denied: Option<String>,
        /// Whether it must prove a token before it is listened to.
        must_prove: bool,
        /// From where it comes.
        peer_group: PeerGroup,
    },
    /// What [`Action::Verify`](super::action::Action::Verify) found: the signature that answers the
    /// proof, or what the broker is told.
    Proven {
        /// On which link.
        link: LinkId,
        /// What was found.
        proven: Result<String, String>,
    },
    /// The token that was proved there is gone, or was renewed.
    Revoked {
        /// On which link.
        link: LinkId,
    },
    /// A whole frame arrived.
    Frame {
        /// On which link.
        link: LinkId,
        /// What arrived.
        frame: Frame,
    },
    /// Bytes of a frame arrived that is not whole yet.
    PartialFrame {
        /// On which link.
        link: LinkId,
        /// How many there are of it.
        bytes: usize,
    },
    /// Bytes arrived that are no frame.
    Garbled {
        /// On which link.
        link: LinkId,
        /// What is wrong with them.
        error: WireError,
    },
    /// A link is gone: closed by the other side, broken, or too slow.
    Closed {
        /// Which one.
        link: LinkId,
        /// Why, for the log.
        why: &'static str,
    },
    /// The process that [`Action::Spawn`](super::action::Action::Spawn) asked for is there; its
    /// program does not run yet. `Spawned` or `SpawnFailed` follows, however late.
    Forked {
        /// Which child.
        child: ChildId,
        /// Its process id, which will also be its process group.
        pid: u32,
    },
    /// Its program runs.
    Spawned {
        /// Which child.
        child: ChildId,
        /// Its process id, which is also its process group.
        pid: u32,
    },
    /// It can't be started.
    SpawnFailed {
        /// Which child.
        child: ChildId,
        /// Whether trying again without a change is pointless.
        lasting: bool,
        /// What, which path, and the cure.
        text: String,
    },
    /// A child wrote something.
    Output {
        /// Which child.
        child: ChildId,
        /// On which stream.
        stream: Stream,
        /// The bytes, as read.
        bytes: Vec<u8>,
    },
    /// Nobody can write to this stream of a child any more.
    OutputEnd {
        /// Which child.
        child: ChildId,
        /// Which stream.
        stream: Stream,
    },
    /// A child ended and was reaped; what was left of its group has been killed.
    Exited {
        /// Which child.
        child: ChildId,
        /// How it ended.
        ending: Ending,
        /// Processor time it used, in milliseconds.
        cpu_ms: u64,
        /// Its largest resident size.
        rss_kib_max: u64,
    },
    /// The state directory names a process of an earlier execd. Comes before anything else.
    Recorded(RecordedProcess),
    /// The operator or the system asks execd to end; a second time: at once.
    Terminate,
    /// The tick of [`next_deadline`](super::Engine::next_deadline) was reached.
    Deadline,
}

/// A process that an earlier execd started and recorded in the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedProcess {
    /// For which broker.
    pub broker: String,
    /// For which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// What its start said of the worker's configuration; 0 = not known.
    pub digest: u32,
    /// Its process id.
    pub pid: u32,
    /// Whether it still runs; if not, its end is reported as [`Ending::Unknown`].
    pub alive: bool,
    /// It was started under another policy than the one in force.
    pub is_older: bool,
}
