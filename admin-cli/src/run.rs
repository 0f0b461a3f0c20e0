//! Runs without a person: texts of `-c`, messages on standard input, or a script of commands.

use crate::cli::Cli;
use crate::connection::Connection;
use crate::input::{Message, Messages};
use crate::output::{At, Output};
use crate::status::Failure;
use bytes::Bytes;
use protocol::op::parse::parse_script;
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
    let mut connection = Connection::open(cli, false, out)?;
    let result = if !cli.commands.is_empty() {
        commands(cli, &mut connection, out)
    } else if cli.service.is_op() {
        operate(&mut connection, input, out)
    } else {
        messages(cli, &mut connection, input, out)
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

/// Standard input for `op`: commands ended by `go`, or a script if there is no `go`.
fn operate(
    connection: &mut Connection,
    input: &mut dyn BufRead,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut messages = Messages::new(input, SCRIPT_BYTES_MAX);
    let mut is_first = true;
    while let Some(Message { body, is_sent }) = messages.read()? {
        if is_sent {
            go_on(At::Only(""), connection.ask(body, None, out), out)?;
        } else if is_first || !body.is_empty() {
            script(connection, &body, out)?;
        }
        is_first = false;
    }
    Ok(())
}

fn script(connection: &mut Connection, bytes: &[u8], out: &mut Output) -> Result<(), Failure> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::Usage(format!("line {line} of standard input is not UTF-8; nothing was sent"))
    })?;
    for (number, line) in parse_script(text) {
        let body = Bytes::copy_from_slice(line.as_bytes());
        match connection.ask(body, None, out) {
            Err(failure) if !failure.is_final() => {
                out.brief_failure(At::Line(number, line), &failure);
            }
            result => result?,
        }
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
