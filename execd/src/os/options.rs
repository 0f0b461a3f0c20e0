//! The options of an execd, and why it can't run. The command lines are in `cli` of isdexecd and of
//! isectd.

use super::permit::{PermittedNames, PermittedUser};
use super::rlimits::RLimit;
use super::user::Account;
use crate::engine::limits::Limits;
use crate::exit::Exit;
use protocol::address::ParsedAddress;
use protocol::limits::{EXECD_PORT, RUN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use transport::setup::ListenerFiles;

/// Where brokers reach this execd.
#[derive(Debug)]
pub enum Listen {
    /// `ADDR:PORT`; port 0 lets the kernel choose.
    Tcp(String),
    /// `ADDR:PORT` with TLS; needs [`Options::tls`].
    Tls(String),
    /// The path of a socket file, created for this user only. A file of a dead execd is replaced.
    Unix(PathBuf),
    /// A TCP or Unix socket that is already bound and listening.
    Fd(OwnedFd),
}

impl Listen {
    /// Reads `ADDR:PORT`, `tls://ADDR:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The text is none of these; the error says how it should look.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| {
            format!(
                "'{}' {why}; it is one of ADDR:PORT, tls://ADDR:PORT and unix:PATH",
                text.escape_debug()
            )
        };
        match ParsedAddress::parse(text).map_err(wrong)? {
            // Otherwise each mistyped word would be looked up as a name.
            ParsedAddress::Tcp(at) | ParsedAddress::Tls(at)
                if at.port.is_none() && at.host.ip().is_none() =>
            {
                Err(wrong("has no port".to_owned()))
            }
            ParsedAddress::Unix(path) => Ok(Self::Unix(PathBuf::from(path))),
            ParsedAddress::Tcp(host_port) => Ok(Self::Tcp(host_port.complete(EXECD_PORT))),
            ParsedAddress::Tls(host_port) => Ok(Self::Tls(host_port.complete(EXECD_PORT))),
        }
    }
}

/// Everything that [`run`](super::run::run) needs to know.
#[derive(Debug)]
pub struct Options {
    /// The endpoint to which brokers connect.
    pub listen: Listen,
    /// Whether to serve other machines, and other users of this one, without any proof. Needs
    /// [`allow`](Self::allow).
    pub insecure: bool,
    /// The token file. A broker over TCP, or of another user, must prove a token that has the role
    /// host. With it execd may listen to other machines.
    pub tokens: Option<PathBuf>,
    /// Certificate, key and the CAs of brokers; needed for [`Listen::Tls`].
    pub tls: Option<ListenerFiles>,
    /// Directories below which programs may be started, symbolic links resolved; empty = none may.
    pub allow: Vec<PathBuf>,
    /// The user that children run as; `None` = execd's own user.
    pub user: Option<Account>,
    /// The users that an operator may name for a child.
    pub allow_users: Vec<PermittedUser>,
    /// The variables that an operator may set for a child.
    pub allow_env: PermittedNames,
    /// Whether children may run as root. Without it execd refuses to start if they would.
    pub allow_root_workers: bool,
    /// Resource limits of the children, in addition to those that execd inherited.
    pub rlimits: Vec<RLimit>,
    /// Permission bits that new files of the children don't get.
    pub umask: u32,
    /// Whether this is the built-in execd of a broker: it has a session of its own and ends after
    /// `exec-end`, or when there was neither broker nor child for a while.
    pub built_in: bool,
    /// Whether it ends, with all children, when the broker's link breaks (`--state none`).
    pub exits_with_broker: bool,
    /// The directory that records the children, so that an execd started after this one died adopts
    /// them. One execd at a time may use it. `None` = the children can't be adopted.
    pub state: Option<PathBuf>,
    /// The file that gets the address when execd listens: `{"execd":"127.0.0.1:5502"}`, written as
    /// a whole.
    pub ports_file: Option<PathBuf>,
    /// A pipe that gets the same JSON object as one line when execd listens, and is closed then;
    /// whoever started execd waits on it.
    pub ready: Option<OwnedFd>,
    /// Working directory of the children.
    pub directory: PathBuf,
    /// Environment variables for the children, besides the short list of `spawn`: a name and its
    /// value, or a name whose value is taken from execd's own environment.
    pub env: Vec<(String, Option<String>)>,
    /// Whether workers get `SCHED_BATCH`: a woken worker does not preempt the running process, so
    /// that the broker can finish its turn. That is a quarter more requests on a machine with few
    /// cores, see docs/performance.md. Otherwise workers have the scheduling policy of execd.
    pub batch: bool,
    /// Where the output of workers is kept.
    pub output: OutputTo,
    /// Most bytes of all files in which it is kept.
    pub output_total_bytes: u64,
    /// The limits of the engine; options of the command line set some of them.
    pub limits: Limits,
}

/// Where the output of workers is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputTo {
    /// In the directory `output` of the state directory; nowhere, if there is none.
    State,
    /// In this directory, of which nobody else may use anything.
    Directory(PathBuf),
    /// Nowhere.
    Nothing,
}

/// Most bytes of all files of kept output, unless an option says otherwise.
pub const OUTPUT_TOTAL_BYTES: u64 = 1 << 30;

impl Options {
    /// The options of a standalone execd with the defaults of `isdexecd`.
    pub fn new(listen: Listen) -> Self {
        Self {
            listen,
            insecure: false,
            tokens: None,
            tls: None,
            allow: Vec::new(),
            user: None,
            allow_users: Vec::new(),
            allow_env: PermittedNames::default(),
            allow_root_workers: false,
            rlimits: Vec::new(),
            umask: 0o022,
            built_in: false,
            exits_with_broker: false,
            state: None,
            ports_file: None,
            ready: None,
            directory: PathBuf::from("/"),
            env: Vec::new(),
            batch: true,
            output: OutputTo::State,
            output_total_bytes: OUTPUT_TOTAL_BYTES,
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// The directory in which the output of workers is kept; `None` = nothing is kept.
    pub(super) fn output_directory(&self) -> Option<PathBuf> {
        match &self.output {
            OutputTo::State => self.state.as_ref().map(|state| state.join("output")),
            OutputTo::Directory(directory) => Some(directory.clone()),
            OutputTo::Nothing => None,
        }
    }

    /// Refuses options that contradict each other or are too dangerous to be meant.
    ///
    /// # Errors
    /// Says what is wrong, and the cure.
    pub fn check(&self) -> Result<(), Failure> {
        super::startup::check_options(self)
    }
}

/// Parses `NAME` or `NAME=VALUE`, a variable for the environment of workers.
///
/// # Errors
/// The name is empty, or execd sets this variable itself.
pub fn variable(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let is_own = [WORKER_SECRET_VARIABLE, RUN_VARIABLE].contains(&name);
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || is_own || name.contains(is_odd) || text.contains('\0') {
        return Err(format!("'{}' is no name of a variable to pass", text.escape_debug()));
    }
    Ok((name.to_owned(), value))
}

/// Why execd can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status that says which kind of failure it was.
    pub exit: Exit,
    /// What failed, on which object, and the cure.
    pub text: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// The kernel refused something that execd can't do without.
    pub(super) fn kernel(what: &str, error: impl fmt::Display) -> Self {
        Self::new(Exit::Kernel, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_names_that_workers_can_ask_for() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(variable("A="), Ok(("A".into(), Some(String::new()))));
        assert_eq!(variable("A"), Ok(("A".into(), None)));
        for bad in ["", "=x", "A B=x", "A\n=x", "A=x\0y", "ISECT_WORKER_SECRET=x", "ISECT_RUN"] {
            assert!(variable(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_read_or_refused_with_the_right_form() {
        assert!(matches!(Listen::parse("127.0.0.1:0"), Ok(Listen::Tcp(a)) if a == "127.0.0.1:0"));
        assert!(matches!(Listen::parse("[::1]:5502"), Ok(Listen::Tcp(_))));
        assert!(matches!(Listen::parse("unix:/run/x"), Ok(Listen::Unix(p)) if p.ends_with("x")));
        assert!(matches!(Listen::parse("tls://h:1"), Ok(Listen::Tls(a)) if a == "h:1"));
        assert!(Listen::parse("tls://unix:/x").is_err() && Listen::parse("tls://h").is_err());
        for (given, kept) in [("::1", "[::1]:5502"), ("[::ffff:127.0.0.1]:7", "127.0.0.1:7")] {
            assert!(matches!(Listen::parse(given), Ok(Listen::Tcp(a)) if a == kept), "{given}");
        }
        for bad in ["127.1", "", "5502", ":5502", "host:", "host:99999", "unix:"] {
            let error = Listen::parse(bad).map(|_| ()).unwrap_err();
            assert!(error.contains("unix:PATH"), "{bad}: {error}");
        }
    }
}
