//! A worker: its configuration, the state of its process, which of the manual's three lists (lazy,
//! idle, busy) it is in, its figures. `dispatch` gives it requests, `process` starts and ends it.

use super::Engine;
use super::keys::{ServiceKey, Table, TransactionKey, WorkerKey};
use super::quotas::LINE_BYTES_MAX;
use super::restart::Restart;
use super::states::OperatorAct;
use bytes::Bytes;
use protocol::bodies::ExitCause;
use protocol::ids::{ClientId, LinkId, RunId, TransactionId, WorkerId};
use protocol::names::HostName;
use protocol::show;
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};

/// How far a worker's process is. The state says nothing about requests: [`WorkerList`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProcessState {
    /// No process, none planned.
    Down,
    /// No process; it is started again at the moment given to `Due::Restart`.
    Backoff,
    /// execd was asked to start it.
    Starting,
    /// The process runs (*up*); its login is awaited.
    Up,
    /// It logged in (*ready*).
    Ready,
    /// Its connection broke; it may end, or log in again.
    Returning,
    /// It was asked to end and its socket shut for writing.
    Exiting,
    /// execd was asked to end it: TERM, then KILL.
    Terminating,
}

impl ProcessState {
    /// The word shown to operators.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Backoff => "backoff",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Ready => "ready",
            Self::Returning => "returning",
            Self::Exiting => "exiting",
            Self::Terminating => "terminating",
        }
    }

    /// Whether a process runs or is being started, as far as is known.
    pub(crate) const fn has_process(self) -> bool {
        match self {
            Self::Down | Self::Backoff => false,
            Self::Starting
            | Self::Up
            | Self::Ready
            | Self::Returning
            | Self::Exiting
            | Self::Terminating => true,
        }
    }
}

/// The manual's three lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkerList {
    /// Can't take a request.
    Lazy,
    /// Can take one.
    Idle,
    /// Has one.
    Busy,
}

/// What a worker was sent last, for `last`.
#[derive(Debug, Default)]
pub(crate) struct Last {
    /// The first bytes of it; the buffer is used again.
    pub(crate) bytes: Vec<u8>,
    /// How many there were.
    pub(crate) size: u64,
    /// In which transaction.
    pub(crate) transaction: TransactionId,
    /// From whom, and from where.
    pub(crate) client: Option<ClientId>,
    /// When.
    pub(crate) at: Tick,
}

/// A configured worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number.
    pub(crate) id: WorkerId,
    /// Key of its service.
    pub(crate) service: ServiceKey,
    /// Its host.
    pub(crate) host: HostName,
    /// Its program.
    pub(crate) path: String,
    /// Its arguments after `ISDARGMAX`.
    pub(crate) args: Vec<String>,
    /// It started itself and is forgotten when it goes.
    pub(crate) is_self_started: bool,

    /// `start` was said of it, and since then no `stop`.
    pub(crate) is_wanted: bool,
    /// `pause` was said of it.
    pub(crate) is_paused: bool,
    /// It ended too often; the text says how. `start` tries again.
    pub(crate) failed: Option<String>,

    /// How far its process is; [`enter`](Self::enter) changes it.
    pub(crate) state: ProcessState,
    /// Since when it is in this state, for people: `state`, stopped, paused or failed.
    pub(crate) since: Tick,
    /// Why it is in this state; empty = that needs no reason.
    pub(crate) why: String,
    /// When its process is killed that was asked to end.
    pub(crate) killed_at: Tick,
    /// Why the broker ended its process, if it did.
    pub(crate) killed: Option<String>,
    /// How its connection was lost in this run, and it did not come back.
    pub(crate) lost: Option<String>,
    /// What its process was refused for when it tried to log in.
    pub(crate) refused: Option<String>,
    /// The start that `state` is about.
    pub(crate) run: RunId,
    /// Its process id; 0 = not known.
    pub(crate) pid: u32,
    /// Its connection.
    pub(crate) link: Option<LinkId>,
    /// Since when it is ready.
    pub(crate) ready_since: Tick,
    /// When the running or last start was asked for.
    pub(crate) started: Tick,
    /// Whether it was ready in this run.
    pub(crate) was_ready: bool,
    /// Its host listed this run, and no broker before us will say whether it was ready.
    pub(crate) is_found: bool,
    /// The saved configuration had it started, and its host has not said since whether it has a
    /// process of it: one of an earlier broker's start is taken over; a login before that is
    /// confirmed or ended by what the host says.
    pub(crate) is_awaited: bool,
    /// Its host reported the end of this run: nobody comes back with it.
    pub(crate) is_over: bool,
    /// Its host did not list this run, so a `Due::Absent` decides.
    pub(crate) is_unlisted: bool,
    /// It was unreachable with its machine, as far as could be seen: that is no crash.
    pub(crate) is_unreachable: bool,
    /// Its host shuts down and ends it: that is no crash, and nothing more is given to it.
    pub(crate) ends_with_host: bool,
    /// When the time is over that it has to log in, to come back or to end.
    pub(crate) wait_until: Tick,
    /// Its connection was closed because it sent what it may not.
    pub(crate) is_refused: bool,
    /// `reconnect_ms` and `silence_ms` as announced at its login; `None` = not by this broker.
    pub(crate) announced: Option<(u64, u64)>,
    /// The process that logged in, as it said.
    pub(crate) login_pid: u32,
    /// It is being ended because a `stop` (or the broker's end) asked for it, not for a fault.
    pub(crate) is_stopping: bool,
    /// Its process is gone, its connection not yet.
    pub(crate) has_exited: bool,
    /// A `Due::Overlong` of it is under way.
    pub(crate) is_timed: bool,
    /// Its ends so far.
    pub(crate) restart: Restart,
    /// It ended unexpectedly and was not started since; the next start counts as a restart.
    pub(crate) is_to_restart: bool,

    /// Which list it is in.
    pub(crate) list: WorkerList,
    /// Key of the transaction it has.
    pub(crate) current: Option<TransactionKey>,
    /// Keys of the transactions it holds besides (`prefetch`), in order.
    pub(crate) held: VecDeque<TransactionKey>,
    /// Whether it is in its service's list `with_room`.
    pub(crate) has_room: bool,

    /// Transactions it completed.
    pub(crate) transactions: u64,
    /// Frames it sent (`worker->fromCount`).
    pub(crate) from_count: u64,
    /// Frames sent to it (`worker->toCount`).
    pub(crate) to_count: u64,
    /// How often it was started again (`worker->restarts`).
    pub(crate) restarts: u64,
    /// Microseconds it worked, all transactions together.
    pub(crate) busy_micros: u64,
    /// Microseconds of the last one.
    pub(crate) last_micros: u64,
    /// Replies of it that were dropped.
    pub(crate) late: u64,
    /// Transactions that the operator took away from it and whose late replies are still to come,
    /// oldest first.
    pub(crate) owed: VecDeque<u64>,
    /// Since when it may be at work on the first of them; none if it answered a later request
    /// since, which shows that it is not. While it may be, it owes no sign of life.
    pub(crate) owed_since: Option<Tick>,
    /// When the last late reply came: what it has now it began then at the earliest.
    pub(crate) paid_at: Tick,
    /// The last transaction of which it was notified that it is over, after it had been taken away.
    pub(crate) notified_over: u64,
    /// What it was sent last.
    pub(crate) last: Last,
    /// How its last process ended.
    pub(crate) exit_cause: Option<ExitCause>,
    /// Last lines of its stderr, of whichever process they are.
    pub(crate) tail: VecDeque<String>,
    /// How many of them are of the process that runs, or ran last.
    pub(crate) tail_new: usize,
}

/// All workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    table: Table<WorkerKey, Worker>,
    ids: BTreeMap<WorkerId, WorkerKey>,
    last_id: u32,
    /// How many are in each list, by `WorkerList`.
    counts: [usize; 3],
}

/// What a new worker is made of.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    /// Key of its service.
    pub(crate) service: ServiceKey,
    /// Its host.
    pub(crate) host: HostName,
    /// Its program.
    pub(crate) path: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// It started itself.
    pub(crate) is_self_started: bool,
    /// When it is made.
    pub(crate) since: Tick,
}

fn is_taken(id: WorkerId) -> String {
    format!("id {id} belongs to another worker; leave the id out, or 'delete worker {id}' first")
}

impl Workers {
    /// The next id; when the last one there is was given, the lowest that is free.
    fn free_id(&self) -> WorkerId {
        let next = self.last_id.checked_add(1);
        // There are fewer workers than ids: each takes memory.
        let free = || (1..).find(|id| !self.ids.contains_key(&WorkerId(*id)));
        WorkerId(next.or_else(free).unwrap_or(0))
    }

    /// The id of a new worker: the one wanted (from a saved configuration), or the next.
    ///
    /// # Errors
    /// The id wanted is taken.
    fn take_id(&mut self, wanted: Option<WorkerId>) -> Result<WorkerId, String> {
        let id = wanted.unwrap_or_else(|| self.free_id());
        if self.ids.contains_key(&id) {
            return Err(is_taken(id));
        }
        self.last_id = self.last_id.max(id.0);
        Ok(id)
    }

    /// Adds a worker to the lazy list.
    ///
    /// # Errors
    /// See `take_id`.
    pub(crate) fn add(
        &mut self,
        spec: WorkerSpec,
        wanted: Option<WorkerId>,
    ) -> Result<WorkerKey, String> {
        let id = self.take_id(wanted)?;
        let WorkerSpec { service, host, path, args, is_self_started, since } = spec;
        let key = self.table.insert(Worker {
            id,
            service,
            host,
            path,
            args,
            is_self_started,
            is_wanted: false,
            is_paused: false,
            failed: None,
            state: ProcessState::Down,
            since,
            why: "not started yet".to_owned(),
            killed_at: Tick(0),
            killed: None,
            lost: None,
            refused: None,
            run: RunId(0),
            pid: 0,
            link: None,
            ready_since: Tick(0),
            started: Tick(0),
            was_ready: false,
            is_found: false,
            is_awaited: false,
            is_over: false,
            is_unlisted: false,
            is_unreachable: false,
            ends_with_host: false,
            is_refused: false,
            announced: None,
            wait_until: Tick(0),
            login_pid: 0,
            is_stopping: false,
            has_exited: false,
            is_timed: false,
            restart: Restart::default(),
            is_to_restart: false,
            list: WorkerList::Lazy,
            current: None,
            held: VecDeque::new(),
            has_room: false,
            transactions: 0,
            from_count: 0,
            to_count: 0,
            restarts: 0,
            busy_micros: 0,
            last_micros: 0,
            late: 0,
            owed: VecDeque::new(),
            owed_since: None,
            paid_at: Tick(0),
            notified_over: 0,
            last: Last::default(),
            exit_cause: None,
            tail: VecDeque::new(),
            tail_new: 0,
        });
        self.ids.insert(id, key);
        self.counts[WorkerList::Lazy as usize] += 1;
        Ok(key)
    }

    /// Removes a lazy worker.
    pub(crate) fn remove(&mut self, key: WorkerKey) {
        let worker = self.table.remove(key);
        debug_assert!(worker.list == WorkerList::Lazy, "worker {} is not lazy", worker.id);
        self.ids.remove(&worker.id);
        self.counts[WorkerList::Lazy as usize] -= 1;
    }

    /// The key of an id.
    pub(crate) fn find(&self, id: WorkerId) -> Option<WorkerKey> {
        self.ids.get(&id).copied()
    }

    /// A worker that may be gone.
    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.table.get(key)
    }

    /// All of them, by id.
    pub(crate) fn by_id(&self) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// Keys by id.
    pub(crate) fn keys(&self) -> Vec<WorkerKey> {
        self.ids.values().copied().collect()
    }

    /// How many are in a list.
    pub(crate) const fn count(&self, list: WorkerList) -> usize {
        self.counts[list as usize]
    }
}

impl std::ops::Index<WorkerKey> for Workers {
    type Output = Worker;
    fn index(&self, key: WorkerKey) -> &Worker {
        &self.table[key]
    }
}

impl std::ops::IndexMut<WorkerKey> for Workers {
    fn index_mut(&mut self, key: WorkerKey) -> &mut Worker {
        &mut self.table[key]
    }
}

/// Most late replies of one worker that are awaited.
const OWED_MAX: usize = 1024;

/// Most lines of stderr that are kept of a process; execd sends as many when it has ended.
const TAIL_MAX: usize = 20;

impl Worker {
    /// A transaction that it began at `begun` is taken away from it; its reply will come late.
    pub(crate) fn owe(&mut self, transaction: u64, begun: Tick) {
        self.owed_since.get_or_insert(begun);
        if self.owed.len() == OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back(transaction);
    }

    /// The late reply to what is at this place of `owed` came: it may be at work on the next now.
    pub(crate) fn paid(&mut self, at: usize, now: Tick) {
        self.owed.remove(at);
        self.paid_at = now;
        if self.owed_since.is_some() {
            self.owed_since = (!self.owed.is_empty()).then_some(now);
        }
    }

    /// Its process is in another state from now on.
    pub(crate) fn enter(&mut self, state: ProcessState, now: Tick) {
        if self.state != state {
            self.since = now;
        }
        self.state = state;
    }

    /// Somebody said something that changes how it is.
    pub(crate) fn explain(&mut self, said: &OperatorAct) {
        self.since = said.at;
        self.why.clone_from(&said.by);
    }

    /// Keeps a line of its stderr.
    pub(crate) fn keep_line(&mut self, line: &str) {
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(show::brief(line, LINE_BYTES_MAX));
        self.tail_new = (self.tail_new + 1).min(TAIL_MAX);
    }

    /// Remembers what it is sent, into the same buffer each time.
    pub(crate) fn remember(
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
}

impl Engine {
    /// The list a worker belongs in, by what it is and has.
    pub(crate) fn list_of(&self, key: WorkerKey) -> WorkerList {
        let worker = &self.workers[key];
        let service = &self.registry[worker.service];
        if worker.current.is_some() {
            WorkerList::Busy
        } else if worker.state == ProcessState::Ready
            && !worker.is_paused
            && !service.is_paused
            && worker.is_wanted
            && !worker.ends_with_host
            && self.shutdown.is_none()
        {
            WorkerList::Idle
        } else {
            WorkerList::Lazy
        }
    }

    /// Puts a worker into the list it belongs in. Whoever calls this with one that became idle
    /// serves its service next.
    pub(crate) fn settle(&mut self, key: WorkerKey) {
        let list = self.list_of(key);
        let Self { workers, registry, .. } = self;
        let worker = &mut workers.table[key];
        let service = &mut registry[worker.service];
        if list != worker.list {
            if worker.list == WorkerList::Idle {
                service.idle.retain(|&idle| idle != key);
            }
            if list == WorkerList::Idle {
                service.idle.push_back(key);
            }
            workers.counts[worker.list as usize] -= 1;
            workers.counts[list as usize] += 1;
            worker.list = list;
        }
        let has_room = list == WorkerList::Busy && self.has_room(key);
        self.set_has_room(key, has_room);
    }

    /// Takes the longest idle worker of a service off the idle list; it is bound next.
    pub(crate) fn take_idle(&mut self, service: ServiceKey) -> Option<WorkerKey> {
        let key = self.registry[service].idle.pop_front()?;
        let workers = &mut self.workers;
        workers.counts[WorkerList::Idle as usize] -= 1;
        workers.counts[WorkerList::Busy as usize] += 1;
        workers.table[key].list = WorkerList::Busy;
        Some(key)
    }

    /// Puts a worker into or out of its service's list `with_room`.
    pub(crate) fn set_has_room(&mut self, key: WorkerKey, has_room: bool) {
        let worker = &mut self.workers.table[key];
        if worker.has_room == has_room {
            return;
        }
        worker.has_room = has_room;
        let service = &mut self.registry[worker.service];
        if has_room {
            service.with_room.push_back(key);
        } else {
            service.with_room.retain(|&other| other != key);
        }
    }
}
