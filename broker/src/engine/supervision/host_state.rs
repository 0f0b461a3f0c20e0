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
    /// `Action::Claim` was given and has no answer yet; the hello was not sent.
    Greeting(LinkId),
    /// The hello was sent and named no token. The welcome has not come.
    Greeted(LinkId),
    /// The hello was sent and named a token. The execd has not sent its challenge.
    Claimed(LinkId),
    /// The execd challenged the broker. Its welcome must prove that it knows the token, too.
    Proving(LinkId),
    /// What the execd sent shows that it is not to be trusted, for this reason. The link is closed
    /// within the step.
    Untrusted(LinkId, &'static str),
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
    /// The dial succeeded: the token for the hello is looked up.
    Open(LinkId),
    /// The hello is sent and names no token.
    Greet,
    /// The hello is sent and names a token.
    Claim,
    /// Its execd wants the token proved.
    Challenge,
    /// Its execd welcomes the broker, and proves no token.
    Welcome,
    /// Its execd welcomes the broker, and proves that it knows the token of the hello.
    SignedWelcome,
    /// Its execd lists its processes.
    List,
    /// The dial failed, or the link is gone or given up.
    Fail,
}

impl HostState {
    /// Of a host that is configured.
    pub(crate) const START: Self = Self::Down;

    /// The link to its execd, if there is one.
    pub(crate) const fn link(self) -> Option<LinkId> {
        match self {
            Self::Greeting(link)
            | Self::Greeted(link)
            | Self::Claimed(link)
            | Self::Proving(link)
            | Self::Untrusted(link, _)
            | Self::Listing(link)
            | Self::Up(link) => Some(link),
            Self::Down | Self::Dialing | Self::WaitingToDial => None,
        }
    }

    /// Whether the link is open and its execd may still send the welcome.
    pub(crate) const fn is_awaiting_welcome(self) -> bool {
        match self {
            Self::Greeting(_) | Self::Greeted(_) | Self::Claimed(_) | Self::Proving(_) => true,
            Self::Down | Self::Dialing | Self::WaitingToDial => false,
            Self::Untrusted(..) | Self::Listing(_) | Self::Up(_) => false,
        }
    }

    /// The word that `hosts` shows for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Dialing | Self::WaitingToDial => "dialing",
            Self::Greeting(_)
            | Self::Greeted(_)
            | Self::Claimed(_)
            | Self::Proving(_)
            | Self::Untrusted(..)
            | Self::Listing(_) => "greeting",
            Self::Up(_) => "up",
        }
    }

    /// The link, if the execd takes a frame behind the hello there.
    pub(crate) const fn takes_frames(self) -> Option<LinkId> {
        match self {
            Self::Greeted(link) | Self::Listing(link) | Self::Up(link) => Some(link),
            Self::Down
            | Self::Dialing
            | Self::WaitingToDial
            | Self::Greeting(_)
            | Self::Claimed(_)
            | Self::Proving(_)
            | Self::Untrusted(..) => None,
        }
    }

    /// The next state; `None`: the event can't come in this one. An execd is trusted once the list
    /// of its processes is asked for. One that answers before it is asked, or does not prove the
    /// token that the hello named, is not.
    pub(crate) const fn on(self, event: HostEvent) -> Option<Self> {
        use HostEvent::{
            Challenge, Claim, Dial, Fail, Greet, List, Open, SignedWelcome, Wait, Welcome,
        };
        Some(match (self, event) {
            (Self::Down, Dial) => Self::Dialing,
            (Self::Down, Wait) => Self::WaitingToDial,
            (Self::Dialing, Open(link)) => Self::Greeting(link),
            (Self::Greeting(link), Greet) => Self::Greeted(link),
            (Self::Greeting(link), Claim) => Self::Claimed(link),
            (Self::Claimed(link), Challenge) => Self::Proving(link),
            (Self::Greeted(link), Welcome | SignedWelcome)
            | (Self::Proving(link), SignedWelcome) => Self::Listing(link),
            (Self::Greeting(link), Challenge) => {
                Self::Untrusted(link, "a challenge came before the hello")
            }
            (Self::Greeted(link), Challenge) => {
                Self::Untrusted(link, "a challenge came, and no token was named")
            }
            // Computing a proof is expensive (Argon2), so a link gets one only.
            (Self::Proving(link), Challenge) => {
                Self::Untrusted(link, "a second challenge came in one login")
            }
            (Self::Greeting(link) | Self::Claimed(link), Welcome | SignedWelcome)
            | (Self::Proving(link), Welcome) => {
                Self::Untrusted(link, "the execd did not prove that it knows it")
            }
            (Self::Listing(link), List) => Self::Up(link),
            // A host that is down may be given another address, which is a loss of nothing.
            (
                Self::Down
                | Self::Dialing
                | Self::WaitingToDial
                | Self::Greeting(_)
                | Self::Greeted(_)
                | Self::Claimed(_)
                | Self::Proving(_)
                | Self::Untrusted(..)
                | Self::Listing(_)
                | Self::Up(_),
                Fail,
            ) => Self::Down,
            (Self::Down, Open(_) | Greet | Claim | Challenge | Welcome | SignedWelcome | List)
            | (
                Self::Dialing,
                Dial | Wait | Greet | Claim | Challenge | Welcome | SignedWelcome | List,
            )
            | (Self::Greeting(_), Dial | Wait | Open(_) | List)
            | (Self::Greeted(_) | Self::Claimed(_) | Self::Proving(_), Dial | Wait | Open(_))
            | (Self::Greeted(_) | Self::Claimed(_) | Self::Proving(_), Greet | Claim | List)
            | (
                Self::Listing(_),
                Dial | Wait | Open(_) | Greet | Claim | Challenge | Welcome | SignedWelcome,
            )
            | (
                Self::WaitingToDial | Self::Untrusted(..) | Self::Up(_),
                Dial | Wait | Open(_) | Greet | Claim | Challenge | Welcome | SignedWelcome | List,
            ) => return None,
        })
    }
}
