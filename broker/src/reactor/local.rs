//! The execd that the broker brings along for `localhost`: this program once more, in the role of execd, as
//! a process and session of its own. It outlives a crash of the broker and is found again by its socket.

use crate::config::cli::Args;
use crate::exit::Fatal;
use protocol::time::{Micros, Tick};
use std::io;
use std::process::{Child, Command, Stdio};

/// Least time between two starts.
const START_EVERY: Micros = Micros::from_millis(500);

/// The built-in execd as the broker sees it.
#[derive(Debug)]
pub(super) struct Local {
    /// `unix:PATH` of its socket.
    pub(super) address: String,
    words: Vec<String>,
    child: Option<Child>,
    started_at: Option<Tick>,
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
        Self { address, words, child: None, started_at: None }
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
        if self.started_at.is_some_and(|at| now.since(at) < START_EVERY) {
            return Ok(());
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
    let _ = (args, address);
    Err(Fatal::System("the built-in execd is not built yet".to_owned()))
}
