//! Keeps the requests that were set aside because workers died of them, with their bytes, for the
//! operator's `poison`. `retry` decides when a request is set aside.

use super::transaction::Transaction;
use bytes::Bytes;
use protocol::{ClientId, ServiceName, Tick, TransactionId};

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
            deaths: transaction.deaths.into(),
            at,
            // A copy, because the original may be part of a larger buffer, which it would keep in
            // memory.
            body: Bytes::copy_from_slice(&transaction.body),
        }
    }
}
