//! Ids as newtypes, so that a client's id can't be taken for a worker's. The engine assigns them.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// An attached client, counted up from 0 as in the manual (`isdData.NextClientID`).
    ClientId(u32);
    /// A configured worker, counted up from 1; the manual's `worker->id`. 0 on the wire is "none".
    WorkerId(u32);
    /// A service, counted up from 1; `op` is always 1.
    ServiceId(u32);
    /// One transaction, from a request to its final reply; unique for the broker's lifetime.
    TransactionId(u64);
    /// One start of a worker's process. A later start of the same worker has a higher number,
    /// also after a restart of the broker, so that a late report of an old process is known as one.
    RunId(u64);
    /// The number of a fact in the order of recording.
    FactSeq(u64);
}

/// The lowest id of what is built into the broker: its services, their workers, and the clients
/// that those are. What is configured and who logs in by himself has lower ids.
pub const BUILTIN_IDS: u32 = 1 << 31;

macro_rules! built_in {
    ($($name:ident)*) => {$(
        impl $name {
            /// Whether it belongs to a built-in service.
            pub const fn is_builtin(self) -> bool {
                self.0 >= BUILTIN_IDS
            }
        }
    )*};
}

built_in! { ClientId WorkerId ServiceId }

/// One connection as the engine knows it. The index is used again after a close, with a higher
/// generation, so a late event of the old connection never reaches the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// The slot in the reactor's table of connections.
    pub index: u32,
    /// How many connections had the slot before this one.
    pub generation: u32,
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}
