//! The command line of isdexecd. The doc comments of the options are the text of `--help`.

use clap::{Parser, ValueEnum};
use execd::engine::limits::{CHILDREN_CAP, Limits};
use execd::os::options::{Listen, OUTPUT_TOTAL_BYTES, Options, OutputTo, variable};
use execd::os::permit::{NamePattern, PermittedUser};
use execd::os::rlimits::RLimit;
use execd::os::user::Account;
use std::path::PathBuf;
use sys::log_line::{Clean, LocalTime};
use sys::stderr::Stderr;
use tracing::Level;
use transport::setup::{ListenerFiles, Pair};

/// Starts, watches and ends the worker processes of one host for isectd, which connects to it.
///
/// Only programs below --allow directories are started, and only for a broker that runs on this
/// machine as the same user (or root): the kernel is asked whose connection it is; or, with
/// --tokens, for a broker anywhere that proves a token. Each worker gets
/// a session and process group of its own, no new rights (no_new_privs: setuid programs have no
/// effect), a clean environment, and ends with its whole group. Workers keep running when the
/// broker's connection breaks. SIGTERM and SIGINT end them all, then isdexecd: its brokers have
/// --drain-ms to end them after the requests that they have; a second signal sends TERM to all at
/// once, a third one KILL.
/// SIGHUP reads the certificates of --tls-… and the file of --tokens again; a broker that is in by
/// a token which is gone is shut out, and its workers go on.
///
/// Exit status: 0 ended in order; 2 usage; 3 can't listen; 4 the state directory can't be used;
/// 5 another execd uses the same socket or state directory; 6 the ports file can't be written;
/// 71 the kernel refused something.
#[derive(Debug, Parser)]
#[command(name = "isdexecd", version, about, long_about)]
pub(crate) struct Cli {
    /// Where brokers connect: ADDR:PORT (port 0: the kernel chooses), tls://ADDR:PORT or unix:PATH
    #[arg(long, value_name = "[tls://]ADDR:PORT|unix:PATH", default_value = "127.0.0.1:5502")]
    listen: String,
    /// Certificate for tls://, in PEM, with those between it and its CA
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key; nobody else may be able to read the file
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Only a broker that shows a certificate of one of these CAs may use it
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Take proofs of tokens only if they are bound to their TLS connection (tls-exporter), not if
    /// they are bound to the certificate shown there (tls-server-end-point)
    #[arg(long)]
    tls_client_exporter: bool,
    /// Start only programs below this directory, symbolic links resolved; may be repeated. '/'
    /// allows every program of this machine. Needed: without it nothing could be started
    #[arg(long, value_name = "DIR")]
    allow: Vec<PathBuf>,
    /// Run the workers as this user, with its groups, or the named one alone; needs root
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Let operators run a worker as this user (setting 'user'), with its groups, or the named one
    /// alone; may be repeated. Without it every worker is of --user. Needs root
    #[arg(long, value_name = "USER[:GROUP]")]
    allow_user: Vec<String>,
    /// Let operators set this environment variable of a worker (settings 'env', 'env_file'), or all
    /// that begin so; may be repeated. Without it they set none. PREFIX* leaves out what makes
    /// programs run other code, as PATH, LD_PRELOAD and PYTHONPATH do: name those, or LD_*
    #[arg(long, value_name = "NAME|PREFIX*")]
    allow_env: Vec<String>,
    /// Run the workers as root, if isdexecd is root and there is no --user
    #[arg(long)]
    allow_root_workers: bool,
    /// Resource limit of each worker, as in nofile=1024, core=0, as=2G, nproc=64:128; 'unlimited'
    /// is a value, too; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    limit: Vec<String>,
    /// Rights that the workers' new files do not get, octal
    #[arg(long, value_name = "MODE", default_value = "022")]
    umask: String,
    /// File of tokens ('isectd token add NAME --role host --file FILE' makes it): a broker that
    /// comes over TCP has to prove one. Read anew at each connection
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Without --tokens: serve whoever can connect, from any machine and user
    #[arg(long)]
    insecure: bool,
    /// Write the workers down here, so that an isdexecd started after this one died adopts them. By
    /// default PATH.state beside a Unix socket; for a TCP port isect/execd-PORT in the user's state
    /// directory; none for port 0
    #[arg(long, value_name = "DIR|none")]
    state: Option<PathBuf>,
    /// Keep what the workers write on stdout and stderr in files here, as the settings output_bytes
    /// and output_files of their services say. By default 'output' in the state directory
    #[arg(long, value_name = "DIR|none")]
    output_dir: Option<PathBuf>,
    /// Most bytes of all these files; past it the one that was written to longest ago is removed
    #[arg(long, value_name = "BYTES", default_value_t = OUTPUT_TOTAL_BYTES)]
    output_total_bytes: u64,
    /// Working directory of the workers
    #[arg(long, alias = "chdir", value_name = "DIR", default_value = "/")]
    directory: PathBuf,
    /// Pass this environment variable on to the workers, or set it, besides PATH, HOME, USER,
    /// LOGNAME, SHELL, LANG, LANGUAGE, LC_ALL, LC_CTYPE, TZ and TMPDIR; may be repeated. All others
    /// stay with isdexecd
    #[arg(long, alias = "pass-env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Starts per second, after a burst of --start-burst; more are put off, not failed
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().starts_per_second)]
    start_rate: u32,
    /// Starts at once before --start-rate counts
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().starts_burst)]
    start_burst: u32,
    /// How the kernel schedules workers: batch wakes them without pushing the broker aside, which
    /// is more throughput on few cores; inherit leaves them the policy of isdexecd (see chrt)
    #[arg(long, value_name = "batch|inherit", default_value = "batch")]
    scheduling: Scheduling,
    /// Most worker processes at once
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().children_max)]
    children: usize,
    /// A broker that says nothing for so many milliseconds, although it is pinged, is gone
    #[arg(long, value_name = "MS", default_value_t = Limits::default().silence_ms,
        value_parser = clap::value_parser!(u64).range(200..=600_000))]
    silence_ms: u64,
    /// End all workers, then isdexecd, when there was no broker for so many milliseconds; 0 = never
    #[arg(long, value_name = "MS", default_value_t = 0)]
    orphan_ms: u64,
    /// At SIGTERM the brokers have so many milliseconds to end their workers after the requests
    /// that those have; then the workers that are left get TERM; 0 = at once
    #[arg(long, value_name = "MS", default_value_t = Limits::default().drain_ms,
        value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    drain_ms: u64,
    /// Write the address as one JSON object to this file when listening
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// How much to log to stderr
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LogLevel,
    /// How to log
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheduling {
    Batch,
    Inherit,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Cli {
    /// Starts logging to stderr through a thread, so that the loop never waits for a reader.
    pub(crate) fn start_log(&self) -> Stderr {
        let level = match self.log {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Trace => Level::TRACE,
        };
        let stderr = Stderr::start(|lost| {
            tracing::error!(
                "{lost} log lines dropped: stderr was not read, or could not be written"
            );
        });
        let (writer, is_json) = (stderr.clone(), matches!(self.log_format, LogFormat::Json));
        let log = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(move || Clean { to: writer.clone(), is_json })
            .with_target(false)
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).with_timer(LocalTime).init(),
            LogFormat::Json => log.json().init(),
        }
        stderr
    }

    /// The options in the form that the library takes.
    pub(crate) fn options(self) -> Result<Options, String> {
        if self.children == 0 || self.children > CHILDREN_CAP {
            return Err(format!("--children {} is not within 1 to {CHILDREN_CAP}", self.children));
        }
        if self.start_rate == 0 || self.start_burst == 0 {
            return Err("--start-rate and --start-burst are at least 1".into());
        }
        let listen = Listen::parse(&self.listen).map_err(|error| format!("--listen {error}"))?;
        let bound = (self.tls_client_ca, self.tls_client_exporter);
        let tls = tls_files(&listen, [self.tls_cert, self.tls_key], bound)?;
        let mut options = Options::new(listen);
        options.tls = tls;
        options.insecure = self.insecure;
        options.tokens = self.tokens;
        options.allow = self.allow;
        options.user = self.user.map(|user| Account::find(&user)).transpose().map_err(|error| {
            format!("--user: {error}; name one that is in 'getent passwd', or UID:GID")
        })?;
        let permitted = self.allow_user.iter().map(|user| PermittedUser::find(user));
        options.allow_users = permitted.collect::<Result<_, _>>().map_err(|error| {
            format!("--allow-user: {error}; name one that is in 'getent passwd', or UID:GID")
        })?;
        let patterns = self.allow_env.iter().map(|text| NamePattern::parse(text));
        options.allow_env.patterns =
            patterns.collect::<Result<_, _>>().map_err(|error| format!("--allow-env {error}"))?;
        options.allow_root_workers = self.allow_root_workers;
        let limits = self.limit.iter().map(|limit| RLimit::parse(limit));
        options.rlimits =
            limits.collect::<Result<_, _>>().map_err(|error| format!("--limit {error}"))?;
        options.umask = umask(&self.umask)?;
        options.state = match self.state {
            Some(none) if none.as_os_str() == "none" => None,
            Some(directory) => Some(directory),
            None => default_state(&options.listen),
        };
        options.output = match self.output_dir {
            Some(none) if none.as_os_str() == "none" => OutputTo::Nothing,
            Some(directory) => OutputTo::Directory(absolute(directory)),
            None => OutputTo::State,
        };
        options.output_total_bytes = self.output_total_bytes;
        options.directory = self.directory;
        options.env = self
            .env
            .iter()
            .map(|text| variable(text))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("--env {error}"))?;
        options.limits.starts_per_second = self.start_rate;
        options.limits.starts_burst = self.start_burst;
        options.batch = self.scheduling == Scheduling::Batch;
        options.ports_file = self.ports_file;
        options.limits.children_max = self.children;
        options.limits.silence_ms = self.silence_ms;
        options.limits.orphan_ms = self.orphan_ms;
        options.limits.drain_ms = self.drain_ms;
        options.limits.ping_ms = self.silence_ms / 3;
        Ok(options)
    }
}

/// The files of a listener over TLS; `None` for any other.
fn tls_files(
    listen: &Listen,
    [cert, key]: [Option<PathBuf>; 2],
    (client_ca, is_exporter_only): (Option<PathBuf>, bool),
) -> Result<Option<ListenerFiles>, String> {
    match (listen, cert, key) {
        (Listen::Tls(_), Some(cert), Some(key)) => {
            let [cert, key] = [cert, key].map(absolute);
            let client_ca = client_ca.map(absolute);
            Ok(Some(ListenerFiles { pair: Pair { cert, key }, client_ca, is_exporter_only }))
        }
        (Listen::Tls(_), _, _) => Err("tls:// needs --tls-cert FILE and --tls-key FILE".into()),
        (Listen::Tcp(_) | Listen::Unix(_) | Listen::Fd(_), None, None)
            if client_ca.is_none() && !is_exporter_only =>
        {
            Ok(None)
        }
        (Listen::Tcp(_) | Listen::Unix(_) | Listen::Fd(_), _, _) => {
            Err("--tls-… is of no use: --listen does not begin with tls://".into())
        }
    }
}

fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(|| {
        format!("--umask '{}' is not 000 to 777, octal, as in 022 or 077", text.escape_debug())
    })
}

/// Makes a path absolute, so that a reload reads the same file from any working directory.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The state directory unless `--state` names one: always the same for the same address.
fn default_state(listen: &Listen) -> Option<PathBuf> {
    match listen {
        Listen::Unix(path) => {
            // The listener reports a directory that does not exist.
            std::path::absolute(path).ok()?.parent().filter(|parent| parent.is_dir())?;
            let mut name = path.clone().into_os_string();
            name.push(".state");
            Some(PathBuf::from(name))
        }
        Listen::Tcp(address) | Listen::Tls(address) => {
            let port =
                address.rsplit_once(':').map(|(_, port)| port).filter(|port| *port != "0")?;
            let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(|| {
                std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"))
            });
            base.filter(|base| base.is_absolute())
                .map(|base| base.join("isect").join(format!("execd-{port}")))
        }
        Listen::Fd(_) => None,
    }
}
