//! How far the login of a connection is: the states and the events of a connection, as one match.

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is open, and its login is awaited.
    New,
    /// It named a token and was challenged: its proof is awaited.
    Challenged,
    /// Its proof came and waits for its turn to be checked.
    Deferred,
    /// Its proof is being checked.
    Checking,
    /// It is a client, a worker or a host.
    LoggedIn,
    /// There is none: it is gone, or was never opened.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseEvent {
    /// A program connects.
    Open,
    /// The broker has dialled a host.
    OpenHost,
    /// Its login names a token.
    Challenge,
    /// Its proof came, and others are checked before it.
    Defer,
    /// Its proof is checked now.
    Check,
    /// It is let in.
    Admit,
    /// It is closed, by itself or by the broker.
    Close,
}

impl Phase {
    /// Of a free slot.
    pub(crate) const START: Self = Self::Closed;

    /// The next phase; `None`: the event can't come in this one.
    pub(crate) const fn on(self, event: PhaseEvent) -> Option<Self> {
        use PhaseEvent::{Admit, Challenge, Check, Close, Defer, Open, OpenHost};
        Some(match (self, event) {
            (Self::Closed, Open) => Self::New,
            (Self::Closed, OpenHost) => Self::LoggedIn,
            (Self::New, Challenge) => Self::Challenged,
            (Self::Challenged, Defer) => Self::Deferred,
            (Self::Challenged | Self::Deferred, Check) => Self::Checking,
            (Self::New | Self::Checking, Admit) => Self::LoggedIn,
            (
                Self::New | Self::Challenged | Self::Deferred | Self::Checking | Self::LoggedIn,
                Close,
            ) => Self::Closed,
            (Self::New, Open | OpenHost | Defer | Check)
            | (Self::Challenged, Open | OpenHost | Challenge | Admit)
            | (Self::Deferred, Open | OpenHost | Challenge | Defer | Admit)
            | (Self::Checking, Open | OpenHost | Challenge | Defer | Check)
            | (Self::LoggedIn, Open | OpenHost | Challenge | Defer | Check | Admit)
            | (Self::Closed, Challenge | Defer | Check | Admit | Close) => return None,
        })
    }

    /// Whether its proof came: it has done its part, and waits for the broker.
    pub(crate) const fn is_proof_there(self) -> bool {
        matches!(self, Self::Deferred | Self::Checking)
    }
}
