//! One exit status for each way to end, for init systems and scripts.

/// How the program ended; [`status`](Self::status) is the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything ended in order.
    Done,
    /// The command line is not valid.
    Usage,
    /// execd can't listen at the address.
    Listen,
    /// The state directory can't be used.
    State,
    /// Another execd uses the same socket or state directory.
    InUse,
    /// The ports file or the ready line can't be written.
    Report,
    /// The kernel refused something that execd can't do without (poll, signalfd).
    Kernel,
}

impl Exit {
    /// The number for `exit`.
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
