//! How far the process of a worker is: its states and events, as one match.

/// How far a worker's process is. It says nothing about requests: `WorkerList` does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProcessState {
    /// No process, and no start is planned.
    Down,
    /// No process; `Timer::Restart` starts it again.
    Backoff,
    /// Its execd was asked to start it.
    Starting,
    /// The process runs (*up*) and has to log in.
    Up,
    /// It is logged in (*ready*).
    Ready,
    /// Its connection broke, and it may log in again, or its process may end. Also: its process has
    /// ended (`has_exited`), and what it sent before is still read from its connection.
    Returning,
    /// It got an `end` frame and its socket was shut for writing; it has to end by itself.
    Exiting,
    /// Its execd was asked to end it: TERM, then KILL.
    Terminating,
}

/// What happens to the process of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessEvent {
    /// Its execd is asked to start it.
    Start,
    /// Its execd says that it runs.
    Run,
    /// It logs in, perhaps before its execd says that it runs.
    LogIn,
    /// Its connection is lost, or its execd says that it has ended and the connection is not yet.
    Lose,
    /// It gets an `end` frame.
    AskToEnd,
    /// Its execd is asked to end it.
    Terminate,
    /// It is gone, or never began.
    End,
    /// It is to be started again later.
    Wait,
    /// It is not to be started again.
    Unplan,
}

impl ProcessState {
    /// Of a worker that is configured.
    pub(crate) const START: Self = Self::Down;

    /// Whether its process was started and has not logged in.
    pub(super) const fn is_starting(self) -> bool {
        matches!(self, Self::Starting | Self::Up)
    }

    /// The word that `hosts` shows for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Backoff => "backoff",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Ready => "ready",
            Self::Returning => "returning",
            Self::Exiting => "exiting",
            Self::Terminating => "terminating",
        }
    }

    /// Whether a process runs or is being started, as far as the broker knows.
    pub(crate) const fn has_process(self) -> bool {
        match self {
            Self::Down | Self::Backoff => false,
            Self::Starting
            | Self::Up
            | Self::Ready
            | Self::Returning
            | Self::Exiting
            | Self::Terminating => true,
        }
    }

    /// The next state; `None`: the event can't come in this one.
    pub(crate) const fn on(self, event: ProcessEvent) -> Option<Self> {
        use ProcessEvent::{AskToEnd, End, LogIn, Lose, Run, Start, Terminate, Unplan, Wait};
        Some(match (self, event) {
            (Self::Down | Self::Backoff, Start) => Self::Starting,
            // A process of an earlier broker's start is taken over.
            (Self::Down | Self::Backoff | Self::Starting | Self::Up, Run) => Self::Up,
            (Self::Down | Self::Backoff | Self::Starting | Self::Up | Self::Returning, LogIn) => {
                Self::Ready
            }
            (Self::Ready, Lose) => Self::Returning,
            (Self::Ready, AskToEnd) => Self::Exiting,
            (
                Self::Starting
                | Self::Up
                | Self::Ready
                | Self::Returning
                | Self::Exiting
                | Self::Terminating,
                Terminate,
            ) => Self::Terminating,
            (
                Self::Starting
                | Self::Up
                | Self::Ready
                | Self::Returning
                | Self::Exiting
                | Self::Terminating,
                End,
            ) => Self::Down,
            (Self::Down, Wait) => Self::Backoff,
            (Self::Backoff, Unplan) => Self::Down,
            (Self::Down, Lose | AskToEnd | Terminate | End | Unplan)
            | (Self::Backoff, Lose | AskToEnd | Terminate | End | Wait)
            | (Self::Starting | Self::Up, Start | Lose | AskToEnd | Wait | Unplan)
            | (Self::Ready, Start | Run | LogIn | Wait | Unplan)
            | (Self::Returning, Start | Run | Lose | AskToEnd | Wait | Unplan)
            | (
                Self::Exiting | Self::Terminating,
                Start | Run | LogIn | Lose | AskToEnd | Wait | Unplan,
            ) => return None,
        })
    }
}
