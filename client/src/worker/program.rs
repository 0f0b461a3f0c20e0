//! What a worker's `main` needs besides the worker: its own arguments, its usage, and an end with a
//! reason. What can't be written, because nobody reads it any more, is dropped: the status says it.

use super::{ISDARGMAX, Worker};
use crate::error::Error;
use protocol::errors::ErrorCode;
use protocol::show;
use std::io::{self, Write};
use std::process::ExitCode;
use sys::signals::default_faults;
use sys::stderr::last_words;

/// The application's own arguments of this program, those from `argv[ISDARGMAX]` on.
pub fn own_args() -> Vec<String> {
    std::env::args_os().skip(ISDARGMAX).map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// Shows the usage on stdout if `--help` or `-h` is this program's first argument; then that is all
/// it has to do. [`run`] begins with this.
pub fn help(usage: &str) -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    if first != "--help" && first != "-h" {
        return None;
    }
    let _ = writeln!(io::stdout(), "{usage}");
    Some(ExitCode::SUCCESS)
}

/// Says on stderr why this program can't be run with its arguments, and the usage. Status 2.
pub fn misused(why: &str, usage: &str) -> ExitCode {
    last_words(&show::lines(&format!("{why}\n{usage}")));
    ExitCode::from(2)
}

/// The whole `main` of a worker's program: connects as its arguments say, lets `serve` work, and
/// says on stderr why it ended. Status 0 = asked to end, 1 = failed, 2 = not started as a worker;
/// then the usage is shown. With `--help` the usage is all.
///
/// A SIGSEGV or SIGBUS that somebody sends ends the program, as it ends one in C: Rust's runtime
/// would forget the first.
pub fn run(usage: &str, serve: impl FnOnce(&mut Worker) -> Result<(), Error>) -> ExitCode {
    default_faults();
    if let Some(status) = help(usage) {
        return status;
    }
    let done = Worker::connect_from_args().and_then(|mut worker| serve(&mut worker));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is(ErrorCode::Usage) => misused(&error.text, usage),
        Err(error) => {
            // Part of it may be what the broker said.
            last_words(&show::lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
