//! Starts and finds the built-in execd of `localhost`: the same program in the role of execd, as a
//! process in its own session. It survives a crash of the broker, and the next broker finds it by
//! its socket.

use super::log::Log;
use crate::config::cli::{Args, WorkerArgs};
use crate::engine::input::Expected;
use crate::exit::{self, Fatal};
use execd::engine::limits::Limits;
use execd::os::options::{Listen, Options, variable};
use execd::os::policy::{self, Identity};
use execd::os::rlimits::RLimit;
use execd::os::run::run;
use execd::os::user::Account;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, Uid};
use protocol::time::{Micros, Tick};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use sys::stderr::last_words;

/// Least time between two starts. It doubles after each execd that ended early, up to the limit.
const START_EVERY: Micros = Micros::from_millis(500);
const START_EVERY_MAX: Micros = Micros::from_millis(4000);
/// An execd that ran this long did not end early.
const GOOD_RUN: Micros = Micros::from_millis(10_000);

/// With `--state none`: how long execd waits for the broker that started it.
const NO_BROKER_IDLE_MS: u64 = 5000;

/// The built-in execd as the broker sees it.
#[derive(Debug)]
pub(super) struct BuiltInExecd {
    /// `unix:PATH` of its socket.
    pub(super) address: String,
    words: Vec<OsString>,
    /// The role an execd that already runs must have.
    role: Role,
    child: Option<Child>,
    /// This broker has connected to `child`.
    is_known: bool,
    started_at: Option<Tick>,
    backoff: Micros,
}

impl BuiltInExecd {
    /// Makes the state for an execd at this address; `exits_with_broker` = it ends with the broker.
    pub(super) fn new(
        address: String,
        exits_with_broker: bool,
        descriptors: u64,
        log: &[String],
        workers: &WorkerArgs,
    ) -> Self {
        let mut words: Vec<OsString> = vec!["--role-execd".into(), address.clone().into()];
        words.extend(worker_words(workers));
        words.push(format!("--role-descriptors={descriptors}").into());
        if exits_with_broker {
            words.push("--role-exits-with-broker".into());
        }
        words.extend(log.iter().map(OsString::from));
        let role = Role { exits_with_broker, descriptors, workers: workers.clone() };
        Self {
            address,
            words,
            role,
            child: None,
            is_known: false,
            started_at: None,
            backoff: START_EVERY,
        }
    }

    /// Starts it, unless one is about to listen: called when nobody answers at its socket.
    ///
    /// # Errors
    /// It can't be started.
    #[allow(clippy::disallowed_methods, reason = "the broker starts this one program, itself")]
    pub(super) fn start(&mut self, now: Tick) -> io::Result<()> {
        if let Some(child) = &mut self.child {
            match child.try_wait()? {
                None => return Ok(()),
                Some(status) => {
                    tracing::warn!(pid = child.id(), "the built-in execd ended: {status}");
                    self.child = None;
                }
            }
        }
        if let Some(at) = self.started_at {
            let ran = now.since(at);
            if ran < self.backoff {
                return Ok(());
            }
            let longer = Micros(self.backoff.0 * 2).min(START_EVERY_MAX);
            self.backoff = if ran > GOOD_RUN { START_EVERY } else { longer };
        }
        self.started_at = Some(now);
        let child = Command::new("/proc/self/exe")
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        tracing::debug!(pid = child.id(), "the built-in execd is started");
        (self.child, self.is_known) = (Some(child), false);
        Ok(())
    }

    /// Checks the peer at the socket. Returns what it must report of itself; `None` = this broker
    /// started it.
    ///
    /// # Errors
    /// The peer belongs to another user, or its expected state can't be computed.
    pub(super) fn check_peer(
        &mut self,
        stream: &impl AsFd,
    ) -> Result<Option<Box<Expected>>, String> {
        let peer = getsockopt(stream, sockopt::PeerCredentials)
            .map_err(|e| format!("who answers at {} can't be asked: {e}", self.address))?;
        let me = Uid::effective().as_raw();
        if peer.uid() != me {
            return Err(format!(
                "process {} of user {} answers at {}, this broker is user {me}: nothing is started \
                 by it; end it, or name another --state directory",
                peer.pid(),
                peer.uid(),
                self.address
            ));
        }
        let own = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if own == Some(peer.pid()) {
            self.is_known = true;
            return Ok(None);
        }
        let Identity { policy, binary } = self.role.expected(&self.address)?;
        Ok(Some(Box::new(Expected { policy, binary })))
    }

    /// The broker ends: reaps an execd that has ended, and ends one that it has never connected to,
    /// which has no workers and would wait for the next broker.
    pub(super) fn give_up(&mut self) {
        self.reap();
        let unknown = self.child.as_ref().filter(|_| !self.is_known);
        if let Some(pid) = unknown.and_then(|child| i32::try_from(child.id()).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    fn reap(&mut self) {
        if self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.child = None;
        }
    }
}

/// The options that the built-in execd is started with.
#[derive(Debug)]
struct Role {
    exits_with_broker: bool,
    descriptors: u64,
    workers: WorkerArgs,
}

impl Role {
    fn expected(&self, address: &str) -> Result<Identity, String> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
        let options = role_options(&self.workers, address, self.exits_with_broker)
            .map_err(|e| e.to_string())?;
        policy::expected(&options, (self.descriptors.min(hard), hard)).map_err(|e| e.to_string())
    }
}

/// The command line arguments for these options.
fn worker_words(workers: &WorkerArgs) -> Vec<OsString> {
    let WorkerArgs {
        allow,
        worker_user,
        allow_root_workers,
        worker_limit,
        worker_env,
        worker_scheduling,
        orphan_ms,
    } = workers;
    let pair = |name: &str, value: &OsStr| {
        let mut word = OsString::from(name);
        word.push(value);
        word
    };
    let texts = |name: &'static str, texts: &[String]| -> Vec<OsString> {
        texts.iter().map(|text| format!("{name}{text}").into()).collect()
    };
    let mut words: Vec<OsString> =
        allow.iter().map(|dir| pair("--allow=", dir.as_os_str())).collect();
    words.extend(worker_user.iter().map(|user| format!("--worker-user={user}").into()));
    words.extend(allow_root_workers.then(|| "--allow-root-workers".into()));
    words.extend(texts("--worker-limit=", worker_limit));
    words.extend(texts("--worker-env=", worker_env));
    words.push(format!("--orphan-ms={orphan_ms}").into());
    words.extend((worker_scheduling == "inherit").then(|| "--worker-scheduling=inherit".into()));
    words
}

/// Converts the options for workers to the built-in execd's options.
fn options(workers: &WorkerArgs, listen: Listen) -> Result<Options, Fatal> {
    let WorkerArgs {
        allow,
        worker_user,
        allow_root_workers: _,
        worker_limit,
        worker_env,
        worker_scheduling,
        orphan_ms,
    } = workers;
    let usage = |option: &str, error: String| Fatal::Usage(format!("{option}: {error}"));
    let user = worker_user.as_deref().map(Account::find).transpose();
    let limits = worker_limit.iter().map(|text| RLimit::parse(text)).collect::<Result<_, _>>();
    let env = worker_env.iter().map(|text| variable(text)).collect::<Result<_, _>>();
    // Without `--allow`, operators may start any program.
    let allow = if allow.is_empty() { vec!["/".into()] } else { allow.clone() };
    Ok(Options {
        built_in: true,
        allow,
        user: user.map_err(|error| usage("--worker-user", error))?,
        // The broker warns, and is started by root in tests and demonstrations.
        allow_root_workers: true,
        batch: worker_scheduling != "inherit",
        rlimits: limits.map_err(|error| usage("--worker-limit", error))?,
        env: env.map_err(|error| usage("--worker-env", error))?,
        limits: Limits { orphan_ms: *orphan_ms, ..Limits::default() },
        ..Options::new(listen)
    })
}

/// The options of the built-in execd at this address; `exits_with_broker` = it ends with the
/// broker.
fn role_options(
    workers: &WorkerArgs,
    address: &str,
    exits_with_broker: bool,
) -> Result<Options, Fatal> {
    let listen = Listen::parse(address).map_err(Fatal::Usage)?;
    let beside = match &listen {
        Listen::Unix(path) => path.parent().map(|dir| dir.join("execd")),
        Listen::Tcp(_) | Listen::Tls(_) | Listen::Fd(_) => None,
    };
    let mut options = options(workers, listen)?;
    options.exits_with_broker = exits_with_broker;
    options.state = beside.filter(|_| !exits_with_broker);
    if exits_with_broker {
        // If the broker is killed before it connects, execd must end by itself.
        options.limits.idle_ms = NO_BROKER_IDLE_MS;
    }
    Ok(options)
}

/// Checks the options for workers before anything is started; otherwise only the built-in execd
/// would report the error, in the middle of the log.
///
/// # Errors
/// A user, limit or directory that does not exist or may not be had.
pub(super) fn check(workers: &WorkerArgs, address: &str) -> Result<(), Fatal> {
    let listen = Listen::parse(address).map_err(Fatal::Usage)?;
    options(workers, listen)?.check().map_err(|failure| Fatal::Usage(failure.text))
}

/// Whether workers run as the broker's own user, and so reach its files and sockets.
pub(super) fn is_own_user(workers: &WorkerArgs) -> bool {
    let user = workers.worker_user.as_deref().and_then(|user| Account::find(user).ok());
    user.is_none_or(|user| user.uid == Uid::effective())
}

/// A warning about how workers run, for the log; `None` = nothing to warn of.
pub(super) fn warning(workers: &WorkerArgs) -> Option<String> {
    let is_meant = workers.allow_root_workers;
    let text = "its workers run as root; name a user for them with 'isectd --worker-user NAME', or \
                say --allow-root-workers if that is meant";
    (Uid::effective().is_root() && is_own_user(workers) && !is_meant).then(|| text.to_owned())
}

/// Runs this process in the role of the built-in execd; the exit status.
///
/// # Errors
/// It can't listen, or the system refuses something.
pub fn be_execd(args: &Args, address: &str) -> Result<u8, Fatal> {
    // execd's children must not inherit the broker's signal mask and descriptor limit.
    SigSet::empty().thread_set_mask().map_err(|e| Fatal::System(format!("signal mask: {e}")))?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let soft = args.role_descriptors.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
            .map_err(|e| Fatal::System(format!("descriptor limit: {e}")))?;
    }
    let log = Log::start(args.log, args.log_format);
    let options = role_options(&args.workers, address, args.role_exits_with_broker)?;
    let ended = run(options);
    log.flush();
    match ended {
        Ok(()) => Ok(exit::DONE),
        Err(failure) => {
            last_words(&format!("isectd (built-in execd): {failure}"));
            Ok(failure.exit.status())
        }
    }
}
