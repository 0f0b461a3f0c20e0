//! What `dispatch` knows of one worker: whether it can take a request, what it has, what it owes,
//! and its figures. A seat is there as long as its worker is configured: figures outlive a login.

use crate::engine::keys::{OptionKey, ServiceKey, TransactionKey, WorkerKey};
use bytes::Bytes;
use protocol::{ClientId, HostName, LinkId, Tick, TransactionId, WorkerId};
use std::collections::{BTreeMap, VecDeque};

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

/// The list of its service that a worker takes its turn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InTurns {
    /// None: it can't be given a request now.
    Nowhere,
    /// `idle`: it has none.
    Idle,
    /// `room`: it has some, and may have more (`concurrency`).
    Room,
    /// `ahead`: it has one, and may hold more (`prefetch`).
    Ahead,
}

/// The neighbours of a worker in that list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    pub(super) before: OptionKey<WorkerKey>,
    pub(super) after: OptionKey<WorkerKey>,
}

impl Neighbours {
    /// Of a worker that is in no list.
    const NONE: Self = Self { before: OptionKey::NONE, after: OptionKey::NONE };
}

/// What a worker said at its login.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Most transactions that it works on at a time; at least 1.
    pub(crate) concurrency: u32,
    /// It understands `cancel`.
    pub(crate) hears_cancel: bool,
}

/// What a worker said of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logout {
    /// Nothing.
    None,
    /// It logged out: what it leaves unanswered when its connection ends, it has not begun.
    Unbegun,
    /// It logged out and said which requests never reached it. What it leaves unanswered of the
    /// others, it may have begun.
    Counted,
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
    /// What it said at its login.
    pub(super) announced: Announced,
    /// Most transactions that it works on at a time, by the setting `concurrency` of its service,
    /// too; at least 1.
    pub(crate) capacity: u32,
    /// What it said of its end. Independent of `availability`: it may be drained for other reasons.
    pub(super) logout: Logout,
    /// How many requests it was sent on its connection; their first frames.
    pub(super) requests_sent: u32,
    /// The transaction that it works on longest. Valid in the list `Busy`.
    pub(crate) current: Option<TransactionKey>,
    /// The others that it works on (`concurrency`), in the order in which it was given them.
    pub(super) beside: Vec<(TransactionId, TransactionKey)>,
    /// Its conversations without a deadline (`open_ended`), which take no room.
    pub(super) parked: BTreeMap<TransactionId, TransactionKey>,
    /// The last of them that was ended because the worker is drained; 0 = none. Independent of
    /// `parked`: those that were ended stay there until the worker is done with them.
    pub(super) ended_up_to: TransactionId,
    /// It gets no request until it has none, because one waits that must run alone. Independent of
    /// `availability`: no operator said so.
    pub(super) is_reserved: bool,
    /// The transaction that it was told to end because it takes too long (`kill_after_ms`); it gets
    /// no other one until that is over. Valid in the list `Busy`.
    pub(super) overlong: Option<TransactionKey>,
    /// The transactions that it holds besides (`prefetch`), in order.
    pub(crate) held: VecDeque<TransactionKey>,
    /// The list that the worker is in: [`list_by_state`](Self::list_by_state) as of the last
    /// change.
    pub(crate) list: WorkerList,
    /// The list of its service that it is in, which a law checks. Independent of `list`: only some
    /// of the busy ones have room.
    pub(super) in_turns: InTurns,
    /// Its neighbours in that list.
    pub(super) neighbours: Neighbours,
    /// A `Timer::Overlong` of it is set. Independent of what it has: the timer outlives a request.
    pub(super) is_timed: bool,
    /// It answered a request on its present connection, or its last. Independent of `current`: it
    /// may have been given a further one.
    pub(super) has_answered: bool,
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
    /// How many requests it was given on its connection, or its last.
    pub(crate) fn requests(&self) -> u64 {
        self.requests_sent.into()
    }

    /// The seat of a worker that has not logged in.
    pub(super) fn new(id: WorkerId, service: ServiceKey) -> Self {
        Self {
            id,
            service,
            link: None,
            pid: 0,
            host: None,
            availability: Availability::Unavailable,
            announced: Announced { concurrency: 1, hears_cancel: false },
            capacity: 1,
            logout: Logout::None,
            requests_sent: 0,
            current: None,
            beside: Vec::new(),
            parked: BTreeMap::new(),
            ended_up_to: TransactionId(0),
            is_reserved: false,
            overlong: None,
            held: VecDeque::new(),
            list: WorkerList::Lazy,
            in_turns: InTurns::Nowhere,
            neighbours: Neighbours::NONE,
            is_timed: false,
            has_answered: false,
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

    /// How many transactions it works on, or has not ended yet.
    pub(crate) fn running(&self) -> usize {
        usize::from(self.current.is_some()) + self.beside.len()
    }

    /// Whether it may be given one more transaction beside those that it has.
    pub(super) fn has_room(&self) -> bool {
        self.running() < self.capacity as usize
            && self.is_available()
            && !self.is_reserved
            && self.overlong.is_none()
    }

    /// The transactions that it works on, in the order in which it was given them.
    pub(crate) fn works_on(&self) -> impl Iterator<Item = TransactionKey> {
        self.current.into_iter().chain(self.beside.iter().map(|(_, key)| *key))
    }

    /// Its conversations without a deadline, by id.
    pub(crate) fn parked(&self) -> impl Iterator<Item = TransactionKey> {
        self.parked.values().copied()
    }

    /// A transaction of it other than `current`.
    pub(super) fn other(&self, id: u64) -> Option<TransactionKey> {
        let beside = self.beside.iter().find(|(other, _)| other.0 == id).map(|(_, key)| *key);
        beside.or_else(|| self.parked.get(&TransactionId(id)).copied())
    }

    /// It works on one more transaction.
    pub(super) fn take(&mut self, id: TransactionId, key: TransactionKey) {
        match self.current {
            None => self.current = Some(key),
            Some(_) => self.beside.push((id, key)),
        }
    }

    /// It works on a transaction no more.
    #[inline]
    pub(super) fn give_up(&mut self, key: TransactionKey) {
        if self.beside.is_empty() && self.overlong.is_none() && self.current == Some(key) {
            self.current = None;
        } else {
            self.give_up_one(key);
        }
    }

    #[cold]
    fn give_up_one(&mut self, key: TransactionKey) {
        if self.overlong == Some(key) {
            self.overlong = None;
            // The timer that is set is for that one, and comes too late for others.
            self.is_timed = false;
        }
        if self.current != Some(key) {
            self.beside.retain(|(_, other)| *other != key);
        } else if self.beside.is_empty() {
            self.current = None;
        } else {
            self.current = Some(self.beside.remove(0).1);
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
