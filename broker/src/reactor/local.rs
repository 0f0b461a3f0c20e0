//! The execd that the broker brings along for `localhost`: this program once more, in the role of
//! execd, as a process and session of its own. It outlives a crash of the broker and is found again
//! by its socket.

use super::log;
use crate::config::cli::Args;
use crate::exit::{self, Fatal};
use execd::os::options::{Listen, Options};
use execd::os::run::run;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use protocol::time::{Micros, Tick};
use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// Least time between two starts; twice as long after each one that ended early, up to the most.
const START_EVERY: Micros = Micros::from_millis(500);
const START_EVERY_MAX: Micros = Micros::from_millis(16_000);
/// One that ran so long did not end early.
const GOOD_RUN: Micros = Micros::from_millis(10_000);

/// The built-in execd as the broker sees it.
#[derive(Debug)]
pub(super) struct Local {
    /// `unix:PATH` of its socket.
    pub(super) address: String,
    words: Vec<String>,
    child: Option<Child>,
    started_at: Option<Tick>,
    pause: Micros,
}

impl Local {
    /// The execd at this address; `leave` = it ends when the broker is gone.
    pub(super) fn new(address: String, leave: bool, descriptors: u64, log: &[String]) -> Self {
        let mut words = vec!["--role-execd".to_owned(), address.clone()];
        words.push(format!("--role-descriptors={descriptors}"));
        if leave {
            words.push("--role-leave".to_owned());
        }
        words.extend_from_slice(log);
        Self { address, words, child: None, started_at: None, pause: START_EVERY }
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
            if ran < self.pause {
                return Ok(());
            }
            let longer = Micros(self.pause.0 * 2).min(START_EVERY_MAX);
            self.pause = if ran > GOOD_RUN { START_EVERY } else { longer };
        }
        self.started_at = Some(now);
        let child = Command::new("/proc/self/exe")
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        tracing::debug!(pid = child.id(), "the built-in execd is started");
        self.child = Some(child);
        Ok(())
    }

    /// Takes the remains of an execd that ended, if there are any.
    pub(super) fn reap(&mut self) {
        if self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.child = None;
        }
    }
}

/// Runs this process in the role of the built-in execd; the exit status.
///
/// # Errors
/// It can't listen, or the system refuses something.
pub fn be_execd(args: &Args, address: &str) -> Result<u8, Fatal> {
    // What the broker blocked or raised for itself is not for execd's children.
    SigSet::empty().thread_set_mask().map_err(|e| Fatal::System(format!("signal mask: {e}")))?;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let soft = args.role_descriptors.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
            .map_err(|e| Fatal::System(format!("descriptor limit: {e}")))?;
    }
    log::start_plain(args.log, args.log_format);
    let listen = Listen::parse(address).map_err(Fatal::Usage)?;
    let beside = match &listen {
        Listen::Unix(path) => path.parent().map(|dir| dir.join("execd")),
        Listen::Tcp(_) | Listen::Fd(_) => None,
    };
    let options = Options {
        built_in: true,
        // Who may administer the broker decides what runs, as the broker's own user.
        allow: vec!["/".into()],
        allow_root_workers: true,
        leave_when_broker_is_gone: args.role_leave,
        state: beside.filter(|_| !args.role_leave),
        ..Options::new(listen)
    };
    match run(options) {
        Ok(()) => Ok(exit::DONE),
        Err(failure) => {
            let _ = writeln!(io::stderr(), "isectd (built-in execd): {failure}");
            Ok(failure.exit.status())
        }
    }
}
