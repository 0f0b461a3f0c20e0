//! Parses a line of text to an [`OpRequest`], by the table. Every error names the word, the range
//! and the right syntax. Whether the named object exists is checked by the engine.

use super::args::Args;
use super::spec::{Command, EVENTS_MAX, OpRequest, RequestsOf, SettingsOf, Spec, WorkerFilter};
use super::table::COMMANDS;
use super::{help, words};
use crate::errors::ErrorCode;
use crate::ids::{ServiceId, WorkerId};
use std::fmt;

pub use super::words::{nearest, parse_script, quote};

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// The error to answer with.
    pub code: ErrorCode,
    /// What is wrong and the right syntax; may have many lines.
    pub text: String,
}

impl OpError {
    /// A syntax error with this text.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Usage, text: text.into() }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for OpError {}

/// Parses one command. White space and NULs around it are ignored; a blank line asks for the status
/// page.
///
/// # Errors
/// The text names the wrong word and gives the syntax of the command.
pub fn parse(line: &str) -> Result<OpRequest, OpError> {
    let words = words::split(line)?;
    let Some(first) = words.first() else {
        return Ok(OpRequest::Status);
    };
    let (row, used) = find(first, words.get(1).map(String::as_str))?;
    let mut args = Args::new(row, &words[used..]);
    let request = understand(&mut args)?;
    args.end()?;
    Ok(request)
}

/// [`parse`] for bytes from the wire.
///
/// # Errors
/// As [`parse`]; also when the bytes are not UTF-8.
pub fn parse_bytes(body: &[u8]) -> Result<OpRequest, OpError> {
    words::check_size(body.len())?;
    let line = std::str::from_utf8(body).map_err(|e| {
        OpError::usage(format!("byte {} of the command is not UTF-8", e.valid_up_to()))
    })?;
    parse(line)
}

/// Finds the row that the first words name; returns it with the number of words of its name.
fn find(first: &str, second: Option<&str>) -> Result<(&'static Spec, usize), OpError> {
    if first == "?" {
        return Ok((Command::Help.row(), 1));
    }
    if let Some(row) = COMMANDS.iter().find(|row| row.name == first) {
        return Ok((row, 1));
    }
    let group: Vec<&'static Spec> = COMMANDS.iter().filter(|row| row.first() == first).collect();
    if group.is_empty() {
        return Err(OpError::usage(help::unknown(first)));
    }
    let Some(second) = second else {
        return Err(group_error(&group, format!("{first}: a second word is missing")));
    };
    if let Some(row) = group.iter().find(|row| row.second() == Some(second)) {
        return Ok((row, 2));
    }
    let hint = nearest(second, group.iter().filter_map(|row| row.second()));
    let text = format!("{first}: unknown word '{}'{}", words::shown(second), words::meant(hint));
    Err(group_error(&group, text))
}

fn group_error(group: &[&'static Spec], mut text: String) -> OpError {
    for row in group {
        text.push_str("\nsyntax: ");
        text.push_str(row.usage);
    }
    OpError::usage(text)
}

fn understand(args: &mut Args<'_>) -> Result<OpRequest, OpError> {
    use OpRequest as Op;
    Ok(match args.row.command {
        Command::Abort => Op::Abort,
        Command::Block => Op::Block(args.client()?),
        Command::Buckets => Op::Buckets(args.buckets()?),
        Command::Client => Op::Client(args.client()?),
        Command::Clients => Op::Clients,
        Command::Clone => Op::Clone(args.worker()?),
        Command::ConfigEvents => Op::ConfigEvents {
            count: args.number("n", "number of events", 0, EVENTS_MAX)?,
            kinds: args.kinds()?,
        },
        Command::DeleteWorker => Op::DeleteWorker(args.worker()?),
        Command::DeleteClient => Op::DeleteClient(args.client()?),
        Command::Halt => Op::Halt,
        Command::Idle => Op::Idle(args.worker()?),
        Command::ListEvents => {
            Op::ListEvents(args.maybe(|args| args.number("n", "number of events", 1, EVENTS_MAX))?)
        }
        Command::Pause => Op::Pause(args.target()?),
        Command::Services => Op::Services,
        Command::Preempt => Op::Preempt(args.maybe(Args::on_off)?),
        Command::Pri => Op::Pri(args.client()?, args.priority()?),
        Command::Ready => Op::Ready(args.target()?),
        Command::Reject => Op::Reject(args.maybe(Args::on_off)?.unwrap_or(true)),
        Command::Reset => Op::Reset,
        Command::Send => Op::Send(args.target()?, args.send_what()?),
        Command::Service => args.service_command()?,
        Command::Shutdown => Op::Shutdown(args.shutdown_what()?),
        Command::Start => Op::Start(args.target()?),
        Command::Stop => Op::Stop(args.target()?),
        Command::Unblock => Op::Unblock(args.client()?),
        Command::Worker => Op::Worker(args.worker()?),
        Command::Workers => Op::Workers(args.maybe(Args::filter)?.unwrap_or(WorkerFilter::All)),
        Command::Status => Op::Status,
        Command::ConfigHost => {
            Op::ConfigHost { name: args.host("name")?, address: args.address()? }
        }
        Command::ConfigService => Op::ConfigService {
            id: args.id("service")?.map(ServiceId),
            name: args.service("name")?,
            settings: args.service_settings()?,
        },
        Command::ConfigWorker => Op::ConfigWorker {
            id: args.id("worker")?.map(WorkerId),
            service: args.service("service")?,
            host: args.host("host")?,
            path: args.program()?,
            args: args.rest(),
        },
        Command::DeleteHost => Op::DeleteHost(args.host("host")?),
        Command::DeleteService => Op::DeleteService(args.service("service")?),
        Command::Help => Op::Help(args.topic()?),
        Command::Host => Op::Host(args.host("host")?),
        Command::Hosts => Op::Hosts,
        Command::Last => Op::Last(args.worker()?),
        Command::Load => Op::Load(args.maybe(|args| args.service("service"))?),
        Command::Latency => Op::Latency(args.maybe(|args| args.service("service"))?),
        Command::Poison => Op::Poison(args.poison_what()?),
        Command::Queue => Op::Queue(args.maybe(|args| args.service("service"))?),
        Command::Reload => Op::Reload,
        Command::Requests => {
            Op::Requests(args.maybe(Args::requests_of)?.unwrap_or(RequestsOf::All))
        }
        Command::Save => Op::Save,
        Command::Set => args.set()?,
        Command::Settings => {
            Op::Settings(args.maybe(Args::settings_of)?.unwrap_or(SettingsOf::All))
        }
        Command::Source => Op::Source(args.file()?),
        Command::Version => Op::Version,
        Command::Watch => Op::Watch(args.kinds()?),
        Command::Whoami => Op::Whoami,
    })
}
