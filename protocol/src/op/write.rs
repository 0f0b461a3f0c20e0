//! Writes an [`OpRequest`] as the line that [`parse`](super::parse::parse) reads back. `save`
//! prints such lines, and events quote them.

use super::spec::{
    OpRequest, PoisonWhat, RequestsOf, SendWhat, SettingsOf, ShutdownWhat, Target, WorkerFilter,
};
use super::words::quote;
use std::fmt;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Service(name) => name.fmt(f),
            Self::Worker(id) => id.fmt(f),
        }
    }
}

impl WorkerFilter {
    /// The word of this target in a command.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::All => "all",
        }
    }
}

impl SendWhat {
    /// The word of this list in a command.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reinit => "reinit",
            Self::Status => "status",
        }
    }
}

const fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

struct Maybe<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(value) => write!(f, " {value}"),
        }
    }
}

struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, " {}", quote(word)))
    }
}

impl fmt::Display for OpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.command().row().name;
        f.write_str(name)?;
        match self {
            Self::Status
            | Self::Abort
            | Self::Halt
            | Self::Clients
            | Self::Hosts
            | Self::Reset
            | Self::Reload
            | Self::Requests(RequestsOf::All)
            | Self::Save
            | Self::Services
            | Self::Version
            | Self::Whoami
            | Self::Buckets(None)
            | Self::Preempt(None)
            | Self::Poison(PoisonWhat::List)
            | Self::Settings(SettingsOf::All) => Ok(()),
            Self::Help(topic) => Maybe(topic).fmt(f),
            Self::Block(id) | Self::Unblock(id) | Self::Client(id) | Self::DeleteClient(id) => {
                write!(f, " {id}")
            }
            Self::Clone(id)
            | Self::DeleteWorker(id)
            | Self::Idle(id)
            | Self::Last(id)
            | Self::Worker(id) => write!(f, " {id}"),
            Self::Buckets(Some((num, secs))) => write!(f, " {num} {secs}"),
            Self::ConfigService { id, name, settings } => {
                Maybe(&id.map(|id| format!("#{id}"))).fmt(f)?;
                write!(f, " {name}")?;
                settings.iter().try_for_each(|(s, value)| write!(f, " {}={value}", s.row().name))
            }
            Self::ConfigWorker { id, service, host, path, args } => {
                Maybe(&id.map(|id| format!("#{id}"))).fmt(f)?;
                write!(f, " {service} {host} {}{}", quote(path), Words(args))
            }
            Self::ConfigHost { name, address } => write!(f, " {name} {}", quote(address)),
            Self::ConfigEvents { count, kinds } => write!(f, " {count}{}", Words(kinds)),
            Self::DeleteService(name) => write!(f, " {name}"),
            Self::DeleteHost(name) | Self::Host(name) => write!(f, " {name}"),
            Self::Latency(name) | Self::Load(name) | Self::Queue(name) => Maybe(name).fmt(f),
            Self::ListEvents(count) => Maybe(count).fmt(f),
            Self::Pause(target)
            | Self::Ready(target)
            | Self::Start(target)
            | Self::Stop(target) => {
                write!(f, " {target}")
            }
            Self::Poison(PoisonWhat::Show(number)) => write!(f, " {number}"),
            Self::Poison(PoisonWhat::Clear) => f.write_str(" clear"),
            Self::Preempt(Some(on)) | Self::Reject(on) => write!(f, " {}", on_off(*on)),
            Self::Pri(id, priority) => write!(f, " {id} {priority}"),
            Self::Send(target, what) => write!(f, " {target} {}", what.word()),
            Self::Requests(RequestsOf::Service(name)) => write!(f, " service {name}"),
            Self::Requests(RequestsOf::Client(id)) => write!(f, " client {id}"),
            Self::Requests(RequestsOf::Worker(id)) => write!(f, " worker {id}"),
            Self::Service(id, name) => write!(f, " {id} {name}"),
            Self::Set(setting, value) => write!(f, " {} {value}", setting.row().name),
            Self::Settings(SettingsOf::One(setting)) => write!(f, " {}", setting.row().name),
            Self::Settings(SettingsOf::Service(name)) => write!(f, " service {name}"),
            Self::ServicePage(name) => write!(f, " {name}"),
            Self::Shutdown(ShutdownWhat::All) => f.write_str(" all"),
            Self::Shutdown(ShutdownWhat::Fd(fd)) => write!(f, " {fd}"),
            Self::Source(file) => write!(f, " {}", quote(file)),
            Self::Watch(kinds) => Words(kinds).fmt(f),
            Self::Workers(filter) => write!(f, " {}", filter.word()),
        }
    }
}
