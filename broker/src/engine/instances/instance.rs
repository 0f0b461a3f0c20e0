//! One instance: who announced it, how it is, and what its last beat said.

use super::activity::Activity;
use super::look::Look;
use protocol::instances::{InstanceState, InstanceType, StateName};
use protocol::{HostName, LinkId, Micros, RunId, ServiceName, Tick, WorkerId};
use std::fmt;
use std::sync::Arc;

/// What tells an instance from all others that are there at the same time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceName {
    /// What it is an instance of.
    pub(crate) name: ServiceName,
    /// The number that its program chose.
    pub(crate) id: u64,
    /// The machine that its program runs on, as its address shows it.
    pub(crate) machine: Arc<str>,
}

impl InstanceName {
    /// What comes before all instances of a name with this id, or a greater one.
    pub(super) fn first(name: &ServiceName, id: u64) -> Self {
        Self { name: name.clone(), id, machine: "".into() }
    }
}

/// Who says how an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The program that announced it on this connection.
    Link(LinkId),
    /// The broker: it is a worker.
    Worker {
        /// Its id.
        id: WorkerId,
        /// The host that the worker runs on.
        host: HostName,
        /// The start of its process.
        run: RunId,
    },
}

impl Owner {
    /// Whether it is a worker, and this is its run.
    pub(super) fn is_run(&self, other: RunId) -> bool {
        matches!(self, Self::Worker { run, .. } if *run == other)
    }

    /// The connection that announced it.
    pub(crate) const fn link(&self) -> Option<LinkId> {
        match self {
            Self::Link(link) => Some(*link),
            Self::Worker { .. } => None,
        }
    }
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It goes on, in the state that its program said last.
    Alive(InstanceState),
    /// Nothing was heard of it for its time-out; a beat brings it back.
    TimedOut {
        /// The state that its program said last.
        state: InstanceState,
    },
}

impl Condition {
    /// The state that its program said last.
    pub(crate) const fn state(self) -> InstanceState {
        match self {
            Self::Alive(state) | Self::TimedOut { state } => state,
        }
    }

    /// Whether nothing was heard of it for its time-out.
    pub(crate) const fn is_timed_out(self) -> bool {
        matches!(self, Self::TimedOut { .. })
    }

    /// Whether it does its work: it runs, or is in a state of its own.
    pub(crate) const fn is_running(self) -> bool {
        matches!(self, Self::Alive(InstanceState::Running | InstanceState::Own(_)))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive(state) => state.fmt(f),
            Self::TimedOut { .. } => f.pad("timed out"),
        }
    }
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Its program withdrew it in order.
    Withdrawn,
    /// Its program withdrew it because of a failure.
    Failed,
    /// Its connection was closed in order: the program had logged out.
    Closed,
    /// Its connection ended in another way.
    Lost,
    /// Its program announced it anew on another connection.
    Displaced,
}

impl EndReason {
    /// The word for it in messages and lists.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Failed => "failed",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Displaced => "displaced",
        }
    }
}

impl EndReason {
    /// Whether such an end of an instance that was so is a failure: its group lacks it.
    pub(super) const fn is_failure(self, was: Condition) -> bool {
        match self {
            Self::Withdrawn | Self::Closed | Self::Displaced => false,
            Self::Failed => true,
            Self::Lost => matches!(was.state(), InstanceState::Running | InstanceState::Own(_)),
        }
    }
}

/// What is noted of each instance beside what was announced, in bytes.
const NOTED_BYTES: usize = 384;
/// The same of each group that it names.
const GROUP_BYTES: usize = 128;
/// The same of each address, line of meta and name of a state.
const LINE_BYTES: usize = 32;

/// An instance that has not ended.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: InstanceName,
    /// Who says how it is.
    pub(crate) owner: Owner,
    /// Numbers all announcements.
    pub(crate) incarnation: u64,
    pub(crate) kind: InstanceType,
    /// The groups that its program named.
    pub(crate) named_groups: Vec<ServiceName>,
    /// All groups that it is in: those, and those that expect it.
    pub(crate) groups: Vec<ServiceName>,
    pub(crate) addresses: Vec<String>,
    pub(crate) meta: Vec<String>,
    pub(crate) state_names: Vec<StateName>,
    /// Without a sign of life for so long it is timed out.
    pub(crate) timeout: Micros,
    /// With the same checkpoint for so long it is stalled; 0 = never.
    pub(crate) stalled: Micros,
    pub(crate) condition: Condition,
    /// It has work, and its checkpoint does not move. Valid in `Alive`, while it runs.
    pub(crate) is_stalled: bool,
    /// What its program said beside the state.
    pub(crate) text: String,
    /// When it was announced.
    pub(crate) began: Tick,
    /// When its condition changed last.
    pub(crate) since: Tick,
    pub(crate) checkpoint: u64,
    /// When its checkpoint changed last, or it had nothing to do.
    pub(crate) moved: Activity,
    /// When a beat or a change of its state came last.
    pub(crate) heard: Activity,
    /// The same as a tick, to be shown.
    pub(crate) heard_at: Tick,
    /// When it is looked at next. Valid in `Alive`.
    pub(crate) look: Option<Look>,
}

impl Instance {
    /// Where it runs: the machine, or the host of a worker.
    pub(crate) fn machine(&self) -> &str {
        match &self.owner {
            Owner::Link(_) => &self.name.machine,
            Owner::Worker { host, .. } => host.as_str(),
        }
    }

    /// How many bytes its announcement takes, with what is noted beside it. They stay the same.
    pub(super) fn bytes(&self) -> u64 {
        let groups = self.named_groups.iter().map(|group| GROUP_BYTES + group.as_str().len());
        let state_names = self.state_names.iter().map(|name| &name.text);
        let lines = self.addresses.iter().chain(&self.meta).chain(state_names);
        let lines = lines.map(|line| LINE_BYTES + line.len());
        let name = NOTED_BYTES + self.name.name.as_str().len();
        (name + groups.chain(lines).sum::<usize>()) as u64
    }

    /// How many messages a change of it is.
    pub(super) fn messages(&self) -> usize {
        self.groups.len().max(1)
    }

    /// What its program calls its state, if that is one of its own and has a name.
    pub(crate) fn state_name(&self) -> Option<&str> {
        let InstanceState::Own(number) = self.condition.state() else { return None };
        let name = self.state_names.iter().find(|name| name.number == number)?;
        Some(&name.text)
    }
}
