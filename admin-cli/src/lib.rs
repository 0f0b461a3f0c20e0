//! `isdclient` as a library, so that its parts can be tested. It speaks to the broker as any other
//! client; the broker has no other interface for operators.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`input`] | splits standard input into messages |
//! | [`connection`] | the connection to the broker: requests, answers, and what `-d` shows |
//! | [`output`] | standard output and standard error |
//! | [`status`] | what can go wrong, and its exit status |
//! | [`run`] | the three ways to run without a person: `-c`, messages, a script |
//! | [`verbs`] | the verbs `pub`, `sub`, `announce`, `logs` and `health` |
//! | [`publish`], [`subscribe`] | the first two of them |
//! | [`logs`] | what workers wrote |
//! | [`announce`] | runs a program as an instance that the broker watches |
//! | [`health`] | asks the built-in service `health`, for probes |
//! | [`instance`], [`lines`] | tells the broker of that program; the lines that it writes |
//! | [`stop`] | Ctrl-C as a flag |
//! | [`console`], [`complete`] | the interactive console, and completion with Tab |
//! | [`generate`] | completion scripts, man page, markdown, made from the tables |

pub mod announce;
pub mod cli;
pub mod complete;
pub mod connection;
pub mod console;
pub mod generate;
pub mod health;
pub mod input;
pub mod instance;
pub mod lines;
pub mod logs;
pub mod output;
pub mod publish;
pub mod run;
pub mod status;
pub mod stop;
pub mod subscribe;
pub mod verbs;

use clap::Parser as _;
use std::io::{IsTerminal as _, stderr, stdin};
use std::process::ExitCode;
use sys::stderr::last_words;

/// Parses the command line and carries it out; returns the exit status.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with status 0, errors to standard error with
            // status 2.
            if error.use_stderr() {
                let text = error.render();
                let is_screen = stderr().is_terminal();
                let text = if is_screen { text.ansi().to_string() } else { text.to_string() };
                last_words(text.trim_end());
            } else {
                let _ = error.print();
            }
            if let Some(surplus) = cli::surplus(&error) {
                output::Output::new(false).note(&format!("isdclient: {surplus}"));
            }
            if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                let text = error.render().to_string();
                let text = text.split("\n\n").next().unwrap_or_default();
                let failure = status::Failure::Usage(text.trim_start_matches("error: ").into());
                output::Output::new(true).failure_as_json(output::At::Only(""), &failure);
            }
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let mut out = output::Output::new(cli.json);
    if let Some(surplus) = cli.beside_verb() {
        out.failure(output::At::Only(""), &status::Failure::Usage(surplus));
        return status::Status::Usage.into();
    }
    if let (None, Some(verbs::Verb::Announce(args))) = (&cli.generate, &cli.verb) {
        return announce::run(&cli, args, &mut out);
    }
    if let (None, Some(verbs::Verb::Health(args))) = (&cli.generate, &cli.verb) {
        return health::run(&cli, args, &mut out);
    }
    let result = match (&cli.generate, &cli.verb) {
        (Some(what), _) => generate::generate(*what, &mut out),
        (None, Some(verb)) => verbs::run(&cli, verb, &mut stdin().lock(), &mut out),
        (None, None) if cli.is_interactive(stdin().is_terminal()) => console::run(&cli, &mut out),
        (None, None) => run::run(&cli, &mut stdin().lock(), &mut out),
    };
    let failed = result.err().inspect(|failure| out.failure(output::At::Only(""), failure));
    let first = out.first_failure().or_else(|| failed.map(|failure| failure.status()));
    first.unwrap_or(status::Status::Done).into()
}
