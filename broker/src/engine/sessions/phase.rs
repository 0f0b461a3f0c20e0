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
    /// It is gone.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseEvent {
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
    /// The next phase; `None`: the event can't come in this one.
    pub(crate) const fn on(self, event: PhaseEvent) -> Option<Self> {
        use PhaseEvent::{Admit, Challenge, Check, Close, Defer};
        Some(match (self, event) {
            (Self::New, Challenge) => Self::Challenged,
            (Self::Challenged, Defer) => Self::Deferred,
            (Self::Challenged | Self::Deferred, Check) => Self::Checking,
            (Self::New | Self::Checking, Admit) => Self::LoggedIn,
            (
                Self::New | Self::Challenged | Self::Deferred | Self::Checking | Self::LoggedIn,
                Close,
            ) => Self::Closed,
            (Self::New, Defer | Check)
            | (Self::Challenged, Challenge | Admit)
            | (Self::Deferred, Challenge | Defer | Admit)
            | (Self::Checking, Challenge | Defer | Check)
            | (Self::LoggedIn, Challenge | Defer | Check | Admit)
            | (Self::Closed, Challenge | Defer | Check | Admit | Close) => return None,
        })
    }

    /// Whether its proof came: it has done its part, and waits for the broker.
    pub(crate) const fn is_proof_there(self) -> bool {
        matches!(self, Self::Deferred | Self::Checking)
    }
}
