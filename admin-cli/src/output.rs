//! Standard output and standard error of `isdclient`: answers unchanged, errors with their cure.
//! Only this file prints.

use crate::status::{Failure, Status};
use client::error::{Code, Error};
use protocol::op::parse::{parse, quote};
use protocol::{ErrorCode, OpRequest, show};
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use sys::stderr::Notes;

/// How much of an error's text is printed.
#[derive(Clone, Copy)]
enum Whole {
    Yes,
    No,
}

/// What the program was doing when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'a> {
    /// The only request of the run.
    Only(&'a str),
    /// One of several texts of `-c`.
    Command(&'a str),
    /// The number of a line of a script on standard input, from 1, and its text.
    Line(usize, &'a str),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(_) => Ok(()),
            Self::Command(command) => write!(f, "-c {}: ", quote(command)),
            Self::Line(number, _) => write!(f, "line {number}: "),
        }
    }
}

/// The two output streams and the first failure.
pub struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    is_terminal: bool,
    json: bool,
    /// Whether a line break was printed last, or nothing was printed.
    at_line_start: bool,
    /// The first bytes of a character whose rest comes with the next piece; only for a terminal.
    part: Vec<u8>,
    first: Option<Status>,
}

impl Output {
    /// Prints to standard output and standard error.
    pub fn new(json: bool) -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self::with(Box::new(out), Box::new(Notes::new("isdclient")), is_terminal, json)
    }

    /// Prints to the given streams.
    pub fn with(out: Box<dyn Write>, err: Box<dyn Write>, is_terminal: bool, json: bool) -> Self {
        Self { out, err, is_terminal, json, at_line_start: true, part: Vec::new(), first: None }
    }

    /// The width in columns of the terminal that answers are printed on; `None` = no terminal.
    pub fn columns(&self) -> Option<u16> {
        let is_screen = self.is_terminal && !self.json;
        let size = if is_screen { terminal_size::terminal_size() } else { None };
        size.map(|(width, _)| width.0).filter(|columns| *columns > 0)
    }

    /// Prints a piece of an answer: unchanged to a file or pipe; to a terminal with hidden
    /// characters made visible, so that an answer can't move the cursor or change what a line says.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.is_terminal {
            return self.write(bytes);
        }
        self.part.extend_from_slice(bytes);
        let end = whole(&self.part);
        let part = self.part.split_off(end);
        let text = std::mem::replace(&mut self.part, part);
        self.write(show::lines(&String::from_utf8_lossy(&text)).as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.at_line_start = *last == b'\n';
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    /// Prints a line break if text was printed and its line is not ended.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn end_line(&mut self) -> Result<(), Failure> {
        let part = std::mem::take(&mut self.part);
        self.write(String::from_utf8_lossy(&part).as_bytes())?;
        if self.at_line_start { Ok(()) } else { self.write(b"\n") }
    }

    /// Ends an answer of a service; on a terminal it ends the line.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn end_answer(&mut self) -> Result<(), Failure> {
        if self.is_terminal { self.end_line() } else { Ok(()) }
    }

    /// Prints text and ends its line.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.piece(text.as_bytes())?;
        self.end_line()
    }

    /// Prints a line for a person on standard error, with hidden characters made visible.
    pub fn note(&mut self, text: &str) {
        let lines = format!("{}\n", show::lines(text));
        // Nobody can be told that this failed.
        let _ = self.err.write_all(lines.as_bytes());
    }

    /// Prints what went wrong and where, and remembers the first exit status.
    pub fn failure(&mut self, at: At<'_>, failure: &Failure) {
        self.tell(at, failure, Whole::Yes);
    }

    /// As [`Output::failure`], without the help that the broker adds to the error of an unknown
    /// command; for runs with many commands.
    pub fn brief_failure(&mut self, at: At<'_>, failure: &Failure) {
        self.tell(at, failure, Whole::No);
    }

    fn tell(&mut self, at: At<'_>, failure: &Failure, whole: Whole) {
        let status = failure.status();
        if status == Status::Done {
            return;
        }
        self.first.get_or_insert(status);
        if self.json {
            self.failure_as_json(at, failure);
        }
        let text = match failure {
            Failure::Asked(error) => match whole {
                Whole::Yes => words(error),
                Whole::No => words(&without_help(error)),
            },
            Failure::Usage(text) => text.clone(),
            Failure::Input(error) => format!("standard input can't be read: {error}"),
            Failure::Output(error) => format!("standard output can't be written: {error}"),
            Failure::Interrupted => "interrupted".to_owned(),
        };
        let _ = self.end_answer();
        self.note(&format!("isdclient: {at}{text}"));
    }

    /// Prints the failure as one JSON object on standard output, in place of the answer.
    pub fn failure_as_json(&mut self, at: At<'_>, failure: &Failure) {
        let error = match failure {
            Failure::Asked(error) => error.clone(),
            Failure::Usage(text) => Error::new(ErrorCode::Usage, text.as_str()),
            Failure::Input(error) => {
                Error::new(ErrorCode::Refused, format!("standard input can't be read: {error}"))
            }
            // The output is broken, or the person pressed Ctrl-C.
            Failure::Output(_) | Failure::Interrupted => return,
        };
        // The text of a usage error explains the cure itself.
        let advice = match failure {
            Failure::Usage(_) => "'isdclient --help' explains the command line",
            Failure::Asked(_) | Failure::Input(_) | Failure::Output(_) | Failure::Interrupted => {
                error.advice()
            }
        };
        let _ = self.end_line().and_then(|()| self.text(&as_json(at, &error, advice)));
    }

    /// Removes the exit status of the failures so far.
    pub fn forget_failures(&mut self) {
        self.first = None;
    }

    /// The status of the first failure that was printed; `None` = there was none.
    pub fn first_failure(&self) -> Option<Status> {
        self.first
    }
}

/// How many bytes come before a character that is incomplete at the end.
fn whole(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let left = last.map_or(&[][..], |chunk| chunk.invalid());
    // A character that is incomplete may be completed by the next piece; invalid bytes can't.
    let is_incomplete = std::str::from_utf8(left).is_err_and(|error| error.error_len().is_none());
    bytes.len() - if is_incomplete { left.len() } else { 0 }
}

/// A usage error with the first paragraph of its text only, because the rest is the help.
fn without_help(error: &Error) -> Error {
    let mut error = error.clone();
    if error.is(ErrorCode::Usage)
        && let Some((first, _)) = error.text.split_once("\n\n")
    {
        error.text = format!("{first}\n  {}", error.advice());
    }
    error
}

/// An error for a person: what failed, whose fault, whether it ran, what to do.
fn words(error: &Error) -> String {
    let context = error.context().map_or_else(String::new, |context| format!("{context}: "));
    let text = error.text.trim_end();
    // The text of a usage error has the cure already: the syntax, or the whole help.
    if error.is(ErrorCode::Usage) {
        return format!("{context}{text}");
    }
    let number = match error.code {
        Code::Isect(code) => format!(" {}", code.number()),
        Code::Newer(_) => format!(" {}", error.name()),
        Code::Application(_) => String::new(),
    };
    let advice = error.advice_beside(text).map_or_else(String::new, |a| format!("\n  {a}"));
    let (code, whose, ran) = (error.code, error.whose(), error.ran);
    format!("{context}{text}\n  {code}{number}; whose: {whose}; ran: {ran}{advice}")
}

/// The error in the form of `docs/op.schema.json`: what failed, whose fault, whether it ran, what
/// to do, and where.
fn as_json(at: At<'_>, error: &Error, advice: &str) -> String {
    let name = error.name();
    let text = if error.is(ErrorCode::Usage) {
        error.text.split("\n\n").next().unwrap_or_default()
    } else {
        &error.text
    };
    let context = error.context().map_or_else(String::new, |context| format!("{context}: "));
    let failures = if error.is(ErrorCode::Refused) { failures(text) } else { Vec::new() };
    let (command, file, line) = match at {
        At::Line(number, command) => (command, Some("-".to_owned()), Some(number)),
        At::Only(command) | At::Command(command) => (command, sourced(command), None),
    };
    let line = line.or_else(|| failures.first().map(|(line, _)| *line));
    let failures: Vec<Value> =
        failures.iter().map(|(line, text)| json!({ "line": line, "text": text })).collect();
    let text = format!("{context}{}", text.trim_end());
    let object = json!({ "error": {
        "number": error.code.number(),
        "name": name,
        "whose": error.whose().word(),
        "ran": error.ran.word(),
        "text": if text.is_empty() { advice } else { &text },
        "advice": Some(advice).filter(|advice| !advice.is_empty()),
        "command": Some(command).filter(|command| !command.is_empty()),
        "file": file,
        "line": line,
        "failures": failures,
    } })
    .to_string();
    // Hidden characters become JSON escapes, for whoever prints the object.
    String::from_utf8_lossy(&show::log_line(object.as_bytes(), true)).into_owned()
}

/// The file of a `source` command.
fn sourced(command: &str) -> Option<String> {
    match parse(command) {
        Ok(OpRequest::Source(file)) => Some(file),
        Ok(_) | Err(_) => None,
    }
}

/// The failed lines of a script, as the broker's text lists them: `line N: TEXT`.
fn failures(text: &str) -> Vec<(usize, &str)> {
    text.lines().filter_map(failed_line).collect()
}

fn failed_line(line: &str) -> Option<(usize, &str)> {
    let (number, text) = line.strip_prefix("line ")?.split_once(": ")?;
    Some((number.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn memory(is_terminal: bool, json: bool) -> (Output, Memory, Memory) {
        let (out, err) = (Memory::default(), Memory::default());
        let output = Output::with(Box::new(out.clone()), Box::new(err.clone()), is_terminal, json);
        (output, out, err)
    }

    #[test]
    fn bytes_of_a_service_stay_as_they_are_unless_a_person_reads_them() {
        for (is_terminal, expected) in [(false, "ab\u{0}c"), (true, "ab\\0\nc\n")] {
            let (mut output, out, _) = memory(is_terminal, false);
            for answer in ["ab\u{0}", "c", ""] {
                output.piece(answer.as_bytes()).unwrap();
                output.end_answer().unwrap();
            }
            assert_eq!(out.text(), expected);
        }
    }

    #[test]
    fn what_would_command_a_terminal_is_seen_there_wherever_it_is_split() {
        let bytes = "ä\u{1b}]0;x\u{7}\u{202e}漢\t\n\u{9b}2J".as_bytes();
        for size in 1..=bytes.len() {
            let (mut output, out, _) = memory(true, false);
            bytes.chunks(size).for_each(|piece| output.piece(piece).unwrap());
            output.end_answer().unwrap();
            assert_eq!(out.text(), "ä\\u{1b}]0;x\\u{7}\\u{202e}漢\t\n\\u{9b}2J\n", "{size}");
        }
        let (mut output, out, _) = memory(true, false);
        output.piece(b"\xff\xe6\xbc").unwrap();
        output.end_answer().unwrap();
        assert_eq!(out.text(), "\u{fffd}\u{fffd}\n");
        let (mut output, out, err) = memory(false, true);
        let error = Error::new(ErrorCode::Refused, "a\u{202e}\u{e0041}\u{9b}2Jb");
        output.failure(At::Only(""), &Failure::Asked(error));
        for text in [out.text(), err.text()] {
            assert!(!text.contains(|c| show::is_hidden(c) && c != '\n'), "{text:?}");
        }
        assert!(out.text().contains(r"a\u202e\udb40\udc41\u009b2Jb"), "{}", out.text());
    }

    #[test]
    fn an_error_tells_the_cure_and_the_first_status_stays() {
        let (mut output, out, err) = memory(false, false);
        let error = Error::new(ErrorCode::Overloaded, "queue of 'echo' is full\u{1b}[2J");
        output.failure(At::Line(7, "x"), &Failure::Asked(error));
        output.failure(At::Only(""), &Failure::Usage("x".into()));
        assert_eq!(output.first_failure(), Some(Status::Failed));
        assert_eq!(out.text(), "");
        let text = err.text();
        assert!(
            text.starts_with("isdclient: line 7: queue of 'echo' is full\\u{1b}[2J\n"),
            "{text}"
        );
        assert!(text.contains("overloaded -14; whose: broker; ran: no\n  ask again"), "{text}");
    }

    #[test]
    fn an_error_as_json_is_one_object_on_standard_output() {
        let (mut output, out, err) = memory(false, true);
        output.failure(At::Only(""), &Failure::Asked(Error::application(7, "no \"x\"")));
        let error: Value = serde_json::from_str(&out.text()).unwrap();
        let expected = json!({ "error": {
            "number": 7, "name": "application", "whose": "worker", "ran": "yes",
            "text": "no \"x\"", "advice": "the service's own documents say what this code means",
            "command": null, "file": null, "line": null, "failures": [],
        } });
        assert_eq!(error, expected);
        assert!(err.text().contains("no \"x\""));
    }

    #[test]
    fn errors_of_scripts_name_file_and_line() {
        let json = |at, code, text: &str| -> Value {
            let error = Error::new(code, text);
            serde_json::from_str(&as_json(at, &error, error.advice())).unwrap()
        };
        let text = "1 command done, 2 failed:\nline 2: 'bogus' is no command\nline 3: x: y";
        let error = json(At::Only("source '/a b'"), ErrorCode::Refused, text);
        assert_eq!(error["error"]["file"], "/a b");
        assert_eq!(error["error"]["line"], 2);
        assert_eq!(error["error"]["failures"][1], serde_json::json!({ "line": 3, "text": "x: y" }));
        let error = json(At::Line(4, "foo"), ErrorCode::Usage, "'foo' is no command\n\nabort  x");
        assert_eq!(error["error"]["text"], "'foo' is no command");
        assert_eq!((&error["error"]["line"], &error["error"]["file"]), (&4.into(), &"-".into()));
        assert_eq!(error["error"]["command"], "foo");
    }

    #[test]
    fn among_many_commands_an_unknown_one_is_told_without_the_whole_help() {
        let (mut output, _, err) = memory(false, false);
        let text = "'foo' is no command\n\nabort   isectd calls abort()";
        let unknown = Failure::Asked(Error::new(ErrorCode::Usage, text));
        output.brief_failure(At::Line(4, "foo"), &unknown);
        let told = err.text();
        assert!(
            told.starts_with("isdclient: line 4: 'foo' is no command\n  'help' lists"),
            "{told}"
        );
        assert!(!told.contains("abort") && told.lines().count() == 2, "{told}");
        output.failure(At::Only(""), &unknown);
        assert!(err.text().ends_with("\n\nabort   isectd calls abort()\n"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let (mut output, _, err) = memory(false, false);
        output.failure(At::Only(""), &Failure::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!((output.first_failure(), err.text()), (None, String::new()));
    }
}
