//! The table of workers: for each its configuration, the state of its process, and what is known of
//! its present and its earlier runs. Which of the manual's three lists (lazy, idle, busy) it is in,
//! and its figures, are in `Seat` of `dispatch`.

use super::process_state::{ProcessEvent, ProcessState};
use super::restart::Restart;
use super::run::{EndReport, Run, RunOrigin};
use super::service_outlook::Outlook;
use crate::engine::keys::{ServiceKey, Table, WorkerKey};
use crate::engine::operator_act::OperatorAct;
use crate::engine::quotas::LINE_BYTES_MAX;
use protocol::ids::BUILTIN_IDS;
use protocol::process::WorkerSettings;
use protocol::{ExitCause, HostName, RunId, Tick, WorkerId, show};
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
    /// Path of its program on the host; empty = it started itself. Independent of the state: it
    /// never changes.
    pub(crate) path: String,
    /// Arguments of its program from `argv[ISDARGMAX]` on; the broker gives the ones before.
    pub(crate) args: Vec<String>,
    /// What is set of this worker alone; its service has what is set of all.
    pub(crate) own: Box<WorkerSettings>,
    /// It started itself, and is forgotten when its link is gone. Independent of the state: it
    /// never changes.
    pub(crate) is_self_started: bool,
    /// Whether it is part of the configuration. Independent of the state: commands change it.
    pub(crate) standing: Standing,

    /// What becomes of it at `halt keep`; it never changes.
    pub(crate) at_halt_keep: AtHaltKeep,

    /// After `start`, until `stop`: it is to have a process. Independent of the state, which says
    /// what is, not what an operator wants.
    pub(crate) is_wanted: bool,
    /// After `pause` of this worker, until `ready`. Independent of the state and of `is_wanted`: a
    /// paused worker keeps its process.
    pub(crate) is_paused: bool,
    /// Why the broker does not start it any more, until the next `start`: it ended too often, a
    /// start failed for good, or no run number is left (`give_up`). `None` = it has not failed.
    /// Valid in `Down`: only a worker without a process is given up, and it gets none as long as
    /// this holds.
    pub(crate) failed: Option<String>,

    /// Whether it may take requests now or later, as of the last review (`outlook`).
    pub(super) outlook: Outlook,
    /// How far its process is; [`enter`](Self::enter) changes it.
    pub(crate) state: ProcessState,
    /// Since when it is as it is shown: since `state` changed, or since it was stopped, paused or
    /// failed.
    pub(crate) since: Tick,
    /// Why it is as it is shown; empty = there is no reason to show. Independent of the state:
    /// operators give reasons in any.
    pub(crate) why: String,
    /// The run that `state` is about.
    pub(crate) run: Run,
    /// Its connection, from its login until that is lost; `None` = it has none. Independent of the
    /// state: a process that is being ended may be connected, or not.
    pub(super) connection: Option<WorkerConnection>,
    /// History of its ends, which decides when it is started again.
    pub(crate) restart: Restart,

    /// How often it was started again after an unexpected end (`worker->restarts`).
    pub(crate) restarts: u64,
    /// How its last process ended; `None` = none has ended yet. Independent of the state: it stays
    /// until another one ends.
    pub(crate) exit_cause: Option<ExitCause>,
    /// Whether its last process ended in order. Independent of the state, as `exit_cause` is.
    pub(crate) last_end: WorkerEnd,
    /// Last lines that its processes wrote to stderr.
    pub(crate) tail: VecDeque<String>,
}

/// Whether a worker is part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is, or it started itself.
    Permanent,
    /// It stands in while the workers of its service are replaced (`rollout`). It is not saved.
    Temporary,
    /// `scale` took it out: it is not saved any more, and is removed when its process has ended.
    Draining,
}

/// What becomes of a worker when the broker leaves its workers to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtHaltKeep {
    /// Its process works on, and the next broker adopts it.
    Stays,
    /// It belongs to this broker, and ends with it.
    Ends,
}

/// How the last process of a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// As it was asked to, or as it had announced; also: none has ended.
    InOrder,
    /// Because of a failure: the worker is missed until another one runs.
    Failed,
}

impl WorkerEnd {
    pub(super) const fn of(is_in_order: bool) -> Self {
        if is_in_order { Self::InOrder } else { Self::Failed }
    }
}

/// The connection of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerConnection {
    /// It comes from another machine. Independent of the worker's host, which is a name.
    pub(super) is_remote: bool,
    /// Process id that the worker gave at its login.
    pub(super) pid: u32,
    /// The start with which it logged in. The worker may have another one by the time it is closed:
    /// a list of its host may show that this one is not valid, and what is started in its place.
    pub(super) run: RunId,
}

/// The lowest id of a temporary worker: far from those that are given to others.
pub(crate) const TEMPORARY_MIN: u32 = 1 << 30;

/// All workers, by key and by id.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    table: Table<WorkerKey, Worker>,
    ids: BTreeMap<WorkerId, WorkerKey>,
    last_id: u32,
    /// The last id of a temporary one, which moves no other counter; 0 = there was none.
    last_temporary: u32,
    /// Those of each service, by id; one without workers has no entry.
    by_service: BTreeMap<ServiceKey, BTreeMap<WorkerId, WorkerKey>>,
    /// Those that name each host, by id; one without workers has no entry.
    by_host: BTreeMap<HostName, BTreeMap<WorkerId, WorkerKey>>,
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
    /// What is set of it alone.
    pub(crate) own: Box<WorkerSettings>,
    /// It started itself.
    pub(crate) is_self_started: bool,
    /// The present tick.
    pub(crate) since: Tick,
}

impl WorkerSpec {
    /// Whether a configured worker has these properties.
    pub(crate) fn is_that_of(&self, worker: &Worker) -> bool {
        worker.is_configured()
            && (self.service, &self.host) == (worker.service, &worker.host)
            && (&self.path, &self.args) == (&worker.path, &worker.args)
            && self.own == worker.own
    }
}

/// Takes a worker out of an index.
fn take_out<K: Ord>(index: &mut BTreeMap<K, BTreeMap<WorkerId, WorkerKey>>, of: &K, id: WorkerId) {
    if let Some(ids) = index.get_mut(of) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(of);
        }
    }
}

fn is_taken(id: WorkerId) -> String {
    format!("id {id} belongs to another worker; leave the id out, or 'delete worker {id}' first")
}

impl Workers {
    /// The id after the highest one given so far; if there is none, the lowest free one.
    fn free_id(&self) -> WorkerId {
        let next = self.last_id.checked_add(1).filter(|&id| !WorkerId(id).is_builtin());
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
        if !id.is_builtin() {
            self.last_id = self.last_id.max(id.0);
        }
        Ok(id)
    }

    /// Adds a worker; it is down.
    ///
    /// # Errors
    /// The wanted id is taken.
    pub(crate) fn add(
        &mut self,
        spec: WorkerSpec,
        wanted: Option<WorkerId>,
    ) -> Result<WorkerKey, String> {
        let id = self.take_id(wanted)?;
        let WorkerSpec { service, host, path, args, own, is_self_started, since } = spec;
        let name = host.clone();
        let key = self.table.insert(Worker {
            id,
            service,
            host,
            path,
            args,
            own,
            is_self_started,
            standing: Standing::Permanent,
            at_halt_keep: if id.is_builtin() { AtHaltKeep::Ends } else { AtHaltKeep::Stays },
            is_wanted: false,
            is_paused: false,
            failed: None,
            outlook: Outlook::default(),
            state: ProcessState::START,
            since,
            why: "not started yet".to_owned(),
            run: Run::new(RunId(0), RunOrigin::Own, Tick(0)),
            connection: None,
            restart: Restart::default(),
            restarts: 0,
            exit_cause: None,
            last_end: WorkerEnd::InOrder,
            tail: VecDeque::new(),
        });
        self.ids.insert(id, key);
        self.by_service.entry(service).or_default().insert(id, key);
        self.by_host.entry(name).or_default().insert(id, key);
        Ok(key)
    }

    /// Adds a worker like this one, which stands in for the others; it is down.
    pub(super) fn add_temporary(&mut self, like: WorkerKey, now: Tick) -> Option<WorkerKey> {
        let ids = self.last_temporary.max(TEMPORARY_MIN - 1)..BUILTIN_IDS - 1;
        let id = ids.map(|last| WorkerId(last + 1)).find(|id| !self.ids.contains_key(id))?;
        let like = &self.table[like];
        let spec = WorkerSpec {
            service: like.service,
            host: like.host.clone(),
            path: like.path.clone(),
            args: like.args.clone(),
            own: like.own.clone(),
            is_self_started: false,
            since: now,
        };
        let last_id = self.last_id;
        let key = self.add(spec, Some(id)).ok()?;
        (self.last_id, self.last_temporary) = (last_id, id.0);
        self.table[key].standing = Standing::Temporary;
        Some(key)
    }

    /// Removes a worker, which must be lazy.
    pub(crate) fn remove(&mut self, key: WorkerKey) -> Worker {
        let worker = self.table.remove(key);
        self.ids.remove(&worker.id);
        take_out(&mut self.by_service, &worker.service, worker.id);
        take_out(&mut self.by_host, &worker.host, worker.id);
        worker
    }

    /// The worker with this id, if it is configured.
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

    /// How many a service has.
    pub(crate) fn count_of(&self, service: ServiceKey) -> usize {
        self.by_service.get(&service).map_or(0, BTreeMap::len)
    }

    /// Those of a service, in the order of their ids.
    pub(crate) fn of_service(
        &self,
        service: ServiceKey,
    ) -> impl DoubleEndedIterator<Item = (WorkerKey, &Worker)> {
        let keys = self.by_service.get(&service).into_iter().flat_map(BTreeMap::values);
        keys.map(|&key| (key, &self.table[key]))
    }

    /// Those that name a host, in the order of their ids; also those that started themselves.
    pub(crate) fn on_host(&self, host: &HostName) -> impl Iterator<Item = (WorkerKey, &Worker)> {
        let keys = self.by_host.get(host).into_iter().flat_map(BTreeMap::values);
        keys.map(|&key| (key, &self.table[key]))
    }

    /// The keys of those that are configured on a host, in the order of their ids.
    pub(super) fn keys_on(&self, host: &HostName) -> Vec<WorkerKey> {
        let here = self.on_host(host).filter(|(_, worker)| !worker.is_self_started);
        here.map(|(key, _)| key).collect()
    }

    /// Whether the lists of the services and of the hosts have each worker once, and nothing else.
    pub(super) fn are_lists_whole(&self) -> bool {
        let is_listed = |(key, worker): (WorkerKey, &Worker)| {
            let lists = [self.by_service.get(&worker.service), self.by_host.get(&worker.host)];
            lists.iter().all(|list| list.and_then(|list| list.get(&worker.id)) == Some(&key))
        };
        let listed = (
            self.by_service.values().map(BTreeMap::len).sum::<usize>(),
            self.by_host.values().map(BTreeMap::len).sum::<usize>(),
        );
        listed == (self.ids.len(), self.ids.len()) && self.by_id().all(is_listed)
    }

    /// How many are configured, those that started themselves among them, without those of built-in
    /// services.
    pub(crate) fn count(&self) -> usize {
        self.ids.len() - self.ids.range(WorkerId(BUILTIN_IDS)..).count()
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

    /// Its process is gone, or never began.
    pub(super) fn gone(&mut self, now: Tick) {
        self.enter(ProcessEvent::End, now);
        self.last_end = WorkerEnd::InOrder;
        self.run.pid = 0;
        self.run.end_report = EndReport::None;
    }

    /// Whether it is saved: it did not start itself, and is there to stay.
    pub(crate) fn is_configured(&self) -> bool {
        !self.is_self_started && self.standing == Standing::Permanent
    }

    /// Whether it is connected.
    pub(crate) const fn is_linked(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether it is connected, and its connection is of its present start.
    pub(super) fn has_connection_of_run(&self) -> bool {
        self.connection.is_some_and(|connection| connection.run == self.run.id)
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
        self.run.tail_new = (self.run.tail_new + 1).min(TAIL_MAX);
    }
}
