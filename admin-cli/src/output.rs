//! Standard output and standard error of `isdclient`: answers as they are, errors with their cure.
//! The only place that prints.

use crate::status::{Failure, Status};
use client::error::{Code, Error};
use protocol::errors::ErrorCode;
use protocol::op::json::Writer;
use std::io::{self, IsTerminal as _, Write};

/// How much of an error's text is told.
#[derive(Clone, Copy)]
enum Whole {
    Yes,
    No,
}

/// Where everything is printed.
pub struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    is_terminal: bool,
    json: bool,
    /// Whether the last byte printed was a line break, or nothing was printed.
    at_line_start: bool,
    first: Option<Status>,
}

impl Output {
    /// The program's own streams.
    pub fn new(json: bool) -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self::with(Box::new(out), Box::new(io::stderr()), is_terminal, json)
    }

    /// Any streams.
    pub fn with(out: Box<dyn Write>, err: Box<dyn Write>, is_terminal: bool, json: bool) -> Self {
        Self { out, err, is_terminal, json, at_line_start: true, first: None }
    }

    /// Prints a piece of an answer, byte for byte.
    ///
    /// # Errors
    /// It can't be written.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(last) = bytes.last() else {
            return Ok(());
        };
        self.at_line_start = *last == b'\n';
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    /// Ends the line, where text is printed and it is not ended.
    ///
    /// # Errors
    /// It can't be written.
    pub fn end_line(&mut self) -> Result<(), Failure> {
        if self.at_line_start { Ok(()) } else { self.piece(b"\n") }
    }

    /// Ends an answer of a service: the bytes are the worker's and stay as they are, but a person
    /// at a terminal gets a line of his own.
    ///
    /// # Errors
    /// It can't be written.
    pub fn end_answer(&mut self) -> Result<(), Failure> {
        if self.is_terminal { self.end_line() } else { Ok(()) }
    }

    /// Prints text and ends its line.
    ///
    /// # Errors
    /// It can't be written.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.piece(text.as_bytes())?;
        self.end_line()
    }

    /// Prints a line for a person on standard error.
    pub fn note(&mut self, text: &str) {
        // Nowhere is left to tell that this could not be told.
        let _ = writeln!(self.err, "{text}");
    }

    /// Says what went wrong; `at` is in which command or line. Remembers the first exit status.
    pub fn failure(&mut self, at: &str, failure: &Failure) {
        self.tell(at, failure, Whole::Yes);
    }

    /// As [`Output::failure`], but where many commands are given: without the whole help that the
    /// broker adds to the error of an unknown one.
    pub fn brief_failure(&mut self, at: &str, failure: &Failure) {
        self.tell(at, failure, Whole::No);
    }

    fn tell(&mut self, at: &str, failure: &Failure, whole: Whole) {
        let status = failure.status();
        if status == Status::Done {
            return;
        }
        self.first.get_or_insert(status);
        let text = match failure {
            Failure::Asked(error) => {
                if self.json {
                    let _ = self.end_line().and_then(|()| self.text(&json(error)));
                }
                match whole {
                    Whole::Yes => words(error),
                    Whole::No => words(&without_help(error)),
                }
            }
            Failure::Usage(text) => text.clone(),
            Failure::Input(error) => format!("standard input can't be read: {error}"),
            Failure::Output(error) => format!("standard output can't be written: {error}"),
            Failure::Interrupted => "interrupted".to_owned(),
        };
        let _ = self.end_answer();
        let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
        self.note(&format!("isdclient: {at}{text}"));
    }

    /// Failures told so far shall not be the exit status.
    pub fn forget_failures(&mut self) {
        self.first = None;
    }

    /// The status of the first failure that was told.
    pub fn first_failure(&self) -> Option<Status> {
        self.first
    }
}

/// The error with the first paragraph of its text, if it is one of usage; the rest is the help.
fn without_help(error: &Error) -> Error {
    let mut error = error.clone();
    if error.is(ErrorCode::Usage)
        && let Some((first, _)) = error.text.split_once("\n\n")
    {
        error.text = format!("{first}\n  {}", error.advice());
    }
    error
}

/// An error for a person: what, whose, whether it ran, what to do.
fn words(error: &Error) -> String {
    let context = error.context().map_or_else(String::new, |context| format!("{context}: "));
    let text = clean(error.text.trim_end());
    // The text of a usage error says the cure itself: the syntax, or the whole help.
    if error.is(ErrorCode::Usage) {
        return format!("{context}{text}");
    }
    let number = match error.code {
        Code::Isect(code) => format!(" {}", code.number()),
        Code::Application(_) => String::new(),
    };
    let advice = error.advice_beside(&text).map_or_else(String::new, |a| format!("\n  {a}"));
    let (code, whose, ran) = (error.code, error.whose(), error.ran);
    format!("{context}{text}\n  {code}{number}; whose: {whose}; ran: {ran}{advice}")
}

/// Text of somebody else without what would move a terminal's cursor.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// `{"error":{code,name,whose,ran,text,advice}}`.
fn json(error: &Error) -> String {
    let name = match error.code {
        Code::Isect(code) => code.name(),
        Code::Application(_) => "application",
    };
    let mut w = Writer::default();
    w.open_object();
    w.key("error");
    w.open_object();
    w.key("code");
    w.number(error.code.number());
    for (key, value) in [
        ("name", name),
        ("whose", error.whose().word()),
        ("ran", error.ran.word()),
        ("text", &error.text),
        ("advice", error.advice()),
    ] {
        w.key(key);
        w.string(value);
    }
    w.close_object();
    w.close_object();
    w.finish()
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
        for (is_terminal, expected) in [(false, "ab\u{0}c"), (true, "ab\u{0}\nc\n")] {
            let (mut output, out, _) = memory(is_terminal, false);
            for answer in ["ab\u{0}", "c", ""] {
                output.piece(answer.as_bytes()).unwrap();
                output.end_answer().unwrap();
            }
            assert_eq!(out.text(), expected);
        }
    }

    #[test]
    fn an_error_tells_the_cure_and_the_first_status_stays() {
        let (mut output, out, err) = memory(false, false);
        let error = Error::new(ErrorCode::Overloaded, "queue of 'echo' is full\u{1b}[2J");
        output.failure("line 7", &Failure::Asked(error));
        output.failure("", &Failure::Usage("x".into()));
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
        output.failure("", &Failure::Asked(Error::application(7, "no \"x\"")));
        let begin = r#"{"error":{"code":7,"name":"application","whose":"worker","ran":"yes","#;
        let text = r#""text":"no \"x\"","#;
        let end = r#""advice":"the service's own documents say what this code means"}}"#;
        assert_eq!(out.text(), format!("{begin}{text}{end}\n"));
        assert!(err.text().contains("no \"x\""));
    }

    #[test]
    fn among_many_commands_an_unknown_one_is_told_without_the_whole_help() {
        let (mut output, _, err) = memory(false, false);
        let text = "'foo' is no command\n\nabort   isectd calls abort()";
        let unknown = Failure::Asked(Error::new(ErrorCode::Usage, text));
        output.brief_failure("line 4", &unknown);
        let told = err.text();
        assert!(
            told.starts_with("isdclient: line 4: 'foo' is no command\n  'help' lists"),
            "{told}"
        );
        assert!(!told.contains("abort") && told.lines().count() == 2, "{told}");
        output.failure("", &unknown);
        assert!(err.text().ends_with("\n\nabort   isectd calls abort()\n"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let (mut output, _, err) = memory(false, false);
        output.failure("", &Failure::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!((output.first_failure(), err.text()), (None, String::new()));
    }
}
