//! TABLE of the parameters of commands: what each is called and means, how it is read and how it is
//! written. The rows of `table` name them; `args` reads the words.

use super::args::Args;
use super::events::EventFilter;
use super::parse::OpError;
use super::spec::{
    Arg, DeathsWhat, EVENTS_MAX, GroupMembers, InstanceWanted, InstancesOf, LOG_LINES, LogsWanted,
    PoisonWhat, RequestName, RequestsOf, SCALE_STEP_MAX, SendWhat, ServiceChange, ServiceWhat,
    SettingsOf, ShutdownWhat, SubscriptionsOf, Takes, Target, WhyOf, WorkerConfig, WorkerFilter,
};
use super::words::quote;
use crate::ids::{ClientId, ServiceId, TransactionId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::settings::Setting;
use crate::topics::Pattern;
use std::fmt::{Display, Formatter, Result as Written};

/// What stands for one value of a command.
pub(super) struct Param<T: 'static> {
    /// Its arguments in help and completion; most have one.
    pub(super) args: &'static [Arg],
    pub(super) read: fn(&mut Args<'_>) -> Result<T, OpError>,
    /// Writes the value, with a blank before each word.
    pub(super) write: fn(&T, &mut Formatter<'_>) -> Written,
}

const fn arg(name: &'static str, takes: Takes, text: &'static str) -> Arg {
    Arg { name, text, takes }
}

fn plain<T: Display>(value: &T, f: &mut Formatter<'_>) -> Written {
    write!(f, " {value}")
}

fn maybe<T: Display>(value: &Option<T>, f: &mut Formatter<'_>) -> Written {
    value.iter().try_for_each(|value| plain(value, f))
}

fn new_id<T: Display>(id: &Option<T>, f: &mut Formatter<'_>) -> Written {
    id.iter().try_for_each(|id| write!(f, " #{id}"))
}

const ONE_SERVICE: Arg =
    arg("service", Takes::Service, "a service's name, column 'service' of 'services'");
const ONE_HOST: Arg =
    arg("host", Takes::Host, "a host's name, column 'hostname' of 'hosts'; localhost is built in");
const ONE_CLIENT: Arg =
    arg("clientid", Takes::Client, "a client's id, column 'client id' of 'clients'");

const ONE_REQUEST: Arg = arg(
    "transaction",
    Takes::Any,
    "a request's number, column 'transaction' of 'requests'; or the id of its client, and",
);
const ITS_SEQUENCE: Arg =
    arg("sequence", Takes::Any, "the number that its client gave it, after the client's id");

const NEW_SERVICE: Arg = arg("newservice", Takes::Service, "the service it is to be attached to");

/// The words of a choice, and what each means.
type Words<T> = &'static [(&'static str, T)];
const SWITCH: Words<bool> = &[("on", true), ("off", false)];
const KEPT: Words<bool> = &[("keep", true)];
const FILTERS: Words<WorkerFilter> = &[
    ("lazy", WorkerFilter::Lazy),
    ("idle", WorkerFilter::Idle),
    ("busy", WorkerFilter::Busy),
    ("all", WorkerFilter::All),
    ("builtin", WorkerFilter::Builtin),
];
const BUILT_IN: Words<bool> = &[("builtin", true)];
const SENDS: Words<SendWhat> = &[("reinit", SendWhat::Reinit), ("status", SendWhat::Status)];
/// The same as the manual spells it.
const LONG_SENDS: Words<SendWhat> =
    &[("command:reinit", SendWhat::Reinit), ("command:status", SendWhat::Status)];

fn chosen<T: PartialEq>(words: Words<T>, value: &T, f: &mut Formatter<'_>) -> Written {
    let word = words.iter().find(|(_, meant)| meant == value);
    word.map_or(Ok(()), |(word, _)| plain(word, f))
}

macro_rules! params {
    ($(
        $name:ident: $type:ty = [$($arg:expr),* $(,)?], |$args:ident| $read:expr, $write:expr;
    )*) => {
        $(pub(super) const $name: Param<$type> =
            Param { args: &[$($arg),*], read: |$args| $read, write: $write };)*
    };
}

params! {
    ADDRESS: String = [
            arg("address", Takes::Any, "where its isdexecd listens: ADDR, ADDR:PORT (5502 if it has none), IPV6, [IPV6]:PORT or unix:PATH; tls:// before it = over TLS"),
        ],
        |args| args.address(), |address, f| plain(&quote(address), f);
    ARGUMENTS: Vec<String> = [arg("argument", Takes::Any, "arguments of the program")],
        |args| Ok(args.rest()), |words, f| words.iter().try_for_each(|word| plain(&quote(word), f));
    BUCKETS: Option<(u32, u32)> = [
            arg("num", Takes::Any, "number of buckets, 1 to 1440"),
            arg("secs", Takes::Any, "seconds of one bucket, 1 to 86400"),
        ],
        |args| args.buckets(),
        |size, f| size.iter().try_for_each(|(num, secs)| write!(f, " {num} {secs}"));
    CLIENT: ClientId = [ONE_CLIENT], |args| args.client(), plain;
    CLONE_COUNT: Option<u64> = [arg("n", Takes::Any, "how many; none = one, and its answer is the manual's")],
        |args| args.maybe(|args| args.number("n", "number of clones", 1, SCALE_STEP_MAX)), maybe;
    DEATH: u64 = [arg("deathid", Takes::Any, "a number of 'deaths', column 'death'")],
        |args| args.number("deathid", "number of a death", 1, u64::MAX), plain;
    DEATHS_WHAT: DeathsWhat = [
            arg("n|clear", Takes::Words(&["clear"]), "at most so many, or clear; none = the newest 100"),
        ],
        |args| args.deaths_what(),
        |what, f| match what {
            DeathsWhat::List(None) => Ok(()),
            DeathsWhat::List(Some(count)) => plain(count, f),
            DeathsWhat::Clear => plain(&"clear", f),
        };
    EVENTS_KEPT: u64 = [arg("n", Takes::Any, "how many events, 0 to 1000000")],
        |args| args.number("n", "number of events", 0, EVENTS_MAX), plain;
    EVENTS_LISTED: EventFilter = [
            arg("n", Takes::Any, "at most so many; none = all that are remembered"),
            arg("kind=K", Takes::Any, "a kind of event, as it prints them; several = any of these"),
            arg("service=S", Takes::Any, "those about this service"),
            arg("worker=N", Takes::Any, "those about this worker"),
            arg("client=N", Takes::Any, "those about this client"),
            arg("host=H", Takes::Any, "those about this host"),
            arg("since=T", Takes::Any, "those since then: 10m ago (ms, s, m, h, d), or at 2026-01-31T23:59:59"),
        ],
        |args| args.events_listed(), |filter, f| write!(f, "{filter}");
    FILE: String = [arg("file", Takes::Any, "a path on the broker's machine")],
        |args| args.file(), |file, f| plain(&quote(file), f);
    GROUP: ServiceName = [
            arg("name", Takes::Any, "a group's name, column 'group' of 'groups'; each service is one"),
        ],
        |args| args.group("name"), plain;
    GROUP_MEMBERS: GroupMembers = [
            arg("min=n", Takes::Any, "how many members have to run; none = all that are named, or one"),
            arg("member", Takes::Any, "the name of instances that are expected, whatever groups they name themselves"),
        ],
        |args| args.group_members(),
        |group, f| {
            group.min.iter().try_for_each(|min| write!(f, " min={min}"))?;
            group.members.iter().try_for_each(|member| plain(member, f))
        };
    HOST: HostName = [ONE_HOST],
        |args| args.host("host"), plain;
    HOST_NAME: HostName = [arg("name", Takes::Host, "what the host is called here")],
        |args| args.host("name"), plain;
    INSTANCE: InstanceWanted = [
            arg("name", Takes::Any, "what it is an instance of, column 'instance' of 'instances'"),
            arg("id", Takes::Any, "its id; none = the only one of the name"),
            arg("machine", Takes::Any, "the machine that it runs on; none = the only one with this id"),
        ],
        |args| args.instance_wanted(),
        |wanted, f| {
            plain(&wanted.name, f)?;
            maybe(&wanted.id, f)?;
            wanted.machine.iter().try_for_each(|machine| plain(&quote(machine), f))
        };
    INSTANCES_OF: InstancesOf = [
            arg("name", Takes::Any, "what they are instances of, 'group' and a group's name, or 'history'; 'all' or none = all"),
        ],
        |args| Ok(args.maybe(Args::instances_of)?.unwrap_or(InstancesOf::All)),
        |of, f| match of {
            InstancesOf::All => Ok(()),
            InstancesOf::Name(name) => write!(f, " name {name}"),
            InstancesOf::Group(name) => write!(f, " group {name}"),
            InstancesOf::History => plain(&"history", f),
        };
    ITS_TRANSACTION: Option<TransactionId> = [
            arg("transaction", Takes::Any, "one that it has, as 'requests worker ID' lists them; none = all"),
        ],
        |args| {
            let read = |args: &mut Args<'_>| args.number("transaction", "number", 1, u64::MAX);
            Ok(args.maybe(read)?.map(TransactionId))
        },
        maybe;
    KEEP: bool = [
            arg("keep", Takes::Words(&["keep"]), "leave the workers to the next broker; none = they end, too"),
        ],
        |args| {
            let word = args.maybe(|args| args.choice("keep", "option", KEPT))?;
            Ok(word.unwrap_or(false))
        },
        |keep, f| chosen(KEPT, keep, f);
    KINDS_KEPT: Vec<String> = [
            arg("kind", Takes::Any, "a kind of event to remember, as 'listevents' prints it; none = all kinds"),
        ],
        |args| args.kinds(), ARGUMENTS.write;
    EVENTS_WATCHED: EventFilter = [
            arg("kind", Takes::Any, "a kind of event to watch, as 'listevents' prints it; none = all kinds"),
            arg("service=S", Takes::Any, "those about this service"),
            arg("worker=N", Takes::Any, "those about this worker"),
            arg("client=N", Takes::Any, "those about this client"),
            arg("host=H", Takes::Any, "those about this host"),
        ],
        |args| args.events_watched(), |filter, f| write!(f, "{filter}");
    MIN_READY: Option<u64> = [
            arg("min n", Takes::Words(&["min"]), "'min' and how many stay ready; none = all but one, or a tenth"),
        ],
        |args| args.maybe(Args::min_ready),
        |min, f| min.iter().try_for_each(|min| write!(f, " min {min}"));
    NEW_SERVICE_ID: Option<ServiceId> = [
            arg("#id", Takes::Any, "the id to give it, as 'save' prints it; only for a new service"),
        ],
        |args| Ok(args.id("service")?.map(ServiceId)), new_id;
    NEW_WORKER_ID: Option<WorkerId> = [
            arg("#id", Takes::Any, "the id to give it, as 'save' prints it"),
        ],
        |args| Ok(args.id("worker")?.map(WorkerId)), new_id;
    ON_OR_ASKED: Option<bool> = [
            arg("on|off", Takes::Words(&["on", "off"]), "which; none = report it"),
        ],
        |args| args.maybe(|args| args.choice("on|off", "option", SWITCH)),
        |on, f| on.iter().try_for_each(|on| chosen(SWITCH, on, f));
    ON_UNLESS_OFF: bool = [arg("on|off", Takes::Words(&["on", "off"]), "which; none = on")],
        |args| Ok((ON_OR_ASKED.read)(args)?.unwrap_or(true)), |on, f| chosen(SWITCH, on, f);
    POISON_WHAT: PoisonWhat = [
            arg("n|clear", Takes::Words(&["clear"]), "a number of the list, or clear; none = list them"),
        ],
        |args| args.poison_what(),
        |what, f| match what {
            PoisonWhat::List => Ok(()),
            PoisonWhat::Show(number) => plain(number, f),
            PoisonWhat::Clear => plain(&"clear", f),
        };
    PRIORITY: u8 = [arg("n", Takes::Any, "priority, 1 to 255")], |args| args.priority(), plain;
    REQUEST_NAME: RequestName = [ONE_REQUEST, ITS_SEQUENCE], |args| args.request_name(), plain;
    REQUESTS_OF: RequestsOf = [
            arg("service", Takes::Service, "a service, 'client' and a client's id, or 'worker' and a worker's id; 'all' or none = all"),
        ],
        |args| Ok(args.maybe(Args::requests_of)?.unwrap_or(RequestsOf::All)),
        |of, f| match of {
            RequestsOf::All => Ok(()),
            RequestsOf::Service(name) => write!(f, " service {name}"),
            RequestsOf::Client(id) => write!(f, " client {id}"),
            RequestsOf::Worker(id) => write!(f, " worker {id}"),
        };
    SCALE_COUNT: u64 = [arg("n", Takes::Any, "how many workers it is to have")],
        |args| args.scale_count(), plain;
    SCALE_HOSTS: Vec<HostName> = [
            arg("host", Takes::Host, "where new ones are made; none = where its workers are"),
        ],
        |args| args.hosts(), |hosts, f| hosts.iter().try_for_each(|host| plain(host, f));
    SEND_WHAT: SendWhat = [arg("command", Takes::Words(&["reinit", "status"]), "reinit or status")],
        |args| {
            let is_long = args.peek().is_some_and(|word| word.starts_with("command:"));
            args.choice("command", "command", if is_long { LONG_SENDS } else { SENDS })
        },
        |what, f| chosen(SENDS, what, f);
    SERVICE: ServiceName = [ONE_SERVICE], |args| args.service("service"), plain;
    SERVICE_NAME: ServiceName = [
            arg("name", Takes::Service, "letters, digits, '-', '_' and '.', at most 32, first a letter"),
        ],
        |args| args.service("name"), plain;
    SERVICE_OR_ALL: Option<ServiceName> = [ONE_SERVICE],
        |args| args.maybe(SERVICE.read), maybe;
    SERVICE_SETTINGS: Vec<ServiceChange> = [
            arg("setting=value", Takes::ServiceSetting, "a setting of the service, or of all its workers; docs/config.md has the tables"),
        ],
        |args| args.service_settings(),
        |settings, f| {
            let mut settings = settings.iter();
            settings.try_for_each(|setting| {
                f.write_str(" ")?;
                setting.fmt(f)
            })
        };
    SERVICE_WHAT: ServiceWhat = [ONE_CLIENT, NEW_SERVICE],
        |args| args.service_what(),
        |what, f| match what {
            ServiceWhat::Page(name) => plain(name, f),
            ServiceWhat::Move(client, name) => write!(f, " {client} {name}"),
        };
    LOGS_WANTED: LogsWanted = [
            arg("target", Takes::Target, "a service's name, a worker's id, 'host' and a host's name, or all"),
            arg("-n lines", Takes::Any, "at most so many lines, 0 to 10000; 20 if nothing is said"),
            arg("-f", Takes::Any, "go on with the lines that are written from now on"),
        ],
        |args| args.logs_wanted(),
        |wanted, f| {
            plain(&wanted.target, f)?;
            if wanted.lines != LOG_LINES {
                write!(f, " -n {}", wanted.lines)?;
            }
            if wanted.follow { write!(f, " -f") } else { Ok(()) }
        };
    SETTING: (Setting, u64) = [
            arg("name", Takes::Setting, "a setting, column 'setting' of 'settings'"),
            arg("value", Takes::Any, "a whole number within the setting's range; on and off for a switch"),
        ],
        |args| args.setting(), |(setting, value), f| {
            write!(f, " {} {}", setting.row().name, setting.row().written(*value))
        };
    SETTINGS_OF: SettingsOf = [
            arg("name", Takes::Setting, "one of the broker's, or a service; none = all of the broker's"),
        ],
        |args| Ok(args.maybe(Args::settings_of)?.unwrap_or(SettingsOf::All)),
        |of, f| match of {
            SettingsOf::All => Ok(()),
            SettingsOf::One(setting) => plain(&setting.row().name, f),
            SettingsOf::Service(name) => write!(f, " service {name}"),
        };
    SHUTDOWN_WHAT: ShutdownWhat = [
            arg("fd|all", Takes::Words(&["all"]), "column 'fd' of 'workers', or all workers"),
        ],
        |args| args.shutdown_what(),
        |what, f| match what {
            ShutdownWhat::All => plain(&"all", f),
            ShutdownWhat::Fd(fd) => plain(fd, f),
        };
    SUBSCRIPTIONS_OF: SubscriptionsOf = [
            arg("pattern", Takes::Any, "a pattern or a topic, 'client' and a client's id, or 'worker' and a worker's id; 'all' or none = all"),
        ],
        |args| Ok(args.maybe(Args::subscriptions_of)?.unwrap_or(SubscriptionsOf::All)),
        |of, f| match of {
            SubscriptionsOf::All => Ok(()),
            SubscriptionsOf::Client(id) => write!(f, " client {id}"),
            SubscriptionsOf::Worker(id) => write!(f, " worker {id}"),
            SubscriptionsOf::Pattern(pattern) => plain(pattern, f),
        };
    TARGET: Target = [
            arg("target", Takes::Target, "a service's name, a worker's id, 'host' and a host's name, or all; 'service NAME' and 'worker ID' say the same"),
        ],
        |args| args.target(), plain;
    TOPIC: Option<String> = [
            arg("command", Takes::Command, "one or two words, as in 'help config worker'"),
        ],
        |args| args.topic(), maybe;
    TOPICS_OF: Option<Pattern> = [
            arg("pattern", Takes::Any, "a topic, or a pattern that matches topics; none = all"),
        ],
        |args| args.maybe(Args::pattern), maybe;
    WHY_OF: WhyOf = [ONE_REQUEST, ITS_SEQUENCE],
        |args| args.why_of(),
        |of, f| match of {
            WhyOf::Kept => Ok(()),
            WhyOf::Request(name) => plain(name, f),
            WhyOf::Trace(id) => write!(f, " trace {:032x}", u128::from_be_bytes(*id)),
        };
    WORKER: WorkerId = [
            arg("workerid", Takes::Worker, "a worker's id, column 'worker id' of 'workers'"),
        ],
        |args| args.worker(), plain;
    WORKER_CONFIG: WorkerConfig = [
            ONE_SERVICE,
            ONE_HOST,
            arg("setting=value", Takes::WorkerSetting, "a setting of this worker alone, which wins over that of its service; docs/config.md has the table"),
            arg("path", Takes::Any, "the program on that host, an absolute path"),
            arg("argument", Takes::Any, "arguments of the program"),
        ],
        |args| args.worker_config(), |config, f| config.fmt(f);
    WHICH: bool = [
            arg("builtin", Takes::Words(&["builtin"]), "those of the built-in services, which are not listed otherwise"),
        ],
        |args| args.builtin(BUILT_IN),
        |is_builtin, f| if *is_builtin { plain(&"builtin", f) } else { Ok(()) };
    WORKER_FILTER: WorkerFilter = [
            arg(
                "list",
                Takes::Words(&["lazy", "idle", "busy", "all", "builtin"]),
                "which of the lists, or the workers of built-in services; none = all lists",
            ),
        ],
        |args| {
            let filter = args.maybe(|args| args.choice("list", "list", FILTERS))?;
            Ok(filter.unwrap_or(WorkerFilter::All))
        },
        |filter, f| chosen(FILTERS, filter, f);
}
