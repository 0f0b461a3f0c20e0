//! What `dispatch` knows of one client: its requests under way, what it may have, its figures.

use super::live::Live;
use crate::engine::keys::ServiceKey;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::time::Tick;
use std::collections::BTreeMap;

/// With so many requests whose further pieces are discarded a client begins no further one in
/// pieces: to forget one of them would mean to take its rest for a request.
const DISCARDED_MAX: usize = 1024;

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
    /// Its requests wait until it is unblocked.
    pub(crate) is_blocked: bool,
    /// How many requests it may have under way, as announced at its login.
    pub(super) requests_max: u64,
    /// Its transactions that have no outcome yet, by sequence.
    pub(crate) live: Live,
    /// Requests that ended before their last piece came, and when: further pieces are discarded up
    /// to the one with `more` = 0, and until then the sequence can't be used for anything else.
    pub(super) discarded: BTreeMap<u32, Tick>,
    /// Requests accepted from it, since its login or the last `reset`.
    pub(crate) requests: u64,
    /// Of those, answered by a worker.
    pub(crate) answered: u64,
    /// Of those, ended with an error.
    pub(crate) failed: u64,
}

impl Caller {
    /// A client that has just logged in.
    pub(super) fn new(
        id: ClientId,
        link: LinkId,
        (service, priority): (ServiceKey, u8),
        requests_max: u64,
    ) -> Self {
        Self {
            id,
            link,
            service,
            priority,
            is_blocked: false,
            requests_max,
            live: Live::default(),
            discarded: BTreeMap::new(),
            requests: 0,
            answered: 0,
            failed: 0,
        }
    }

    /// Further pieces of this request are discarded.
    pub(super) fn discard_rest(&mut self, sequence: u32, now: Tick) {
        self.discarded.insert(sequence, now);
    }

    /// Whether a frame belongs to a request that ended before its last piece came. One that names a
    /// worker is of a conversation, if there is one.
    pub(super) fn is_rest(&self, head: &Header) -> bool {
        !self.discarded.is_empty()
            && self.discarded.contains_key(&head.sequence)
            && (head.workerid == 0 || self.live.get(head.sequence).is_none())
    }

    /// Whether it has as many requests whose further pieces are discarded as it may.
    pub(super) fn discards_too_many(&self) -> bool {
        self.discarded.len() >= DISCARDED_MAX
    }
}
