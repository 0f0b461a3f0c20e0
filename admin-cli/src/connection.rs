//! One connection to the broker. It sends a request and receives its whole answer, or exchanges the
//! frames of one conversation. `run` and `console` supply the messages.

use crate::cli::Cli;
use crate::output::Output;
use crate::status::Failure;
use bytes::Bytes;
use client::caller::{Caller, Options, Reply, Send};
use client::error::{Code, Error};
use protocol::header::{FLAG_EXTENDABLE, FLAG_IDEMPOTENT};
use protocol::op::table::COMMANDS;
use protocol::{Command, ErrorCode, Format, Header, Kind, ServiceName, show};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time to wait past a deadline for the broker's own error, which says whether the request ran.
const GRACE: Duration = Duration::from_millis(500);
/// How often Ctrl-C is checked while an answer is awaited.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for the names that Tab completes.
const FETCH: Duration = Duration::from_secs(1);
/// Longest wait for a connection to one address.
const CONNECT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A person at a prompt: it is made again when it was lost.
    Console,
    /// Requests and commands that stand alone.
    Requests,
    /// The commands of one script.
    Script,
}

/// Whether the conversation had ended by the time the next frame could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The worker waits for more frames.
    No,
    /// The worker gave its final reply.
    Yes,
}

/// A client that has logged in.
#[derive(Debug)]
pub struct Connection {
    caller: Caller,
    service: ServiceName,
    timeout: Option<Duration>,
    idempotent: bool,
    extendable: bool,
    debug: bool,
    /// The width of the terminal, in columns, that the login named.
    columns: Option<u16>,
    /// Sequence and worker id of the conversation that `-k` keeps open.
    conversation: Option<(u32, u32)>,
    /// Whether the worker has ended the conversation of `-k`.
    is_over: bool,
}

impl Connection {
    /// Connects and logs in as the command line says.
    ///
    /// # Errors
    /// Nobody answers, or the broker refuses the login.
    pub fn open(cli: &Cli, purpose: Purpose, out: &mut Output) -> Result<Self, Failure> {
        let timeout = cli.timeout();
        let columns = out.columns();
        let format = match columns {
            _ if cli.json => Format::Json,
            Some(columns) => Format::Screen(columns),
            None => Format::Text,
        };
        let options = Options {
            priority: cli.priority,
            format,
            name: Some("isdclient".to_owned()),
            token: cli.token()?,
            start: cli.start()?,
            connect_timeout: timeout.unwrap_or(CONNECT).min(CONNECT),
            reconnect: purpose == Purpose::Console,
            script: purpose == Purpose::Script,
            trust: Some(cli.trust()),
            ..Options::new(cli.service.clone())
        };
        if cli.debug {
            out.note(&format!("> login service={} pri={}", cli.service, cli.priority));
        }
        let caller = Caller::login(&cli.addresses()?, options)
            .map_err(|error| Failure::Asked(not_a_service(error, &cli.service)))?;
        if cli.debug {
            let limits = caller.limits();
            let at = caller.address().map(ToString::to_string).unwrap_or_default();
            out.note(&format!(
                "< login-ok client={} body_bytes_max={} version={} at {at}",
                limits.client, limits.body_bytes_max, limits.version
            ));
        }
        Ok(Self {
            caller,
            service: cli.service.clone(),
            timeout,
            idempotent: cli.idempotent,
            extendable: cli.extendable,
            debug: cli.debug,
            columns,
            conversation: None,
            is_over: false,
        })
    }

    /// The width of the terminal, in columns, that the login named.
    pub fn columns(&self) -> Option<u16> {
        self.columns
    }

    /// Most bytes of a message: the broker's limit, from its `login-ok`.
    pub fn body_bytes_max(&self) -> usize {
        usize::try_from(self.caller.limits().body_bytes_max).unwrap_or(usize::MAX)
    }

    /// Sends one request and prints each piece of its answer as it comes. Setting `stop` from
    /// elsewhere ends the wait.
    ///
    /// # Errors
    /// The error that ended the request, or the output can't be written.
    pub fn ask(
        &mut self,
        body: Bytes,
        stop: Option<&AtomicBool>,
        out: &mut Output,
    ) -> Result<(), Failure> {
        let is_stream = self.service.is_op() && is_watch(&body);
        let mut until = self.until();
        let sequence = self.dispatch(body, false, out)?;
        loop {
            let reply = self.receive(sequence, until, stop, out).inspect_err(|_| {
                // Interrupted, or too late: its worker need not go on.
                self.caller.give_up(sequence);
            })?;
            self.print(&reply, is_stream, out)?;
            if !reply.more {
                break;
            }
            if let Some(next) = reply.next_within {
                until = now().checked_add(next + GRACE);
            }
        }
        if self.service.is_op() { out.end_line() } else { out.end_answer() }
    }

    /// Sends a command and returns its answer, without printing it.
    ///
    /// # Errors
    /// The error that ended the request.
    pub fn fetch(&mut self, command: &'static str) -> Result<Bytes, Error> {
        self.caller.call(command, Some(FETCH))
    }

    /// Sends the next frame of the conversation of `-k` and prints the answers that are there.
    /// Waits this long for them; after the last frame, until the conversation ends.
    ///
    /// # Errors
    /// As [`Connection::ask`]; also if the worker has ended the conversation.
    pub fn tell(
        &mut self,
        body: Bytes,
        is_last: bool,
        timeout: Duration,
        out: &mut Output,
    ) -> Result<(), Failure> {
        if self.is_over {
            if is_last && body.is_empty() {
                return Ok(());
            }
            let text = format!(
                "the worker has ended the conversation; {} bytes more were not sent",
                body.len()
            );
            return Err(Failure::Asked(Error::new(ErrorCode::NoConversation, text)));
        }
        let sequence = self.dispatch(body, !is_last, out)?;
        let worker = self.conversation.map_or(0, |(_, worker)| worker);
        self.conversation = Some((sequence, worker));
        if is_last {
            let until = self.until();
            while self.converse(sequence, until, out)? == Ended::No {}
            return out.end_answer();
        }
        let mut until = now().checked_add(timeout);
        loop {
            match self.converse(sequence, until, out) {
                Ok(Ended::Yes) => return out.end_answer(),
                Ok(Ended::No) => until = Some(now()),
                Err(Failure::Asked(error)) if error.is(ErrorCode::Timeout) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn converse(
        &mut self,
        sequence: u32,
        until: Option<Instant>,
        out: &mut Output,
    ) -> Result<Ended, Failure> {
        let reply = self.receive(sequence, until, None, out).inspect_err(|failure| {
            let is_timeout = matches!(failure, Failure::Asked(e) if e.is(ErrorCode::Timeout));
            self.is_over |= !is_timeout;
        })?;
        self.print(&reply, false, out)?;
        if reply.more {
            self.conversation = Some((sequence, reply.worker));
            return Ok(Ended::No);
        }
        self.is_over = true;
        Ok(Ended::Yes)
    }

    fn dispatch(&mut self, body: Bytes, more: bool, out: &mut Output) -> Result<u32, Failure> {
        let send = Send {
            more,
            idempotent: self.idempotent,
            extendable: self.extendable,
            deadline: self.timeout,
            conversation: self.conversation,
            ..Send::default()
        };
        let sequence = self.caller.send(body.clone(), &send).map_err(Failure::Asked)?;
        if self.debug {
            out.note(&format!("> {}", sent(sequence, &send, &body)));
        }
        Ok(sequence)
    }

    fn receive(
        &mut self,
        sequence: u32,
        until: Option<Instant>,
        stop: Option<&AtomicBool>,
        out: &mut Output,
    ) -> Result<Reply, Failure> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(now()));
            let wait = match (left, stop) {
                (left, None) => left,
                (None, Some(_)) => Some(LOOK),
                (Some(left), Some(_)) => Some(left.min(LOOK)),
            };
            match self.caller.recv_from(sequence, wait) {
                Ok(reply) => {
                    if self.debug {
                        out.note(&format!("< {}", received(&reply)));
                    }
                    return match reply.error {
                        Some(error) => Err(Failure::Asked(error)),
                        None => Ok(reply),
                    };
                }
                Err(error) if !error.is(ErrorCode::Timeout) => return Err(Failure::Asked(error)),
                Err(error) => {
                    if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                        return Err(Failure::Interrupted);
                    }
                    if until.is_some_and(|until| now() >= until) {
                        return Err(Failure::Asked(self.too_late(error)));
                    }
                }
            }
        }
    }

    fn too_late(&self, error: Error) -> Error {
        match self.timeout {
            None => error,
            Some(timeout) => Error::new(
                ErrorCode::Timeout,
                format!(
                    "no whole answer of service '{}' came in {} ms",
                    self.service,
                    timeout.as_millis()
                ),
            ),
        }
    }

    fn until(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| now().checked_add(timeout + GRACE))
    }

    fn print(&self, reply: &Reply, is_stream: bool, out: &mut Output) -> Result<(), Failure> {
        out.piece(&reply.body)?;
        if is_stream { out.end_line() } else { Ok(()) }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of this program that reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Adds a hint to the error if the unknown service has the name of a command.
fn not_a_service(mut error: Error, service: &ServiceName) -> Error {
    let is_command = COMMANDS.iter().any(|row| row.first() == service.as_str());
    if is_command && error.is(ErrorCode::UnknownService) {
        let hint = format!("; '{service}' is a command of the broker: isdclient -c {service}");
        error.text = format!("{}{hint}", error.text.trim_end());
    }
    error
}

/// Whether the command's answer is a stream of events or of lines.
fn is_watch(body: &[u8]) -> bool {
    let mut words = body.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is = |word: Option<&[u8]>, command: Command| word == Some(command.row().name.as_bytes());
    let first = words.next();
    is(first, Command::Watch) || (is(first, Command::Logs) && words.any(|word| word == b"-f"))
}

fn sent(sequence: u32, send: &Send, body: &Bytes) -> String {
    let header = Header {
        len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        sequence,
        reply: u16::from(send.reply),
        more: u16::from(send.more),
        priority: send.priority,
        flags: if send.idempotent { FLAG_IDEMPOTENT } else { 0 }
            | if send.extendable { FLAG_EXTENDABLE } else { 0 },
        workerid: send.conversation.map_or(0, |(_, worker)| worker),
        deadline_ms: send
            .deadline
            .map_or(0, |span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX)),
        ..Header::default()
    };
    show::line(&header, body)
}

fn received(reply: &Reply) -> String {
    let (kind, body) = match &reply.error {
        None => (Kind::Data, reply.body.clone()),
        Some(error) => match error.code {
            Code::Isect(_) | Code::Newer(_) => (Kind::Error, Bytes::from(error.text.clone())),
            Code::Application(_) => (Kind::Data, Bytes::from(error.text.clone())),
        },
    };
    let header = Header {
        len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        sequence: reply.sequence,
        more: u16::from(reply.more),
        error: reply.error.as_ref().map_or(0, |error| error.code.number()),
        command: kind.number(),
        workerid: reply.worker,
        transaction: reply.transaction,
        ..Header::default()
    };
    show::line(&header, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_is_known_by_its_first_word() {
        assert!(is_watch(b"logs echo -f") && !is_watch(b"logs f") && !is_watch(b"load -f"));
        assert!(is_watch(b" watch\n") && is_watch(b"watch worker_died\0"));
        assert!(!is_watch(b"") && !is_watch(b"watches") && !is_watch(b"help watch"));
    }

    #[test]
    fn a_command_in_the_place_of_a_service_is_told() {
        let told = |name: &str| {
            let error = Error::new(ErrorCode::UnknownService, "no such service");
            not_a_service(error, &ServiceName::new(name).unwrap()).text
        };
        let hint = "no such service; 'status' is a command of the broker: isdclient -c status";
        assert_eq!(told("status"), hint);
        assert_eq!(told("d"), "no such service");
    }

    #[test]
    fn frames_are_shown_in_one_line() {
        let send = Send {
            more: true,
            deadline: Some(Duration::from_millis(7)),
            conversation: Some((3, 9)),
            ..Send::default()
        };
        assert_eq!(
            sent(3, &send, &Bytes::from_static(b"hi")),
            "data seq=3 worker=9 deadline_ms=7 len=2 reply more \"hi\""
        );
        let reply = Reply {
            sequence: 3,
            body: Bytes::new(),
            more: false,
            worker: 0,
            next_within: None,
            transaction: 12,
            error: Some(Error::new(ErrorCode::WorkerDied, "gone")),
        };
        assert_eq!(received(&reply), "error seq=3 trans=12 len=4 error=-17(worker_died) \"gone\"");
    }
}
