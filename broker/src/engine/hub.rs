//! The hub: owns the machines, the catalog of services, the clock and the timers, and lends a
//! machine what it needs for one event. `step` says what each input means.

use super::action::Action;
use super::black_box::BlackBox;
use super::catalog::Catalog;
use super::context::context;
use super::dispatch::Dispatch;
use super::dispatch::machine::Totals;
use super::effect::Effects;
use super::fact::{About, FactKind};
use super::fact_log::FactLog;
use super::input::{Certificates, Listening};
use super::instances::Instances;
use super::quotas::Class;
use super::sessions::Sessions;
use super::store::Store;
use super::supervision::Supervision;
use super::timers::Timers;
use super::topics::Topics;
use super::wall_clock::WallClock;
use super::work::Works;
use crate::engine::operator::log_queries::Logs;
use crate::engine::operator::open_listing::Listings;
use crate::engine::operator::open_restart::OpenRestart;
use crate::engine::operator::script_workers::{ConnectionScript, ScriptWorkers};
use crate::engine::operator::status_query::StatusQuery;
use crate::engine::origin::{Origin, Requester};
use crate::engine::shutdown_step::Shutdown;
use protocol::{ClientId, LinkId, Setting, Settings, Tick, Value, Wall};
use std::collections::BTreeMap;

/// What the engine must know before its first step.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The settings in force at the start.
    pub settings: Settings,
    /// The last run number that may have been given before. Run numbers of this broker are higher,
    /// so that no start is ever taken for one of an earlier broker on the same state directory.
    pub run_base: u64,
    /// The last number that an earlier broker may have given to a transaction. Those of this broker
    /// are higher, so that a late reply of an adopted worker never meets a new request.
    pub transaction_base: u64,
}

/// The state of the broker, apart from its sockets and files.
#[derive(Debug, Default)]
pub struct Engine {
    pub(super) now: Tick,
    pub(super) settings: Settings,
    /// The settings at the start: those of the command line are not stored.
    pub(super) given: Settings,
    pub(super) listening: Listening,
    pub(super) wall_clock: WallClock,
    /// The result of reading the certificates, and who asked for it, until the tokens are read,
    /// too.
    pub(super) certificates: Option<(Requester, Certificates)>,
    pub(super) catalog: Catalog,
    pub(super) sessions: Sessions,
    pub(super) dispatch: Dispatch,
    pub(super) supervision: Supervision,
    pub(super) topics: Topics,
    pub(super) instances: Instances,
    pub(super) timers: Timers,
    pub(super) facts: FactLog,
    pub(super) effects: Effects,
    /// The caller's list while a step runs, otherwise empty. What is appended is carried out in
    /// that order.
    pub(super) out: Vec<Action>,
    /// `Input::Started` came: hosts are dialled. Independent of the shutdown.
    pub(super) is_started: bool,
    pub(super) shutdown: Option<Shutdown>,
    pub(super) listings: Listings,
    pub(super) logs: Logs,
    pub(super) status_queries: BTreeMap<u64, StatusQuery>,
    pub(super) next_query: u64,
    pub(super) restarts: BTreeMap<u64, OpenRestart>,
    pub(super) store: Store,
    /// While lines of a script are run.
    pub(super) script_workers: Option<ScriptWorkers>,
    /// Of each attached client that was answered a command, or whose commands are a script.
    pub(super) scripts: BTreeMap<ClientId, ConnectionScript>,
    pub(super) works: Works,
    pub(super) black_box: BlackBox,
}

impl Engine {
    /// An engine with these settings, the service `op` and nothing else.
    pub fn new(options: EngineOptions) -> Self {
        let catalog = Catalog::default();
        let mut dispatch = Dispatch::new(options.transaction_base);
        dispatch.add_service(catalog.op());
        dispatch.add_service(catalog.bus());
        let mut facts = FactLog::default();
        let events_max = options.settings.get(Setting::EventsMax) as usize;
        facts.recent_mut().configure(events_max, Vec::new());
        facts.recent_mut().set_bytes_max(options.settings.get(Setting::EventsBytesMax));
        Self {
            given: options.settings.clone(),
            settings: options.settings,
            catalog,
            dispatch,
            topics: Topics::new(options.transaction_base),
            supervision: Supervision::new(options.run_base),
            facts,
            ..Self::default()
        }
    }

    /// When `Input::Deadline` is due next. It may be earlier than needed, never later.
    pub fn next_deadline(&self) -> Option<Tick> {
        match (self.dispatch.next_deadline(), self.timers.next()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counters since the start or the last `reset`.
    pub fn totals(&self) -> Totals {
        self.dispatch.totals()
    }

    /// Whether it holds memory for more than four times as many requests or subscriptions as there
    /// are, so that [`shrink`](Self::shrink) is worth its time.
    pub fn has_spare_capacity(&self) -> bool {
        self.dispatch.has_spare_capacity() || self.topics.has_spare_capacity()
    }

    /// Gives back the memory that a burst of clients, requests or subscriptions took. Changes
    /// nothing else.
    pub fn shrink(&mut self) {
        self.dispatch.shrink();
        self.topics.shrink();
        let used = self.sessions.shrink();
        self.dispatch.flow_mut().shrink(used);
        self.facts.quotas_mut().shrink(used);
    }

    /// Records a fact: in the log, for `listevents`, and for operators who watch.
    pub(crate) fn record(&mut self, kind: FactKind, about: About, text: String) {
        context!(self).record(kind, about, text);
    }

    /// Whether a peer may cause one more fact; see `Context`.
    pub(crate) fn may_cause(&mut self, class: Class, link: Option<LinkId>) -> bool {
        context!(self).may_cause(class, link)
    }

    /// Records a change of the configuration with its origin, and has it stored at the end of the
    /// step. `lines` are commands that make the same change wherever the configuration is the same,
    /// with the ids and names that this one chose; none = everything is as it was.
    pub(crate) fn changed(&mut self, origin: &Origin, text: String, lines: Vec<String>) {
        // What is read from the state directory or the command line at the start need not be
        // written there again.
        self.store.changed(lines, !matches!(origin, Origin::State | Origin::Broker));
        self.noted(origin, text);
    }

    /// Records a change that is not part of the configuration, so that it is not saved.
    pub(crate) fn noted(&mut self, origin: &Origin, what: String) {
        let about = About { who: Some(origin.who()), ..About::default() };
        self.record(FactKind::Changed, about, what);
    }

    /// What the clock showed at a tick.
    pub(crate) fn wall(&self, at: Tick) -> Wall {
        self.wall_clock.wall(at)
    }

    /// The same as a value of an answer.
    pub(crate) fn clock(&self, at: Tick) -> Value {
        Value::Time(self.wall(at))
    }
}
