//! Turns Unix signals into requests to the broker. Signals are blocked in every thread and read
//! from a descriptor, so no code runs in a signal handler. [`sys::signals`] lists what each signal
//! means.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::AsRawFd;
use sys::signals::{Meaning, SignalReader};

/// A request made by a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// End in order.
    Shutdown {
        /// Name of the signal, for the log.
        name: &'static str,
        /// Whether a second one of it ends the broker at once.
        may_hurry: bool,
    },
    /// Read the files again.
    Reload,
}

/// The descriptor that signals are read from.
#[derive(Debug)]
pub(super) struct Signals {
    reader: SignalReader,
}

impl Signals {
    /// Blocks the signals and opens the descriptor. Threads started later inherit the mask.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { reader: SignalReader::open()? })
    }

    /// Adds the descriptor to the loop.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.reader.as_raw_fd()), token, Interest::READABLE)
    }

    /// The next request made by a signal. Signals that request nothing are only logged.
    pub(super) fn next(&mut self) -> Option<SignalRequest> {
        loop {
            let received = self.reader.take()?;
            let name = Signal::try_from(received.number).map_or("signal", Signal::as_str);
            match received.meaning() {
                Meaning::Shutdown => {
                    return Some(SignalRequest::Shutdown { name, may_hurry: true });
                }
                Meaning::ShutdownOnce => {
                    return Some(SignalRequest::Shutdown { name, may_hurry: false });
                }
                Meaning::Reload => return Some(SignalRequest::Reload),
                Meaning::Child => {}
                Meaning::None => {
                    let (name, from) = (received.name(), received.sender());
                    let text = "means nothing to isectd and is ignored; HUP has its files read \
                                again, TERM ends it in order";
                    if self.reader.is_first(received) {
                        tracing::warn!("signal {name} from {from} {text}");
                    } else {
                        tracing::debug!("signal {name} from {from} {text}");
                    }
                }
            }
        }
    }
}
