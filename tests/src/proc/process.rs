//! A program that runs beside the test and is ended with it.

use super::pids::signal_pid;
use super::wait::{TIMEOUT, await_that, within};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that is ended when the test is over.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in a file.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place of the tests that starts programs"
    )]
    pub fn start(program: &Path, args: &[&str], log: PathBuf) -> Self {
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("log file");
        let folder = log.parent().expect("a folder").to_path_buf();
        let child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { child: Some(child), name, log }
    }

    /// The process id; 0 once it has been waited for.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its log, when this text is in it at least `count` times. A thread of its own writes the log,
    /// so it may come later than the answer to a command.
    pub fn await_log(&self, part: &str, count: usize) -> String {
        let whole = || Some(self.log()).filter(|log| log.matches(part).count() >= count);
        within(TIMEOUT, whole)
            .unwrap_or_else(|| panic!("no {count} of {part:?} in the log:\n{}", self.log()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// Its exit status if it has ended; 128 + N after signal N.
    pub fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.as_mut()?.try_wait().expect("wait")?;
        self.child = None;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Waits for its end.
    pub fn await_end(&mut self) -> i32 {
        let name = self.name.clone();
        await_that(&format!("the end of {name}"), || self.ended())
    }

    /// Kills it with SIGKILL and waits for its end, if it is still there.
    pub(super) fn kill_now(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its processes said")]
    fn drop(&mut self) {
        self.kill_now();
        if std::thread::panicking() {
            eprintln!("== log of {}\n{}", self.name, self.log());
        }
    }
}
