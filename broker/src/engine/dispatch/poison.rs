//! Keeps the requests that were set aside because workers died of them, with their bytes, for the
//! operator's `poison`. `retry` decides when a request is set aside.

use super::machine::Dispatch;
use super::transaction::Transaction;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use bytes::Bytes;
use protocol::ids::{ClientId, TransactionId};
use protocol::names::ServiceName;
use protocol::settings::Setting;
use protocol::time::Tick;

/// A request that was set aside.
#[derive(Debug)]
pub(crate) struct Poison {
    /// The number that it had.
    pub(crate) transaction: TransactionId,
    /// The service that it was for.
    pub(crate) service: ServiceName,
    /// Who sent it; `None` if that client was gone.
    pub(crate) client: Option<ClientId>,
    /// Host and process of the client, as it said; empty if it was gone.
    pub(crate) from: String,
    /// How many workers died of it.
    pub(crate) deaths: u64,
    /// When it was set aside.
    pub(crate) at: Tick,
    /// The body of the request.
    pub(crate) body: Bytes,
}

impl Poison {
    /// What is kept of a transaction.
    pub(super) fn of(
        transaction: &Transaction,
        client: Option<ClientId>,
        service: ServiceName,
        at: Tick,
    ) -> Self {
        Self {
            transaction: transaction.id,
            service,
            client,
            from: String::new(),
            deaths: transaction.deaths,
            at,
            // A copy, because the original may be part of a larger buffer, which it would keep in
            // memory.
            body: Bytes::copy_from_slice(&transaction.body),
        }
    }
}

impl Dispatch {
    /// Keeps a request. Beyond `poison_max`, the oldest is dropped.
    pub(super) fn keep_poison(&mut self, poison: Poison, cx: &mut Context<'_>) {
        self.totals.poisoned += 1;
        if poison.client.is_some() {
            cx.effects.push(Effect::Poisoned { transaction: poison.transaction });
        }
        self.poison.push_back(poison);
        self.drop_poison(cx.settings.get(Setting::PoisonMax));
    }

    /// Keeps at most `max` of them.
    pub(crate) fn drop_poison(&mut self, max: u64) {
        while self.poison.len() as u64 > max {
            self.poison.pop_front();
        }
    }

    /// Names who sent the request of a transaction that was set aside just now.
    pub(crate) fn name_poison(&mut self, transaction: TransactionId, from: String) {
        let mut all = self.poison.iter_mut().rev();
        if let Some(poison) = all.find(|poison| poison.transaction == transaction) {
            poison.from = from;
        }
    }
}
