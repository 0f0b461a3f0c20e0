//! isdexecd: an execd that runs by itself, one per host. The one built into isectd calls the same
//! library.

mod cli;

use clap::Parser;
use execd::exit::Exit;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.start_log();
    let failure = match cli.options() {
        Err(text) => (Exit::Usage, text),
        Ok(options) => match execd::os::run::run(options) {
            Ok(()) => return ExitCode::from(Exit::Done.status()),
            Err(failure) => (failure.exit, failure.text),
        },
    };
    // Not through the log, whose level may hide it.
    let _ = writeln!(std::io::stderr(), "isdexecd: {}", failure.1);
    ExitCode::from(failure.0.status())
}
