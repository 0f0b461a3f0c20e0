//! Runs without a person: texts of `-c`, messages on standard input, or a script of commands.

use crate::cli::Cli;
use crate::connection::{Connection, Purpose};
use crate::input::{Message, Messages};
use crate::output::{At, Output};
use crate::status::Failure;
use bytes::Bytes;
use protocol::errors::ErrorCode;
use protocol::op::parse::{parse, parse_script};
use protocol::op::spec::{Command, Effect, OpRequest, SendWhat};
use std::io::BufRead;
use std::time::Duration;

/// Most bytes of a script on standard input.
const SCRIPT_BYTES_MAX: usize = 16 << 20;

/// Carries out what the command line and standard input say. It prints failures of single commands
/// and goes on.
///
/// # Errors
/// The failure that ended the run.
pub fn run(cli: &Cli, input: &mut dyn BufRead, out: &mut Output) -> Result<(), Failure> {
    if cli.commands.is_empty() && cli.service.is_op() {
        return operate(cli, input, out).and_then(|()| out.end_line());
    }
    let mut connection = Connection::open(cli, Purpose::Requests, out)?;
    let result = if cli.commands.is_empty() {
        messages(cli, &mut connection, input, out)
    } else {
        commands(cli, &mut connection, out)
    };
    result.and_then(|()| if cli.service.is_op() { out.end_line() } else { out.end_answer() })
}

/// `-c`: sends all texts, in order.
fn commands(cli: &Cli, connection: &mut Connection, out: &mut Output) -> Result<(), Failure> {
    let bodies = cli.messages();
    let count = bodies.len();
    for (index, body) in bodies.into_iter().enumerate() {
        let command = cli.commands[index].as_str();
        let at = if count == 1 { At::Only(command) } else { At::Command(command) };
        let is_last = index + 1 == count;
        let result = if cli.keep {
            connection.tell(body, is_last, Duration::ZERO, out)
        } else {
            separate(cli, index, out).and_then(|()| connection.ask(body, None, out))
        };
        go_on(at, result, out)?;
    }
    Ok(())
}

/// Sends messages, each ended by `go`, to a service.
fn messages(
    cli: &Cli,
    connection: &mut Connection,
    input: &mut dyn BufRead,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut messages = Messages::new(input, connection.body_bytes_max());
    if cli.keep {
        return conversation(connection, &mut messages, out);
    }
    let mut index = 0;
    while let Some(message) = messages.read()? {
        if !message.is_sent && message.is_blank() {
            break;
        }
        let result =
            separate(cli, index, out).and_then(|()| connection.ask(message.body, None, out));
        go_on(At::Only(""), result, out)?;
        index += 1;
    }
    Ok(())
}

/// `-k`: sends the messages as one conversation. A message is sent when it is known whether another
/// one follows.
fn conversation(
    connection: &mut Connection,
    messages: &mut Messages<'_>,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut held: Option<Bytes> = None;
    while let Some(message) = messages.read()? {
        if !message.is_sent && message.is_blank() {
            break;
        }
        if let Some(body) = held.replace(message.body) {
            connection.tell(body, false, Duration::ZERO, out)?;
        }
    }
    held.map_or(Ok(()), |body| connection.tell(body, true, Duration::ZERO, out))
}

/// Standard input for `op`: commands ended by `go`, or a script if there is no `go`. The login says
/// which, so the first of it is read before.
fn operate(cli: &Cli, input: &mut dyn BufRead, out: &mut Output) -> Result<(), Failure> {
    let mut messages = Messages::new(input, SCRIPT_BYTES_MAX);
    let mut next = messages.read()?;
    let is_script = next.as_ref().is_some_and(|message| !message.is_sent);
    let purpose = if is_script { Purpose::Script } else { Purpose::Requests };
    let mut connection = Connection::open(cli, purpose, out)?;
    while let Some(Message { body, is_sent }) = next {
        if is_sent {
            go_on(At::Only(""), connection.ask(body, None, out), out)?;
        } else if script(&mut connection, &body, out)? && is_script {
            summary(&mut connection, out)?;
        }
        next = messages.read()?;
    }
    Ok(())
}

/// Runs a command a line. Returns whether one of them failed or is to do more than to show
/// something, so that a summary is worth a line.
fn script(connection: &mut Connection, bytes: &[u8], out: &mut Output) -> Result<bool, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::Usage(format!("line {line} of standard input is not UTF-8; nothing was sent"))
    })?;
    let lines = parse_script(text);
    let mut is_summed = false;
    for (answered, &(number, line)) in lines.iter().enumerate() {
        let body = Bytes::copy_from_slice(line.as_bytes());
        let result = connection.ask(body, None, out);
        is_summed |= result.is_err() || !only_shows(line);
        match result {
            Err(failure) if !failure.is_final() => {
                out.brief_failure(At::Line(number, line), &failure);
            }
            Err(failure @ Failure::Asked(_)) => {
                out.note(&format!(
                    "isdclient: {answered} of {} commands were answered before line {number}",
                    lines.len()
                ));
                return Err(failure);
            }
            result => result?,
        }
    }
    Ok(is_summed)
}

fn only_shows(line: &str) -> bool {
    parse(line).is_ok_and(|request| {
        matches!(request, OpRequest::Send(_, SendWhat::Status)) || request.effect() == Effect::Read
    })
}

/// Prints what became of the commands of a script. They were all answered, so the exit status is
/// theirs, whatever becomes of this.
fn summary(connection: &mut Connection, out: &mut Output) -> Result<(), Failure> {
    let command = Command::Summary.row().name;
    match connection.ask(Bytes::from_static(command.as_bytes()), None, out) {
        Err(Failure::Asked(error)) if error.is(ErrorCode::Usage) => out.note(
            "isdclient: the broker is of an older version: it has no summary, and made a worker \
             for each 'config worker' without an id",
        ),
        Err(Failure::Asked(error)) => {
            out.note(&format!("isdclient: all commands were answered; no summary: {}", error.text));
        }
        result => return result,
    }
    Ok(())
}

/// Ends the line between two answers of a service, if text is printed and the first did not end it.
fn separate(cli: &Cli, index: usize, out: &mut Output) -> Result<(), Failure> {
    if index > 0 && !cli.service.is_op() { out.end_line() } else { Ok(()) }
}

/// Prints a failure; returns it only if the run can't go on.
fn go_on(at: At<'_>, result: Result<(), Failure>, out: &mut Output) -> Result<(), Failure> {
    match result {
        Err(failure) if !failure.is_final() => {
            out.failure(at, &failure);
            Ok(())
        }
        result => result,
    }
}
