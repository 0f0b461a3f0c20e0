//! Starts and finds the built-in execd of `localhost`: the same program in the role of execd, as a
//! process in its own session. It survives a crash of the broker, and the next broker finds it by
//! its socket.

use crate::config::cli::WorkerArgs;
use crate::engine::input::Expected;
use crate::exit::Fatal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use protocol::time::{Micros, Tick};
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Child, Command, Stdio};
use transport::stream::Stream;

/// Least time between two starts. It doubles after each execd that ended early, up to the limit.
const START_EVERY: Micros = Micros::from_millis(500);
const START_EVERY_MAX: Micros = Micros::from_millis(4000);
/// An execd that ran this long did not end early.
const GOOD_RUN: Micros = Micros::from_millis(10_000);

/// What the program knows of the execd that is built into it. The broker itself names none.
#[derive(Clone, Copy, Debug)]
pub struct ExecdProgram {
    /// Checks the options for workers before anything is started; otherwise only the built-in execd
    /// would report the error, in the middle of the log.
    pub check: fn(&ExecdOptions) -> Result<(), Fatal>,
    /// What an execd with these options says of itself.
    pub expected: fn(&ExecdOptions) -> Result<Expected, String>,
    /// The number of the user that these options name for workers; `None` = they name none that
    /// there is.
    pub user: fn(&WorkerArgs) -> Option<u32>,
}

/// The options that the built-in execd is started with.
#[derive(Clone, Debug)]
pub struct ExecdOptions {
    /// `unix:PATH` of its socket.
    pub address: String,
    /// Whether it ends with the broker.
    pub exits_with_broker: bool,
    /// The soft limit of descriptors that its children get.
    pub descriptors: u64,
    /// The options for workers.
    pub workers: WorkerArgs,
}

/// The built-in execd as the broker sees it.
#[derive(Debug)]
pub(super) struct BuiltInExecd {
    program: ExecdProgram,
    pub(super) options: ExecdOptions,
    words: Vec<OsString>,
    child: Option<Child>,
    /// This broker has connected to `child`.
    is_known: bool,
    started_at: Option<Tick>,
    backoff: Micros,
}

impl BuiltInExecd {
    /// Makes the state for an execd with these options, which logs as `log` says.
    pub(super) fn new(program: ExecdProgram, options: ExecdOptions, log: &[String]) -> Self {
        let mut words: Vec<OsString> = vec!["--role-execd".into(), options.address.clone().into()];
        words.extend(worker_words(&options.workers));
        words.push(format!("--role-descriptors={}", options.descriptors).into());
        if options.exits_with_broker {
            words.push("--role-exits-with-broker".into());
        }
        words.extend(log.iter().map(OsString::from));
        Self {
            program,
            options,
            words,
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
    pub(super) fn check_peer(&mut self, stream: &Stream) -> Result<Option<Box<Expected>>, String> {
        let peer = stream
            .credentials()
            .map_err(|e| format!("who answers at {} can't be asked: {e}", self.options.address))?;
        let me = Uid::effective().as_raw();
        if peer.uid != me {
            return Err(format!(
                "process {} of user {} answers at {}, this broker is user {me}: nothing is started \
                 by it; end it, or name another --state directory",
                peer.pid, peer.uid, self.options.address
            ));
        }
        let own = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if own == Some(peer.pid) {
            self.is_known = true;
            return Ok(None);
        }
        let expected = (self.program.expected)(&self.options)?;
        Ok(Some(Box::new(expected)))
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

    /// Whether workers run as the broker's own user, and so reach its files and sockets.
    pub(super) fn is_own_user(&self) -> bool {
        let user = (self.program.user)(&self.options.workers);
        user.is_none_or(|user| user == Uid::effective().as_raw())
    }

    /// A warning about how workers run, for the log; `None` = nothing to warn of.
    pub(super) fn warning(&self) -> Option<String> {
        let is_meant = self.options.workers.allow_root_workers;
        let text = "its workers run as root; name a user for them with 'isectd --worker-user NAME', \
                    or say --allow-root-workers if that is meant";
        (Uid::effective().is_root() && self.is_own_user() && !is_meant).then(|| text.to_owned())
    }
}

/// The command line arguments for these options.
fn worker_words(workers: &WorkerArgs) -> Vec<OsString> {
    let WorkerArgs {
        allow,
        worker_user,
        allow_user,
        allow_env,
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
    words.extend(texts("--allow-user=", allow_user));
    words.extend(texts("--allow-env=", allow_env));
    words.extend(allow_root_workers.then(|| "--allow-root-workers".into()));
    words.extend(texts("--worker-limit=", worker_limit));
    words.extend(texts("--worker-env=", worker_env));
    words.push(format!("--orphan-ms={orphan_ms}").into());
    words.extend((worker_scheduling == "inherit").then(|| "--worker-scheduling=inherit".into()));
    words
}
