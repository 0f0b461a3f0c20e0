//! The types of the command language: a row of the table ([`Spec`], [`Arg`], [`Effect`]) and a
//! command understood ([`OpRequest`]). Data and types only.

use crate::ids::{ClientId, ServiceId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::op::table::COMMANDS;
use crate::settings::{ServiceSetting, Setting};

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Shows something.
    Read,
    /// Changes something that can be changed back.
    Change,
    /// Ends work or the broker.
    Danger,
}

impl Effect {
    /// The word in help.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Danger => "danger",
        }
    }
}

/// What may stand in place of an argument, for completion. Not a check: the parser does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Anything.
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
    /// Its name in the syntax line.
    pub name: &'static str,
    /// What it is, one sentence.
    pub text: &'static str,
    /// What may stand there.
    pub takes: Takes,
}

/// One row of the table of commands.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which command.
    pub command: Command,
    /// Its key: the first word or words (`config worker`), unique.
    pub name: &'static str,
    /// Every way to write it, exactly as the parser takes it.
    pub usage: &'static str,
    /// The syntax as the manual's help prints it (left column).
    pub syntax: &'static str,
    /// One line of help (right column), word for word the manual's where it has one.
    pub short: &'static str,
    /// Everything about it, sentences.
    pub long: &'static str,
    /// Its arguments in order.
    pub args: &'static [Arg],
    /// What it may do.
    pub effect: Effect,
    /// An example that works on a broker with the manual's two services.
    pub example: &'static str,
    /// Whether the manual chapter's help has it (then it stands in `help`'s first part, in that
    /// order).
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
    Save,
    Set,
    Settings,
    Source,
    Version,
    Watch,
    Whoami,
}

/// Most windows that `buckets` may be set to.
pub const BUCKETS_MAX: u32 = 1440;
/// Longest window that `buckets` may be set to, in seconds.
pub const BUCKET_SECS_MAX: u32 = 86_400;
/// Most events that `config events` remembers and `listevents` lists.
pub const EVENTS_MAX: u64 = Setting::EventsMax.row().max;

/// What `pause`, `ready`, `start`, `stop` and `send` are aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every worker of every service.
    All,
    /// The workers of one service (and the service itself).
    Service(ServiceName),
    /// One worker.
    Worker(WorkerId),
}

/// Which of the three lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFilter {
    /// Can't take requests.
    Lazy,
    /// Can take one.
    Idle,
    /// Has one.
    Busy,
    /// All three.
    All,
}

/// What `send` sends to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendWhat {
    /// Read your configuration again.
    Reinit,
    /// Tell how you are.
    Status,
}

/// What `shutdown` shuts for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownWhat {
    /// Every worker's socket.
    All,
    /// The socket with this descriptor (column `fd`).
    Fd(i32),
}

/// A command, understood. One variant a row of the table (`pause`/`ready`/… with their targets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpRequest {
    /// Blank: the status page.
    Status,
    /// `help [COMMAND]`.
    Help(Option<String>),
    /// `abort`: core file.
    Abort,
    /// `halt`: orderly end with status 1, as in the manual.
    Halt,
    /// `block CLIENT`.
    Block(ClientId),
    /// `unblock CLIENT`.
    Unblock(ClientId),
    /// `buckets [NUM SECS]`; without arguments it shows.
    Buckets(Option<(u32, u32)>),
    /// `client ID`.
    Client(ClientId),
    /// `clients`.
    Clients,
    /// `clone WORKER`.
    Clone(WorkerId),
    /// `config service [#ID] NAME [SETTING=VALUE]…`; of a service that exists it changes the
    /// settings.
    ConfigService {
        /// Id to give it (from `save`).
        id: Option<ServiceId>,
        /// Its name.
        name: ServiceName,
        /// Settings.
        settings: Vec<(ServiceSetting, u64)>,
    },
    /// `config worker [#ID] SERVICE HOST PATH [ARG]…`.
    ConfigWorker {
        /// Id to give it (from `save`).
        id: Option<WorkerId>,
        /// Its service.
        service: ServiceName,
        /// Its host.
        host: HostName,
        /// Its program.
        path: String,
        /// Its arguments after `ISDARGMAX`.
        args: Vec<String>,
    },
    /// `config host NAME ADDR:PORT` (or `unix:PATH`).
    ConfigHost {
        /// What it is called here.
        name: HostName,
        /// Where its execd listens.
        address: String,
    },
    /// `config events N [KIND]…`.
    ConfigEvents {
        /// How many to remember.
        count: u64,
        /// Names of the kinds to remember; empty = all.
        kinds: Vec<String>,
    },
    /// `delete worker ID`.
    DeleteWorker(WorkerId),
    /// `delete client ID`.
    DeleteClient(ClientId),
    /// `delete service NAME`.
    DeleteService(ServiceName),
    /// `delete host NAME`.
    DeleteHost(HostName),
    /// `host NAME`.
    Host(HostName),
    /// `hosts`.
    Hosts,
    /// `idle WORKER`.
    Idle(WorkerId),
    /// `last WORKER`.
    Last(WorkerId),
    /// `latency [SERVICE]`.
    Latency(Option<ServiceName>),
    /// `load [SERVICE]`.
    Load(Option<ServiceName>),
    /// `listevents [N]`.
    ListEvents(Option<u64>),
    /// `pause SERVICE|WORKER|all`.
    Pause(Target),
    /// `poison [N | clear]`.
    Poison(PoisonWhat),
    /// `preempt [on|off]`.
    Preempt(Option<bool>),
    /// `pri CLIENT N`.
    Pri(ClientId, u8),
    /// `queue [SERVICE]`.
    Queue(Option<ServiceName>),
    /// `ready SERVICE|WORKER|all`.
    Ready(Target),
    /// `reject [on|off]`; without an argument it toggles nothing and switches on, as in the manual.
    Reject(bool),
    /// `reload`: the token file.
    Reload,
    /// `reset`.
    Reset,
    /// `save`: the configuration as a script.
    Save,
    /// `send WORKER|SERVICE|all reinit|status`.
    Send(Target, SendWhat),
    /// `service CLIENT NEWSERVICE`.
    Service(ClientId, ServiceName),
    /// `services`.
    Services,
    /// `set NAME VALUE` or `set NAME=VALUE`.
    Set(Setting, u64),
    /// `service NAME`: its page.
    ServicePage(ServiceName),
    /// `settings [NAME | SERVICE]`.
    Settings(SettingsOf),
    /// `shutdown FD|all`.
    Shutdown(ShutdownWhat),
    /// `source FILE`: the broker reads a script.
    Source(String),
    /// `start SERVICE|WORKER|all`.
    Start(Target),
    /// `stop SERVICE|WORKER|all`.
    Stop(Target),
    /// `version`.
    Version,
    /// `watch [KIND]…`.
    Watch(Vec<String>),
    /// `whoami`.
    Whoami,
    /// `worker ID`.
    Worker(WorkerId),
    /// `workers [lazy|idle|busy|all]`.
    Workers(WorkerFilter),
}

/// What `settings` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsOf {
    /// All of the broker's.
    All,
    /// One of the broker's.
    One(Setting),
    /// Those of a service.
    Service(ServiceName),
}

/// What `poison` shows or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonWhat {
    /// The list.
    List,
    /// One of it, with its bytes.
    Show(u64),
    /// Forget all.
    Clear,
}

impl Spec {
    /// The first word of the name.
    pub fn first(&self) -> &'static str {
        self.name.split_once(' ').map_or(self.name, |(first, _)| first)
    }

    /// The second word of the name, if it has two.
    pub fn second(&self) -> Option<&'static str> {
        self.name.split_once(' ').map(|(_, second)| second)
    }
}

impl Command {
    /// The row of the table.
    pub const fn row(self) -> &'static Spec {
        &COMMANDS[self as usize]
    }
}

impl OpRequest {
    /// Which command this is.
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

    /// What it may do. A command that shows when it has no argument only reads then.
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
