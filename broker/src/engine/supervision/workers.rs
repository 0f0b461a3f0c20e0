//! A worker: its configuration, the state of its process, which of the manual's three lists (lazy,
//! idle, busy) it is in, its figures. `dispatch` gives it requests, `process` starts and ends it.

use super::machine::Supervision;
use super::restart::Restart;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ServiceKey, Table, WorkerKey};
use crate::engine::quotas::LINE_BYTES_MAX;
use crate::engine::said::Said;
use protocol::bodies::Ending;
use protocol::ids::{RunId, WorkerId};
use protocol::names::HostName;
use protocol::show;
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};

/// How far a worker's process is. The state says nothing about requests: [`WorkerList`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProcessState {
    /// No process, none planned.
    Down,
    /// No process; it is started again at the moment given to `Timer::Restart`.
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
    Asked,
    /// execd was asked to end it: TERM, then KILL.
    Ending,
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
            Self::Asked => "asked",
            Self::Ending => "ending",
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
            | Self::Asked
            | Self::Ending => true,
        }
    }
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
    /// It is connected. Independent of the state: a process that is being ended may be, or not.
    pub(crate) is_linked: bool,
    /// Its connection comes from another machine.
    pub(crate) is_remote: bool,
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
    /// Its host did not list this run, so a `Timer::Absent` decides.
    pub(crate) is_unlisted: bool,
    /// It was cut off with its machine, as far as could be seen: that is no crash.
    pub(crate) is_cut_off: bool,
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
    /// Its ends so far.
    pub(crate) restart: Restart,
    /// It ended unexpectedly and was not started since; the next start counts as a restart.
    pub(crate) is_to_restart: bool,

    /// How often it was started again (`worker->restarts`).
    pub(crate) restarts: u64,
    /// How its last process ended.
    pub(crate) ending: Option<Ending>,
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
    /// How many each service has; none has no entry.
    counts: BTreeMap<ServiceKey, usize>,
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
            is_linked: false,
            is_remote: false,
            ready_since: Tick(0),
            started: Tick(0),
            was_ready: false,
            is_found: false,
            is_awaited: false,
            is_over: false,
            is_unlisted: false,
            is_cut_off: false,
            ends_with_host: false,
            is_refused: false,
            announced: None,
            wait_until: Tick(0),
            login_pid: 0,
            is_stopping: false,
            has_exited: false,
            restart: Restart::default(),
            is_to_restart: false,
            restarts: 0,
            ending: None,
            tail: VecDeque::new(),
            tail_new: 0,
        });
        self.ids.insert(id, key);
        *self.counts.entry(service).or_default() += 1;
        Ok(key)
    }

    /// Removes a lazy worker.
    pub(crate) fn remove(&mut self, key: WorkerKey) {
        let worker = self.table.remove(key);
        self.ids.remove(&worker.id);
        if let Some(count) = self.counts.get_mut(&worker.service) {
            *count -= 1;
        }
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

/// Most lines of stderr that are kept of a process; execd sends as many when it has ended.
const TAIL_MAX: usize = 20;

impl Worker {
    /// Its process is in another state from now on.
    pub(crate) fn enter(&mut self, state: ProcessState, now: Tick) {
        if self.state != state {
            self.since = now;
        }
        self.state = state;
    }

    /// Somebody said something that changes how it is.
    pub(crate) fn explain(&mut self, said: &Said) {
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
}

impl Supervision {
    /// Whether a worker may be given requests.
    pub(crate) fn is_available(
        &self,
        key: WorkerKey,
        catalog: &Catalog,
        is_shutting_down: bool,
    ) -> bool {
        let worker = &self.workers[key];
        worker.state == ProcessState::Ready
            && !worker.is_paused
            && !catalog[worker.service].is_paused
            && worker.is_wanted
            && !worker.ends_with_host
            && !is_shutting_down
    }

    /// Something changed that may decide whether a worker may be given requests.
    pub(crate) fn update_available(&mut self, key: WorkerKey, cx: &mut Context<'_>) {
        let is_available = self.is_available(key, cx.catalog, cx.is_shutting_down);
        cx.effects.push(Effect::Available { worker: key, is_available });
    }
}
