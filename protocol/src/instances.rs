//! Words of instances: what a program says of its kind, its state, and that it goes on.

use crate::keys::{Word, forms, is_not};
use std::fmt;

/// The lowest number of a state of a program's own.
pub const OWN_STATE_MIN: u32 = 100;
/// Most characters of the name of a state, and of the text beside it.
pub const STATE_TEXT_CHARS_MAX: usize = 80;
/// The shortest time-out of an instance, in milliseconds.
pub const ACTIVITY_TIMEOUT_MS_MIN: u64 = 100;
/// The longest one: a day.
pub const ACTIVITY_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;

/// What an instance mainly does: a word for people and for filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceType {
    /// It works on data.
    #[default]
    Data,
    /// It talks to devices, files or other systems.
    Io,
    /// It watches or steers others.
    Management,
    /// It carries what others send.
    Network,
    /// A number whose meaning the program's users know.
    Own(u32),
}

impl fmt::Display for InstanceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.pad("data"),
            Self::Io => f.pad("io"),
            Self::Management => f.pad("management"),
            Self::Network => f.pad("network"),
            Self::Own(number) => f.pad(&number.to_string()),
        }
    }
}

impl InstanceType {
    /// Reads a word or a number.
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "data" => Self::Data,
            "io" => Self::Io,
            "management" => Self::Management,
            "network" => Self::Network,
            number => Self::Own(number.parse().ok()?),
        })
    }
}

/// The state of an instance as its program says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceState {
    /// It is not ready yet.
    #[default]
    Starting,
    /// It is ready, or works.
    Running,
    /// It is about to end.
    Stopping,
    /// It has ended, or does nothing any more.
    Stopped,
    /// A state of its own, from [`OWN_STATE_MIN`] on. It counts as running.
    Own(u32),
}

impl InstanceState {
    /// Reads a word, or the number of a state of its own.
    pub fn read(word: &str) -> Option<Self> {
        Some(match word {
            "starting" => Self::Starting,
            "running" => Self::Running,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            number => Self::Own(number.parse().ok().filter(|number| *number >= OWN_STATE_MIN)?),
        })
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.pad("starting"),
            Self::Running => f.pad("running"),
            Self::Stopping => f.pad("stopping"),
            Self::Stopped => f.pad("stopped"),
            Self::Own(number) => f.pad(&number.to_string()),
        }
    }
}

/// The name of a state of a program's own: a line `state_name NUMBER TEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateName {
    /// The number, from [`OWN_STATE_MIN`] on.
    pub number: u32,
    /// What it is called.
    pub text: String,
}

impl StateName {
    fn read(line: &str) -> Option<Self> {
        let (number, text) = line.split_once(' ')?;
        let number = number.parse().ok().filter(|number| *number >= OWN_STATE_MIN)?;
        Some(Self { number, text: text.to_owned() })
    }
}

/// What a beat says of one instance: a line `instance ID CHECKPOINT [idle]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatOf {
    /// The instance.
    pub id: u64,
    /// Any number that changes as it works.
    pub checkpoint: u64,
    /// It has nothing to do, so that its checkpoint need not change.
    pub is_idle: bool,
}

impl BeatOf {
    fn read(line: &str) -> Option<Self> {
        let (id, rest) = line.split_once(' ')?;
        let (checkpoint, is_idle) = match rest.split_once(' ') {
            None => (rest, false),
            Some((checkpoint, "idle")) => (checkpoint, true),
            Some(_) => return None,
        };
        Some(Self { id: id.parse().ok()?, checkpoint: checkpoint.parse().ok()?, is_idle })
    }
}

impl fmt::Display for BeatOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = if self.is_idle { " idle" } else { "" };
        write!(f, "{} {}{idle}", self.id, self.checkpoint)
    }
}

forms! {
    Word, InstanceType, "`data`, `io`, `management`, `network` or a number up to 4294967295",
        |key, word| InstanceType::read(word)
            .ok_or_else(|| {
                let why = "no type; it is a word of the protocol or a number up to 4294967295";
                is_not(key, word, why)
            }),
        |value| value;
    Word, InstanceState, "`starting`, `running`, `stopping`, `stopped`, or a number from 100 to 4294967295",
        |key, word| InstanceState::read(word).ok_or_else(|| {
            let why = "no state; it is a word of the protocol or a number from 100 to 4294967295";
            is_not(key, word, why)
        }),
        |value| value;
    Word, StateName, "`NUMBER TEXT`",
        |key, word| StateName::read(word)
            .ok_or_else(|| is_not(key, word, "not a number from 100 to 4294967295 and a text")),
        |value| format!("{} {}", value.number, value.text);
    Word, BeatOf, "`ID CHECKPOINT` or `ID CHECKPOINT idle`",
        |key, word| BeatOf::read(word)
            .ok_or_else(|| is_not(key, word, "not two numbers, and 'idle' after them or nothing")),
        |value| value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Form;

    #[test]
    fn a_number_that_is_too_great_is_refused_with_the_greatest_one() {
        let kind = Form::<InstanceType>::read(&Word, "type", "4294967296").unwrap_err();
        assert_eq!(
            kind.to_string(),
            "'type 4294967296' is no type; it is a word of the protocol or a number up to \
             4294967295"
        );
        let state = Form::<InstanceState>::read(&Word, "state", "4294967296").unwrap_err();
        assert_eq!(
            state.to_string(),
            "'state 4294967296' is no state; it is a word of the protocol or a number from 100 to \
             4294967295"
        );
        let name = Form::<StateName>::read(&Word, "state_name", "4294967296 on").unwrap_err();
        assert_eq!(
            name.to_string(),
            "'state_name 4294967296 on' is not a number from 100 to 4294967295 and a text"
        );
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in ["data", "io", "management", "network", "7"] {
            assert_eq!(InstanceType::read(word).unwrap().to_string(), word);
        }
        for word in ["starting", "running", "stopping", "stopped", "100", "4294967295"] {
            assert_eq!(InstanceState::read(word).unwrap().to_string(), word);
        }
        for word in ["", "99", "timed out", "Running", "-1"] {
            assert_eq!(InstanceState::read(word), None, "{word}");
        }
        for line in ["1 2", "18446744073709551615 0 idle"] {
            assert_eq!(BeatOf::read(line).unwrap().to_string(), line);
        }
        for line in ["1", "1 2 3", "1 2 idle idle", "x 2", "1  2"] {
            assert_eq!(BeatOf::read(line), None, "{line}");
        }
    }
}
