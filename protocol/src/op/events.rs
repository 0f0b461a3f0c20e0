//! Which events `listevents` and `watch` show: filters `key=value`, and when a time is meant.

use super::args::Args;
use super::parse::OpError;
use super::spec::EVENTS_MAX;
use super::words;
use crate::ids::{ClientId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::time::Wall;
use std::fmt;

/// Which events are shown; what is absent or empty excludes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// At most so many, the newest. Only `listevents` has it.
    pub count: Option<u64>,
    /// The names of their kinds; one of these.
    pub kinds: Vec<String>,
    /// Those about this service; it may be deleted by now.
    pub service: Option<ServiceName>,
    /// Those about this worker; it may be deleted by now.
    pub worker: Option<WorkerId>,
    /// Those about this client; it may be gone by now.
    pub client: Option<ClientId>,
    /// Those about this host; it may be deleted by now.
    pub host: Option<HostName>,
    /// Those since then. Only `listevents` has it.
    pub since: Option<Since>,
}

/// A moment that an operator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many milliseconds ago.
    Ago(u64),
    /// At this time of the clock. The offset is the one that was given with it.
    At {
        /// Milliseconds since 1970; of the local time if no offset was given.
        epoch_ms: u64,
        /// Whether the offset was given, and `epoch_ms` is that of UTC.
        is_utc: bool,
    },
}

/// The filters that there are, for errors.
const FILTERS: &str = "kind=, service=, worker=, client=, host=";
/// The units of a span, the largest first.
const UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl EventFilter {
    /// Whether every event is shown, as far as the count allows.
    pub fn is_empty(&self) -> bool {
        *self == Self { count: self.count, ..Self::default() }
    }
}

impl Since {
    /// The moment in milliseconds since 1970, for a clock that shows `now`.
    pub fn epoch_ms(self, now: Wall) -> u64 {
        match self {
            Self::Ago(ms) => now.epoch_ms.saturating_sub(ms),
            Self::At { epoch_ms, is_utc: true } => epoch_ms,
            Self::At { epoch_ms, is_utc: false } => {
                epoch_ms.saturating_add_signed(-i64::from(now.offset_secs) * 1000)
            }
        }
    }

    fn read(word: &str) -> Option<Self> {
        let digits = word.find(|c: char| !c.is_ascii_digit())?;
        if let Some((_, each)) = UNITS.iter().find(|(unit, _)| *unit == &word[digits..]) {
            return word[..digits].parse::<u64>().ok()?.checked_mul(*each).map(Self::Ago);
        }
        let (epoch_ms, is_utc) = Wall::parse(word)?;
        Some(Self::At { epoch_ms, is_utc })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ago(ms) => {
                let fits = |(_, each): &&(&str, u64)| ms.is_multiple_of(*each);
                let (unit, each) = UNITS.iter().find(fits).unwrap_or(&("ms", 1));
                write!(f, "{}{unit}", ms / each)
            }
            Self::At { epoch_ms, is_utc } => {
                let text = Wall { epoch_ms, offset_secs: 0 }.rfc3339();
                f.write_str(if is_utc { &text } else { text.trim_end_matches('Z') })
            }
        }
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count.iter().try_for_each(|count| write!(f, " {count}"))?;
        self.kinds.iter().try_for_each(|kind| write!(f, " kind={kind}"))?;
        self.service.iter().try_for_each(|name| write!(f, " service={name}"))?;
        self.worker.iter().try_for_each(|id| write!(f, " worker={id}"))?;
        self.client.iter().try_for_each(|id| write!(f, " client={id}"))?;
        self.host.iter().try_for_each(|name| write!(f, " host={name}"))?;
        self.since.iter().try_for_each(|since| write!(f, " since={since}"))
    }
}

impl Args<'_> {
    /// Takes `[n]` and the filters of `listevents`.
    pub(super) fn events_listed(&mut self) -> Result<EventFilter, OpError> {
        self.events(true)
    }

    /// Takes the kinds and the filters of `watch`.
    pub(super) fn events_watched(&mut self) -> Result<EventFilter, OpError> {
        self.events(false)
    }

    fn events(&mut self, is_list: bool) -> Result<EventFilter, OpError> {
        let mut filter = EventFilter::default();
        if is_list && self.peek().is_some_and(|word| !word.contains('=') && !is_word(word)) {
            filter.count = Some(self.number("n", "number of events", 1, EVENTS_MAX)?);
        }
        while let Some(word) = self.peek() {
            self.at += 1;
            match word.split_once('=') {
                None => filter.kinds.push(self.kind(word)?),
                Some((key, value)) => self.filter(&mut filter, (key, value), is_list)?,
            }
        }
        Ok(filter)
    }

    /// A word that is to be the name of a kind; the broker knows which there are.
    pub(super) fn kind(&self, word: &str) -> Result<String, OpError> {
        if is_word(word) {
            return Ok(word.to_owned());
        }
        Err(self.error(format_args!(
            "'{}' is no kind of event; 'listevents' prints them, such as worker_died",
            words::shown(word)
        )))
    }

    fn filter(
        &self,
        filter: &mut EventFilter,
        (key, value): (&str, &str),
        is_list: bool,
    ) -> Result<(), OpError> {
        let is_twice = match key {
            "kind" => {
                filter.kinds.push(self.kind(value)?);
                false
            }
            "service" => {
                let name = ServiceName::new(value).map_err(|e| self.error(e))?;
                filter.service.replace(name).is_some()
            }
            "worker" => {
                let id = self.number32(value, "worker id", 1, u32::MAX)?;
                filter.worker.replace(WorkerId(id)).is_some()
            }
            "client" => {
                let id = self.number32(value, "client id", 0, u32::MAX)?;
                filter.client.replace(ClientId(id)).is_some()
            }
            "host" => {
                let name = HostName::new(value).map_err(|e| self.error(e))?;
                filter.host.replace(name).is_some()
            }
            "since" if is_list => {
                let since = Since::read(value).ok_or_else(|| {
                    self.error(format_args!(
                        "since '{}' is no time; write how long ago, as 10m (ms, s, m, h, d), or \
                         when, as 2026-01-31T23:59:59, with Z or an offset or in the broker's \
                         local time",
                        words::shown(value)
                    ))
                })?;
                filter.since.replace(since).is_some()
            }
            "since" => {
                return Err(self.error(
                    "since= is for 'listevents', which shows what was; 'watch' shows what happens \
                     from now on",
                ));
            }
            _ => {
                let since = if is_list { ", since=" } else { "" };
                return Err(self.error(format_args!(
                    "there is no filter '{}='; there are {FILTERS}{since}",
                    words::shown(key)
                )));
            }
        };
        if is_twice {
            return Err(self.error(format_args!("{key}= stands there twice; only kind= may")));
        }
        Ok(())
    }
}

fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_printed() {
        let now = Wall { epoch_ms: 1_767_225_600_000, offset_secs: 3600 };
        for (word, ms) in [
            ("10m", now.epoch_ms - 600_000),
            ("0s", now.epoch_ms),
            ("1d", now.epoch_ms - 86_400_000),
            ("250ms", now.epoch_ms - 250),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01 01:00:00.000+01:00", 1_767_225_600_000),
            ("2026-01-01T01:00:00.5", 1_767_225_600_500),
            ("2025-12-31T19:00-05:00", 1_767_225_600_000),
            ("2024-02-29", 1_709_164_800_000 - 3_600_000),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            let since = Since::read(word).unwrap_or_else(|| panic!("{word} is a moment"));
            assert_eq!(since.epoch_ms(now), ms, "{word}");
            assert_eq!(Since::read(&since.to_string()), Some(since), "{word} as {since}");
        }
        let long_ago = Since::Ago(u64::MAX);
        assert_eq!(long_ago.epoch_ms(now), 0);
        for word in [
            "",
            "10",
            "m",
            "10x",
            "-5m",
            "2026-13-01",
            "2026-02-30",
            "2025-02-29",
            "2026-01-01T24:00",
            "2026-01-01T00:60",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T",
            "1969-12-31T23:59Z",
            "99999999999999999999d",
            "18446744073709551615d",
            "2026-1-1",
            "2026-01-01Tnoon",
            "é",
            "5é",
        ] {
            assert_eq!(Since::read(word), None, "{word}");
        }
    }
}
