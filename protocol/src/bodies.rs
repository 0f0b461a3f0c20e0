//! The bodies of control frames by value. Their types, `parse` and `render` are made from the table
//! of `kinds`; here are the types of values that only bodies have, and the error, whose body is made
//! from the table of errors. The layout of a body is in `lines`, the frame around it in `frame`.

use crate::errors::{ErrorCode, Ran, Whose};
use crate::ids::{ClientId, RunId, WorkerId};
use crate::instances::{BeatOf, InstanceState, InstanceType, StateName};
use crate::keys::{
    Each, Flag, FreeText, Hex, In, Keys, Mac, Maybe, Number, Shown, Text, Word, Yes, YesNo, forms,
    is_not, needed, or, unless,
};
use crate::kinds::Kind;
use crate::limits::{CONCURRENCY_MAX, INTERVENTION, PRIORITY_DEFAULT, VERSION};
use crate::lines::{BodyError, Lines, number};
use crate::messages::{Missing, Position};
use crate::names::{HostName, ServiceName};
use crate::process::{KeptLine, ProcessKeys, ProcessSettings, StartClaim, StartClaimKeys};
use crate::proof::{
    Binding, ChannelName, ChannelNames, Channels, Claim, ClaimKeys, LANES, MAC_BYTES, MEMORY_KIB,
    NONCE_BYTES_MAX, NONCE_BYTES_MIN, PASSES, SALT_BYTES_MAX, SALT_BYTES_MIN,
};
use bytes::Bytes;
use std::fmt;

/// One key of a body, as documents show it.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// The key; the form of its value; what its absence means.
    pub about: [String; 3],
    /// The values that it has in the example of the kind, a line each.
    pub example: &'static [&'static str],
    /// What the value is for.
    pub text: &'static str,
}

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! bodies {
    ($(
        $kind:ident = $number:literal, $name:literal, [$($role:ident),*],
        $form:ident $({ $($fields:tt)* })?, $text:literal
        $(, $(#[$derive:meta])* $body:ident {$(
            $field:ident $(($key:literal))?: $type:ty = $keys:expr, $example:expr, $about:literal;
        )*})?;
    )*) => {
        $($(
            #[doc = concat!("`", $name, "`: ", $text)]
            #[derive(Clone, Debug, PartialEq, Eq)]
            $(#[$derive])*
            pub struct $body {
                $(#[doc = $about] pub $field: $type,)*
            }

            impl $body {
                /// Reads the body.
                ///
                /// # Errors
                /// A key is missing or its value is wrong.
                pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
                    let lines = Lines::parse(body)?;
                    Ok(Self { $($field: $keys.read(&lines, key!($field $($key)?))?,)* })
                }

                /// Renders the body; [`parse`](Self::parse) reads it back.
                pub fn render(&self) -> Bytes {
                    let lines = Lines::default();
                    $(let lines = $keys.write(&self.$field, key!($field $($key)?), lines);)*
                    lines.render()
                }

                /// The example that the documents and `tests/wire` show.
                ///
                /// # Errors
                /// A value of the example is wrong.
                pub fn example() -> Result<Self, BodyError> {
                    Ok(Self { $($field: {
                        let (key, example): (_, &[&str]) = (key!($field $($key)?), &$example);
                        let lines = Lines::default().with_each(key, example);
                        $keys.read(&lines.with_text(example.concat()), key)?
                    },)* })
                }
            }
        )?)*

        /// The keys of the bodies of a kind; none where its body is not made from the table.
        pub fn keys(kind: Kind) -> Vec<KeyRow> {
            match kind {
                $($(Kind::$kind => vec![$(KeyRow {
                    about: Keys::<$type>::about(&$keys, key!($field $($key)?)),
                    example: &$example,
                    text: $about,
                },)*],)?)*
                _ => Vec::new(),
            }
        }
    };
}

crate::kinds::table!(bodies);

impl Login {
    /// A login for this service with every other value at its default.
    pub fn to(service: ServiceName) -> Self {
        Self {
            service,
            priority: PRIORITY_DEFAULT,
            loghost: String::new(),
            hostpid: 0,
            name: None,
            format: Format::Text,
            heartbeat: false,
            script: false,
            half_close: false,
            token: None,
            start: None,
        }
    }
}

/// How `op` answers a client: the key `format` of its login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for people, as in the manual.
    #[default]
    Text,
    /// Text for people, fitted to a terminal of this many columns.
    Screen(u16),
    /// One JSON object.
    Json,
}

/// The keys `format` and `columns` of a login.
struct FormatKeys;

impl Keys<Format> for FormatKeys {
    fn read(&self, lines: &Lines, key: &str) -> Result<Format, BodyError> {
        match lines.get(key) {
            None | Some("text") => {
                let columns = lines.get("columns").map_or(Ok(0), |word| number("columns", word))?;
                Ok(if columns == 0 { Format::Text } else { Format::Screen(columns) })
            }
            Some("json") => Ok(Format::Json),
            Some(other) => Err(is_not(key, other, "neither 'text' nor 'json'")),
        }
    }

    fn write(&self, value: &Format, key: &str, lines: Lines) -> Lines {
        match value {
            Format::Text => lines,
            Format::Screen(columns) => lines.with("columns", columns),
            Format::Json => lines.with(key, "json"),
        }
    }

    fn about(&self, key: &str) -> [String; 3] {
        let form = "`text` or `json`; number";
        [format!("`{key}`; `columns`"), form.into(), "`text`; 0".into()]
    }
}

/// The key of `retry_after_ms` in the body of an error.
const RETRY_AFTER: &str = "retry_after_ms";

/// An error that the table does not have, because the broker is newer than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewerError {
    /// The number in the header's `error`, below 0.
    pub number: i16,
    /// Its name, as its body says; empty if it does not.
    pub name: String,
    /// Who has to change something; `None` = the body does not say.
    pub whose: Option<Whose>,
    /// What to do; may be empty.
    pub advice: String,
}

/// `error`: what failed. The table supplies `whose` and `advice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// The error of the table. [`parse`](Self::parse) takes its number from the header; the body
    /// repeats it as `code`.
    pub code: ErrorCode,
    /// Whether the request's work ran; never less exact than the table's `ran`.
    pub ran: Ran,
    /// What failed, on which object, the limit and the value. Answers of `op` may have many lines.
    pub text: String,
    /// Milliseconds before which asking again is of no use; 0 = nobody knows.
    pub retry_after_ms: u32,
    /// What a newer broker says of an error that the table does not have; `code` is
    /// [`ErrorCode::Refused`] then, which means the least.
    pub newer: Option<Box<NewerError>>,
}

impl ErrorBody {
    /// An error with the `ran` of the table.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, ran: code.row().ran, text: text.into(), retry_after_ms: 0, newer: None }
    }

    /// The same with this `ran`.
    #[must_use]
    pub fn with_ran(self, ran: Ran) -> Self {
        Self { ran, ..self }
    }

    /// Reads the body of an error frame whose header says `error`.
    ///
    /// # Errors
    /// The number is not in the table, or the body can't be read.
    pub fn parse(error: i16, body: &[u8]) -> Result<Self, BodyError> {
        let code = ErrorCode::of(error)
            .ok_or_else(|| BodyError(format!("error {error} is not in the table")))?;
        // This error has no key lines: it is always rendered with the exact text of the manual.
        if body == INTERVENTION || code == ErrorCode::Intervention {
            return Ok(Self::new(code, code.row().text));
        }
        let lines = Lines::parse(body)?;
        let ran = match lines.get("ran") {
            None => code.row().ran,
            Some(word) => {
                Ran::of(word).ok_or_else(|| is_not("ran", word, "not no, maybe or yes"))?
            }
        };
        let retry_after_ms = lines.get(RETRY_AFTER).map(|word| number(RETRY_AFTER, word));
        let retry_after_ms = retry_after_ms.transpose()?.unwrap_or(0);
        let text = lines.text().to_owned();
        Ok(Self { code, ran, text, retry_after_ms, newer: None })
    }

    /// Reads the body of an error whose number the table does not have, and which a newer broker
    /// sent. What it says with words that are not known here is left out: the work may have run.
    ///
    /// # Errors
    /// The body can't be read.
    pub fn of_newer(number: i16, body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let word = |key| lines.get(key).unwrap_or_default().to_owned();
        let whose = lines.get("whose").and_then(Whose::of);
        let newer = NewerError { number, name: word("name"), whose, advice: word("advice") };
        Ok(Self {
            code: ErrorCode::Refused,
            ran: lines.get("ran").and_then(Ran::of).unwrap_or(Ran::Maybe),
            text: lines.text().to_owned(),
            retry_after_ms: lines.get(RETRY_AFTER).and_then(|word| word.parse().ok()).unwrap_or(0),
            newer: Some(Box::new(newer)),
        })
    }

    /// Renders the body with the table's `whose`.
    pub fn render(&self) -> Bytes {
        self.render_to(Whose::Client)
    }

    /// Renders the body for this receiver. An error that the table calls the client's reads as
    /// `worker` or `host` if that is the role of the receiver.
    pub fn render_to(&self, receiver: Whose) -> Bytes {
        if self.code == ErrorCode::Intervention {
            return Bytes::from_static(INTERVENTION);
        }
        let row = self.code.row();
        let whose = if row.whose == Whose::Client { receiver } else { row.whose };
        let lines = Lines::default()
            .with("code", row.number)
            .with("name", row.name)
            .with("whose", whose)
            .with("ran", self.ran);
        let lines = if row.advice.is_empty() { lines } else { lines.with("advice", row.advice) };
        let lines = match self.retry_after_ms {
            0 => lines,
            wait_ms => lines.with(RETRY_AFTER, wait_ms),
        };
        lines.with_text(self.text.as_str()).render()
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.code.row();
        write!(
            f,
            "{} (error {}, whose: {}, ran: {}): {}",
            row.name, row.number, row.whose, self.ran, self.text
        )
    }
}

/// One process in an `exec-listed`: a line `child WORKER RUN PID [DIGEST]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The worker that the process is.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The process id on the host.
    pub pid: u32,
    /// The `digest` of its `exec-start`; 0 = not known.
    pub digest: u32,
}

impl Child {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let child = Self {
            worker: words.next()?.parse().ok()?,
            run: words.next()?.parse().ok()?,
            pid: words.next()?.parse().ok()?,
            digest: words.next().map_or(Ok(0), str::parse).ok()?,
        };
        words.next().is_none().then_some(child)
    }
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCause {
    /// It called `exit` with this status, 0 to 255.
    Exit(i32),
    /// The signal of this number ended it.
    Signal(i32),
    /// Nobody saw the end, for example because it ended while no execd ran.
    Unknown,
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The stream of a process that a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

forms! {
    Word, Stream, "`stdout` or `stderr`",
        |key, word| match word {
            "stdout" => Ok(Stream::Stdout),
            "stderr" => Ok(Stream::Stderr),
            other => Err(is_not(key, other, "neither stdout nor stderr")),
        },
        |value| value;
    Word, ExitCause, "`exit N`, `signal N` or `unknown`",
        |key, word| {
            let cause = match word.split_once(' ') {
                None if word == "unknown" => Some(ExitCause::Unknown),
                Some(("exit", n)) => n.parse().map(ExitCause::Exit).ok(),
                Some(("signal", n)) => n.parse().map(ExitCause::Signal).ok(),
                None | Some(_) => None,
            };
            cause.ok_or_else(|| is_not(key, word, "not 'exit N', 'signal N' or 'unknown'"))
        },
        |value| value;
    Word, Child, "`WORKER RUN PID DIGEST`",
        |key, word| {
            Child::read(word).ok_or_else(|| is_not(key, word, "not three or four numbers"))
        },
        |child| match child.digest {
            0 => format!("{} {} {}", child.worker, child.run, child.pid),
            digest => format!("{} {} {} {digest}", child.worker, child.run, child.pid),
        };
}

// These bodies belong to this version; a change of meaning needs a new version.
const _: () = assert!(VERSION == 2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::encode;
    use crate::frame::Frame;
    use crate::kinds::KINDS;

    #[test]
    fn a_key_may_be_absent_if_its_row_says_so() {
        for kind in KINDS.iter().map(|row| row.kind) {
            for row in keys(kind).iter().filter(|row| !row.example.is_empty()) {
                let encoded = encode::encode(Frame::example(kind).unwrap());
                let body = String::from_utf8(encoded.body.to_vec()).unwrap();
                let [key, _, absent] = &row.about;
                let begin =
                    key.split('`').nth(1).map_or_else(|| "\n".into(), |key| format!("{key} "));
                let lines = body.split_inclusive('\n').filter(|line| !line.starts_with(&begin));
                let without: String = lines.collect();
                assert_ne!(without, body, "{kind}: {key}");
                let read = decode::frame(kind, crate::header::Header::default(), without.into());
                assert_eq!(read.is_err(), absent == "refused", "{kind}: {key}");
            }
        }
    }

    #[test]
    fn a_word_that_is_none_of_its_keys_is_refused_and_the_first_line_of_a_key_counts() {
        let login = |more: &str| Login::parse(format!("service op\n{more}\n").as_bytes());
        for wrong in ["heartbeat maybe", "heartbeat", "format xml", "columns x", "priority 0"] {
            assert!(login(wrong).is_err(), "{wrong}");
        }
        for (lines, heartbeat) in [("heartbeat yes", true), ("heartbeat no", false), ("x y", false)]
        {
            assert_eq!(login(lines).map(|login| login.heartbeat), Ok(heartbeat), "{lines}");
        }
        assert_eq!(login("priority 7\npriority 9").map(|login| login.priority), Ok(7));
    }
}
