//! The verb `health`: asks the broker's built-in service of that name, and ends with a status for
//! probes of containers and load balancers.

use crate::cli::Cli;
use crate::output::{At, Output};
use crate::status::Failure;
use crate::verbs::HealthArgs;
use client::caller::{Caller, Options, Send};
use protocol::names::ServiceName;
use std::process::ExitCode;
use std::time::Duration;

/// The service that answers.
const SERVICE: &str = "health";
/// The status for what is down, can't be reached or does not answer in time.
const DOWN: u8 = 2;

/// Asks, prints the answer, and returns the exit status.
pub fn run(cli: &Cli, args: &HealthArgs, out: &mut Output) -> ExitCode {
    let status = ask(cli, args).and_then(|answer| {
        let (word, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
        out.text(if cli.json { rest } else { &answer })?;
        Ok(match word {
            "ok" => 0,
            "degraded" => 1,
            _ => DOWN,
        })
    });
    ExitCode::from(status.unwrap_or_else(|failure| {
        out.failure(At::Only(""), &failure);
        DOWN
    }))
}

fn ask(cli: &Cli, args: &HealthArgs) -> Result<String, Failure> {
    let wait = Duration::from_millis(args.wait);
    let name = ServiceName::new(SERVICE).map_err(|error| Failure::Usage(error.to_string()))?;
    let options = Options {
        name: Some("isdclient".to_owned()),
        token: cli.token()?,
        start: cli.start()?,
        connect_timeout: wait,
        trust: Some(cli.trust()),
        ..Options::new(name)
    };
    let mut caller = Caller::login(&cli.addresses()?, options).map_err(Failure::Asked)?;
    let mut words = args.services.clone();
    if !cli.json {
        words.insert(0, "--text".to_owned());
    }
    // It only reads, so the broker may ask another process if one dies of something else.
    let send = Send { deadline: Some(wait), idempotent: true, ..Send::default() };
    let answer = caller.call_with(words.join(" "), &send).map_err(Failure::Asked)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
