//! Callers and workers that give up or leave in order: `cancel`, `flush`, the end of what a client
//! sends, the `logout` of a worker.

use super::machine::Dispatch;
use crate::engine::context::Context;
use crate::engine::keys::{ClientKey, WorkerKey};

impl Dispatch {
    /// A client gives up a request.
    pub(crate) fn cancel(&mut self, _client: ClientKey, _sequence: u32, _cx: &mut Context<'_>) {}

    /// A client wants to know when all that it sent was taken.
    pub(crate) fn flush(&mut self, _client: ClientKey, _sequence: u32, _cx: &mut Context<'_>) {}

    /// A client sends nothing more.
    pub(crate) fn half_close(&mut self, _client: ClientKey, _cx: &mut Context<'_>) {}

    /// A worker takes no further request. It `received` so many on this connection.
    pub(crate) fn log_out(
        &mut self,
        _worker: WorkerKey,
        _received: Option<u32>,
        _cx: &mut Context<'_>,
    ) {
    }
}
