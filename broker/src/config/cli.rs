//! The command line of isectd as clap reads it. [`checked_args`](super::checked_args) checks the
//! values.

use crate::engine::builtin::BUILT_IN;
use crate::token_command::TokenCommand;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// isectd: hands each request to exactly one idle worker, starts and watches workers, and is
/// administered while it runs.
#[derive(Clone, Debug, Parser)]
#[command(name = "isectd", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
#[command(after_help = "Exit status: 0 ended in order, 1 'halt', 2 usage, 3 state directory, \
    4 state directory in use, 5 can't listen, 6 a --source failed, 7 system, 8 second signal; \
    'abort' ends by signal 6.\n\n\
    SIGTERM, SIGINT and 'halt' end all workers, those on other hosts, too. Workers outlive a crash \
    or SIGKILL of the broker, and the next one takes them over.")]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where clients connect, ADDR:PORT, tls://ADDR:PORT or unix:PATH; may be given several times.
    /// Port 0 = the port of the last time, else one that the system chooses.
    #[arg(long, value_name = "[tls://]ADDR:PORT|unix:PATH", default_value = "127.0.0.1:5501")]
    pub listen: Vec<String>,

    /// Where workers connect.
    #[arg(long, value_name = "[tls://]ADDR:PORT", default_value = "127.0.0.1:0")]
    pub worker_listen: String,

    /// What workers on other hosts call this machine [default: the address of --worker-listen, or
    /// the machine's name if that is all addresses]. With tls:// a name in the certificate.
    #[arg(long, value_name = "NAME|ADDR")]
    pub worker_host: Option<String>,

    /// Certificate for tls:// ports, in PEM, with those between it and its CA. It is shown to hosts
    /// at tls:// addresses, too. 'reload' and SIGHUP read all these files again.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Its key; nobody else may be able to read the file.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Clients at tls:// ports must show a certificate of one of these CAs.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Workers at a tls:// port must show a certificate of one of these CAs.
    #[arg(long, value_name = "FILE")]
    pub tls_worker_ca: Option<PathBuf>,

    /// Take proofs of tokens at clients' tls:// ports only if they are bound to their connection
    /// (tls-exporter), not if they are bound to the certificate (tls-server-end-point).
    #[arg(long)]
    pub tls_client_exporter: bool,

    /// The same at the workers' tls:// port.
    #[arg(long)]
    pub tls_worker_exporter: bool,

    /// The CAs that sign the certificates of hosts ('config host NAME tls://ADDR').
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Where the web page is; only 'none' for now.
    #[arg(long, value_name = "ADDR:PORT|none", default_value = "none")]
    pub web: String,

    /// Directory of the saved configuration, or 'none' to keep nothing [default:
    /// $XDG_STATE_HOME/isect or ~/.local/state/isect].
    #[arg(long, value_name = "DIR|none")]
    pub state: Option<PathBuf>,

    /// File of commands to run at the start, after the saved configuration; may be given several
    /// times. If a command in it fails, the broker ends with status 6.
    #[arg(long, value_name = "FILE")]
    pub source: Vec<String>,

    /// Setting to change for this run; 'isdclient -c settings' lists them. It wins over the saved
    /// configuration.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// File to write once everything listens: one JSON object with the addresses.
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,

    /// How much to log on stderr.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log: LogLevel,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// File of the tokens that are known, or 'none'; 'isectd token add' makes it. Read again at
    /// SIGHUP and at the command 'reload' [default: 'tokens' in the state directory, if it is
    /// there].
    #[arg(long, value_name = "FILE|none")]
    pub tokens: Option<PathBuf>,

    /// File with the token that the execds of hosts want proved ('isdexecd --tokens'): a line
    /// TOKEN for all hosts, or HOST TOKEN for one. Read anew at each connection [default:
    /// 'host-token' in the state directory, if it is there].
    #[arg(long, value_name = "FILE")]
    pub host_token: Option<PathBuf>,

    /// Listen on other than loopback addresses although there are no tokens: whoever can reach the
    /// port may then use every service, and the worker port.
    #[arg(long)]
    pub insecure: bool,

    /// What workers on this machine are.
    #[command(flatten)]
    pub workers: WorkerArgs,

    /// The built-in services that are on.
    #[arg(long, value_name = "LIST|all|none", default_value = "all", help = with_help())]
    pub with: String,

    /// The role of the built-in execd: listen at unix:PATH.
    #[arg(long, hide = true, value_name = "unix:PATH")]
    pub role_execd: Option<String>,

    /// With `--role-execd`: end when the broker is gone.
    #[arg(long, hide = true)]
    pub role_exits_with_broker: bool,

    /// With `--role-execd`: soft limit of descriptors to go back to.
    #[arg(long, hide = true, default_value_t = 1024)]
    pub role_descriptors: u64,
}

/// The help of `--with`, with the names that there are.
fn with_help() -> String {
    let names: Vec<String> =
        BUILT_IN.iter().map(|row| format!("{} ({})", row.name, row.begins())).collect();
    format!(
        "Built-in services that are on: names with commas between them, all, or none. There are: {}",
        names.join(", ")
    )
}

/// What the built-in execd, host 'localhost', may start, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct WorkerArgs {
    /// Start only programs below this directory, symbolic links resolved; may be given several
    /// times. Without it, whoever administers the broker can start every program as the workers'
    /// user.
    #[arg(long, value_name = "DIR")]
    pub allow: Vec<PathBuf>,

    /// Run workers as this user, with its groups or the named one alone; needs root. They reach the
    /// broker over TCP then: the Unix socket is the broker's own user's.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub worker_user: Option<String>,

    /// Let operators run a worker as this user (setting 'user'), with its groups, or the named one
    /// alone; may be given several times. Needs root. Never root, unless --allow-root-workers.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub allow_user: Vec<String>,

    /// Let operators set this environment variable of a worker (settings 'env', 'env_file'), or all
    /// that begin so; may be given several times [default: without --allow all, else none]. Neither
    /// the default nor PREFIX* has what makes programs run other code, as PATH, LD_PRELOAD and
    /// PYTHONPATH do: name those, or LD_*.
    #[arg(long, value_name = "NAME|PREFIX*")]
    pub allow_env: Vec<String>,

    /// Root runs isectd and its workers, and that is meant: no warning.
    #[arg(long)]
    pub allow_root_workers: bool,

    /// Resource limit of each worker, as in nofile=1024, core=0, as=2G, nproc=64:128; may be given
    /// several times.
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub worker_limit: Vec<String>,

    /// Environment variable that workers get besides PATH, HOME, USER, LANG and the like; may be
    /// given several times.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub worker_env: Vec<String>,

    /// How the kernel schedules workers: batch wakes them without pushing the broker aside, which
    /// is more throughput on few cores; inherit leaves them the policy of isectd (see chrt).
    #[arg(long, value_name = "batch|inherit", value_parser = ["batch", "inherit"],
          default_value = "batch", hide_possible_values = true)]
    pub worker_scheduling: String,

    /// The built-in execd ends its workers and itself when it had no broker for so many
    /// milliseconds; 0 = never. With --state none it ends with the broker at once.
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    pub orphan_ms: u64,
}

/// What to do instead of serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
#[expect(missing_docs, reason = "clap shows none for a subcommand field")]
pub enum Command {
    /// Make, list and remove tokens: who may use this broker, and as what.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Be a built-in service; the built-in execd starts this.
    #[command(hide = true)]
    Service {
        /// The name of the service.
        name: String,
        /// The broker's worker port or `unix:PATH`, that port's number, the worker's id, and where
        /// clients log in.
        #[arg(num_args = 4, value_names = ["HOST", "PORT", "WORKER", "CLIENT"], required = true)]
        at: Vec<String>,
    },
    /// Show it at work: services, workers, a death and a restart, on this machine.
    Demo {
        /// End by itself instead of running until Ctrl-C.
        #[arg(long)]
        once: bool,
    },
}

/// Least severity of logged lines; each level includes those above it in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs a person.
    Error,
    /// And what went wrong and was dealt with.
    Warn,
    /// And ordinary changes.
    Info,
    /// And what is of interest when looking for something.
    Debug,
    /// Everything.
    Trace,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
