//! Keeps the requests that were set aside because workers died of them, with their bytes, for the
//! operator's `poison`. `dispatch` decides when a request is set aside.

use super::Engine;
use super::transaction::Transaction;
use bytes::Bytes;
use protocol::ids::{ClientId, TransactionId};
use protocol::names::ServiceName;
use protocol::settings::Setting;
use protocol::time::Tick;

/// A request set aside.
#[derive(Debug)]
pub(crate) struct Poison {
    /// Which transaction it was.
    pub(crate) transaction: TransactionId,
    /// Of which service.
    pub(crate) service: ServiceName,
    /// Who sent it.
    pub(crate) client: Option<ClientId>,
    /// From where.
    pub(crate) from: String,
    /// How many workers died.
    pub(crate) deaths: u64,
    /// When it was set aside.
    pub(crate) at: Tick,
    /// The request.
    pub(crate) body: Bytes,
}

impl Poison {
    /// What is to be kept of a transaction.
    pub(crate) fn of(transaction: &Transaction, engine: &Engine) -> Self {
        let client = transaction.client.map(|key| &engine.clients[key]);
        Self {
            transaction: transaction.id,
            service: engine.registry[transaction.service].name.clone(),
            client: client.map(|client| client.id),
            from: client.map_or_else(String::new, |c| format!("{} pid {}", c.loghost, c.hostpid)),
            deaths: transaction.deaths,
            at: engine.now,
            // A copy of its own, so that it does not keep a larger buffer alive.
            body: Bytes::copy_from_slice(&transaction.body),
        }
    }
}

impl Engine {
    /// Keeps a poison request; the oldest makes room.
    pub(crate) fn keep_poison(&mut self, poison: Poison) {
        self.totals.poisoned += 1;
        self.poison.push_back(poison);
        while self.poison.len() as u64 > self.settings.get(Setting::PoisonMax) {
            self.poison.pop_front();
        }
    }
}
