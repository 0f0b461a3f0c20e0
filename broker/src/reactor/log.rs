//! The log: lines go to stderr by a thread of their own, so that a reader who stops reading never
//! stops the loop; what it can't keep up with is dropped and counted. Not what is worth a line:
//! facts are.

use crate::config::cli::{LogFormat, LogLevel};
use crate::engine::fact::{About, Fact, Level};
use crossbeam_channel::{Receiver, Sender, bounded};
use execd::log_time::LocalTime;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Lines that wait for stderr at most.
const LINES_MAX: usize = 8192;
/// How long the end of the program waits for them.
const FLUSH_TIME: Duration = Duration::from_secs(1);

enum Job {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// The way to the log's thread.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    jobs: Sender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Starts the log of this process.
    pub(crate) fn start(level: LogLevel, format: LogFormat) -> Self {
        let (jobs, work) = bounded(LINES_MAX);
        let log = Self { jobs, dropped: Arc::default() };
        let dropped = Arc::clone(&log.dropped);
        // Without the thread there is no log; the broker serves all the same.
        let _ = thread::Builder::new()
            .name("isectd-log".to_owned())
            .spawn(move || write_lines(&work, &dropped));
        let writer = log.clone();
        install(level, format, move || writer.clone());
        log
    }

    /// Waits until what was logged is written, or a second.
    pub(crate) fn flush(&self) {
        let (done, wait) = bounded(1);
        if self.jobs.send_timeout(Job::Flush(done), FLUSH_TIME).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIME);
        }
    }
}

/// Starts a log without a thread, for the role of execd, which forks.
pub(super) fn start_plain(level: LogLevel, format: LogFormat) {
    install(level, format, io::stderr);
}

fn install<W, M>(level: LogLevel, format: LogFormat, writer: M)
where
    W: Write + 'static,
    M: Fn() -> W + Send + Sync + 'static,
{
    let filter = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // A stderr that is closed must not end the program, so failed writes are not reported there.
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(writer);
    // A second log in one process is the first one.
    let _ = match format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_timer(LocalTime).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(work: &Receiver<Job>, dropped: &AtomicU64) {
    let mut out = io::stderr();
    for job in work {
        // A log that nobody can read any more is no reason to end.
        match job {
            Job::Line(line) => {
                let _ = out.write_all(&line);
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "isectd: {lost} log lines dropped: stderr is read too slowly");
        }
    }
}

/// A value of which there may be none, as a field.
fn field<T: Display>(value: &Option<T>) -> Option<tracing::field::DisplayValue<&T>> {
    value.as_ref().map(tracing::field::display)
}

/// Logs a fact at its level.
pub(super) fn fact(fact: &Fact) {
    let Fact { seq, kind, about, text, at: _ } = fact;
    let About { client, worker, service, host, transaction, who } = about;
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
                who = field(who),
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
