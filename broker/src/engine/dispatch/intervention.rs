//! What an operator does to one request: gives it up in place of its client.

use super::machine::Dispatch;
use super::seat::Availability;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::TransactionKey;
use protocol::Ran;

impl Dispatch {
    /// Carries out the command `cancel`: ends a request that has no outcome yet. Returns whether it
    /// ran, as its client is told.
    pub(crate) fn cancel_one(&mut self, key: TransactionKey, cx: &mut Context<'_>) -> Ran {
        let worker = self.transactions[key].stage.worker();
        let ran = self.give_up(key, "the operator gave the request up", cx);
        if let Some(worker) = worker {
            let seat = &self.seats[worker];
            // A worker that is stopped is not waited for because of a reply that nobody wants.
            if seat.availability == Availability::Draining
                && seat.current.is_some()
                && !self.owes_answers(worker)
            {
                cx.effects.push(Effect::Emptied { worker, is_overdue: true });
            }
        }
        ran
    }
}
