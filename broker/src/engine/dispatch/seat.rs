//! What `dispatch` knows of one worker: whether it can take a request, what it has, what it owes,
//! and its figures. A seat is there as long as its worker is configured: figures outlive a login.

use crate::engine::keys::{ServiceKey, TransactionKey};
use bytes::Bytes;
use protocol::{ClientId, HostName, LinkId, Tick, TransactionId, WorkerId};
use std::collections::VecDeque;

/// Most late replies of one worker that are awaited; the oldest are forgotten.
const TAKEN_AWAY_MAX: usize = 1024;

/// The list that a worker is in, in the manual's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkerList {
    /// It can't take a request.
    Lazy,
    /// It can take a request.
    Idle,
    /// It has a request.
    Busy,
}

/// Whether a worker may be given requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It may.
    Available,
    /// It may not.
    Unavailable,
    /// It may not, and `supervision` is to be told when it has nothing more to reply to.
    Draining,
}

/// The request that a worker was sent last, for `last`.
#[derive(Debug, Default)]
pub(crate) struct Last {
    /// The first `last_bytes_max` bytes of its body; the buffer is used again.
    pub(crate) bytes: Vec<u8>,
    /// Size of the whole body in bytes.
    pub(crate) size: u64,
    /// Id of the transaction; 0 = it was sent none yet.
    pub(crate) transaction: TransactionId,
    /// Id of the client; `None` = it was gone by then.
    pub(crate) client: Option<ClientId>,
    /// When it was sent.
    pub(crate) at: Tick,
}

/// A worker as `dispatch` sees it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// How facts and peers call the worker.
    pub(crate) id: WorkerId,
    /// The service that it answers for; it never changes.
    pub(crate) service: ServiceKey,
    /// Its connection, from its login until that is lost. Independent of `availability`: a paused
    /// worker is connected, too.
    pub(crate) link: Option<LinkId>,
    /// Process id of the program that logged in last; 0 = not known. Independent of the rest: it
    /// stays until the next login.
    pub(super) pid: u32,
    /// Name of the host of that program; `None` = none logged in yet. Independent of the rest, as
    /// `pid` is.
    pub(super) host: Option<HostName>,
    /// Whether it may be given requests, as `supervision` says.
    pub(super) availability: Availability,
    /// The transaction that it has. Valid in the list `Busy`.
    pub(crate) current: Option<TransactionKey>,
    /// The transactions that it holds besides (`prefetch`), in order.
    pub(crate) held: VecDeque<TransactionKey>,
    /// The list that the worker is in: [`list_by_state`](Self::list_by_state) as of the last
    /// change.
    pub(crate) list: WorkerList,
    /// It is in its service's list `with_room`, which a law checks. Independent of `list`: only
    /// some of the busy ones have room.
    pub(super) has_room: bool,
    /// Its turn among the idle ones, or among those with room.
    pub(super) turn: u64,
    /// A `Timer::Overlong` of it is set. Independent of what it has: the timer outlives a request.
    pub(super) is_timed: bool,
    /// Transactions that it completed.
    pub(crate) transactions: u64,
    /// Frames that it sent (`worker->fromCount`).
    pub(crate) from_count: u64,
    /// Frames that were sent to it (`worker->toCount`).
    pub(crate) to_count: u64,
    /// Microseconds that it worked, all transactions together.
    pub(crate) busy_micros: u64,
    /// Microseconds that it took for the last one.
    pub(crate) last_micros: u64,
    /// Replies of it that were dropped because they came late.
    pub(crate) late: u64,
    /// Transactions that the operator's `idle` took away from it and whose late replies are still
    /// to come, oldest first. One that is only overdue stays in `current`.
    pub(super) taken_away: VecDeque<u64>,
    /// Since when it may be at work on the first of them; `None` if it answered a later request
    /// since, which shows that it is not. While it may be, it owes no sign of life. Independent of
    /// `current`: it may have been given a later request meanwhile.
    pub(super) late_work_since: Option<Tick>,
    /// When its last late reply came. It began its present request at that moment at the earliest.
    pub(super) late_reply_at: Tick,
    /// The last transaction of `taken_away` that it was told is over; 0 = none. Independent of
    /// `current`, as `taken_away` is.
    pub(super) notified_over: u64,
    /// The request that it was sent last.
    pub(crate) last: Last,
}

impl Seat {
    /// The seat of a worker that has not logged in.
    pub(super) fn new(id: WorkerId, service: ServiceKey) -> Self {
        Self {
            id,
            service,
            link: None,
            pid: 0,
            host: None,
            availability: Availability::Unavailable,
            current: None,
            held: VecDeque::new(),
            list: WorkerList::Lazy,
            has_room: false,
            turn: 0,
            is_timed: false,
            transactions: 0,
            from_count: 0,
            to_count: 0,
            busy_micros: 0,
            last_micros: 0,
            late: 0,
            taken_away: VecDeque::new(),
            late_work_since: None,
            late_reply_at: Tick(0),
            notified_over: 0,
            last: Last::default(),
        }
    }

    /// Whether it may be given requests.
    pub(crate) const fn is_available(&self) -> bool {
        matches!(self.availability, Availability::Available)
    }

    /// The list that the worker belongs in.
    pub(super) const fn list_by_state(&self) -> WorkerList {
        match (self.current, self.is_available()) {
            (Some(_), _) => WorkerList::Busy,
            (None, true) => WorkerList::Idle,
            (None, false) => WorkerList::Lazy,
        }
    }

    /// Whether it owes a sign of life: it has nothing to do, as far as is known.
    pub(crate) const fn must_answer(&self) -> bool {
        self.current.is_none() && self.late_work_since.is_none()
    }

    /// A transaction that it began at `begun` is taken away from it; its reply will come late.
    pub(super) fn take_away(&mut self, transaction: u64, begun: Tick) {
        self.late_work_since.get_or_insert(begun);
        if self.taken_away.len() == TAKEN_AWAY_MAX {
            self.taken_away.pop_front();
        }
        self.taken_away.push_back(transaction);
    }

    /// The late reply to the entry `at` of `taken_away` came: it may be at work on the next one
    /// now.
    pub(super) fn late_reply_came(&mut self, at: usize, now: Tick) {
        self.taken_away.remove(at);
        self.late_reply_at = now;
        if self.late_work_since.is_some() {
            self.late_work_since = (!self.taken_away.is_empty()).then_some(now);
        }
    }

    /// Remembers what it is sent, into the same buffer each time; at most `max` bytes.
    pub(super) fn remember(
        &mut self,
        body: &Bytes,
        last: (TransactionId, Option<ClientId>, Tick),
        max: usize,
    ) {
        let bytes = &mut self.last.bytes;
        bytes.clear();
        bytes.extend_from_slice(&body[..body.len().min(max)]);
        self.last.size = body.len() as u64;
        (self.last.transaction, self.last.client, self.last.at) = last;
    }

    /// Begins the figures anew with zeros.
    pub(super) fn reset(&mut self) {
        (self.transactions, self.from_count, self.to_count) = (0, 0, 0);
        (self.busy_micros, self.last_micros, self.late) = (0, 0, 0);
    }
}
