//! The table of workers: for each its configuration, the state of its process, which of the
//! manual's three lists (lazy, idle, busy) it is in, and its figures. `dispatch` gives workers
//! requests, `process` starts and ends them.

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

/// How far a worker's process is. It says nothing about requests: [`WorkerList`] does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProcessState {
    /// No process, and no start is planned.
    Down,
    /// No process; `Due::Restart` starts it again.
    Backoff,
    /// Its execd was asked to start it.
    Starting,
    /// The process runs (*up*) and has to log in.
    Up,
    /// It is logged in (*ready*).
    Ready,
    /// Its connection broke, and it may log in again, or its process may end. Also: its process has
    /// ended (`has_exited`), and what it sent before is still read from its connection.
    Returning,
    /// It got an `end` frame and its socket was shut for writing; it has to end by itself.
    Exiting,
    /// Its execd was asked to end it: TERM, then KILL.
    Terminating,
}

impl ProcessState {
    /// The word that `workers` shows for it.
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

    /// Whether a process runs or is being started, as far as the broker knows.
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

/// A worker, configured or self-started.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Shown to operators as `worker->id`; a saved configuration keeps it.
    pub(crate) id: WorkerId,
    /// The service that it serves; it never changes.
    pub(crate) service: ServiceKey,
    /// Name of its host. One that started itself may run where no host is configured.
    pub(crate) host: HostName,
    /// Path of its program on the host; empty = it started itself.
    pub(crate) path: String,
    /// Arguments of its program from `argv[ISDARGMAX]` on; the broker gives the ones before.
    pub(crate) args: Vec<String>,
    /// It started itself, and is forgotten when its link is gone.
    pub(crate) is_self_started: bool,

    /// After `start`, until `stop`: it is to have a process.
    pub(crate) is_wanted: bool,
    /// After `pause` of this worker, until `ready`.
    pub(crate) is_paused: bool,
    /// Why the broker does not start it any more, until the next `start`: it ended too often, a
    /// start failed for good, or no run number is left (`give_up`). `None` = it has not failed.
    pub(crate) failed: Option<String>,

    /// How far its process is; [`enter`](Self::enter) changes it.
    pub(crate) state: ProcessState,
    /// Since when it is as it is shown: since `state` changed, or since it was stopped, paused or
    /// failed.
    pub(crate) since: Tick,
    /// Why it is as it is shown; empty = there is no reason to show.
    pub(crate) why: String,
    /// When execd is due to send KILL to its process, after it was asked to end it, also by a
    /// `stop`.
    pub(crate) kill_due: Tick,
    /// Why the broker had the process of this run ended because of a fault; `None` = it did not.
    pub(crate) killed: Option<String>,
    /// How its connection was lost in this run; `None` = it was not, or the worker came back.
    pub(crate) lost: Option<String>,
    /// Why a login of its process was refused in this run; `None` = none was.
    pub(crate) login_refused: Option<String>,
    /// The run that `state` is about; 0 = it was never started.
    pub(crate) run: RunId,
    /// Process id on its host; 0 = not known.
    pub(crate) pid: u32,
    /// Its connection, from its login until it is gone.
    pub(crate) link: Option<LinkId>,
    /// When it last logged in.
    pub(crate) ready_since: Tick,
    /// When the last start was asked for, or its process was adopted.
    pub(crate) started: Tick,
    /// It has logged in during this run.
    pub(crate) was_ready: bool,
    /// An earlier broker started the process of this run; its host listed it. Whether it was ready
    /// before is not known.
    pub(crate) is_of_earlier_broker: bool,
    /// The saved configuration has it started, and its host has not listed its processes yet. Until
    /// it does, a process that an earlier broker started may log in; the list confirms such a
    /// login, or ends it.
    pub(crate) is_awaited: bool,
    /// Its host reported the end of this run (`exec-exited`), so no login with its secret is
    /// accepted any more. The state says what else rules a login out.
    pub(crate) is_over: bool,
    /// Its host did not list the process of this run; `Due::Unlisted` takes it for ended.
    pub(crate) is_unlisted: bool,
    /// As far as the broker could see, it could not be reached, like its machine: its end is no
    /// crash.
    pub(crate) is_unreachable: bool,
    /// Its host shuts down and ends it: its end is no crash, and it gets no more requests.
    pub(crate) ends_with_host: bool,
    /// Until when it may take to log in or to come back; once its process has ended, until when its
    /// connection is read. `Due::StopAsk` limits how long one that was asked to end may take.
    pub(crate) wait_until: Tick,
    /// It was logged in, and the broker closed its connection with an error, as for a frame that it
    /// may not send.
    pub(crate) is_closed_with_error: bool,
    /// `reconnect_ms` and `silence_ms` as announced at its login; `None` = it has not logged in to
    /// this broker in this run.
    pub(crate) announced: Option<(u64, u64)>,
    /// Process id that it gave at its login.
    pub(crate) login_pid: u32,
    /// It is being ended because of a `stop` or the broker's shutdown, not because of a fault.
    pub(crate) is_stopping: bool,
    /// Its process has ended; its connection is still open, and what it sent is still to be read.
    pub(crate) has_exited: bool,
    /// A `Due::Overlong` of this worker is in the list of timers.
    pub(crate) is_timed: bool,
    /// History of its ends, which decides when it is started again.
    pub(crate) restart: Restart,
    /// It ended unexpectedly and was not started since; the next start counts in `restarts`.
    pub(crate) is_to_restart: bool,

    /// The list that it is in; [`settle`](Engine::settle) changes it.
    pub(crate) list: WorkerList,
    /// The transaction that it has, which may have its outcome already.
    pub(crate) current: Option<TransactionKey>,
    /// Transactions that it was sent ahead (`prefetch`), in their order.
    pub(crate) held: VecDeque<TransactionKey>,
    /// Whether it is in the list `with_room` of its service.
    pub(crate) has_room: bool,

    /// Transactions that it completed. This counter and the next ones are set to 0 by `reset`.
    pub(crate) transactions: u64,
    /// Frames that it sent (`worker->fromCount`).
    pub(crate) from_count: u64,
    /// Frames that were sent to it (`worker->toCount`).
    pub(crate) to_count: u64,
    /// How often it was started again after an unexpected end (`worker->restarts`).
    pub(crate) restarts: u64,
    /// Microseconds that its completed transactions took, all together.
    pub(crate) busy_micros: u64,
    /// Microseconds that the last of them took.
    pub(crate) last_micros: u64,
    /// Replies of it that were dropped because their transaction had ended.
    pub(crate) late: u64,
    /// Transactions that the operator's `idle` took away from it and whose late replies are still
    /// to come, oldest first. One that is only overdue stays in `current`.
    pub(crate) taken_away: VecDeque<u64>,
    /// Since when it may be at work on the first of `taken_away`. `None` = on none: a reply to a
    /// later request shows that. While it may be, it need not answer pings.
    pub(crate) late_work_since: Option<Tick>,
    /// When its last late reply came. It began its present request at that moment at the earliest.
    pub(crate) late_reply_at: Tick,
    /// The last transaction of `taken_away` that it was told is over; 0 = none.
    pub(crate) notified_over: u64,
    /// The request that it was sent last.
    pub(crate) last: Last,
    /// How its last process ended; `None` = none has ended yet.
    pub(crate) exit_cause: Option<ExitCause>,
    /// Last lines that its processes wrote to stderr.
    pub(crate) tail: VecDeque<String>,
    /// How many of these lines are of the process that runs, or ran last.
    pub(crate) tail_new: usize,
}

/// All workers, by key and by id.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    table: Table<WorkerKey, Worker>,
    ids: BTreeMap<WorkerId, WorkerKey>,
    last_id: u32,
    /// Number of workers in each list, indexed by `WorkerList`.
    counts: [usize; 3],
}

/// The properties of a new worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    /// The service that it serves.
    pub(crate) service: ServiceKey,
    /// Name of its host, which need not be configured if it started itself.
    pub(crate) host: HostName,
    /// Path of its program; empty = it started itself.
    pub(crate) path: String,
    /// Arguments of its program from `argv[ISDARGMAX]` on.
    pub(crate) args: Vec<String>,
    /// It started itself.
    pub(crate) is_self_started: bool,
    /// The present tick.
    pub(crate) since: Tick,
}

fn is_taken(id: WorkerId) -> String {
    format!("id {id} belongs to another worker; leave the id out, or 'delete worker {id}' first")
}

impl Workers {
    /// The id after the highest one given so far; if there is none, the lowest free one.
    fn free_id(&self) -> WorkerId {
        let next = self.last_id.checked_add(1);
        // There are always fewer workers than ids, because each takes memory.
        let free = || (1..).find(|id| !self.ids.contains_key(&WorkerId(*id)));
        WorkerId(next.or_else(free).unwrap_or(0))
    }

    /// The id of a new worker. `wanted` is the one of a saved configuration; `None` = the next.
    ///
    /// # Errors
    /// The id is taken.
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
    /// The wanted id is taken.
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
            kill_due: Tick(0),
            killed: None,
            lost: None,
            login_refused: None,
            run: RunId(0),
            pid: 0,
            link: None,
            ready_since: Tick(0),
            started: Tick(0),
            was_ready: false,
            is_of_earlier_broker: false,
            is_awaited: false,
            is_over: false,
            is_unlisted: false,
            is_unreachable: false,
            ends_with_host: false,
            is_closed_with_error: false,
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
            taken_away: VecDeque::new(),
            late_work_since: None,
            late_reply_at: Tick(0),
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

    /// Removes a worker, which must be lazy.
    pub(crate) fn remove(&mut self, key: WorkerKey) {
        let worker = self.table.remove(key);
        debug_assert!(worker.list == WorkerList::Lazy, "worker {} is not lazy", worker.id);
        self.ids.remove(&worker.id);
        self.counts[WorkerList::Lazy as usize] -= 1;
    }

    /// The worker with this id.
    pub(crate) fn find(&self, id: WorkerId) -> Option<WorkerKey> {
        self.ids.get(&id).copied()
    }

    /// The worker with this key, which may be gone.
    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.table.get(key)
    }

    /// All workers in the order of their ids.
    pub(crate) fn by_id(&self) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// The keys of all workers in the order of their ids.
    pub(crate) fn keys(&self) -> Vec<WorkerKey> {
        self.ids.values().copied().collect()
    }

    /// Number of workers in a list.
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

/// Most late replies of one worker that are awaited; the oldest are forgotten.
const TAKEN_AWAY_MAX: usize = 1024;

/// Most lines of stderr kept of a worker. execd sends as many of a process that has ended.
const TAIL_MAX: usize = 20;

impl Worker {
    /// A transaction that it began at `begun` is taken away from it; its reply will come late.
    pub(crate) fn take_away(&mut self, transaction: u64, begun: Tick) {
        self.late_work_since.get_or_insert(begun);
        if self.taken_away.len() == TAKEN_AWAY_MAX {
            self.taken_away.pop_front();
        }
        self.taken_away.push_back(transaction);
    }

    /// The late reply to the entry `at` of `taken_away` came; the worker may be at work on the next
    /// entry now.
    pub(crate) fn late_reply_came(&mut self, at: usize, now: Tick) {
        self.taken_away.remove(at);
        self.late_reply_at = now;
        if self.late_work_since.is_some() {
            self.late_work_since = (!self.taken_away.is_empty()).then_some(now);
        }
    }

    /// Changes `state`, and `since` if it differs.
    pub(crate) fn enter(&mut self, state: ProcessState, now: Tick) {
        if self.state != state {
            self.since = now;
        }
        self.state = state;
    }

    /// Shows a command as the reason why the worker is as it is.
    pub(crate) fn explain(&mut self, said: &OperatorAct) {
        self.since = said.at;
        self.why.clone_from(&said.by);
    }

    /// Adds a line to `tail`.
    pub(crate) fn keep_line(&mut self, line: &str) {
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(show::brief(line, LINE_BYTES_MAX));
        self.tail_new = (self.tail_new + 1).min(TAIL_MAX);
    }

    /// Notes the request that it is sent, with at most `max` bytes of the body.
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
    /// The list that a worker belongs in by its state.
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

    /// Puts a worker into the list that it belongs in. If it may have become idle, the caller must
    /// call `serve` for its service next.
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

    /// Takes the worker that has been idle longest off the idle list of a service. The caller must
    /// bind a request to it.
    pub(crate) fn take_idle(&mut self, service: ServiceKey) -> Option<WorkerKey> {
        let key = self.registry[service].idle.pop_front()?;
        let workers = &mut self.workers;
        workers.counts[WorkerList::Idle as usize] -= 1;
        workers.counts[WorkerList::Busy as usize] += 1;
        workers.table[key].list = WorkerList::Busy;
        Some(key)
    }

    /// Puts a worker into the list `with_room` of its service, or takes it out.
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
