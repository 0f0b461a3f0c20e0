//! The error type of callers and workers: the code, whose fault it was, whether the work ran, and
//! what to do. `retry` decides from it whether to ask again.

use protocol::bodies::{ErrorBody, NewerError};
use protocol::errors::{ErrorCode, Ran, Whose};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An error of isect's own table.
    Isect(ErrorCode),
    /// An error of the worker: a positive number whose meaning its service defines.
    Application(i16),
    /// An error of a broker that is newer than this library: a negative number that the table does
    /// not have. [`Error::name`], [`Error::whose`] and [`Error::advice`] are the broker's.
    Newer(i16),
}

impl Code {
    /// The number on the wire; negative for isect's errors.
    pub const fn number(self) -> i16 {
        match self {
            Self::Isect(code) => code.number(),
            Self::Application(number) | Self::Newer(number) => number,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isect(code) => f.pad(code.name()),
            Self::Application(number) => f.pad(&format!("application error {number}")),
            Self::Newer(number) => f.pad(&format!("error {number}")),
        }
    }
}

/// An error. `Display` prints one line that ends with the advice, unless the text has it already.
#[derive(Clone, Debug)]
pub struct Error {
    /// The code of the error.
    pub code: Code,
    /// Whether the request's work ran; `No` for errors that concern no request.
    pub ran: Ran,
    /// What failed, on which object, the limit and the value. Answers of `op` may have several
    /// lines.
    pub text: String,
    context: Option<String>,
    advice: Option<&'static str>,
    whose: Option<Whose>,
    source: Option<Arc<io::Error>>,
    retry_after: Option<Duration>,
    newer: Option<Arc<NewerError>>,
}

impl Error {
    /// An error of isect's table, with the table's `ran`.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code: Code::Isect(code),
            ran: code.row().ran,
            text: text.into(),
            context: None,
            advice: None,
            whose: None,
            source: None,
            retry_after: None,
            newer: None,
        }
    }

    /// An error of the worker, which answered, so the work ran. `number` is above 0.
    pub fn application(number: i16, text: impl Into<String>) -> Self {
        Self {
            code: Code::Application(number),
            ran: Ran::Yes,
            text: text.into(),
            context: None,
            advice: None,
            whose: None,
            source: None,
            retry_after: None,
            newer: None,
        }
    }

    /// Converts the body of an error frame.
    pub fn from_body(body: ErrorBody) -> Self {
        let after = (body.retry_after_ms > 0).then_some(body.retry_after_ms);
        let retry_after = after.map(|ms| Duration::from_millis(ms.into()));
        let known = Self { ran: body.ran, retry_after, ..Self::new(body.code, body.text) };
        match body.newer {
            None => known,
            Some(newer) => Self {
                code: Code::Newer(newer.number),
                whose: newer.whose.or(Some(Whose::Broker)),
                newer: Some(Arc::new(*newer)),
                ..known
            },
        }
    }

    /// Replaces `ran` by what is known better.
    #[must_use]
    pub fn with_ran(mut self, ran: Ran) -> Self {
        self.ran = ran;
        self
    }

    /// Adds what was being done; it is printed before the text.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Replaces the table's advice by one that fits better.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Self {
        self.advice = Some(advice);
        self
    }

    /// The same error for a worker: what the table calls the client's fault is the worker's here.
    #[must_use]
    pub fn of_worker(mut self) -> Self {
        if self.whose() == Whose::Client {
            self.whose = Some(Whose::Worker);
        }
        self
    }

    /// Adds the operating system's error as the source.
    #[must_use]
    pub fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What was being done; `None` = not known.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// How long to wait before asking again, if the broker said so: earlier is of no use.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The name of the error: that of the table, `application` for a worker's own, or what a newer
    /// broker calls it.
    pub fn name(&self) -> &str {
        match (self.code, &self.newer) {
            (Code::Isect(code), _) => code.name(),
            (Code::Application(_), _) => "application",
            (Code::Newer(_), Some(newer)) if !newer.name.is_empty() => &newer.name,
            (Code::Newer(_), _) => "unknown",
        }
    }

    /// Whose fault the error is.
    pub fn whose(&self) -> Whose {
        match (self.whose, self.code) {
            (Some(whose), _) => whose,
            (None, Code::Isect(code)) => code.row().whose,
            (None, Code::Application(_)) => Whose::Worker,
            (None, Code::Newer(_)) => Whose::Broker,
        }
    }

    /// What to do; empty where only the text can say it.
    pub fn advice(&self) -> &str {
        match (self.advice, self.code) {
            (Some(advice), _) => advice,
            (None, Code::Isect(code)) => code.row().advice,
            (None, Code::Application(_)) => "the service's own documents say what this code means",
            (None, Code::Newer(_)) => self.newer.as_ref().map_or("", |newer| &newer.advice),
        }
    }

    /// The advice, unless `shown` (the part of the text that is printed) already has its first
    /// clause.
    pub fn advice_beside(&self, shown: &str) -> Option<&str> {
        let advice = self.advice();
        let first = advice.split(';').next().unwrap_or(advice);
        (!advice.is_empty() && !shown.contains(first)).then_some(advice)
    }

    /// Whether a repetition can't do the work twice, because the work never began.
    pub fn is_retry_safe(&self) -> bool {
        self.ran == Ran::No
    }

    /// Whether this is that error of isect's table.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code == Code::Isect(code)
    }

    /// Whether the connection failed: it could not be made, or it broke.
    pub fn is_connection(&self) -> bool {
        self.is(ErrorCode::BrokerLost) || self.is(ErrorCode::Unreachable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(context) = &self.context {
            write!(f, "{context}: ")?;
        }
        let mut lines = self.text.lines();
        let first = lines.next().unwrap_or_default();
        let more = if lines.next().is_some() { " …" } else { "" };
        write!(f, "{first}{more} ({}", self.code)?;
        if matches!(self.code, Code::Newer(_)) {
            write!(f, " {}", self.name())?;
        }
        write!(f, ", whose: {}, ran: {})", self.whose(), self.ran)?;
        match self.advice_beside(first) {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_ends_with_the_cure() {
        let error = Error::new(ErrorCode::UnknownService, "no service 'ech'\nhelp\nmore help")
            .with_context("login at 127.0.0.1:5501");
        let shown = error.to_string();
        assert_eq!(shown.lines().count(), 1);
        assert!(shown.starts_with("login at 127.0.0.1:5501: no service 'ech' … (unknown_service"));
        assert!(shown.ends_with(ErrorCode::UnknownService.row().advice), "{shown}");
        assert!(error.is_retry_safe());
    }

    #[test]
    fn the_cure_is_not_said_twice() {
        let text = "service 'ech' is unknown; 'services' lists the names";
        let error = Error::new(ErrorCode::UnknownService, text);
        assert_eq!(error.to_string(), format!("{text} (unknown_service, whose: client, ran: no)"));
        // Text below the line that is shown does not count.
        let error = Error::new(ErrorCode::UnknownService, format!("unknown\n{text}"));
        assert!(error.to_string().ends_with(error.advice()), "{error}");
    }

    #[test]
    fn an_advice_of_ones_own_takes_the_place_of_the_tables() {
        let error = Error::new(ErrorCode::Unreachable, "nobody").with_advice("wait");
        assert_eq!(error.to_string(), "nobody (unreachable, whose: broker, ran: no); wait");
    }

    #[test]
    fn a_workers_own_error_ran_and_is_the_workers() {
        let error = Error::application(7, "no such account");
        assert_eq!((error.whose(), error.ran), (Whose::Worker, Ran::Yes));
        assert!(error.to_string().starts_with("no such account (application error 7"));
        assert!(!error.is_retry_safe());
    }

    #[test]
    fn an_error_frame_may_know_more_than_the_table() {
        let body =
            ErrorBody { ran: Ran::No, ..ErrorBody::new(ErrorCode::Deadline, "in the queue") };
        assert!(Error::from_body(body).is_retry_safe());
        assert!(!Error::new(ErrorCode::Deadline, "at the worker").is_retry_safe());
    }
}
