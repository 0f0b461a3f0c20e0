//! What the mains may ask of execd, and how it says that it can't go on. Not the command line: that
//! is `cli` of the program and of `isectd`.

use super::rlimits::RLimit;
use super::user::Account;
use crate::engine::limits::Limits;
use crate::exit::Exit;
use protocol::address::ParsedAddress;
use protocol::limits::{EXECD_PORT, RUN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tls::setup::ListenerFiles;

/// Where brokers reach this execd.
#[derive(Debug)]
pub enum Listen {
    /// `ADDR:PORT`; port 0 lets the kernel choose.
    Tcp(String),
    /// The same, over TLS; needs [`Options::tls`].
    Tls(String),
    /// A socket file; made for this user alone. What a dead execd left there is replaced.
    Unix(PathBuf),
    /// A TCP or Unix socket that is bound and listens already.
    Fd(OwnedFd),
}

impl Listen {
    /// Reads `ADDR:PORT`, `tls://ADDR:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// It is neither; the text says how it should look.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| {
            format!(
                "'{}' {why}; it is one of ADDR:PORT, tls://ADDR:PORT and unix:PATH",
                text.escape_debug()
            )
        };
        match ParsedAddress::parse(text).map_err(wrong)? {
            // Else each mistyped word would be looked up.
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

/// All that [`run`](super::run::run) needs to know.
#[derive(Debug)]
pub struct Options {
    /// Where brokers reach it.
    pub listen: Listen,
    /// Listen to other machines, and to other users of this one, although nothing proves who they
    /// are. Needs [`allow`](Self::allow).
    pub insecure: bool,
    /// The token file: a broker that comes over TCP, or as another user, has to prove one that has
    /// the role host. Then execd may listen to other machines.
    pub tokens: Option<PathBuf>,
    /// Certificate, key and the CAs of brokers, for [`Listen::Tls`].
    pub tls: Option<ListenerFiles>,
    /// Programs are started only below these directories, symbolic links resolved. Empty: none.
    pub allow: Vec<PathBuf>,
    /// Whom the children run as; `None`: execd's own user.
    pub user: Option<Account>,
    /// Run children as root, if that is whom they would run as; else that is refused at the start.
    pub allow_root_workers: bool,
    /// Resource limits of the children, besides those that execd itself was given.
    pub rlimits: Vec<RLimit>,
    /// Rights that the children's new files do not get.
    pub umask: u32,
    /// The execd that a broker brought along: a session of its own, ends after `exec-end`, or when
    /// neither broker nor child was there for a while.
    pub built_in: bool,
    /// End, with all children, when the broker's link breaks (`--state none`).
    pub leave_when_broker_is_gone: bool,
    /// A directory in which the children are written down, so that an execd started after this one
    /// died finds and adopts them; one execd at a time may use it. `None`: they can't be found.
    pub state: Option<PathBuf>,
    /// Written whole when it listens: `{"execd":"127.0.0.1:5502"}`.
    pub ports_file: Option<PathBuf>,
    /// The same JSON object is written here as one line when it listens, then it is closed: a pipe
    /// (the stdout) on which whoever started execd waits.
    pub ready: Option<OwnedFd>,
    /// Working directory of the children.
    pub directory: PathBuf,
    /// Environment variables that children get besides the short list of `spawn`: a name and its
    /// value, or a name whose value execd's own environment has.
    pub env: Vec<(String, Option<String>)>,
    /// Workers are woken without pushing aside who runs (Linux's `SCHED_BATCH`), so that the broker
    /// gets on with its turn: a quarter more requests on a machine with few cores, see
    /// docs/performance.md. Otherwise they have the scheduling policy of execd.
    pub batch: bool,
    /// The bounds.
    pub limits: Limits,
}

impl Options {
    /// A standalone execd with the defaults of `isdexecd`.
    pub fn new(listen: Listen) -> Self {
        Self {
            listen,
            insecure: false,
            tokens: None,
            tls: None,
            allow: Vec::new(),
            user: None,
            allow_root_workers: false,
            rlimits: Vec::new(),
            umask: 0o022,
            built_in: false,
            leave_when_broker_is_gone: false,
            state: None,
            ports_file: None,
            ready: None,
            directory: PathBuf::from("/"),
            env: Vec::new(),
            batch: true,
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// Refuses what makes no sense here or is too dangerous to be an oversight.
    ///
    /// # Errors
    /// Says what, and the cure.
    pub fn sense(&self) -> Result<(), Failure> {
        super::begin::sense(self)
    }
}

/// Reads `NAME` or `NAME=VALUE`, a variable for the environment of workers.
///
/// # Errors
/// It has no name, or one that execd itself sets.
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

/// Why execd can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// What, which one, and the cure.
    pub text: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// The kernel refused something without which there is no going on.
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
