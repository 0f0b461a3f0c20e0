//! The engine of execd, PURE: which children there are, for which broker, what is due when, and who
//! is told what. No IO, no clock, no randomness: the same inputs give the same actions. `os`
//! carries the actions out.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`input`], [`action`] | all that can happen, all that can be done |
//! | `child` | one process: state × event |
//! | `start`, `stop` | how children begin, and how they end: TERM, wait, KILL, last output, report
//! |
//! | `drain` | a request to end execd: its brokers end their workers first |
//! | `links` | the links of brokers: hello, ping, silence, one link for each broker |
//! | [`kept`] | the numbers of the lines that are kept |
//! | `memory` | which children have more memory than they should |
//! | `output` | bytes to lines, rate limits, last lines of stderr |
//! | [`limits`] | every limit by name |

pub mod action;
pub mod child;
mod drain;
pub mod input;
pub mod kept;
pub mod limits;
mod links;
mod memory;
mod output;
mod proofs;
mod start;
mod stop;
#[cfg(test)]
mod tests;

use action::{Action, Note, Who};
use child::{Child, ChildId, Event, State};
use input::{Input, ProcessEnd};
use kept::{Kept, KeptNumbers};
use limits::{CHILDREN_CAP, Limits};
use links::Link;
use output::Bucket;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, TokenName};
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The configuration of an engine; it does not change.
#[derive(Clone, Debug)]
pub struct Config {
    /// The limits in force.
    pub limits: Limits,
    /// Process id of execd, for its welcome.
    pub hostpid: u32,
    /// Version of execd, for its welcome.
    pub version: String,
    /// Digest of everything that is enforced on the processes, for the welcome.
    pub policy: String,
    /// Digest of the program file of execd, for the welcome.
    pub binary: String,
    /// Whether a broker may ask it to end without its processes, because the next execd finds them.
    pub hands_over: bool,
    /// Whether it is the built-in execd of a broker: it ends when the broker ends in order, or
    /// after a while without broker and children.
    pub built_in: bool,
    /// Whether it ends, with all children, when the broker's link breaks (`--state none`).
    pub exits_with_broker: bool,
    /// The number of the last line that is kept of each worker; `None` = no lines are kept.
    pub kept: Option<KeptNumbers>,
}

/// A broker that has said hello. While it is away, its children and reports are kept.
#[derive(Debug, Default)]
struct Broker {
    link: Option<LinkId>,
    /// The broker's name for this machine, from the hello on the last link.
    host: Option<HostName>,
    /// The token that was proved on the last link.
    token: Option<TokenName>,
    /// Whether it has asked for the list since its hello; only then reports are sent to it.
    has_list: bool,
    /// Reports that were not sent yet, oldest first.
    missed: VecDeque<Frame>,
    /// Bytes of the last lines in those reports.
    missed_bytes: usize,
    /// Whether it shuts down; nothing is started for it until its children are gone.
    is_shutting_down: bool,
    /// Whether it announced its end on the last link.
    has_ended: bool,
}

/// How far the end of execd itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shutdown {
    None,
    /// execd ends as soon as the last child is gone.
    Begun,
    /// `Action::Exit` was given.
    Done,
}

/// The engine: the whole state of execd.
#[derive(Debug)]
pub struct Engine {
    /// The tick of the step.
    now: Tick,
    /// The caller's list while a step runs, otherwise empty. What is appended is carried out in
    /// that order.
    out: Vec<Action>,
    config: Config,
    links: BTreeMap<LinkId, Link>,
    brokers: BTreeMap<Arc<str>, Broker>,
    children: BTreeMap<ChildId, Child>,
    runs: BTreeMap<(Arc<str>, WorkerId, RunId), ChildId>,
    children_ever: u64,
    starts: Bucket,
    /// The tick at which the latest start that was put off should be repeated.
    start_slot: Tick,
    lines: Bucket,
    kept: Kept,
    shutdown: Shutdown,
    /// The tick at which the children that brokers were to end get TERM. Valid in `Begun`; `None` =
    /// all children got it.
    drain_until: Option<Tick>,
    /// The tick at which execd ends although children are left.
    give_up: Option<Tick>,
    idle_since: Option<Tick>,
    /// The tick since which no broker is connected.
    orphan_since: Option<Tick>,
}

/// A deadline noticed this many milliseconds late shows that execd or its machine was stopped;
/// brokers that connected meanwhile were not seen yet.
const STOOD_STILL_MS: u64 = 1000;

impl Engine {
    /// An engine without links and children.
    pub fn new(mut config: Config) -> Self {
        let children_max = &mut config.limits.children_max;
        *children_max = (*children_max).min(CHILDREN_CAP);
        if config.exits_with_broker {
            // When this broker ends, everything ends, so a broker that is stopped for a while must
            // not be taken for gone. Both are on one machine, where a broker that ends closes its
            // link.
            config.limits.silence_ms = u64::MAX;
        }
        let limits = config.limits;
        Self {
            now: Tick(0),
            out: Vec::new(),
            starts: Bucket::new(limits.starts_per_second, limits.starts_burst, Tick(0)),
            lines: Bucket::new(limits.all_lines_per_second, limits.all_lines_burst, Tick(0)),
            start_slot: Tick(0),
            kept: Kept(config.kept.take()),
            config,
            links: BTreeMap::new(),
            brokers: BTreeMap::new(),
            children: BTreeMap::new(),
            runs: BTreeMap::new(),
            children_ever: 0,
            shutdown: Shutdown::None,
            drain_until: None,
            give_up: None,
            idle_since: Some(Tick(0)),
            orphan_since: Some(Tick(0)),
        }
    }

    /// Takes one input; appends the actions that follow from it, in order.
    pub fn step(&mut self, now: Tick, input: Input, out: &mut Vec<Action>) {
        std::mem::swap(&mut self.out, out);
        self.now = now;
        match input {
            Input::Opened { link, denied, must_prove, peer_group } => {
                self.opened((link, peer_group), (denied, must_prove));
            }
            Input::Proven { link, proven } => self.proven(link, proven),
            Input::Revoked { link } => self.revoked(link),
            Input::Frame { link, frame } => self.frame(link, frame),
            Input::Garbled { link, error } => self.garbled(link, error),
            Input::Closed { link, why } => self.closed(link, why),
            Input::Forked { child, pid } => {
                if let Some(known) = self.children.get_mut(&child) {
                    known.pid = pid;
                }
            }
            Input::Spawned { child, pid } => {
                if let Some(known) = self.children.get_mut(&child) {
                    known.pid = pid;
                    self.happens(child, Event::Spawned);
                }
            }
            Input::SpawnFailed { child, permanent, text } => {
                self.spawn_failed(child, (permanent, text));
            }
            Input::Output { child, stream, bytes } => {
                self.output(child, |output, shared| output.push(now, stream, &bytes, shared));
            }
            Input::OutputEnd { child, stream } => {
                self.output(child, |output, shared| output.end(now, stream, shared));
                self.note_output_end(child);
            }
            Input::Exited { child, end } => {
                if let Some(known) = self.children.get_mut(&child) {
                    // A KILL of execd's own was not for want of memory.
                    let oom = end.oom && known.state != State::Killing;
                    known.end = Some(ProcessEnd { oom, ..end });
                    self.happens(child, Event::Exited);
                    self.note_output_end(child);
                }
            }
            Input::Memory { child, bytes } => self.measured(child, bytes),
            Input::Recorded(recorded) => self.recorded(recorded),
            Input::Terminate => self.terminate(),
            Input::PartialFrame { link, bytes } => self.partial_frame(link, bytes),
            Input::Deadline => self.deadline(),
        }
        self.settle();
        std::mem::swap(&mut self.out, out);
    }

    /// The tick at which something is due even if nothing happens; `None` = nothing is.
    pub fn next_deadline(&self) -> Option<Tick> {
        let links = self.links.values().map(|link| link.due(&self.config.limits));
        let children = self.children.values().filter_map(|child| child.due);
        let own = self.idle_due().into_iter().chain(self.orphan_due());
        let own = own.chain(self.drain_until).chain(self.give_up).chain(self.memory_due());
        links.chain(children).chain(own).min()
    }

    /// How many children there are; for tests and logs.
    pub fn children_count(&self) -> usize {
        self.children.len()
    }

    fn deadline(&mut self) {
        self.links_due();
        self.look_at_memory();
        let due = |child: &Child| child.due.is_some_and(|due| due <= self.now);
        let ids: Vec<ChildId> =
            self.children.iter().filter(|(_, child)| due(child)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(child) = self.children.get_mut(&id) {
                child.due = None;
            }
            self.happens(id, Event::Due);
        }
        if self.idle_due().is_some_and(|due| due <= self.now) && self.shutdown == Shutdown::None {
            self.begin_shutdown("no broker and no child for a while");
        }
        self.orphaned();
        self.drained();
        if self.give_up.is_some_and(|due| due <= self.now) {
            self.give_up = None;
            if self.shutdown == Shutdown::Begun {
                self.shutdown = Shutdown::Done;
                self.out.push(Action::Exit);
            }
        }
    }

    fn begin_shutdown(&mut self, why: &'static str) {
        self.shutdown = Shutdown::Begun;
        self.give_up = Some(self.now.plus_millis(self.config.limits.give_up_ms));
        self.out.push(Action::Note(Note::ShuttingDown { why, children: self.children.len() }));
        self.announce_end();
    }

    /// What follows from the state as a whole, after each step.
    fn settle(&mut self) {
        let is_childless = self.children.is_empty();
        for (name, broker) in &mut self.brokers {
            if broker.is_shutting_down && !self.children.values().any(|child| child.broker == *name)
            {
                broker.is_shutting_down = false;
                if self.config.built_in && is_childless && self.shutdown == Shutdown::None {
                    self.shutdown = Shutdown::Begun;
                    let why = "the broker has shut down in order";
                    self.out.push(Action::Note(Note::ShuttingDown { why, children: 0 }));
                }
            }
        }
        if self.shutdown == Shutdown::Begun && is_childless {
            self.shutdown = Shutdown::Done;
            (self.give_up, self.drain_until) = (None, None);
            self.out.push(Action::Exit);
        }
        let is_orphan = self.brokers.values().all(|broker| broker.link.is_none());
        self.orphan_since = if is_orphan { self.orphan_since.or(Some(self.now)) } else { None };
        let is_idle = is_childless && is_orphan;
        self.idle_since = if is_idle { self.idle_since.or(Some(self.now)) } else { None };
    }

    fn idle_due(&self) -> Option<Tick> {
        if !self.config.built_in || self.shutdown != Shutdown::None {
            return None;
        }
        self.idle_since.map(|since| since.plus_millis(self.config.limits.idle_ms))
    }

    fn orphan_due(&self) -> Option<Tick> {
        let orphan_ms = self.config.limits.orphan_ms;
        let since =
            self.orphan_since.filter(|_| orphan_ms > 0 && self.shutdown == Shutdown::None)?;
        Some(since.plus_millis(orphan_ms))
    }

    /// Ends all children and execd itself if no broker came for the time that `orphan_ms` allows.
    fn orphaned(&mut self) {
        let Some(due) = self.orphan_due().filter(|due| *due <= self.now) else { return };
        if self.now > due.plus_millis(STOOD_STILL_MS) {
            self.orphan_since = Some(self.now);
            return;
        }
        self.begin_shutdown("no broker came for orphan_ms");
        self.stop_all(None, self.config.limits.shutdown_grace_ms);
    }

    /// Reports something that a broker must not miss: at once if it has its list, else when it is
    /// back.
    fn report(&mut self, name: &Arc<str>, frame: Frame) {
        let Some(broker) = self.brokers.get_mut(name) else { return };
        if let (Some(link), true) = (broker.link, broker.has_list) {
            self.out.push(Action::Send { link, frame });
            return;
        }
        let limits = &self.config.limits;
        broker.missed_bytes += tail_bytes(&frame);
        broker.missed.push_back(frame);
        while broker.missed.len() > limits.reports_max
            || broker.missed_bytes > limits.reports_bytes_max
        {
            let Some(oldest) = broker.missed.pop_front() else { return };
            broker.missed_bytes -= tail_bytes(&oldest);
            self.out.push(Action::Note(Note::ReportDropped { broker: Arc::clone(name) }));
        }
    }
}

/// The bytes of a report whose number has no limit of its own.
fn tail_bytes(frame: &Frame) -> usize {
    let Frame::ExecExited(body) = frame else { return 0 };
    body.tail.iter().map(String::len).sum()
}

impl Child {
    fn who(&self) -> Who {
        Who { broker: Arc::clone(&self.broker), worker: self.worker, run: self.run }
    }
}
