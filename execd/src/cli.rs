//! The command line of isdexecd. Not what the options do: `execd::os::options` says that.

use clap::{Parser, ValueEnum};
use execd::engine::limits::{CHILDREN_CAP, Limits};
use execd::os::options::{Listen, Options};
use std::path::PathBuf;
use tracing::Level;

/// Starts, watches and ends the worker processes of one host for isectd, which connects to it.
///
/// Without --allow any program that this user may execute is started, but only for a broker that
/// runs on this machine as the same user (or root): the kernel is asked whose connection it is.
/// Each worker gets a session and process group of its own, and ends with its whole group. Workers
/// keep running when the broker's connection breaks; SIGTERM, SIGINT and SIGHUP end them all, then
/// isdexecd.
///
/// Exit status: 0 ended in order; 2 usage; 3 can't listen; 4 the state directory can't be used;
/// 5 another execd uses the same socket or state directory; 6 the ports file can't be written;
/// 71 the kernel refused something.
#[derive(Debug, Parser)]
#[command(name = "isdexecd", version, about, long_about)]
pub(crate) struct Cli {
    /// Where brokers connect: ADDR:PORT (port 0: the kernel chooses) or unix:PATH
    #[arg(long, value_name = "ADDR:PORT|unix:PATH", default_value = "127.0.0.1:5502")]
    listen: String,
    /// Start only programs below this directory, symbolic links resolved; may be repeated
    #[arg(long, value_name = "DIR")]
    allow: Vec<PathBuf>,
    /// Serve whoever can connect, from any machine and user; needs --allow
    #[arg(long)]
    insecure: bool,
    /// Write the workers down here, so that an isdexecd started after this one died adopts them. By
    /// default PATH.state beside a Unix socket; for a TCP port isect/execd-PORT in the user's state
    /// directory; none for port 0
    #[arg(long, value_name = "DIR|none")]
    state: Option<PathBuf>,
    /// Working directory of the workers
    #[arg(long, value_name = "DIR", default_value = "/")]
    directory: PathBuf,
    /// Pass this environment variable on to the workers, besides PATH, HOME, LANG and the like; may
    /// be repeated
    #[arg(long, value_name = "NAME")]
    pass_env: Vec<String>,
    /// Most worker processes at once
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().children_max)]
    children: usize,
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
    /// Begins to log to stderr.
    pub(crate) fn start_log(&self) {
        let level = match self.log {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Trace => Level::TRACE,
        };
        // A closed stderr must not end execd: hence no report of failed writes, which would go
        // there.
        let log = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_target(false)
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().init(),
        }
    }

    /// The options for the library.
    pub(crate) fn options(self) -> Result<Options, String> {
        if self.children == 0 || self.children > CHILDREN_CAP {
            return Err(format!("--children {} is not within 1 to {CHILDREN_CAP}", self.children));
        }
        if let Some(bad) = self.pass_env.iter().find(|n| n.is_empty() || n.contains(['=', '\0'])) {
            return Err(format!("--pass-env '{}' is no name of a variable", bad.escape_debug()));
        }
        let listen = Listen::parse(&self.listen).map_err(|error| format!("--listen {error}"))?;
        let mut options = Options::new(listen);
        options.insecure = self.insecure;
        options.allow = self.allow;
        options.state = match self.state {
            Some(none) if none.as_os_str() == "none" => None,
            Some(directory) => Some(directory),
            None => default_state(&options.listen),
        };
        options.directory = self.directory;
        options.pass_env = self.pass_env;
        options.ports_file = self.ports_file;
        options.limits.children_max = self.children;
        Ok(options)
    }
}

/// Where the workers are written down unless told: the same place each time for the same address.
fn default_state(listen: &Listen) -> Option<PathBuf> {
    match listen {
        Listen::Unix(path) => {
            // A directory that does not exist is for the listener to complain about.
            std::path::absolute(path).ok()?.parent().filter(|parent| parent.is_dir())?;
            let mut name = path.clone().into_os_string();
            name.push(".state");
            Some(PathBuf::from(name))
        }
        Listen::Tcp(address) => {
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
