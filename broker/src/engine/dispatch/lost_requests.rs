//! What a worker has at the moment at which it is lost, for the black box. It costs something only
//! then.

use super::machine::Dispatch;
use super::messages::client_of;
use super::seat::Seat;
use super::stage::Stage;
use super::transaction::Transaction;
use crate::engine::death::{LostRequest, LostRequests, LostState};
use crate::engine::keys::WorkerKey;
use bytes::Bytes;
use protocol::{Micros, Tick, TransactionId};

/// Most requests of one worker that are kept.
const REQUESTS_MAX: usize = 1024;
/// Most bytes that are kept of one request.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Most bytes that are kept of all requests of one worker.
const BYTES_MAX: usize = 256 << 10;

impl Dispatch {
    /// What a worker has, with the first bytes of each as far as they are still in memory: of a
    /// large request that can't be repeated, as many as `last` shows.
    pub(crate) fn lost_requests(&self, worker: WorkerKey, now: Tick) -> LostRequests {
        let seat = &self.seats[worker];
        let count = self.with_worker(worker).count();
        let each = (BYTES_MAX / count.max(1)).min(REQUEST_BYTES_MAX);
        let keys = self.with_worker(worker).take(REQUESTS_MAX);
        let mut kept: Vec<LostRequest> =
            keys.map(|key| lost(seat, &self.transactions[key], each, now)).collect();
        if let (Some(since), Some(&id)) = (seat.late_work_since, seat.taken_away.front()) {
            kept.insert(0, taken_away(seat, TransactionId(id), now.since(since)));
        }
        LostRequests { kept, more: count.saturating_sub(REQUESTS_MAX) }
    }
}

fn lost(seat: &Seat, transaction: &Transaction, each: usize, now: Tick) -> LostRequest {
    let state = match transaction.stage {
        Stage::Held(_) | Stage::HeldEnded(_) => LostState::Held,
        Stage::Parked(_) | Stage::ParkedEnded(_) => LostState::Parked,
        Stage::Ended(_) => LostState::Overdue,
        Stage::Bound(_) | Stage::Waiting | Stage::Blocked | Stage::Lost | Stage::Gone => {
            LostState::Runs
        }
    };
    let body = transaction.body.as_ref();
    let kept = if body.is_empty() { last_bytes(seat, transaction.id) } else { body };
    LostRequest {
        transaction: transaction.id,
        client: client_of(transaction.trace.client),
        name: None,
        from: String::new(),
        sequence: transaction.head.sequence,
        state,
        had: now.since(transaction.dispatched),
        size: transaction.received.max(kept.len() as u64),
        bytes: Bytes::copy_from_slice(&kept[..kept.len().min(each)]),
    }
}

/// A request that `idle` took away, and that the worker may work on still.
fn taken_away(seat: &Seat, id: TransactionId, had: Micros) -> LostRequest {
    let is_last = seat.last.transaction == id;
    LostRequest {
        transaction: id,
        client: seat.last.client.filter(|_| is_last),
        name: None,
        from: String::new(),
        sequence: 0,
        state: LostState::TakenAway,
        had,
        size: if is_last { seat.last.size } else { 0 },
        bytes: Bytes::copy_from_slice(last_bytes(seat, id)),
    }
}

/// The bytes that `last` shows, if they are of this request.
fn last_bytes(seat: &Seat, id: TransactionId) -> &[u8] {
    if seat.last.transaction == id { &seat.last.bytes } else { &[] }
}
