//! How far the link to a host's execd is: its states and events, as one match.

use protocol::ids::LinkId;

/// How far the link to a host's execd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostState {
    /// No link; `Timer::Dial` dials again.
    Down,
    /// `Action::Dial` was given and has no answer yet.
    Dialing,
    /// A dial to an address that it had before has no answer yet; when it has, the present address
    /// is dialled.
    WaitingToDial,
    /// The hello was sent, and the welcome has not come.
    Greeting(LinkId),
    /// The list of its processes was asked for and has not come.
    Listing(LinkId),
    /// It starts and ends processes for this broker.
    Up(LinkId),
}

/// What happens to the link of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostEvent {
    /// It is dialled.
    Dial,
    /// It is to be dialled, and an earlier dial has no answer yet.
    Wait,
    /// The dial succeeded: it is greeted.
    Open(LinkId),
    /// Its execd welcomes the broker: its processes are asked for.
    Welcome,
    /// Its execd lists its processes.
    List,
    /// The dial failed, or the link is gone or given up.
    Fail,
}

impl HostState {
    /// The link to its execd, if there is one.
    pub(crate) const fn link(self) -> Option<LinkId> {
        match self {
            Self::Greeting(link) | Self::Listing(link) | Self::Up(link) => Some(link),
            Self::Down | Self::Dialing | Self::WaitingToDial => None,
        }
    }

    /// The word that `hosts` shows for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Dialing | Self::WaitingToDial => "dialing",
            Self::Greeting(_) | Self::Listing(_) => "greeting",
            Self::Up(_) => "up",
        }
    }

    /// The next state; `None`: the event can't come in this one.
    pub(crate) const fn on(self, event: HostEvent) -> Option<Self> {
        use HostEvent::{Dial, Fail, List, Open, Wait, Welcome};
        Some(match (self, event) {
            (Self::Down, Dial) => Self::Dialing,
            (Self::Down, Wait) => Self::WaitingToDial,
            (Self::Dialing, Open(link)) => Self::Greeting(link),
            (Self::Greeting(link), Welcome) => Self::Listing(link),
            (Self::Listing(link), List) => Self::Up(link),
            // A host that is down may be given another address, which is a loss of nothing.
            (
                Self::Down
                | Self::Dialing
                | Self::WaitingToDial
                | Self::Greeting(_)
                | Self::Listing(_)
                | Self::Up(_),
                Fail,
            ) => Self::Down,
            (Self::Down, Open(_) | Welcome | List)
            | (Self::Dialing, Dial | Wait | Welcome | List)
            | (Self::WaitingToDial, Dial | Wait | Open(_) | Welcome | List)
            | (Self::Greeting(_), Dial | Wait | Open(_) | List)
            | (Self::Listing(_), Dial | Wait | Open(_) | Welcome)
            | (Self::Up(_), Dial | Wait | Open(_) | Welcome | List) => return None,
        })
    }
}
