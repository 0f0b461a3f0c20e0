//! What is noted of one request on its way, so that `why` can tell how it went. An ordinary request
//! leaves a few numbers here and no memory. `trace_notes` notes it.

use protocol::{ClientId, HostName, Micros, Tick, WorkerId};
use std::num::NonZeroU32;

/// Most attempts of one request that are remembered; beyond them, the second is forgotten.
const ATTEMPTS_MAX: usize = 16;

/// What is noted of one request.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The client that sent it, which may be gone.
    pub(crate) client: ClientId,
    /// How many requests it had to wait for when it came, as the queue estimates it.
    pub(super) ahead: u32,
    /// The number of the worker's own error in its last frame; 0 = it sent none.
    pub(super) error: i16,
    /// After which time its last worker was sent it.
    pub(super) given: Span,
    /// After which time the first piece of a reply of several came; `None` = none has.
    pub(super) replied: Option<Span>,
    /// The attempts before the last one, and the last one, too, once its worker is lost; `None` =
    /// there are none.
    #[expect(clippy::box_collection, reason = "most requests have none, and are small then")]
    pub(super) earlier: Option<Box<Vec<Attempt>>>,
}

/// A time since the request came, in microseconds plus one: an hour fits, which is as long as it
/// may take, in half the room of a [`Tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(NonZeroU32);

impl Span {
    /// From one tick to another.
    pub(super) fn since(from: Tick, to: Tick) -> Self {
        let micros = u32::try_from(to.since(from).0).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(micros))
    }
}

impl Default for Span {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

impl From<Span> for Micros {
    fn from(span: Span) -> Self {
        Self(u64::from(span.0.get()) - 1)
    }
}

/// One attempt: a worker that a request was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Which one it was, from 1 on; the same again if the one before surely never began.
    pub(crate) number: u32,
    /// The worker; it may be deleted by now.
    pub(crate) worker: WorkerId,
    /// Its process; 0 = not known.
    pub(crate) pid: u32,
    /// The host of that process; `None` = not known.
    pub(crate) host: Option<HostName>,
    /// When it was sent the request.
    pub(crate) given: Tick,
    /// When it began it, as far as the broker knows; `None` = it has not.
    pub(crate) begun: Option<Tick>,
    /// When it was lost, and how, in words after the name of the worker; `None` = it was not.
    pub(crate) lost: Option<(Tick, String)>,
}

impl Trace {
    /// Of a request that this client sent just now, with so many others before it.
    pub(super) fn of(client: ClientId, ahead: usize) -> Self {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        Self { client, ahead, ..Self::default() }
    }

    /// A piece of a reply came that is not the last one.
    pub(super) fn piece_came(&mut self, arrived: Tick, now: Tick) {
        self.replied.get_or_insert_with(|| Span::since(arrived, now));
    }

    /// A worker that had it is lost.
    pub(super) fn lost(&mut self, attempt: Attempt) {
        let earlier = self.earlier.get_or_insert_default();
        if earlier.len() == ATTEMPTS_MAX {
            earlier.remove(1);
        }
        earlier.push(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_attempts_the_first_and_the_last_ones_are_remembered() {
        let attempt = |number| Attempt {
            number,
            worker: WorkerId(number),
            pid: 0,
            host: None,
            given: Tick(0),
            begun: None,
            lost: None,
        };
        let mut trace = Trace::default();
        (1..=100).for_each(|number| trace.lost(attempt(number)));
        let earlier = trace.earlier.expect("there are some");
        let numbers: Vec<u32> = earlier.iter().map(|attempt| attempt.number).collect();
        let last = 101 - ATTEMPTS_MAX as u32 + 1..=100;
        assert_eq!(numbers, std::iter::once(1).chain(last).collect::<Vec<_>>());
    }
}
