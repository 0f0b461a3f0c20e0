//! The program isdexecd: an execd that runs by itself, one for each host. The execd built into
//! isectd uses the same library.

mod cli;

use clap::Parser;
use execd::exit::Exit;
use std::process::ExitCode;
use sys::signals::default_faults;
use sys::stderr::{LAST_WORDS_TIME, last_words};

fn main() -> ExitCode {
    default_faults();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            last_words(error.to_string().trim_end());
            return ExitCode::from(Exit::Usage.status());
        }
        // These print `--help` and `--version`, too.
        Err(error) => error.exit(),
    };
    let log = cli.start_log();
    let ended = match cli.options() {
        Err(text) => Err((Exit::Usage, text)),
        Ok(options) => execd::os::run::run(options).map_err(|failure| (failure.exit, failure.text)),
    };
    log.flush_within(LAST_WORDS_TIME);
    match ended {
        Ok(()) => ExitCode::from(Exit::Done.status()),
        Err((exit, text)) => {
            // Written directly, because the log's level may hide it.
            last_words(&format!("isdexecd: {text}"));
            ExitCode::from(exit.status())
        }
    }
}
