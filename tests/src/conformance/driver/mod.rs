//! The driver of the Rust library, over its public interface alone. docs/conformance.md has the
//! commands.
//!
//! | file | what it has |
//! | --- | --- |
//! | `requests` | requests, by `client::caller` |
//! | `bus` | messages and instances, by `client::bus` |
//! | `worker` | a worker with one request at a time, and one with several |

mod bus;
mod requests;
mod worker;

use client::error::Error;
use protocol::proof::from_digits;
use protocol::show::digits;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Longest time that this driver waits for anything; the runner waits for 10 s.
const TIMEOUT: Duration = Duration::from_secs(9);

/// What is said of a command that was done.
type Values = Map<String, Value>;

/// Why a command was not done.
enum Refusal {
    Error(Error),
    Unsupported(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs the driver, as a client of an address or as a worker.
pub fn run() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("client"), Some(address), None) => requests::serve(&address),
        _ => worker::serve(),
    }
}

/// A line of the runner.
struct Command {
    id: u64,
    verb: String,
    all: Values,
}

impl Command {
    /// The commands of the runner, until it says no more.
    fn all() -> impl Iterator<Item = Self> {
        io::stdin().lock().lines().map_while(|line| Self::read(&line.ok()?))
    }

    fn read(line: &str) -> Option<Self> {
        let Value::Object(all) = serde_json::from_str(line).ok()? else { return None };
        let id = all.get("id")?.as_u64()?;
        let verb = all.get("do")?.as_str()?.to_owned();
        Some(Self { id, verb, all })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.all.get(key)?.as_str()
    }

    fn is(&self, key: &str) -> bool {
        self.text(key) == Some("yes")
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    fn millis(&self, key: &str) -> Option<Duration> {
        self.number(key).map(Duration::from_millis)
    }

    fn body(&self) -> Vec<u8> {
        self.text("body").and_then(from_digits).unwrap_or_default()
    }

    /// The number of the command or request that this one is about.
    fn of(&self) -> u64 {
        self.all.get("of").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Says what became of it.
    fn answer(&self, done: Result<Values, Refusal>) {
        let (key, value) = match done {
            Ok(said) => ("ok", Value::Object(said)),
            Err(Refusal::Error(error)) => ("error", Value::Object(of_error(&error))),
            Err(Refusal::Unsupported(why)) => ("unsupported", json!(why)),
        };
        say(&json!({ "id": self.id, key: value }));
    }

    fn unsupported(&self) -> Refusal {
        Refusal::Unsupported(format!("the driver has no '{}'", self.verb))
    }
}

/// Writes a line.
fn say(value: &Value) {
    let mut out = io::stdout().lock();
    // If nobody reads it, the runner has ended.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// Says that something happened that no command has asked for.
fn tell(event: &str, mut said: Values) {
    said.insert("event".to_owned(), json!(event));
    say(&Value::Object(said));
}

fn of_error(error: &Error) -> Values {
    said([
        ("code", json!(error.code.number())),
        ("name", json!(error.name())),
        ("whose", json!(error.whose().word())),
        ("ran", json!(error.ran.word())),
        ("advice", json!(error.advice())),
        ("text", json!(error.text)),
        ("retry_after_ms", json!(error.retry_after().map(|after| after.as_millis() as u64))),
    ])
}

fn said<const N: usize>(pairs: [(&str, Value); N]) -> Values {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn hex(body: &[u8]) -> Value {
    json!(digits(body))
}
