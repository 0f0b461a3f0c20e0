//! Long work: what a command or an event means for thousands of workers, requests or peers is
//! carried out part by part, one part in a step, so that requests are served in between. Here is
//! what is under way, and what waits for it; `work_parts` does it (docs/decisions/0038).

use super::action::Summary;
use super::effect::{Effect, Effects};
use super::keys::ServiceKey;
use super::operator::script_workers::ScriptWorkers;
use super::operator::sought::Seek;
use super::operator_act::OperatorAct;
use super::origin::Origin;
use super::sessions::access::Access;
use bytes::Bytes;
use protocol::{ClientId, ErrorBody, Header, HostName, LinkId, ServiceId, ServiceName, WorkerId};
use std::collections::VecDeque;

/// Most commands that wait until the work before them is done.
pub(crate) const COMMANDS_MAX: usize = 1000;
/// Most of them that came over one connection.
pub(crate) const COMMANDS_EACH_MAX: usize = 100;

/// Work that is under way; what is left of it.
#[derive(Debug)]
pub(crate) enum Work {
    /// The requests that wait for these services get this error.
    FailWaiting {
        /// Those behind the first are still to be looked at.
        services: VecDeque<ServiceKey>,
        /// Each request gets it.
        error: ErrorBody,
    },
    /// The requests that these workers have or hold get this error.
    FailWith {
        /// Those that are left.
        workers: VecDeque<WorkerId>,
        /// Each request gets it.
        error: ErrorBody,
    },
    /// A command for many workers.
    Workers {
        /// Those that are left.
        workers: VecDeque<WorkerId>,
        /// The command.
        verb: WorkerVerb,
        /// Who said it, and when.
        said: OperatorAct,
    },
    /// The broker ends, and these workers with it.
    AskToEnd {
        /// Those that are left.
        workers: VecDeque<WorkerId>,
    },
    /// The broker leaves the workers to the next one, except these.
    EndWithBroker {
        /// Those that are left.
        workers: VecDeque<WorkerId>,
    },
    /// All hosts are told to end what they have.
    EndHosts {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
    /// More waits for a service than was given to its workers in one step.
    Serve {
        /// The service, which may be gone by then.
        service: ServiceKey,
    },
    /// The figures of these services begin anew.
    Reset {
        /// Those that are left.
        services: VecDeque<ServiceKey>,
    },
    /// A heartbeat.
    Beat {
        /// Those that are left to be looked at.
        links: VecDeque<LinkId>,
        /// What for.
        look: Look,
    },
    /// Other tokens are in force: who proved one that is gone, or lacks a right, is closed.
    ShutOut {
        /// The peers that are left to be looked at.
        links: VecDeque<LinkId>,
        /// The rights before.
        old: Box<Access>,
    },
    /// The process of a worker has ended, and these clients showed the secret of its start.
    Revoke {
        /// Those that are left.
        links: VecDeque<LinkId>,
        /// Each of them gets it.
        error: ErrorBody,
    },
    /// A file of commands.
    Script(Box<RunningScript>),
    /// `why` or `cancel`: requests are looked for.
    Seek(Box<Seek>),
    /// `save`: nothing is changed meanwhile.
    Save {
        /// The operator's link.
        link: LinkId,
        /// The header of the command.
        head: Header,
        /// What is written so far.
        script: Box<SavedScript>,
    },
}

/// What is done with each of many workers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WorkerVerb {
    /// `ready`.
    Ready,
    /// `pause`, of which the service or the worker knows already.
    Pause,
    /// It is started if it may be: its host is up.
    Launch,
    /// `start`; one of the saved configuration may have been started by an earlier broker.
    Start {
        /// The saved configuration says it.
        is_saved: bool,
    },
    /// `stop`.
    Stop,
    /// `shutdown` of its socket.
    Shut,
    /// It ends after the requests that it has, with its host or because that is drained.
    Retire,
    /// It ends, because its service was not used for a while.
    Rest,
}

/// Why a heartbeat looks at a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// It owes a sign of life.
    Ping,
    /// It is a client that may have nothing to do.
    Idle {
        /// `idle_ms` as it is set.
        idle_ms: u64,
    },
}

/// A file of commands that is under way. One that fails does not stop the rest.
#[derive(Debug)]
pub(crate) struct RunningScript {
    /// The operator who gave it to `source`, and the command; `None` = it is one of the start.
    pub(crate) requester: Option<(LinkId, Header)>,
    /// Named in facts.
    pub(crate) origin: Origin,
    /// All of it.
    pub(crate) text: String,
    /// The number of the last line that ran.
    pub(crate) number: usize,
    /// Where in the text the next line begins.
    pub(crate) at: usize,
    /// How its commands ended so far.
    pub(crate) summary: Summary,
    /// One text for each that failed, with the number of its line.
    pub(crate) failures: Vec<String>,
    /// The workers that its lines mean.
    pub(crate) workers: ScriptWorkers,
    /// The number of the `Action::Store` that has the last of its changes; 0 = it made none.
    pub(crate) stored: u64,
    /// All lines ran, and that was answered.
    pub(crate) is_done: bool,
}

impl RunningScript {
    /// A script of which no line ran yet.
    pub(crate) fn new(requester: Option<(LinkId, Header)>, origin: Origin, text: String) -> Self {
        Self {
            requester,
            origin,
            text,
            number: 0,
            at: 0,
            summary: Summary::default(),
            failures: Vec::new(),
            workers: ScriptWorkers::default(),
            stored: 0,
            is_done: false,
        }
    }
}

/// The configuration as a script that is being written: what is still to be written.
#[derive(Debug)]
pub(crate) struct SavedScript {
    /// What is written.
    pub(crate) text: String,
    /// The values of variables of processes are written, too.
    pub(crate) is_shown: bool,
    /// Hosts to configure.
    pub(crate) hosts: VecDeque<HostName>,
    /// Then the services.
    pub(crate) services: VecDeque<ServiceId>,
    /// Then the groups of instances.
    pub(crate) groups: VecDeque<ServiceName>,
    /// Then the workers.
    pub(crate) workers: VecDeque<WorkerId>,
    /// Then whether these services and their workers are stopped, paused, started.
    pub(crate) states: VecDeque<ServiceId>,
}

impl SavedScript {
    /// Whether all is written.
    pub(crate) fn is_done(&self) -> bool {
        self.hosts.is_empty()
            && self.services.is_empty()
            && self.groups.is_empty()
            && self.workers.is_empty()
            && self.states.is_empty()
    }
}

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Who asked; it may be gone by then.
    pub(crate) client: ClientId,
    /// Its header.
    pub(crate) head: Header,
    /// Its text.
    pub(crate) body: Bytes,
}

/// What is under way, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct Works {
    /// The first is done first.
    pub(crate) queue: VecDeque<Work>,
    /// In the order in which they came.
    pub(crate) commands: VecDeque<Waiting>,
    /// How much may still be done in this step.
    pub(crate) left: usize,
    /// A part is being done, so that what it begins is done after it. Independent of `left`.
    pub(crate) is_going: bool,
}

impl Works {
    /// Begins work: it is done in this step if it is little and nothing is before it. What takes
    /// longest, a script, comes last.
    pub(crate) fn begin(&mut self, work: Work, effects: &mut Effects) {
        let is_long = |work: &Work| matches!(work, Work::Script(_) | Work::Save { .. });
        let first_long = self.queue.iter().position(is_long);
        let at = first_long.filter(|_| !is_long(&work)).unwrap_or(self.queue.len());
        self.queue.insert(at, work);
        if self.queue.len() == 1 {
            effects.push(Effect::Work);
        }
    }

    /// Whether something is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a script is under way.
    pub(crate) fn has_script(&self) -> bool {
        self.queue.iter().any(|work| matches!(work, Work::Script(_)))
    }

    /// Forgets the commands of a client that is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.commands.retain(|waiting| waiting.client != client);
    }

    /// Whether a command that comes now waits.
    pub(crate) fn holds_commands(&self) -> bool {
        self.is_busy() || !self.commands.is_empty()
    }

    /// Whether a command of this client waits, or runs.
    pub(crate) fn owes_answer(&self, client: ClientId, link: LinkId) -> bool {
        let is_its = |work: &Work| {
            matches!(work, Work::Script(script) if script.requester.is_some_and(|r| r.0 == link))
                || matches!(work, Work::Save { link: of, .. } if *of == link)
                || matches!(work, Work::Seek(seek) if seek.link == link)
        };
        self.commands.iter().any(|waiting| waiting.client == client)
            || self.queue.iter().any(is_its)
    }
}

impl Work {
    /// Whether nothing of it is left.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::FailWaiting { services, .. } | Self::Reset { services } => services.is_empty(),
            Self::FailWith { workers, .. }
            | Self::Workers { workers, .. }
            | Self::AskToEnd { workers }
            | Self::EndWithBroker { workers } => workers.is_empty(),
            Self::EndHosts { .. } | Self::Serve { .. } => true,
            Self::Beat { links, .. } => links.is_empty(),
            Self::ShutOut { links, .. } | Self::Revoke { links, .. } => links.is_empty(),
            Self::Save { script, .. } => script.is_done(),
            Self::Script(script) => script.is_done,
            Self::Seek(seek) => seek.is_done,
        }
    }
}
