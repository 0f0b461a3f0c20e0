//! The engine decides everything that the broker does: it takes inputs and gives actions. It is
//! pure: it does no IO, reads no clock, draws no random numbers, starts no threads, and writes no
//! bytes for the wire, so the same inputs always give the same actions.
//!
//! Read in this order: `input` (what can happen), `action` (what can be done), `fact` (what is
//! worth recording); then `transaction` (one request, from its admission to its outcome),
//! `dispatch` (which worker gets it), `process` (the processes of workers).

pub mod action;
pub mod fact;
pub mod input;
pub mod view;

mod absence;
mod access;
mod buckets;
mod certificates;
mod clients;
mod dispatch;
mod drain;
mod due;
mod exit_cause;
mod handover;
mod heartbeat;
mod histogram;
mod host_shutdown;
mod hosts;
mod invariants;
mod keys;
mod link_events;
mod retry_budget;
mod shutdown;

mod in_flight;
mod links;
mod listing;
mod op_change;
mod op_config;
mod op_facts;
mod op_load;
mod op_read;
mod op_run;
mod op_settings;
mod op_show;
mod op_status;
mod outcome;
mod poison;
mod process;
mod queue;
mod quotas;
mod recent;
mod registry;
mod replies;
mod restart;
pub mod save;
mod service_rate;
mod start_failures;
mod starts;
mod states;
mod transaction;
mod wall_clock;
mod wheel;
mod worker_logins;
mod workers;

use access::Access;
use action::{Action, Origin};
use buckets::Buckets;
use clients::Clients;
use due::{Due, DueList};
use fact::{About, Fact, FactKind};
use hosts::Hosts;
use input::{Certificates, Input, Listening, Requester};
use keys::{ServiceKey, Table, TransactionKey};
use links::{End, Links};
use poison::Poison;
use protocol::frame::Frame;
use protocol::ids::{FactSeq, LinkId, ServiceId};
use protocol::names::{HostName, ServiceName};
use protocol::settings::{Setting, Settings};
use protocol::show;
use protocol::time::Tick;
use quotas::{FACT_BYTES_MAX, Quotas};
use recent::Recent;
use registry::Registry;
use shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use transaction::Transaction;
use wheel::Wheel;
use workers::Workers;

/// The list to which a step appends its actions, in the order in which they are to be carried out.
pub(crate) type Out<'a> = &'a mut Vec<Action>;

/// What the engine must know before its first step.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The settings in force at the start.
    pub settings: Settings,
    /// The last run number that may have been given before. Run numbers of this broker are higher,
    /// so that no start is ever taken for one of an earlier broker on the same state directory.
    pub run_base: u64,
}

/// Counters since the start or the last `reset`; `accepted = ended + in flight` always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests accepted; each gets one outcome.
    pub accepted: u64,
    /// Accepted requests that have their outcome.
    pub ended: u64,
    /// Ended requests that a worker answered.
    pub completed: u64,
    /// Ended requests whose client was gone before.
    pub orphaned: u64,
    /// Ended requests that were set aside as poison.
    pub poisoned: u64,
    /// Requests refused at admission, which are not accepted ones.
    pub refused: u64,
}

/// Memory for this many requests is never given back.
const CAPACITY_KEPT: usize = 1024;

/// The state of the broker, apart from its sockets and files.
#[derive(Debug)]
pub struct Engine {
    now: Tick,
    settings: Settings,
    listening: Listening,
    wall_clock: wall_clock::WallClock,
    instance: String,
    links: Links,
    access: Access,
    /// The result of reading the certificates, and who asked for it, until the tokens are read,
    /// too.
    certificates: Option<(Requester, Certificates)>,
    registry: Registry,
    op_service: ServiceKey,
    clients: Clients,
    workers: Workers,
    hosts: Hosts,
    /// Hosts with a dial under way. The dial goes on when its host is deleted.
    dials: BTreeSet<HostName>,
    transactions: Table<TransactionKey, Transaction>,
    wheel: Wheel,
    due: DueList,
    /// Tick of the next `Due::Heartbeat` that counts.
    next_beat: Option<Tick>,
    /// Milliseconds between two heartbeats, as they are now.
    beat_ms: u64,
    /// Scratch space of `on_deadlines`, kept so that expiry allocates nothing.
    due_keys: Vec<TransactionKey>,
    next_transaction: u64,
    next_fact: u64,
    next_run: u64,
    /// Run numbers up to this one may have been given by earlier brokers.
    run_base: u64,
    /// Bytes of requests that wait, or are kept so that they can be repeated (`queue_bytes_max`).
    queue_bytes: u64,
    /// The operator's `preempt`: a lower priority always waits for a higher one. `false` = waiting
    /// raises the priority of a request (`queue`). Either way no worker is interrupted.
    is_strict_priority: bool,
    is_rejecting: bool,
    shutdown: Option<Shutdown>,
    recent: Recent,
    quotas: Quotas,
    buckets: Buckets,
    poison: VecDeque<Poison>,
    watchers: usize,
    listings: listing::Listings,
    status_queries: BTreeMap<u64, op_status::StatusQuery>,
    next_query: u64,
    totals: Totals,
    /// Why the last write of the configuration failed; `None` = what is in force is saved.
    unsaved: Option<String>,
    /// A `Due::Persist` is in the list of timers.
    is_to_persist: bool,
    /// The configuration was changed in this step.
    is_changed: bool,
}

impl Engine {
    /// An engine with these settings, the service `op` and nothing else.
    pub fn new(options: EngineOptions) -> Self {
        let mut registry = Registry::default();
        // It is the only service at the start, so its id is free.
        let op_service = registry.insert(ServiceName::op(), ServiceId(1));
        let mut recent = Recent::default();
        recent.configure(options.settings.get(Setting::EventsMax) as usize, Vec::new());
        Self {
            now: Tick(0),
            settings: options.settings,
            listening: Listening::default(),
            wall_clock: wall_clock::WallClock::default(),
            instance: String::new(),
            links: Links::default(),
            access: Access::default(),
            certificates: None,
            registry,
            op_service,
            clients: Clients::default(),
            workers: Workers::default(),
            hosts: Hosts::default(),
            dials: BTreeSet::new(),
            transactions: Table::default(),
            wheel: Wheel::default(),
            due: DueList::default(),
            next_beat: None,
            beat_ms: 0,
            due_keys: Vec::new(),
            next_transaction: 0,
            next_fact: 0,
            next_run: options.run_base,
            run_base: options.run_base,
            queue_bytes: 0,
            is_strict_priority: false,
            is_rejecting: false,
            shutdown: None,
            recent,
            quotas: Quotas::default(),
            buckets: Buckets::default(),
            poison: VecDeque::new(),
            watchers: 0,
            listings: listing::Listings::default(),
            status_queries: BTreeMap::new(),
            next_query: 0,
            totals: Totals::default(),
            unsaved: None,
            is_to_persist: false,
            is_changed: false,
        }
    }

    /// When `Input::Deadline` is due next. It may be earlier than needed, never later.
    pub fn next_deadline(&self) -> Option<Tick> {
        match (self.wheel.next(), self.due.next()) {
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
        self.totals
    }

    /// Whether it holds memory for more than four times as many requests as there are, so that
    /// [`shrink`](Self::shrink) is worth its time.
    pub fn has_spare_capacity(&self) -> bool {
        let room = self.transactions.capacity();
        room > CAPACITY_KEPT && self.transactions.len() < room / 4
    }

    /// Gives back the memory that a burst of clients or requests took. Changes nothing else.
    pub fn shrink(&mut self) {
        self.transactions.shrink_to_fit();
        self.wheel.shrink();
        self.due_keys = Vec::new();
        self.clients.shrink();
        self.links.shrink();
    }

    /// Takes one input and appends the actions that follow from it, in order. A tick earlier than
    /// the one before counts as that one.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        // Deadlines come before the input, however late it was read (docs/decisions/0019): a broker
        // that stood still passes on no late answer and gives no worker a request that nobody waits
        // for any more. Only the end of a link is handled first, because nothing can be sent to it.
        if self.wheel.is_due(self.now) && !matches!(input, Input::Closed { .. }) {
            self.on_deadlines(out);
        }
        match input {
            Input::Request { link, head, body } => {
                self.heard(link);
                self.on_request(link, head, body, out);
            }
            Input::Reply { link, head, body } => {
                self.heard(link);
                self.on_reply(link, head, body, out);
            }
            Input::Deadline => self.on_time(out),
            Input::Clock { wall } => self.wall_clock.set(self.now, wall),
            Input::Listening(listening) => self.on_listening(*listening, out),
            Input::Script { origin, text } => self.on_script(origin, &text, out),
            Input::ClientOpened { link, peer } => self.on_opened(link, End::NewClient, peer),
            Input::WorkerOpened { link, peer } => self.on_opened(link, End::NewWorker, peer),
            Input::HostOpened { link, host, fd, must } => {
                self.on_host_opened(link, host, (fd, must), out);
            }
            Input::HostRefused { host, why } => self.on_host_refused(&host, why, out),
            Input::Closed { link, how } => self.on_closed(link, how, out),
            Input::Congested { link } => self.links.congested(link, out),
            Input::Uncongested { link } => self.links.uncongested(link, out),
            Input::OutboxFull { link, bytes } => {
                self.on_outbox_full(link, bytes, out);
            }
            Input::Stalled { link, bytes } => {
                let max = self.settings.get(Setting::StallMs);
                self.drop_link(
                    link,
                    format!(
                        "took none of {bytes} waiting bytes for {max} ms (stall_ms); closing it"
                    ),
                    out,
                );
            }
            Input::Garbage { link, error } => self.on_garbage(link, error, out),
            Input::Known { link, uid, is_owner } => {
                if let Some(slot) = self.links.get_mut(link) {
                    (slot.peer.uid, slot.peer.is_owner) = (uid, is_owner);
                }
            }
            Input::Login { link, login } => {
                self.heard(link);
                self.on_login(link, *login, out);
            }
            Input::Proof { link, proof } => {
                self.heard(link);
                self.on_proof(link, proof, out);
            }
            Input::Proven { link, proven } => self.on_proven(link, proven, out),
            Input::Challenged { link, challenge } => self.on_challenged(link, challenge, out),
            Input::Unproven { link, why } => self.on_unproven(link, why, out),
            Input::TokensRead { requester, tokens } => self.on_tokens(requester, tokens, out),
            Input::CertificatesRead { requester, found, more } => {
                self.on_certificates(requester, found, more, out);
            }
            Input::Logout { link } => self.on_logout(link, out),
            Input::WorkerLogin { link, login, proof } => {
                self.heard(link);
                self.on_worker_login(link, *login, proof, out);
            }
            Input::StatusReply { link, sequence, text } => {
                self.heard(link);
                self.on_status_reply(link, sequence, &text, out);
            }
            Input::Report { link, report } => {
                self.heard(link);
                self.on_report(link, *report, out);
            }
            Input::PeerError { link, worker, run, error } => {
                self.on_peer_error(link, (worker, run), &error, out);
            }
            Input::Ping { link, sequence } => {
                self.heard(link);
                if self.links.get(link).is_some() {
                    out.push(Action::Send { link, frame: Frame::Pong { sequence } });
                }
            }
            Input::Pong { link } | Input::Heard { link } => self.heard(link),
            Input::Sourced { link, head, path, script } => {
                self.on_sourced(link, head, path, script, out)
            }
            Input::Persisted => self.on_persisted(out),
            Input::PersistFailed { why } => self.on_persist_failed(why, out),
            Input::Terminate { signal } => self.on_terminate(signal, out),
        }
        if std::mem::take(&mut self.is_changed) {
            out.push(Action::Persist);
        }
        if self.shutdown.is_some() {
            self.check_shutdown(out);
        }
    }

    /// A whole frame, or bytes of one, came from this link: its silence begins anew.
    fn heard(&mut self, link: LinkId) {
        if let Some(slot) = self.links.get_mut(link) {
            slot.heard = self.now;
            slot.missed = 0;
        }
    }

    fn on_listening(&mut self, listening: Listening, out: Out<'_>) {
        self.instance.clone_from(&listening.instance);
        self.wall_clock.set(self.now, listening.wall);
        let text = format!(
            "isectd {} listens: clients on port {}, workers on port {}",
            listening.version, listening.client_port, listening.worker_port
        );
        let execd = listening.execd.clone();
        self.listening = listening;
        self.record(FactKind::BrokerStarted, About::default(), text, out);
        if let (Some(address), Ok(name)) = (execd, HostName::new("localhost")) {
            self.add_host(&name, address, true, out);
        }
        self.start_heartbeat();
    }

    /// Handles all timers that are due: deadlines of transactions first, then the list of `due`.
    fn on_time(&mut self, out: Out<'_>) {
        self.excuse_standstill();
        self.on_deadlines(out);
        while let Some(due) = self.due.take(self.now) {
            match due {
                Due::Login(link) => self.on_login_due(link, out),
                Due::Greeting(link) => self.on_greeting_due(link, out),
                Due::Proof(link) => self.on_proof_due(link, out),
                Due::WorkerLogin(worker, run) => self.on_worker_login_due(worker, run, out),
                Due::Lost(worker, run) => self.on_lost_due(worker, run, out),
                Due::Return(worker, run) => self.on_return_due(worker, run, out),
                Due::Unlisted(worker, run) => self.on_unlisted_due(worker, run, out),
                Due::StopAsk(worker, run) => self.on_stop_ask_due(worker, run, out),
                Due::Restart(worker, run) => self.on_restart_due(worker, run, out),
                Due::Overlong(worker) => self.on_overlong_due(worker, out),
                Due::Dial(host) => self.on_dial_due(&host, out),
                Due::LeftOut => self.on_left_out_due(out),
                Due::Heartbeat => self.on_heartbeat(out),
                Due::StatusAnswer(query) => self.answer_status_query(query, out),
                Due::Persist => {
                    self.is_to_persist = false;
                    self.is_changed |= self.unsaved.is_some();
                }
                Due::Listing => self.on_listing(out),
                Due::End => self.on_shutdown_due(out),
            }
        }
    }

    /// Records a fact: in the log, for `listevents`, and for operators who watch.
    pub(crate) fn record(&mut self, kind: FactKind, about: About, text: String, out: Out<'_>) {
        self.next_fact += 1;
        // Parts of the text may come from workers and hosts.
        let text = match text.len() {
            ..=FACT_BYTES_MAX => show::one_line(text),
            _ => show::brief(&text, FACT_BYTES_MAX),
        };
        let fact = Fact { seq: FactSeq(self.next_fact), at: self.now, kind, about, text };
        self.recent.add(&fact);
        if self.watchers > 0 {
            self.show_watchers(&fact, out);
        }
        out.push(Action::Record(Box::new(fact)));
    }

    /// Records a change of the configuration with its origin, and has it saved at the end of the
    /// step.
    pub(crate) fn changed(&mut self, origin: &Origin, text: String, out: Out<'_>) {
        // What is read from the state directory need not be written there again.
        self.is_changed |= *origin != Origin::State;
        let about = About { who: Some(Self::who(origin)), ..About::default() };
        self.record(FactKind::Changed, about, text, out);
    }
}
