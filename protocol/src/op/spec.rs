//! The types of the command language: a row of the table ([`Spec`], [`Arg`], [`Effect`]) and the
//! values of the arguments of a parsed command. This file has data and types only.

pub use super::table::{Command, OpRequest};

use super::shape::Shape;
use super::table::COMMANDS;
use super::words;
use super::worker_settings::WorkerChange;
use crate::ids::{ClientId, TransactionId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::settings::{ServiceSetting, Setting};
use crate::topics::Pattern;
use std::fmt;

/// How much a command may change; rights are granted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Shows something and changes nothing.
    Read,
    /// Changes something that can be changed back.
    Change,
    /// Ends work or the broker.
    Danger,
}

impl Effect {
    /// The word that `help` and roles use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Danger => "danger",
        }
    }
}

/// A change of one setting of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceChange {
    /// A setting of the table.
    Number(ServiceSetting, u64),
    /// The setting `topic`: each message of a topic that matches is a one-way request of the
    /// service; `None` = none is.
    Topic(Option<Pattern>),
    /// A setting of all its workers.
    Worker(WorkerChange),
}

/// What `config worker` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerConfig {
    /// All of a worker: a new one, or one that is there and is so already.
    Whole {
        /// The service that it serves.
        service: ServiceName,
        /// The host that it runs on.
        host: HostName,
        /// What is set of it alone.
        own: Vec<WorkerChange>,
        /// Its program, an absolute path.
        path: String,
        /// Arguments of its program.
        args: Vec<String>,
    },
    /// Settings of a worker that is there.
    Change(Vec<WorkerChange>),
}

impl WorkerConfig {
    /// Whether it sets anything of a process, or takes it back.
    pub const fn has_settings(&self) -> bool {
        match self {
            Self::Whole { own, .. } => !own.is_empty(),
            Self::Change(_) => true,
        }
    }
}

impl fmt::Display for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = |changes: &[WorkerChange], f: &mut fmt::Formatter<'_>| {
            changes.iter().try_for_each(|change| {
                f.write_str(" ")?;
                change.fmt(f)
            })
        };
        match self {
            Self::Whole { service, host, own, path, args } => {
                write!(f, " {service} {host}")?;
                settings(own, f)?;
                write!(f, " {}", words::quote(path))?;
                args.iter().try_for_each(|arg| write!(f, " {}", words::quote(arg)))
            }
            Self::Change(changes) => settings(changes, f),
        }
    }
}

/// The name of the setting `topic`, which is a pattern and no number.
pub const TOPIC_SETTING: &str = "topic";

impl ServiceChange {
    /// The name of the setting.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Number(setting, _) => setting.row().name,
            Self::Topic(_) => TOPIC_SETTING,
            Self::Worker(change) => change.setting().row().name,
        }
    }

    /// Whether one of these is a setting of processes.
    pub fn has_worker(changes: &[Self]) -> bool {
        changes.iter().any(|change| matches!(change, Self::Worker(_)))
    }
}

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(setting, value) => {
                write!(f, "{}={}", setting.row().name, setting.row().written(*value))
            }
            Self::Topic(Some(pattern)) => write!(f, "{TOPIC_SETTING}={pattern}"),
            Self::Topic(None) => write!(f, "{TOPIC_SETTING}="),
            Self::Worker(change) => change.fmt(f),
        }
    }
}

/// What may stand in place of an argument. Only completion uses it; the parser makes its own
/// checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Any word.
    Any,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A service's name, a worker's id, or `all`.
    Target,
    /// A service's name.
    Service,
    /// A worker's id.
    Worker,
    /// A client's id.
    Client,
    /// A host's name.
    Host,
    /// A setting of the broker.
    Setting,
    /// A setting of a service, with `=VALUE`.
    ServiceSetting,
    /// A setting of a worker, with `=VALUE`; there may be several, or none.
    WorkerSetting,
    /// A command of the table.
    Command,
}

/// One argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// The name in the syntax line.
    pub name: &'static str,
    /// The meaning, in one sentence.
    pub text: &'static str,
    /// The words that completion offers.
    pub takes: Takes,
}

/// One row of the table of commands.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The variant of this row.
    pub command: Command,
    /// The first word or words of the command (`config worker`); unique in the table.
    pub name: &'static str,
    /// Every way to write it, exactly as the parser takes it.
    pub usage: &'static str,
    /// The syntax as the manual's help prints it (left column).
    pub syntax: &'static str,
    /// One line of help (right column), word for word the manual's where it has one.
    pub short: &'static str,
    /// Everything about the command, in sentences.
    pub long: &'static str,
    /// The arguments that stand for each of its parameters, in the order of the syntax line.
    pub params: &'static [&'static [Arg]],
    /// The most that the command may change.
    pub effect: Effect,
    /// An example that works on a broker with the manual's two services.
    pub example: &'static str,
    /// The parts of its answer in JSON.
    pub answer: &'static [Shape],
    /// Whether the role `operator:deploy` may give it, whatever it may change.
    pub deploy: bool,
    /// Whether the manual chapter's help has the command. Such commands come first in `help`, in
    /// the manual's order.
    pub manual: bool,
}

/// Most windows that the command `buckets` accepts.
pub const BUCKETS_MAX: u32 = 1440;
/// Longest window that the command `buckets` accepts, in seconds.
pub const BUCKET_SECS_MAX: u32 = 86_400;
/// Most events that `config events` keeps and `listevents` lists.
pub const EVENTS_MAX: u64 = Setting::EventsMax.row().max;

/// Most lines that `logs` shows.
pub const LOG_LINES_MAX: u64 = 10_000;
/// How many lines `logs` shows if nothing is said.
pub const LOG_LINES: u32 = 20;

/// What `logs` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsWanted {
    /// The workers.
    pub target: Target,
    /// How many lines at most.
    pub lines: u32,
    /// Whether it goes on with the lines that are written from now on.
    pub follow: bool,
}
/// Most deaths that `deaths` lists.
pub const DEATHS_LISTED_MAX: u64 = 1000;

/// The workers that `pause`, `ready`, `start`, `stop` and `send` act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every worker of every service.
    All,
    /// The workers of one service, and the service itself.
    Service(ServiceName),
    /// The worker with this id.
    Worker(WorkerId),
    /// The workers that are configured on this host.
    Host(HostName),
}

/// The worker lists that `workers` shows: the manual's three, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFilter {
    /// Workers that can't take a request.
    Lazy,
    /// Workers that can take a request.
    Idle,
    /// Workers that have a request.
    Busy,
    /// The workers of all three lists.
    All,
    /// Those of the built-in services, which stand in no other list.
    Builtin,
}

/// The requests that `requests` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestsOf {
    /// All that are under way.
    All,
    /// Those of one service.
    Service(ServiceName),
    /// Those that one client waits for.
    Client(ClientId),
    /// Those that one worker has or holds.
    Worker(WorkerId),
}

/// The instances that `instances` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstancesOf {
    /// All that are there.
    All,
    /// Those of one name.
    Name(ServiceName),
    /// Those of one group.
    Group(ServiceName),
    /// Those that ended.
    History,
}

/// An instance as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceWanted {
    /// What it is an instance of.
    pub name: ServiceName,
    /// Its id; `None` = the only one of the name.
    pub id: Option<u64>,
    /// The machine that it runs on; `None` = the only one with this id.
    pub machine: Option<String>,
}

/// What `config group` says of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// How many members have to run; `None` = all that are named, or one.
    pub min: Option<u64>,
    /// The names of the instances that are expected.
    pub members: Vec<ServiceName>,
}

/// Most workers that one `scale` or `clone` makes or takes out.
pub const SCALE_STEP_MAX: u64 = 500;
/// Most workers that `scale` takes for a number.
pub const SCALE_MAX: u64 = 1_000_000;

/// Most members that a group may need.
pub const GROUP_MIN_MAX: u64 = 1_000_000;

/// The subscriptions that `subscriptions` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionsOf {
    /// All.
    All,
    /// Those of one client.
    Client(ClientId),
    /// Those of one worker.
    Worker(WorkerId),
    /// Those whose pattern covers this one, or is covered by it.
    Pattern(Pattern),
}

/// A request as an operator names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestName {
    /// By the number that the broker gave it.
    Transaction(TransactionId),
    /// By the client that sent it and the sequence that this gave it.
    Sent(ClientId, u32),
}

/// What `why` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyOf {
    /// The newest of those that are kept, a line each.
    Kept,
    /// One request.
    Request(RequestName),
    /// Those with this trace id in their header.
    Trace([u8; 16]),
}

/// The frame that `send` sends to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendWhat {
    /// The frame `reinit`: read the configuration again.
    Reinit,
    /// The frame `status`: report the state.
    Status,
}

/// The sockets that `shutdown` shuts for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownWhat {
    /// The socket of every worker.
    All,
    /// The socket with this descriptor (column `fd` of the lists).
    Fd(i32),
}

/// What `service` shows or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceWhat {
    /// Shows the page of a service.
    Page(ServiceName),
    /// Attaches a client to another service.
    Move(ClientId, ServiceName),
}

/// The settings that `settings` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsOf {
    /// All settings of the broker.
    All,
    /// One setting of the broker.
    One(Setting),
    /// All settings of this service.
    Service(ServiceName),
}

/// What `poison` shows or does with the requests that were set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonWhat {
    /// Lists them.
    List,
    /// Shows the one with this number, with its bytes.
    Show(u64),
    /// Forgets all of them.
    Clear,
}

/// What `deaths` shows or does with the deaths that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathsWhat {
    /// Lists the newest; at most so many, if a number was given.
    List(Option<u64>),
    /// Forgets all of them.
    Clear,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Service(name) => name.fmt(f),
            Self::Worker(id) => id.fmt(f),
            Self::Host(name) => write!(f, "host {name}"),
        }
    }
}

impl WhyOf {
    /// The requests with this trace id in hexadecimal digits, of which the first may be left out.
    ///
    /// # Errors
    /// The word is none; the text says what is.
    pub(super) fn trace(word: &str) -> Result<Self, String> {
        let is_hex = word.len() <= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(word, 16) {
            Ok(id) if is_hex && id > 0 => Ok(Self::Trace(id.to_be_bytes())),
            Ok(_) | Err(_) => Err(format!(
                "trace id '{}' is not 1 to 32 hexadecimal digits, of which one is not 0",
                words::shown(word)
            )),
        }
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(id) => id.fmt(f),
            Self::Sent(client, sequence) => write!(f, "{client} {sequence}"),
        }
    }
}

impl Spec {
    /// The arguments, in the order of the syntax line.
    pub fn args(&self) -> Vec<Arg> {
        self.params.concat()
    }

    /// The first word of the command's name.
    pub fn first(&self) -> &'static str {
        self.name.split_once(' ').map_or(self.name, |(first, _)| first)
    }

    /// The second word of the command's name, if it has two.
    pub fn second(&self) -> Option<&'static str> {
        self.name.split_once(' ').map(|(_, second)| second)
    }
}

impl Command {
    /// The row of this command.
    pub const fn row(self) -> &'static Spec {
        &COMMANDS[self as usize]
    }
}
