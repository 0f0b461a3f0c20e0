//! How many requests each worker has: never more than it said that it takes.

use super::{Broken, Model};
use crate::sim::plan::ServicePlan;
use protocol::ids::LinkId;
use std::collections::BTreeSet;

/// What a worker was given.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Transactions that it has, or holds.
    has: BTreeSet<u64>,
    /// Its conversations without a deadline, which take no room.
    parked: BTreeSet<u64>,
}

impl Model {
    /// A frame of a request leaves for a worker.
    ///
    /// # Errors
    /// It has as many as it takes.
    pub fn is_given(
        &mut self,
        (link, service): (LinkId, &ServicePlan),
        transaction: u64,
    ) -> Result<(), Broken> {
        let Seat { has, parked } = self.seats.entry(link).or_default();
        if !parked.contains(&transaction) {
            has.insert(transaction);
        }
        if has.len() > service.capacity() {
            return Err(format!(
                "a worker of service '{}' at {link} has {has:?}, it takes {}",
                service.name,
                service.capacity()
            ));
        }
        self.count_seats(link);
        Ok(())
    }

    fn count_seats(&mut self, link: LinkId) {
        if self.seats.get(&link).is_some_and(|seat| seat.has.len() > 1) {
            self.count("given beside others");
        }
    }

    /// Whether a worker has as many as it takes.
    pub fn is_full(&self, link: LinkId, service: &ServicePlan) -> bool {
        self.seats.get(&link).is_some_and(|seat| seat.has.len() >= service.capacity())
    }

    /// A frame of an answer comes from a worker. `parks`: with further ones to come, the request is
    /// a conversation without a deadline.
    pub fn worker_said(&mut self, link: LinkId, transaction: u64, is_last: bool, parks: bool) {
        let Some(Seat { has, parked }) = self.seats.get_mut(&link) else { return };
        if is_last {
            has.remove(&transaction);
            parked.remove(&transaction);
        } else if parks && has.remove(&transaction) {
            parked.insert(transaction);
        }
    }
}
