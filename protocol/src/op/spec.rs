//! The types of the command language: a row of the table ([`Spec`], [`Arg`], [`Effect`]) and a
//! parsed command ([`OpRequest`]). This file has data and types only.

use crate::ids::{ClientId, ServiceId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::op::table::COMMANDS;
use crate::settings::{ServiceSetting, Setting};

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
    /// The arguments, in the order of the syntax line.
    pub args: &'static [Arg],
    /// The most that the command may change.
    pub effect: Effect,
    /// An example that works on a broker with the manual's two services.
    pub example: &'static str,
    /// Whether the manual chapter's help has the command. Such commands come first in `help`, in
    /// the manual's order.
    pub manual: bool,
}

/// Every command, one for each row of the table, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is a row of the table, which says all about it")]
pub enum Command {
    Abort,
    Block,
    Buckets,
    Client,
    Clients,
    Clone,
    ConfigEvents,
    DeleteWorker,
    DeleteClient,
    Halt,
    Idle,
    ListEvents,
    Pause,
    Services,
    Preempt,
    Pri,
    Ready,
    Reject,
    Reset,
    Send,
    Service,
    Shutdown,
    Start,
    Stop,
    Unblock,
    Worker,
    Workers,
    Status,
    ConfigHost,
    ConfigService,
    ConfigWorker,
    DeleteHost,
    DeleteService,
    Help,
    Host,
    Hosts,
    Last,
    Latency,
    Load,
    Poison,
    Queue,
    Reload,
    Requests,
    Save,
    Set,
    Settings,
    Source,
    Version,
    Watch,
    Whoami,
}

/// Most windows that the command `buckets` accepts.
pub const BUCKETS_MAX: u32 = 1440;
/// Longest window that the command `buckets` accepts, in seconds.
pub const BUCKET_SECS_MAX: u32 = 86_400;
/// Most events that `config events` keeps and `listevents` lists.
pub const EVENTS_MAX: u64 = Setting::EventsMax.row().max;

/// The workers that `pause`, `ready`, `start`, `stop` and `send` act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every worker of every service.
    All,
    /// The workers of one service, and the service itself.
    Service(ServiceName),
    /// The worker with this id.
    Worker(WorkerId),
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

/// A parsed command: one variant for each row of the table, with the arguments as its fields.
#[expect(missing_docs, reason = "the row of the table says what each means and takes")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpRequest {
    /// A blank line: the status page.
    Status,
    Help(Option<String>),
    /// `abort`: ends the broker with a core file.
    Abort,
    /// `halt`: ends the broker in order with status 1, as in the manual.
    Halt,
    Block(ClientId),
    Unblock(ClientId),
    /// `buckets [NUM SECS]`; without arguments it shows the windows.
    Buckets(Option<(u32, u32)>),
    Client(ClientId),
    Clients,
    Clone(WorkerId),
    /// `config service [#ID] NAME [SETTING=VALUE]…`. For a service that exists it changes the
    /// settings.
    ConfigService {
        /// The id to assign, as `save` writes it; `None` = the next free one.
        id: Option<ServiceId>,
        name: ServiceName,
        settings: Vec<(ServiceSetting, u64)>,
    },
    ConfigWorker {
        /// The id to assign, as `save` writes it; `None` = the next free one.
        id: Option<WorkerId>,
        service: ServiceName,
        host: HostName,
        /// Absolute path of the program on the host.
        path: String,
        /// Arguments of the application, those from `argv[ISDARGMAX]` on.
        args: Vec<String>,
    },
    /// `config host NAME ADDR:PORT` (or `unix:PATH`).
    ConfigHost {
        name: HostName,
        /// The endpoint where the host's execd listens.
        address: String,
    },
    ConfigEvents {
        /// How many events to keep; at most [`EVENTS_MAX`].
        count: u64,
        /// Names of the kinds to keep; empty = all kinds.
        kinds: Vec<String>,
    },
    DeleteWorker(WorkerId),
    DeleteClient(ClientId),
    DeleteService(ServiceName),
    DeleteHost(HostName),
    Host(HostName),
    Hosts,
    Idle(WorkerId),
    Last(WorkerId),
    Latency(Option<ServiceName>),
    Load(Option<ServiceName>),
    ListEvents(Option<u64>),
    Pause(Target),
    Poison(PoisonWhat),
    Preempt(Option<bool>),
    Pri(ClientId, u8),
    Queue(Option<ServiceName>),
    Requests(RequestsOf),
    Ready(Target),
    /// `reject [on|off]`. Without an argument it means `on`, as in the manual.
    Reject(bool),
    /// `reload`: reads the token file again.
    Reload,
    Reset,
    /// `save`: prints the configuration as a script.
    Save,
    Send(Target, SendWhat),
    Service(ClientId, ServiceName),
    Services,
    /// `set NAME VALUE` or `set NAME=VALUE`.
    Set(Setting, u64),
    /// `service NAME`: shows the page of a service.
    ServicePage(ServiceName),
    Settings(SettingsOf),
    Shutdown(ShutdownWhat),
    /// `source FILE`: the broker runs the commands of a script.
    Source(String),
    Start(Target),
    Stop(Target),
    Version,
    Watch(Vec<String>),
    Whoami,
    Worker(WorkerId),
    Workers(WorkerFilter),
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

impl Spec {
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

impl OpRequest {
    /// The command that this is a request for.
    pub const fn command(&self) -> Command {
        match self {
            Self::Status => Command::Status,
            Self::Help(_) => Command::Help,
            Self::Abort => Command::Abort,
            Self::Halt => Command::Halt,
            Self::Block(_) => Command::Block,
            Self::Unblock(_) => Command::Unblock,
            Self::Buckets(_) => Command::Buckets,
            Self::Client(_) => Command::Client,
            Self::Clients => Command::Clients,
            Self::Clone(_) => Command::Clone,
            Self::ConfigService { .. } => Command::ConfigService,
            Self::ConfigWorker { .. } => Command::ConfigWorker,
            Self::ConfigHost { .. } => Command::ConfigHost,
            Self::ConfigEvents { .. } => Command::ConfigEvents,
            Self::DeleteWorker(_) => Command::DeleteWorker,
            Self::DeleteClient(_) => Command::DeleteClient,
            Self::DeleteService(_) => Command::DeleteService,
            Self::DeleteHost(_) => Command::DeleteHost,
            Self::Host(_) => Command::Host,
            Self::Hosts => Command::Hosts,
            Self::Idle(_) => Command::Idle,
            Self::Last(_) => Command::Last,
            Self::Latency(_) => Command::Latency,
            Self::Load(_) => Command::Load,
            Self::ListEvents(_) => Command::ListEvents,
            Self::Pause(_) => Command::Pause,
            Self::Poison(_) => Command::Poison,
            Self::Preempt(_) => Command::Preempt,
            Self::Pri(..) => Command::Pri,
            Self::Queue(_) => Command::Queue,
            Self::Requests(_) => Command::Requests,
            Self::Ready(_) => Command::Ready,
            Self::Reject(_) => Command::Reject,
            Self::Reload => Command::Reload,
            Self::Reset => Command::Reset,
            Self::Save => Command::Save,
            Self::Send(..) => Command::Send,
            Self::Service(..) | Self::ServicePage(_) => Command::Service,
            Self::Services => Command::Services,
            Self::Set(..) => Command::Set,
            Self::Settings(_) => Command::Settings,
            Self::Shutdown(_) => Command::Shutdown,
            Self::Source(_) => Command::Source,
            Self::Start(_) => Command::Start,
            Self::Stop(_) => Command::Stop,
            Self::Version => Command::Version,
            Self::Watch(_) => Command::Watch,
            Self::Whoami => Command::Whoami,
            Self::Worker(_) => Command::Worker,
            Self::Workers(_) => Command::Workers,
        }
    }

    /// The most that this request may change. A command that only shows something without an
    /// argument has the effect `Read` then.
    pub const fn effect(&self) -> Effect {
        let only_shows = matches!(
            self,
            Self::Buckets(None)
                | Self::Preempt(None)
                | Self::ServicePage(_)
                | Self::Poison(PoisonWhat::List | PoisonWhat::Show(_))
        );
        if only_shows { Effect::Read } else { self.command().row().effect }
    }
}
