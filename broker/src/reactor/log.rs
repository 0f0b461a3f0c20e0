//! The log of isectd and of its built-in execd: lines on stderr. A slow or closed stderr never
//! stops the loop (see [`sys::stderr`]).

use crate::config::cli::{LogFormat, LogLevel};
use crate::engine::fact::{About, Fact, Level, Values};
use protocol::Micros;
use std::fmt::Display;
use std::time::Duration;
use sys::log_line::{Clean, LocalTime};
use sys::stderr::Stderr;
use tracing::level_filters::LevelFilter;

/// Time limit for writing the last lines when the program ends.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The log of this process.
#[derive(Clone, Debug)]
pub struct Log {
    stderr: Stderr,
}

impl Log {
    /// Starts the writer thread and installs the log as the process's subscriber.
    pub fn start(level: LogLevel, format: LogFormat) -> Self {
        let stderr = Stderr::start(|lost| {
            tracing::error!(
                "{lost} log lines dropped: stderr was not read, or could not be written"
            );
        });
        install(level, format, stderr.clone());
        Self { stderr }
    }

    /// Waits until what was logged is written, or a second.
    pub fn flush(&self) {
        self.stderr.flush_within(FLUSH_TIME);
    }
}

fn install(level: LogLevel, format: LogFormat, stderr: Stderr) {
    let filter = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let is_json = format == LogFormat::Json;
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(move || Clean { to: stderr.clone(), is_json });
    // Only the first log of a process is installed; a second call is ignored (tests).
    let _ = match format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_timer(LocalTime).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
}

/// A value of which there may be none, as a field.
fn field<T: Display>(value: &Option<T>) -> Option<tracing::field::DisplayValue<&T>> {
    value.as_ref().map(tracing::field::display)
}

/// Logs a fact at its level.
pub(super) fn fact(fact: &Fact) {
    let Fact { seq, kind, about, text, at: _ } = fact;
    let About { client, worker, service, host, transaction, instance, who, values } = about;
    let Values { waited, worked, delay, attempt, deaths, death, error, ran } = values;
    let micros = |span: &Option<Micros>| span.map(|span| span.0);
    let row = kind.row();
    macro_rules! line {
        ($level:ident) => {
            tracing::event!(
                tracing::Level::$level,
                fact = row.name,
                seq = seq.0,
                client = field(client),
                worker = field(worker),
                service = field(service),
                host = field(host),
                transaction = field(transaction),
                instance = field(instance),
                who = field(who),
                waited_us = micros(waited),
                worked_us = micros(worked),
                delay_us = micros(delay),
                attempt = attempt,
                deaths = deaths,
                death = death,
                error = field(error),
                ran = field(ran),
                "{text}"
            )
        };
    }
    match row.level {
        Level::Debug => line!(DEBUG),
        Level::Info => line!(INFO),
        Level::Warn => line!(WARN),
        Level::Error => line!(ERROR),
    }
}
