//! The exit statuses of the broker, one for each condition that ends it. Init systems act on these
//! numbers, so a number never gets a second meaning.

use std::fmt;

/// Ended in order, by the signal TERM or INT.
pub const DONE: u8 = 0;
/// Ended by the operator's `halt`, as in the manual.
pub const HALT: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The state directory can't be used.
pub const STATE: u8 = 3;
/// Another broker has the state directory.
pub const LOCKED: u8 = 4;
/// An address can't be listened on.
pub const LISTEN: u8 = 5;
/// A file given with `--source` can't be read, or commands in it failed.
pub const SOURCE: u8 = 6;
/// The system refused something the broker can't do without.
pub const SYSTEM: u8 = 7;
/// A second signal came before the orderly end was through.
pub const HURRIED: u8 = 8;

/// An error that ends the broker. The text names the object and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// See [`USAGE`].
    Usage(String),
    /// See [`STATE`].
    State(String),
    /// See [`LOCKED`].
    Locked(String),
    /// See [`LISTEN`].
    Listen(String),
    /// See [`SOURCE`].
    Source(String),
    /// See [`SYSTEM`].
    System(String),
}

impl Fatal {
    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::State(_) => STATE,
            Self::Locked(_) => LOCKED,
            Self::Listen(_) => LISTEN,
            Self::Source(_) => SOURCE,
            Self::System(_) => SYSTEM,
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text)
            | Self::State(text)
            | Self::Locked(text)
            | Self::Listen(text)
            | Self::Source(text)
            | Self::System(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fatal {}
