//! What `dispatch` knows of one client: its requests under way, what it may have, its figures.

use super::in_flight::InFlight;
use crate::engine::keys::ServiceKey;
use protocol::{ClientId, Header, LinkId, Tick, TransactionId};
use std::collections::{BTreeMap, VecDeque};

/// Most entries of `Caller::discarded`. A client with so many may begin no further request in
/// pieces: if an entry were forgotten, the rest of its request would be taken for a new request.
const DISCARDED_MAX: usize = 1024;

/// A client wants to know when all requests that came before were taken by a worker or refused.
#[derive(Debug)]
pub(super) struct Flush {
    /// The sequence of the frame.
    pub(super) sequence: u32,
    /// The last transaction that came before it.
    pub(super) last: TransactionId,
    /// How many up to that one are still to be taken.
    pub(super) left: usize,
}

/// A client, from its login until its link is gone.
#[derive(Debug)]
pub(crate) struct Caller {
    /// How facts and operators call it.
    pub(crate) id: ClientId,
    /// Where its replies go.
    pub(crate) link: LinkId,
    /// The service that its requests are for; an operator may change it.
    pub(crate) service: ServiceKey,
    /// The priority of its requests that have none of their own; lower is served first.
    pub(crate) priority: u8,
    /// After `block`, until `unblock`: its requests wait in no queue. Independent of what it has
    /// under way: an operator says it, and those that a worker has go on.
    pub(crate) is_blocked: bool,
    /// How many requests it may have under way, as announced at its login.
    pub(super) requests_max: u64,
    /// It promised at its login to answer pings. Independent of all else: it never changes.
    pub(super) has_heartbeat: bool,
    /// It sends nothing more, and waits for what is still to be answered. Independent of the rest:
    /// it stays so.
    pub(super) is_half_closed: bool,
    /// How many of its transactions are conversations without a deadline (`open_ended`).
    pub(super) parked: usize,
    /// What it wants to know when all before it is taken, oldest first.
    pub(super) flushes: VecDeque<Flush>,
    /// Requests that were refused, or ended before a worker took them, since the last answer to a
    /// flush.
    pub(super) refused: u64,
    /// Its transactions that have no outcome yet, by sequence.
    pub(crate) in_flight: InFlight,
    /// Sequences of requests that ended before their last piece came, and when they ended. Further
    /// pieces are discarded, and the sequence is in use until the piece with `more` = 0; that one
    /// is answered with an error, unless it comes in the turn of the end (docs/decisions/0022).
    pub(super) discarded: BTreeMap<u32, Tick>,
    /// Requests accepted from it, since its login or the last `reset`.
    pub(crate) requests: u64,
    /// Requests of it that a worker answered, counted from the same moment.
    pub(crate) answered: u64,
    /// Requests of it that ended with an error or were refused, counted from the same moment.
    pub(crate) failed: u64,
}

impl Caller {
    /// A client that has just logged in.
    pub(super) fn new(
        id: ClientId,
        link: LinkId,
        (service, priority): (ServiceKey, u8),
        (requests_max, has_heartbeat): (u64, bool),
    ) -> Self {
        Self {
            id,
            link,
            service,
            priority,
            is_blocked: false,
            requests_max,
            has_heartbeat,
            is_half_closed: false,
            parked: 0,
            flushes: VecDeque::new(),
            refused: 0,
            in_flight: InFlight::default(),
            discarded: BTreeMap::new(),
            requests: 0,
            answered: 0,
            failed: 0,
        }
    }

    /// From now on, further pieces of this request are discarded.
    pub(super) fn discard_rest(&mut self, sequence: u32, now: Tick) {
        self.discarded.insert(sequence, now);
    }

    /// Whether a frame belongs to a request that ended before its last piece came. A frame that
    /// names a worker belongs to a conversation of that sequence, if there is one.
    pub(super) fn is_rest(&self, head: &Header) -> bool {
        !self.discarded.is_empty()
            && self.discarded.contains_key(&head.sequence)
            && (head.workerid == 0 || self.in_flight.get(head.sequence).is_none())
    }

    /// Whether `discarded` is full.
    pub(super) fn discards_too_many(&self) -> bool {
        self.discarded.len() >= DISCARDED_MAX
    }
}
