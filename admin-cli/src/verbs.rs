//! The verbs of the command line: publish, subscribe, and run a program as an instance that the
//! broker watches. Their options and their ranges.

use crate::cli::Cli;
use crate::output::Output;
use crate::status::Failure;
use crate::{logs, publish, subscribe};
use clap::{Args, Subcommand};
use client::bus::{InstanceType, Options, Position};
use protocol::instances::{ACTIVITY_TIMEOUT_MS_MAX, ACTIVITY_TIMEOUT_MS_MIN};
use protocol::limits::DEADLINE_MS_MAX;
use protocol::messages::EXPIRES_MS_MAX;
use protocol::names::ServiceName;
use protocol::op::parse::parse;
use protocol::op::spec::{LOG_LINES, LOG_LINES_MAX, OpRequest, Target};
use protocol::topics::{Pattern, check_topic};
use std::ffi::OsString;
use std::io::BufRead;
use std::time::Duration;

/// Longest wait for the broker's answer.
const ANSWER: Duration = Duration::from_secs(10);

const PUB_AFTER: &str = "\
The words of PAYLOAD are joined by blanks. Without any, or with the word '-' alone, the payload is
all of standard input. Nothing is printed, unless -v is given.

Exit status: 0 the broker has accepted all; 1 it refused something; 2 usage; 3 no connection, or it
was lost; 4 no answer in time.

Examples:
  isdclient pub orders.eu.created 17
  isdclient pub --retain --expires 60000 pumps.night.level < level.json
  tail -f log | isdclient pub --lines logs.night";

const SUB_AFTER: &str = "\
One line for each message: the topic, a blank, the payload, in which line breaks and other hidden
characters are made visible. What the broker keeps of matching topics comes first. What could not be
had is told on standard error. Ctrl-C ends it, and tells the position from which --from goes on;
with several patterns some messages may come again then.

Exit status: 0 done; 1 the broker refused it; 2 usage; 3 no connection, or it was lost for good; 4
no message came within --timeout.

Examples:
  isdclient sub 'orders.*.created' 'isect.state.>'
  isdclient sub -n 1 --payload-only pumps.night.level
  isdclient sub --json --from 1700000000000000:41 'orders.>'";

const ANNOUNCE_AFTER: &str = "\
The program has standard input, output and error for itself, and gets the signals that isdclient
gets. It is running while it runs; it ends in order with exit status 0, and otherwise failed. The
exit status is that of the program, 128 + N after signal N, and 126 or 127 if it can't be started.
While there is no broker it runs on, and is announced when there is one.

The environment variable ISECT_INSTANCE_FD names a descriptor to which the program may write lines:
  checkpoint N        any number that changes as it works
  state WORD [TEXT]   starting, running, stopping, stopped, or a number of its own from 100 on
  idle                it has nothing to do, until the next checkpoint

Without --activity isdclient says that the program goes on as long as its process is there, which
shows that it has not ended, and no more. With --activity it says so only after a line of the
program: one that hangs is timed out.

Example:
  isdclient announce pump --group night --activity --timeout 5000 -- /usr/local/bin/pump -v";

const LOGS_AFTER: &str = "\
The same as the operator's command 'logs': a line for each line, with the worker's id unless one
worker is asked for, the time, and the stream. Lines in parentheses are the broker's own. Ctrl-C
ends -f, with exit status 0.

Examples:
  isdclient logs echo
  isdclient logs 3 -n 500
  isdclient --json logs echo -f";

const HEALTH_AFTER: &str = "\
The first line is ok, degraded or down; the others say why. With --json the answer is one object
with the state and the reasons. With services it is about them alone: each of them must be served.
The broker's built-in service 'health' answers (docs/builtin.md).

Exit status: 0 ok; 1 degraded; 2 down, or no answer, or usage.

Examples:
  isdclient health
  isdclient health --json orders stock
  livenessProbe: { exec: { command: [isdclient, health] } }";

/// What to do on the bus, or to ask of the built-in services.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Publish a message to a topic
    Pub(PubArgs),
    /// Print the messages of all topics that match a pattern
    Sub(SubArgs),
    /// Run a program as an instance that the broker watches
    Announce(AnnounceArgs),
    /// Print what workers wrote on stdout and stderr
    Logs(LogsArgs),
    /// Say whether the broker, or some of its services, can do its work: for probes
    Health(HealthArgs),
}

/// The words of `logs`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = LOGS_AFTER)]
pub struct LogsArgs {
    /// At most so many lines
    #[arg(short = 'n', long = "lines", value_name = "COUNT", default_value_t = LOG_LINES,
        value_parser = clap::value_parser!(u32).range(..=LOG_LINES_MAX as i64))]
    pub lines: u32,

    /// Go on with the lines that are written from now on
    #[arg(short = 'f', long)]
    pub follow: bool,

    /// A service's name, a worker's id, or all
    #[arg(value_name = "TARGET", value_parser = target)]
    pub target: Target,
}

/// The words of `pub`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = PUB_AFTER)]
pub struct PubArgs {
    /// The broker keeps the message as the value of its topic
    #[arg(long)]
    pub retain: bool,

    /// As --retain, as long as this program runs: it stays until it is interrupted
    #[arg(long, conflicts_with_all = ["retain", "lines"])]
    pub while_connected: bool,

    /// How long the value is kept, in milliseconds (with --retain, which need not be said, or
    /// --while-connected)
    #[arg(long, value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..=EXPIRES_MS_MAX))]
    pub expires: Option<u64>,

    /// Remove the value that the broker keeps of the topic
    #[arg(long, conflicts_with_all = ["retain", "while_connected", "expires", "lines", "payload"])]
    pub remove: bool,

    /// Each line of standard input is a message
    #[arg(long, conflicts_with = "payload")]
    pub lines: bool,

    /// Print how many subscriptions a message matched, and its position
    #[arg(short = 'v', long)]
    pub verbose: bool,

    /// The topic: words between dots
    #[arg(value_name = "TOPIC", value_parser = topic)]
    pub topic: String,

    /// The payload
    #[arg(value_name = "PAYLOAD")]
    pub payload: Vec<String>,
}

/// The words of `sub`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = SUB_AFTER)]
pub struct SubArgs {
    /// End after so many messages
    #[arg(short = 'n', long, value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Go on after the message at this position, as far as the broker still has what came since
    #[arg(long, value_name = "EPOCH:NUMBER", value_parser = position)]
    pub from: Option<Position>,

    /// Don't print what the broker keeps of matching topics
    #[arg(long)]
    pub no_retained: bool,

    /// Print only what the broker keeps of matching topics, and end
    #[arg(long, conflicts_with_all = ["no_retained", "from"])]
    pub kept: bool,

    /// Print the payload alone, with a line end after one that has none
    #[arg(short = 'p', long, conflicts_with = "json")]
    pub payload_only: bool,

    /// End when no message came for so long, in milliseconds
    #[arg(long = "timeout", value_name = "MS",
        value_parser = clap::value_parser!(u64).range(1..=DEADLINE_MS_MAX))]
    pub wait: Option<u64>,

    /// Which topics: words between dots, '*' for any one word, '>' at the end for one or more
    #[arg(value_name = "PATTERN", required = true, value_parser = pattern)]
    pub patterns: Vec<String>,
}

/// The words of `announce`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = ANNOUNCE_AFTER)]
pub struct AnnounceArgs {
    /// Tells it from others of its name on this machine [default: the id of its process]
    #[arg(long, value_name = "N")]
    pub id: Option<u64>,

    /// A group that it belongs to; may be given several times
    #[arg(long = "group", value_name = "GROUP", value_parser = name)]
    pub groups: Vec<String>,

    /// What it mainly does: data, io, management, network, or a number
    #[arg(long = "type", value_name = "TYPE", default_value = "data", value_parser = kind)]
    pub kind: InstanceType,

    /// It is timed out without a sign for so long, in milliseconds [default: the broker's setting
    /// activity_timeout_ms]
    #[arg(long = "timeout", value_name = "MS", value_parser = clap::value_parser!(u64)
        .range(ACTIVITY_TIMEOUT_MS_MIN..=ACTIVITY_TIMEOUT_MS_MAX))]
    pub activity_timeout: Option<u64>,

    /// It is stalled when its checkpoint stays the same for so long while it is not idle, in
    /// milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub stalled: Option<u64>,

    /// Only a line of the program shows that it goes on
    #[arg(long)]
    pub activity: bool,

    /// Where it is reached; may be given several times
    #[arg(long = "address", value_name = "ADDRESS")]
    pub addresses: Vec<String>,

    /// A word and a value for people and other programs; may be given several times
    #[arg(long = "meta", value_name = "WORD VALUE", value_parser = meta)]
    pub meta: Vec<(String, String)>,

    /// What it is an instance of
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,

    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, last = true)]
    pub program: Vec<OsString>,
}

fn target(text: &str) -> Result<Target, String> {
    match parse(&format!("logs {text}")) {
        Ok(OpRequest::Logs(wanted)) if !text.contains(char::is_whitespace) => Ok(wanted.target),
        Ok(_) => Err("it is a service's name, a worker's id, or all".to_owned()),
        Err(error) => Err(error.text),
    }
}

/// The words of `health`.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, after_help = HEALTH_AFTER)]
pub struct HealthArgs {
    /// How long to wait for the answer, in milliseconds
    #[arg(long = "timeout", value_name = "MS", default_value_t = 5000,
        value_parser = clap::value_parser!(u64).range(1..=DEADLINE_MS_MAX))]
    pub wait: u64,

    /// Ask for these services alone
    #[arg(value_name = "SERVICE", value_parser = name)]
    pub services: Vec<String>,
}

fn topic(text: &str) -> Result<String, String> {
    check_topic(text).map(|()| text.to_owned())
}

fn pattern(text: &str) -> Result<String, String> {
    Pattern::new(text).map(|_| text.to_owned())
}

fn name(text: &str) -> Result<String, String> {
    ServiceName::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn position(text: &str) -> Result<Position, String> {
    Position::read(text).ok_or_else(|| {
        "it is two numbers with a colon between them, as 'sub' tells at its end".to_owned()
    })
}

fn kind(text: &str) -> Result<InstanceType, String> {
    InstanceType::read(text)
        .ok_or_else(|| "it is data, io, management, network, or a number".to_owned())
}

fn meta(text: &str) -> Result<(String, String), String> {
    let (word, value) = text.split_once(' ').unwrap_or((text, ""));
    if word.is_empty() || value.is_empty() {
        return Err("it is a word, a blank and a value".to_owned());
    }
    Ok((word.to_owned(), value.to_owned()))
}

/// The options of a connection to the bus.
///
/// # Errors
/// The token can't be read.
pub fn options(cli: &Cli) -> Result<Options, Failure> {
    Ok(Options {
        name: Some("isdclient".to_owned()),
        token: cli.token()?,
        start: cli.start()?,
        trust: Some(cli.trust()),
        answer_timeout: ANSWER,
        ..Options::default()
    })
}

/// Carries out `pub` or `sub`; `announce` and `health` have exit statuses of their own.
///
/// # Errors
/// The failure that ended it.
pub fn run(
    cli: &Cli,
    verb: &Verb,
    input: &mut dyn BufRead,
    out: &mut Output,
) -> Result<(), Failure> {
    match verb {
        Verb::Pub(args) => publish::run(cli, args, input, out),
        Verb::Sub(args) => subscribe::run(cli, args, out),
        Verb::Logs(args) => logs::run(cli, args, out),
        Verb::Announce(_) | Verb::Health(_) => Ok(()),
    }
}
