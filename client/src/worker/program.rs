//! Helps the `main` of a worker: its own arguments, its usage, and an end with a reason. Text that
//! nobody reads any more is dropped, because the exit status says it, too.

use super::{ConcurrentWorker, ISDARGMAX, Worker, WorkerOptions};
use crate::error::Error;
use protocol::errors::ErrorCode;
use protocol::show;
use std::io::{self, Write};
use std::process::ExitCode;
use sys::signals::default_faults;
use sys::stderr::last_words;

/// The application's own arguments, those from `argv[ISDARGMAX]` on.
pub fn own_args() -> Vec<String> {
    std::env::args_os().skip(ISDARGMAX).map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// Prints the usage on stdout if `--help` or `-h` is the first argument; then `main` should return
/// the status. [`run`] begins with this.
pub fn help(usage: &str) -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    if first != "--help" && first != "-h" {
        return None;
    }
    let _ = writeln!(io::stdout(), "{usage}");
    Some(ExitCode::SUCCESS)
}

/// Prints on stderr why the arguments are refused, and the usage. The status is 2.
pub fn misused(why: &str, usage: &str) -> ExitCode {
    last_words(&show::lines(&format!("{why}\n{usage}")));
    ExitCode::from(2)
}

/// The whole `main` of a worker's program: connects as its arguments say, calls `serve`, and prints
/// on stderr why it ended. Status 0 = asked to end, 1 = failed, 2 = not started as a worker; then
/// it prints the usage. With `--help` it only prints the usage.
///
/// A SIGSEGV or SIGBUS that somebody sends ends the program, as it does in C. Rust's runtime would
/// ignore the first.
pub fn run(usage: &str, serve: impl FnOnce(&mut Worker) -> Result<(), Error>) -> ExitCode {
    run_main(usage, || serve(&mut Worker::connect_from_args()?))
}

/// As [`run`], for a worker that answers up to `concurrency` requests at a time.
/// [`serve_concurrently`](super::serve_concurrently) may be all that `serve` calls.
pub fn run_concurrent(
    usage: &str,
    concurrency: u32,
    serve: impl FnOnce(ConcurrentWorker) -> Result<(), Error>,
) -> ExitCode {
    run_main(usage, || {
        let options = WorkerOptions { concurrency, ..WorkerOptions::of_program()? };
        serve(ConcurrentWorker::connect(options)?)
    })
}

fn run_main(usage: &str, work: impl FnOnce() -> Result<(), Error>) -> ExitCode {
    default_faults();
    if let Some(status) = help(usage) {
        return status;
    }
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is(ErrorCode::Usage) => misused(&error.text, usage),
        Err(error) => {
            // The broker may have sent part of the text.
            last_words(&show::lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
