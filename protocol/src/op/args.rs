//! Reads the arguments of a command word by word. When a word does not fit, the error names the
//! argument, the word and the range. `params` says which of these methods reads what.

use super::parse::OpError;
use super::spec::{
    BUCKET_SECS_MAX, BUCKETS_MAX, DEATHS_LISTED_MAX, DeathsWhat, PoisonWhat, RequestName,
    RequestsOf, ServiceWhat, ShutdownWhat, Spec, Target, WhyOf,
};
use super::table::COMMANDS;
use super::{help, words};
use crate::address::{HostPort, ParsedAddress, no_port};
use crate::ids::{ClientId, TransactionId, WorkerId};
use crate::limits::{EXECD_PORT, PATH_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN};
use crate::names::{HostName, ServiceName};
use std::fmt;

/// The words after the command's name, read from left to right.
pub(super) struct Args<'a> {
    pub(super) row: &'static Spec,
    pub(super) words: &'a [String],
    pub(super) at: usize,
}

impl<'a> Args<'a> {
    pub(super) const fn new(row: &'static Spec, words: &'a [String]) -> Self {
        Self { row, words, at: 0 }
    }

    pub(super) fn error(&self, text: impl fmt::Display) -> OpError {
        let usage = self.row.usage.replace('\n', "\nsyntax: ");
        OpError::usage(format!("{}: {text}\nsyntax: {usage}", self.row.name))
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(String::as_str)
    }

    /// Takes the next word, which is required; `name` is its name in the table.
    pub(super) fn next(&mut self, name: &str) -> Result<&'a str, OpError> {
        let Some(word) = self.peek() else {
            let text =
                self.row.args().iter().find(|arg| arg.name == name).map_or("", |arg| arg.text);
            let blank = if text.is_empty() { "" } else { ": " };
            return Err(self.error(format_args!("argument '{name}' is missing{blank}{text}")));
        };
        self.at += 1;
        Ok(word)
    }

    /// Passes over a word that was looked at, which means this.
    pub(super) fn skip<T>(&mut self, meant: T) -> Result<T, OpError> {
        self.at += 1;
        Ok(meant)
    }

    /// Whether there is no word behind the next one.
    pub(super) const fn is_last(&self) -> bool {
        self.words.len() == self.at + 1
    }

    pub(super) fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, OpError>,
    ) -> Result<Option<T>, OpError> {
        if self.peek().is_none() { Ok(None) } else { read(self).map(Some) }
    }

    pub(super) fn rest(&mut self) -> Vec<String> {
        let rest = self.words[self.at..].to_vec();
        self.at = self.words.len();
        rest
    }

    pub(super) fn end(&self) -> Result<(), OpError> {
        let Some(word) = self.peek() else { return Ok(()) };
        let more = match self.words.len() - self.at {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        // `client 3` was written as `clients 3`.
        let one = self.row.name.strip_suffix('s');
        let one = one.filter(|one| COMMANDS.iter().any(|row| row.name == *one));
        let meant = one.filter(|_| more.is_empty()).map(|one| format!("{one} {word}"));
        let hint = words::meant(meant.as_deref());
        Err(self.error(format_args!("unexpected '{}'{more}{hint}", words::shown(word))))
    }

    pub(super) fn number(
        &mut self,
        name: &str,
        what: &str,
        min: u64,
        max: u64,
    ) -> Result<u64, OpError> {
        let word = self.next(name)?;
        self.number_in(word, what, min, max)
    }

    pub(super) fn number_in(
        &self,
        word: &str,
        what: &str,
        min: u64,
        max: u64,
    ) -> Result<u64, OpError> {
        let digits = word.strip_prefix('-').unwrap_or(word);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.error(format_args!(
                "{what} '{}' is not a whole number; it is {min} to {max}",
                words::shown(word)
            )));
        }
        match word.parse::<u64>() {
            Ok(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(self.error(format_args!(
                "{what} {} is out of range; it is {min} to {max}",
                words::shown(word)
            ))),
        }
    }

    pub(super) fn number32(
        &self,
        word: &str,
        what: &str,
        min: u32,
        max: u32,
    ) -> Result<u32, OpError> {
        let value = self.number_in(word, what, min.into(), max.into())?;
        u32::try_from(value).map_err(|e| self.error(e))
    }

    pub(super) fn client(&mut self) -> Result<ClientId, OpError> {
        let word = self.next("clientid")?;
        self.number32(word, "client id", 0, u32::MAX).map(ClientId)
    }

    pub(super) fn worker(&mut self) -> Result<WorkerId, OpError> {
        let word = self.next("workerid")?;
        self.number32(word, "worker id", 1, u32::MAX).map(WorkerId)
    }

    /// Takes `#ID`, if the next word begins with `#`.
    pub(super) fn id(&mut self, what: &str) -> Result<Option<u32>, OpError> {
        let Some(digits) = self.peek().and_then(|word| word.strip_prefix('#')) else {
            return Ok(None);
        };
        self.at += 1;
        self.number32(digits, &format!("{what} id"), 1, u32::MAX).map(Some)
    }

    pub(super) fn priority(&mut self) -> Result<u8, OpError> {
        let value = self.number("n", "priority", PRIORITY_MIN.into(), PRIORITY_MAX.into())?;
        u8::try_from(value).map_err(|e| self.error(e))
    }

    pub(super) fn buckets(&mut self) -> Result<Option<(u32, u32)>, OpError> {
        self.maybe(|args| {
            let num = args.next("num")?;
            let num = args.number32(num, "number of buckets", 1, BUCKETS_MAX)?;
            let secs = args.next("secs")?;
            let secs = args.number32(secs, "seconds of a bucket", 1, BUCKET_SECS_MAX)?;
            Ok((num, secs))
        })
    }

    pub(super) fn service(&mut self, name: &str) -> Result<ServiceName, OpError> {
        let word = self.next(name)?;
        ServiceName::new(word).map_err(|e| self.error(e))
    }

    pub(super) fn host(&mut self, name: &str) -> Result<HostName, OpError> {
        let word = self.next(name)?;
        HostName::new(word).map_err(|e| self.error(e))
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Result<T, OpError> {
        let word = self.next(name)?;
        if let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == word) {
            return Ok(*value);
        }
        let all: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
        let hint = words::nearest(word, all.iter().copied());
        Err(self.error(format_args!(
            "{what} '{}' is not one of {}{}",
            words::shown(word),
            all.join(", "),
            words::meant(hint)
        )))
    }

    /// Takes the word of this choice, or one that is much like it; another one may be meant for
    /// another command, as [`end`](Self::end) says.
    pub(super) fn builtin(&mut self, choices: &[(&'static str, bool)]) -> Result<bool, OpError> {
        let words = choices.iter().map(|(word, _)| *word);
        match self.peek() {
            Some(word) if words::nearest(word, words).is_some() => {
                self.choice("builtin", "list", choices)
            }
            Some(_) | None => Ok(false),
        }
    }

    pub(super) fn shutdown_what(&mut self) -> Result<ShutdownWhat, OpError> {
        let word = self.next("fd|all")?;
        if word == "all" {
            return Ok(ShutdownWhat::All);
        }
        let fd = self.number_in(word, "descriptor", 0, i32::MAX as u64)?;
        i32::try_from(fd).map(ShutdownWhat::Fd).map_err(|e| self.error(e))
    }

    pub(super) fn poison_what(&mut self) -> Result<PoisonWhat, OpError> {
        let what = self.maybe(|args| {
            let word = args.next("n|clear")?;
            if word == "clear" {
                return Ok(PoisonWhat::Clear);
            }
            args.number_in(word, "number of a poison request", 1, u64::MAX).map(PoisonWhat::Show)
        })?;
        Ok(what.unwrap_or(PoisonWhat::List))
    }

    pub(super) fn deaths_what(&mut self) -> Result<DeathsWhat, OpError> {
        let what = self.maybe(|args| {
            let word = args.next("n|clear")?;
            if word == "clear" {
                return Ok(DeathsWhat::Clear);
            }
            let count = args.number_in(word, "number of deaths", 1, DEATHS_LISTED_MAX)?;
            Ok(DeathsWhat::List(Some(count)))
        })?;
        Ok(what.unwrap_or(DeathsWhat::List(None)))
    }

    /// Takes `all`, `ID`, `NAME`, `worker ID` or `service NAME`.
    pub(super) fn target(&mut self) -> Result<Target, OpError> {
        let word = self.next("target")?;
        match word {
            "all" => Ok(Target::All),
            "worker" => self.worker().map(Target::Worker),
            "service" => self.service("service").map(Target::Service),
            "host" => self.host("target").map(Target::Host),
            id if id.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                self.number32(id, "worker id", 1, u32::MAX).map(|id| Target::Worker(WorkerId(id)))
            }
            name => ServiceName::new(name).map(Target::Service).map_err(|e| self.error(e)),
        }
    }

    pub(super) fn program(&mut self) -> Result<String, OpError> {
        let word = self.file_word("path")?;
        if !word.starts_with('/') {
            return Err(self.error(format_args!(
                "path '{}' is not absolute; it must begin with '/'",
                words::shown(word)
            )));
        }
        if word.split('/').any(|part| part == "..") {
            return Err(self.error(format_args!(
                "path '{}' has '..' in it, and execd starts none such; write where it leads",
                words::shown(word)
            )));
        }
        if word.ends_with('/') {
            return Err(self.error(format_args!(
                "path '{}' names a directory; name the program in it",
                words::shown(word)
            )));
        }
        Ok(word.to_owned())
    }

    pub(super) fn file(&mut self) -> Result<String, OpError> {
        self.file_word("file").map(str::to_owned)
    }

    fn file_word(&mut self, name: &str) -> Result<&'a str, OpError> {
        let word = self.next(name)?;
        if word.is_empty() {
            return Err(self.error(format_args!("{name} is empty")));
        }
        if word.len() > PATH_BYTES_MAX {
            return Err(self.error(format_args!(
                "{name} has {} bytes; at most {PATH_BYTES_MAX} are allowed",
                word.len()
            )));
        }
        Ok(word)
    }

    /// Takes the address of an execd and completes it with the default port.
    pub(super) fn address(&mut self) -> Result<String, OpError> {
        let word = self.next("address")?;
        let wrong = |why: String| {
            self.error(format_args!(
                "address '{}' {why}; write ADDR, ADDR:PORT, IPV6, [IPV6]:PORT, tls://ADDR:PORT or unix:PATH",
                words::shown(word)
            ))
        };
        let address = ParsedAddress::parse(word).map_err(wrong)?;
        match &address {
            ParsedAddress::Unix(path) if !path.starts_with('/') => {
                return Err(wrong("has no absolute path".into()));
            }
            ParsedAddress::Tcp(HostPort { port: Some(0), .. })
            | ParsedAddress::Tls(HostPort { port: Some(0), .. }) => {
                return Err(wrong(no_port("0")));
            }
            ParsedAddress::Unix(_) | ParsedAddress::Tcp(_) | ParsedAddress::Tls(_) => {}
        }
        Ok(address.complete(EXECD_PORT))
    }

    pub(super) fn kinds(&mut self) -> Result<Vec<String>, OpError> {
        let kinds = self.rest();
        kinds.iter().map(|kind| self.kind(kind)).collect()
    }

    /// Takes `client CLIENTID`, `worker WORKERID`, `service NAME`, `all`, or the name of a service
    /// alone.
    pub(super) fn requests_of(&mut self) -> Result<RequestsOf, OpError> {
        let is_last = self.is_last();
        match self.peek() {
            Some("all") => self.skip(RequestsOf::All),
            Some(word @ ("client" | "worker")) if is_last => {
                Err(self
                    .error(format_args!("the id of the {word} is missing; '{word}s' lists them")))
            }
            Some("client") => {
                self.at += 1;
                self.client().map(RequestsOf::Client)
            }
            Some("worker") => {
                self.at += 1;
                self.worker().map(RequestsOf::Worker)
            }
            Some("service") if !is_last => {
                self.at += 1;
                self.service("service").map(RequestsOf::Service)
            }
            Some(_) | None => self.service("service").map(RequestsOf::Service),
        }
    }

    /// Takes `transaction`, or `clientid sequence`.
    pub(super) fn request_name(&mut self) -> Result<RequestName, OpError> {
        if self.words.len() > self.at + 1 {
            let client = self.client()?;
            let sequence = self.next("sequence")?;
            let sequence = self.number32(sequence, "sequence", 0, u32::MAX)?;
            return Ok(RequestName::Sent(client, sequence));
        }
        let id = self.number("transaction", "transaction", 1, u64::MAX)?;
        Ok(RequestName::Transaction(TransactionId(id)))
    }

    /// Takes nothing, `trace HEX`, or the name of a request.
    pub(super) fn why_of(&mut self) -> Result<WhyOf, OpError> {
        match self.peek() {
            None => Ok(WhyOf::Kept),
            Some("trace") => {
                self.at += 1;
                let word = self.next("trace id")?;
                WhyOf::trace(word).map_err(|e| self.error(e))
            }
            Some(_) => self.request_name().map(WhyOf::Request),
        }
    }

    /// Takes `clientid newservice`, or the name of a service alone.
    pub(super) fn service_what(&mut self) -> Result<ServiceWhat, OpError> {
        let is_page = self.words.len() == 1
            && self.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
        if is_page {
            return self.service("name").map(ServiceWhat::Page);
        }
        Ok(ServiceWhat::Move(self.client()?, self.service("newservice")?))
    }

    pub(super) fn topic(&mut self) -> Result<Option<String>, OpError> {
        let Some(first) = self.peek() else { return Ok(None) };
        self.at += 1;
        let is_pair = |second: &str| {
            COMMANDS.iter().any(|row| row.first() == first && row.second() == Some(second))
        };
        if let Some(second) = self.peek().filter(|second| is_pair(second)) {
            self.at += 1;
            return Ok(Some(format!("{first} {second}")));
        }
        if help::rows(first).is_empty() {
            return Err(OpError::usage(help::no_topic(first)));
        }
        let seconds = COMMANDS.iter().filter(|row| row.first() == first);
        let seconds = seconds.filter_map(|row| row.second());
        if let Some(word) = self.peek()
            && let Some(near) = words::nearest(word, seconds)
        {
            let hint = words::meant(Some(near));
            return Err(self.error(format_args!("unknown word '{}'{hint}", words::shown(word))));
        }
        Ok(Some(first.to_owned()))
    }
}
