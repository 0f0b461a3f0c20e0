//! Parses a line of text to an [`OpRequest`], by the table. Every error names the word, the range
//! and the right syntax. Whether the named object exists is checked by the engine.

use super::args::Args;
use super::spec::{Command, OpRequest, Spec};
use super::table::COMMANDS;
use super::{help, words, worker_settings};
use crate::errors::ErrorCode;
use std::fmt;

pub use super::words::{nearest, parse_script, quote};

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// The error to answer with.
    pub code: ErrorCode,
    /// What is wrong and the right syntax; may have many lines.
    pub text: String,
}

impl OpError {
    /// A syntax error with this text.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Usage, text: text.into() }
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for OpError {}

/// Parses one command. White space and NULs around it are ignored; a blank line asks for the status
/// page.
///
/// # Errors
/// The text names the wrong word and gives the syntax of the command.
pub fn parse(line: &str) -> Result<OpRequest, OpError> {
    let words = words::split(line)?;
    let error = match read(&words) {
        Ok(request) => return Ok(request),
        Err(error) => error,
    };
    // An error may show any word, and reaches readers who may not see the values of variables: it
    // is made once more of words without them. Only what is wrong with a value itself is missing
    // then, and those texts never show it.
    let hidden: Vec<String> = words.iter().map(|word| worker_settings::hidden(word)).collect();
    if hidden == words { Err(error) } else { Err(read(&hidden).err().unwrap_or(error)) }
}

fn read(words: &[String]) -> Result<OpRequest, OpError> {
    let Some(first) = words.first() else { return Ok(OpRequest::Status) };
    worker_settings::check_controls(words)?;
    let (row, used) = find(first, words.get(1).map(String::as_str))?;
    let mut args = Args::new(row, &words[used..]);
    let request = OpRequest::read(&mut args)?;
    args.end()?;
    Ok(request)
}

/// [`parse`] for bytes from the wire.
///
/// # Errors
/// As [`parse`]; also when the bytes are not UTF-8.
pub fn parse_bytes(body: &[u8]) -> Result<OpRequest, OpError> {
    words::check_size(body.len())?;
    let line = std::str::from_utf8(body).map_err(|e| {
        OpError::usage(format!("byte {} of the command is not UTF-8", e.valid_up_to()))
    })?;
    parse(line)
}

/// Finds the row that the first words name; returns it with the number of words of its name.
fn find(first: &str, second: Option<&str>) -> Result<(&'static Spec, usize), OpError> {
    if first == "?" {
        return Ok((Command::Help.row(), 1));
    }
    if let Some(row) = COMMANDS.iter().find(|row| row.name == first) {
        return Ok((row, 1));
    }
    let group: Vec<&'static Spec> = COMMANDS.iter().filter(|row| row.first() == first).collect();
    if group.is_empty() {
        return Err(OpError::usage(help::unknown(first)));
    }
    let Some(second) = second else {
        return Err(group_error(&group, format!("{first}: a second word is missing")));
    };
    if let Some(row) = group.iter().find(|row| row.second() == Some(second)) {
        return Ok((row, 2));
    }
    let hint = nearest(second, group.iter().filter_map(|row| row.second()));
    let text = format!("{first}: unknown word '{}'{}", words::shown(second), words::meant(hint));
    Err(group_error(&group, text))
}

fn group_error(group: &[&'static Spec], mut text: String) -> OpError {
    for row in group {
        text.push_str("\nsyntax: ");
        text.push_str(row.usage);
    }
    OpError::usage(text)
}
