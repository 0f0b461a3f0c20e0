//! One exit status for each way to end, for init systems and scripts. Not the texts: those belong
//! to the error that leads here.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was ended in order.
    Done,
    /// The command line makes no sense.
    Usage,
    /// The address can't be listened on.
    Listen,
    /// The state directory can't be used.
    State,
    /// Another execd uses the same socket or state directory.
    InUse,
    /// The ports file or the ready line can't be written.
    Report,
    /// The kernel refused something without which there is no going on (poll, signalfd).
    Kernel,
}

impl Exit {
    /// The status for `exit`.
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Usage => 2,
            Self::Listen => 3,
            Self::State => 4,
            Self::InUse => 5,
            Self::Report => 6,
            Self::Kernel => 71,
        }
    }
}
