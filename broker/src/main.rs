//! The program isectd: reads the command line, loads the configuration, and runs the loop or a
//! subcommand. Only the program names the client library (`demo`, `services`) and execd
//! (`execd_role`); the broker itself does not.

mod demo;
mod execd_role;
mod services;

use broker::config::checked_args::CheckedArgs;
use broker::config::cli::{Args, Command};
use broker::config::load::Config;
use broker::exit::Fatal;
use broker::{reactor, token_command};
use clap::Parser;
use std::io::{self, Write};
use std::process::ExitCode;
use sys::signals::default_faults;
use sys::stderr::last_words;

fn main() -> ExitCode {
    default_faults();
    // The demonstration's workers are this program under another name.
    if let Some(status) =
        std::env::args_os().next().and_then(|name| client::samples::run_as_named(&name))
    {
        return status;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            last_words(error.to_string().trim_end());
            return ExitCode::from(Fatal::Usage(String::new()).status());
        }
        // Help and version.
        Err(error) => error.exit(),
    };
    match run(args) {
        Ok(status) => ExitCode::from(status),
        Err(fatal) => {
            last_words(&format!("isectd: {fatal}"));
            ExitCode::from(fatal.status())
        }
    }
}

fn run(args: Args) -> Result<u8, Fatal> {
    match &args.command {
        Some(Command::Service { name, at }) => return services::run(name, at),
        Some(Command::Demo { once }) => return Ok(demo::run(*once)),
        Some(Command::Token { command }) => {
            let said = token_command::run(command)?;
            if let Some(note) = said.note {
                // If nobody reads stderr, the token is made all the same.
                last_words(&format!("isectd: {note}"));
            }
            return match io::stdout().write_all(said.out.as_bytes()) {
                Ok(()) => Ok(0),
                Err(e) => Err(Fatal::System(format!("stdout: {e}"))),
            };
        }
        None => {}
    }
    if let Some(address) = &args.role_execd {
        return execd_role::be_execd(&args, address);
    }
    reactor::run(Config::load(CheckedArgs::check(args)?)?, execd_role::EXECD)
}
