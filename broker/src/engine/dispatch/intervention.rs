//! What an operator does to one request: gives it up in place of its client.

use super::machine::Dispatch;
use super::seat::Availability;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::TransactionKey;
use protocol::{ErrorBody, ErrorCode, Ran};

impl Dispatch {
    /// Carries out the command `cancel`: ends a request that has no outcome yet. Returns whether it
    /// ran, as its client is told.
    pub(crate) fn give_up(&mut self, key: TransactionKey, cx: &mut Context<'_>) -> Ran {
        let transaction = &self.transactions[key];
        let is_untouched = transaction.stage.waits() && transaction.attempt == 0;
        let ran = if is_untouched { Ran::No } else { Ran::Maybe };
        let worker = transaction.stage.worker();
        let text = "the operator gave the request up";
        self.fail(key, ErrorBody { code: ErrorCode::Cancelled, ran, text: text.into() }, cx);
        if let Some(worker) = worker {
            let seat = &self.seats[worker];
            // A worker that is stopped is not waited for because of a reply that nobody wants.
            if seat.availability == Availability::Draining
                && seat.current.is_some_and(|at| self.transactions[at].stage.is_ended())
            {
                cx.effects.push(Effect::Emptied { worker, is_overdue: true });
            }
        }
        ran
    }
}
