//! Keeps the requests that were set aside because workers died of them, with their bytes, for the
//! operator's `poison`. `dispatch` decides when a request is set aside.

use super::Engine;
use super::transaction::Transaction;
use bytes::Bytes;
use protocol::ids::{ClientId, TransactionId};
use protocol::names::ServiceName;
use protocol::settings::Setting;
use protocol::time::Tick;

/// A request that was set aside.
#[derive(Debug)]
pub(crate) struct Poison {
    /// Id of its transaction; `poison ID` shows it.
    pub(crate) transaction: TransactionId,
    /// Name of its service, which may be deleted by now.
    pub(crate) service: ServiceName,
    /// Id of its client; `None` = that was gone when the request was set aside.
    pub(crate) client: Option<ClientId>,
    /// Host and process id of the client, as it gave them at its login.
    pub(crate) from: String,
    /// How many workers died of it, as counted in `Transaction::deaths`.
    pub(crate) deaths: u64,
    /// When it was set aside.
    pub(crate) at: Tick,
    /// The body of the request.
    pub(crate) body: Bytes,
}

impl Poison {
    /// What is kept of a transaction.
    pub(crate) fn of(transaction: &Transaction, engine: &Engine) -> Self {
        let client = transaction.client.map(|key| &engine.clients[key]);
        Self {
            transaction: transaction.id,
            service: engine.registry[transaction.service].name.clone(),
            client: client.map(|client| client.id),
            from: client.map_or_else(String::new, |c| format!("{} pid {}", c.loghost, c.hostpid)),
            deaths: transaction.deaths,
            at: engine.now,
            // A copy, because the original may be part of a larger buffer, which it would keep in
            // memory.
            body: Bytes::copy_from_slice(&transaction.body),
        }
    }
}

impl Engine {
    /// Keeps a request. Beyond `poison_max`, the oldest is dropped.
    pub(crate) fn keep_poison(&mut self, poison: Poison) {
        self.totals.poisoned += 1;
        self.poison.push_back(poison);
        while self.poison.len() as u64 > self.settings.get(Setting::PoisonMax) {
            self.poison.pop_front();
        }
    }
}
