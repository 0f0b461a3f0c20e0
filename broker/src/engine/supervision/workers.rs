//! The table of workers: for each its configuration, the state of its process, which of the
//! manual's three lists (lazy, idle, busy) it is in, and its figures. `dispatch` gives workers
//! requests, `process` starts and ends them.

use super::process_state::{ProcessEvent, ProcessState};
use super::restart::Restart;
use crate::engine::keys::{ServiceKey, Table, WorkerKey};
use crate::engine::operator_act::OperatorAct;
use crate::engine::quotas::LINE_BYTES_MAX;
use protocol::bodies::ExitCause;
use protocol::ids::{RunId, WorkerId};
use protocol::names::HostName;
use protocol::show;
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};

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
    /// It is connected. Independent of the state: a process that is being ended may be, or not.
    pub(crate) is_linked: bool,
    /// Its connection comes from another machine.
    pub(crate) is_remote: bool,
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
    /// Its host did not list the process of this run; `Timer::Unlisted` takes it for ended.
    pub(crate) is_unlisted: bool,
    /// As far as the broker could see, it could not be reached, like its machine: its end is no
    /// crash.
    pub(crate) is_unreachable: bool,
    /// Its host shuts down and ends it: its end is no crash, and it gets no more requests.
    pub(crate) ends_with_host: bool,
    /// Until when it may take to log in or to come back; once its process has ended, until when its
    /// connection is read. `Timer::StopAsk` limits how long one that was asked to end may take.
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
    /// History of its ends, which decides when it is started again.
    pub(crate) restart: Restart,
    /// It ended unexpectedly and was not started since; the next start counts in `restarts`.
    pub(crate) is_to_restart: bool,

    /// How often it was started again after an unexpected end (`worker->restarts`).
    pub(crate) restarts: u64,
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
    /// How many workers each service has; none has no entry.
    counts: BTreeMap<ServiceKey, usize>,
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
            is_linked: false,
            is_remote: false,
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
            restart: Restart::default(),
            is_to_restart: false,
            restarts: 0,
            exit_cause: None,
            tail: VecDeque::new(),
            tail_new: 0,
        });
        self.ids.insert(id, key);
        *self.counts.entry(service).or_default() += 1;
        Ok(key)
    }

    /// Removes a worker, which must be lazy.
    pub(crate) fn remove(&mut self, key: WorkerKey) {
        let worker = self.table.remove(key);
        self.ids.remove(&worker.id);
        if let Some(count) = self.counts.get_mut(&worker.service) {
            *count -= 1;
        }
    }

    /// The client with this id, if it is attached.
    pub(crate) fn find(&self, id: WorkerId) -> Option<WorkerKey> {
        self.ids.get(&id).copied()
    }

    /// The worker with this key, which may be gone.
    pub(crate) fn get(&self, key: WorkerKey) -> Option<&Worker> {
        self.table.get(key)
    }

    /// All attached clients in the order of their ids.
    pub(crate) fn by_id(&self) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        self.ids.values().map(|&key| (key, &self.table[key]))
    }

    /// The keys of all workers in the order of their ids.
    pub(crate) fn keys(&self) -> Vec<WorkerKey> {
        self.ids.values().copied().collect()
    }

    /// How many a service has.
    pub(crate) fn count_of(&self, service: ServiceKey) -> usize {
        self.counts.get(&service).copied().unwrap_or(0)
    }

    /// How many are configured, those that started themselves among them.
    pub(crate) fn count(&self) -> usize {
        self.ids.len()
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

/// Most lines of stderr kept of a worker. execd sends as many of a process that has ended.
const TAIL_MAX: usize = 20;

impl Worker {
    /// Goes on to the next state of its process, and notes since when it is in it.
    pub(super) fn enter(&mut self, event: ProcessEvent, now: Tick) {
        let next = self.state.on(event);
        debug_assert!(next.is_some(), "{event:?} of worker {} in {:?}", self.id, self.state);
        let next = next.unwrap_or(self.state);
        if self.state != next {
            self.since = now;
        }
        self.state = next;
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
}
