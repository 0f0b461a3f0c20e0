//! The built-in services, as which this program runs: `isectd service NAME …`. Each is an ordinary
//! worker that uses the client library, and a client with the secret of its own start. Of the
//! broker it uses the table of their names alone.

mod health;
mod verdict;

use broker::engine::builtin::row_of;
use broker::exit::{self, Fatal};
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use client::start_secret::StartSecret;
use client::worker::{Worker, WorkerOptions};
use protocol::limits::WORKER_SECRET_VARIABLE;
use protocol::{Format, ServiceName};
use std::time::Duration;
use sys::stderr::last_words;

/// Longest time to log in as a client: this machine answers at once, or not at all.
const CONNECT: Duration = Duration::from_secs(2);

/// What a built-in service knows of its broker.
#[derive(Debug)]
struct Home {
    client: Address,
    secret: StartSecret,
    name: String,
}

impl Home {
    /// Logs in to the broker's own service, as a client with the rights of this start.
    fn operator(&self) -> Result<Caller, Error> {
        let options = Options {
            format: Format::Json,
            name: Some(self.name.clone()),
            start: Some(self.secret.clone()),
            connect_timeout: CONNECT,
            reconnect: true,
            ..Options::new(ServiceName::op())
        };
        Caller::login(std::slice::from_ref(&self.client), options)
    }
}

/// Runs this process as the built-in service of this name. `at` is where its broker is: host or
/// `unix:PATH` and port for workers, its id, and the address for clients.
///
/// # Errors
/// The command line is wrong. What ends the service later is told on stderr.
#[expect(clippy::disallowed_methods, reason = "the secret comes by the environment alone")]
pub(crate) fn run(name: &str, at: &[String]) -> Result<u8, Fatal> {
    let usage = |error: Error| Fatal::Usage(error.to_string());
    let (Some(row), [host, port, worker, client]) = (row_of(name), at) else {
        return Err(Fatal::Usage(format!("no service called '{name}' is built in")));
    };
    let secret = std::env::var(WORKER_SECRET_VARIABLE).unwrap_or_default();
    if secret.is_empty() {
        let text = format!("'isectd service {name}' is started by the built-in execd alone");
        return Err(Fatal::Usage(text));
    }
    let words = ["isectd", host, port, worker, row.name].map(str::to_owned);
    let options = WorkerOptions::from_args(words, secret.clone()).map_err(usage)?;
    let home = Home {
        client: Address::parse(client).map_err(usage)?,
        secret: StartSecret::new(options.worker, secret),
        name: row.name.to_owned(),
    };
    let ended = Worker::connect(options).and_then(|mut worker| match row.name {
        "health" => health::serve(&mut worker, &home),
        _ => Ok(()),
    });
    match ended {
        Ok(()) => Ok(exit::DONE),
        Err(error) => {
            last_words(&format!("isectd service {name}: {error}"));
            Ok(exit::HALT)
        }
    }
}
