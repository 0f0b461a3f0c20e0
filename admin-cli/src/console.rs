//! The interactive console: a prompt, history, completion. For `op` each line is a command; for
//! another service the lines before `go` are a message.

use crate::cli::Cli;
use crate::complete::{self, Known};
use crate::connection::{Connection, Purpose};
use crate::output::{At, Output};
use crate::status::Failure;
use bytes::Bytes;
use client::address::state_dir;
use protocol::op::parse::parse;
use protocol::op::spec::{Command, Effect};
use rustyline::completion::{Completer, Pair};
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most lines of history that are kept.
const HISTORY_MAX: usize = 1000;
/// Longest wait for an answer at a prompt of `-k` before the next line is read.
const TIMEOUT: Duration = Duration::from_millis(300);

struct Table {
    known: Known,
    is_op: bool,
}

impl Helper for Table {}
impl Highlighter for Table {}
impl Validator for Table {}

impl Hinter for Table {
    type Hint = String;
}

impl Completer for Table {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if !self.is_op {
            return Ok((at, Vec::new()));
        }
        let (begin, found) = complete::complete(&line[..at], &self.known);
        let pair = |word: String| {
            let blank = if word.ends_with('=') { "" } else { " " };
            Pair { replacement: format!("{word}{blank}"), display: word }
        };
        Ok((begin, found.into_iter().map(pair).collect()))
    }
}

/// Reads lines and carries them out until the end of input.
///
/// # Errors
/// The failure that ended the console.
pub fn run(cli: &Cli, out: &mut Output) -> Result<(), Failure> {
    let purpose = if cli.keep { Purpose::Requests } else { Purpose::Console };
    let mut connection = Connection::open(cli, purpose, out)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Without the handler Ctrl-C ends the program instead of the answer, which is acceptable.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let is_op = cli.service.is_op();
    let mut editor = editor(is_op).map_err(failure)?;
    if is_op {
        out.text("'help' lists the commands, Tab completes, Ctrl-D or 'exit' ends.")?;
    } else {
        out.text("Lines up to 'go' are one message; Ctrl-D ends.")?;
    }
    let result = if is_op {
        commands(cli, &mut connection, &mut editor, &stop, out)
    } else {
        messages(cli, &mut connection, &mut editor, &stop, out)
    };
    save_history(&mut editor);
    result
}

fn commands(
    cli: &Cli,
    connection: &mut Connection,
    editor: &mut Editor<Table, DefaultHistory>,
    stop: &AtomicBool,
    out: &mut Output,
) -> Result<(), Failure> {
    learn(connection, editor);
    while let Some(line) = line(editor, "isect> ")? {
        let line = line.trim();
        match line {
            // In the manual a blank command is `status`; here Enter alone does nothing.
            "" | "go" => continue,
            "exit" | "quit" => break,
            line => remember(editor, line),
        }
        stop.store(false, Ordering::Relaxed);
        // The login named the width of the terminal, and answers fit that; a new width needs a new
        // login.
        if connection.columns() != out.columns() {
            *connection = Connection::open(cli, Purpose::Console, out)?;
        }
        match connection.ask(Bytes::copy_from_slice(line.as_bytes()), Some(stop), out) {
            Ok(()) if parse(line).is_ok_and(|request| request.effect() != Effect::Read) => {
                learn(connection, editor);
            }
            Ok(()) => {}
            Err(failure @ Failure::Output(_)) => return Err(failure),
            // Otherwise the broker would go on with an answer that nobody wants; a new connection
            // ends it.
            Err(Failure::Interrupted) => {
                *connection = Connection::open(cli, Purpose::Console, out)?
            }
            Err(failure) => tell(&failure, out),
        }
    }
    Ok(())
}

fn messages(
    cli: &Cli,
    connection: &mut Connection,
    editor: &mut Editor<Table, DefaultHistory>,
    stop: &AtomicBool,
    out: &mut Output,
) -> Result<(), Failure> {
    let prompt = format!("{}> ", cli.service);
    let mut body = String::new();
    loop {
        let line = line(editor, &prompt)?;
        let is_end = line.is_none();
        match line.as_deref() {
            Some("go") => {}
            Some(line) => {
                remember(editor, line);
                body.push_str(line);
                body.push('\n');
                continue;
            }
            None if cli.keep || !body.trim().is_empty() => {}
            None => return Ok(()),
        }
        let message = Bytes::from(std::mem::take(&mut body));
        stop.store(false, Ordering::Relaxed);
        let result = if cli.keep {
            connection.tell(message, is_end, TIMEOUT, out)
        } else {
            connection.ask(message, Some(stop), out)
        };
        match result {
            Ok(()) => {}
            Err(failure @ Failure::Output(_)) => return Err(failure),
            // The request is given up, and its worker told.
            Err(Failure::Interrupted) => {}
            Err(failure) if cli.keep => return Err(failure),
            Err(failure) => tell(&failure, out),
        }
        out.end_line()?;
        if is_end {
            return Ok(());
        }
    }
}

/// Prints a failure. It does not count for the exit status, because the person at the prompt saw
/// it.
fn tell(failure: &Failure, out: &mut Output) {
    out.brief_failure(At::Only(""), failure);
    out.forget_failures();
}

/// Reads the next line; `None` = the end of input.
fn line(
    editor: &mut Editor<Table, DefaultHistory>,
    prompt: &str,
) -> Result<Option<String>, Failure> {
    loop {
        match editor.readline(prompt) {
            Ok(line) => return Ok(Some(line)),
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(failure(error)),
        }
    }
}

fn editor(is_op: bool) -> rustyline::Result<Editor<Table, DefaultHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Table { known: Known::default(), is_op }));
    if let Some(file) = history().filter(|file| file.is_file()) {
        let _ = editor.load_history(&file);
    }
    Ok(editor)
}

/// Asks the broker for the names that Tab completes.
fn learn(connection: &mut Connection, editor: &mut Editor<Table, DefaultHistory>) {
    let Ok(answer) = connection.fetch(Command::Services.row().name) else { return };
    if let Some(table) = editor.helper_mut() {
        table.known.services = complete::services(&String::from_utf8_lossy(&answer));
    }
}

fn remember(editor: &mut Editor<Table, DefaultHistory>, line: &str) {
    // A line is carried out even if it can't be kept in the history.
    let _ = editor.add_history_entry(line);
}

fn save_history(editor: &mut Editor<Table, DefaultHistory>) {
    if let Some(file) = history().filter(|file| file.parent().is_some_and(|dir| dir.is_dir())) {
        // Appends this console's lines after those of consoles that ended meanwhile. Losing the
        // history is no reason to fail. A pipe or device in place of the file is left alone,
        // because it might block.
        if file.is_file() || !file.exists() {
            let _ = editor.append_history(&file);
        }
    }
}

fn history() -> Option<PathBuf> {
    state_dir().map(|dir| dir.join("isdclient_history"))
}

fn failure(error: ReadlineError) -> Failure {
    match error {
        ReadlineError::Io(error) => Failure::Input(error),
        error => Failure::Input(io::Error::other(error)),
    }
}
