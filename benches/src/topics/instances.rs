//! Very many instances that say that they go on: the processor time of isectd, what a change of
//! state costs until a subscriber has it, and how late a time-out is noticed.

use super::{Conns, LIMIT, histogram, p50_p99, seconds};
use crate::clock;
use crate::peers::{Alone, Hub, Setup};
use crate::protocols::topics::{Message, What, send};
use crate::round::say;
use crate::stop::Stop;
use crate::usage;
use hdrhistogram::Histogram;
use protocol::bodies::{Announce, Beat, StateChange};
use protocol::frame::Frame;
use protocol::instances::{BeatOf, InstanceState, InstanceType};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the watcher subscribes to.
const STATES: &str = "isect.state.>";
/// Beats and changes on their way whose beginning is remembered.
const RING: usize = 8192;
/// Ids of one connection; the id of an instance tells its connection.
const IDS: u64 = 1_000_000;

/// The parameters of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// Instances in all.
    #[arg(long, default_value_t = 10_000)]
    pub instances: u64,
    /// Connections that announce them.
    #[arg(long, default_value_t = 100)]
    pub connections: u64,
    /// Milliseconds between two beats of a connection.
    #[arg(long, default_value_t = 500)]
    pub beat_ms: u64,
    /// Changes of state a second in the second measurement.
    #[arg(long, default_value_t = 1000)]
    pub changes: u64,
    /// Seconds of beats without anything else.
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// The time-out of an instance, in milliseconds.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Processor time of the broker with the connections and no instance, in per cent of a core.
    pub idle_percent: f64,
    /// With beats.
    pub beating_percent: f64,
    /// With beats and changes of state.
    pub changing_percent: f64,
    /// Instance beats a second.
    pub beats: f64,
    /// Median and 99 % of a beat, in microseconds.
    pub beat_us: [f64; 2],
    /// Changes of state a second.
    pub changes: f64,
    /// Median and 99 % from a change to its message.
    pub change_us: [f64; 2],
    /// Bytes of memory for an instance.
    pub bytes: f64,
    /// Messages that the announcements gave.
    pub announced: u64,
    /// Milliseconds from when a time-out was due to its message: the first and the last.
    pub late_ms: [f64; 2],
}

struct State {
    connections: usize,
    announced: u64,
    messages: u64,
    timed_out: u64,
    /// When a connection sent its last beat.
    beaten: Vec<Instant>,
    is_waiting: Vec<bool>,
    /// When the change with this checkpoint left.
    changed: Vec<Option<Instant>>,
    changes: u64,
    beats: u64,
    beat: Histogram<u64>,
    change: Histogram<u64>,
    late_ms: Vec<f64>,
    timeout: Duration,
    silent: Option<usize>,
}

/// The value of a key line of a payload.
fn value<'a>(payload: &'a [u8], key: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(payload).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

impl State {
    fn take(&mut self, index: usize, what: &What, bytes: &[u8]) -> Result<(), String> {
        match what {
            What::Announced(_) => self.announced += 1,
            What::BeatOk { unknown, .. } => {
                if *unknown > 0 {
                    return Err(format!("the broker does not know {unknown} of {index}"));
                }
                self.is_waiting[index] = false;
                let left = self.beaten[index];
                self.beat.saturating_record(clock::nanos(left, clock::now()).max(1));
            }
            What::Message(message) => self.state(message, bytes)?,
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self, message: &Message, bytes: &[u8]) -> Result<(), String> {
        if message.dropped > 0 {
            return Err(format!("{} messages to the watcher were dropped", message.dropped));
        }
        self.messages += 1;
        let payload = &bytes[message.payload.clone()];
        let id: Option<u64> = value(payload, "id").and_then(|id| id.parse().ok());
        if value(payload, "state") == Some("timed out") {
            self.timed_out += 1;
            let conn = id.map_or(usize::MAX, |id| (id / IDS) as usize);
            if self.silent != Some(conn) {
                return Err(format!("instance {id:?} timed out, which beats"));
            }
            let due = self.beaten[conn] + self.timeout;
            self.late_ms.push(clock::nanos(due, clock::now()) as f64 / 1e6);
        }
        let checkpoint = value(payload, "checkpoint").and_then(|word| word.parse::<usize>().ok());
        if let Some(left) = checkpoint.and_then(|number| self.changed.get_mut(number)?.take()) {
            self.changes += 1;
            self.change.saturating_record(clock::nanos(left, clock::now()).max(1));
        }
        Ok(())
    }
}

struct Course<'a> {
    conns: Conns,
    state: State,
    trial: &'a Trial,
    stop: &'a Stop,
    pid: u32,
    checkpoint: u64,
    /// Changes of state that were sent.
    sent: usize,
}

impl<'a> Course<'a> {
    fn new(trial: &'a Trial, alone: &Alone, stop: &'a Stop) -> Result<Self, String> {
        let count = trial.connections as usize;
        if count == 0 || trial.instances < trial.connections {
            return Err("fewer instances than connections, or none".into());
        }
        let now = clock::now();
        let state = State {
            connections: count,
            announced: 0,
            messages: 0,
            timed_out: 0,
            beaten: vec![now; count],
            is_waiting: vec![false; count],
            // Below it are the checkpoints of changes, so that those of beats are none of them.
            changed: vec![None; RING],
            changes: 0,
            beats: 0,
            beat: histogram()?,
            change: histogram()?,
            late_ms: Vec::new(),
            timeout: Duration::from_millis(trial.timeout_ms),
            silent: None,
        };
        let mut conns = Conns::open((Hub::Isect, alone), count + 1, stop)?;
        conns.subscribe(count, 1, STATES);
        let pid = alone.process.pid();
        Ok(Self { conns, state, trial, stop, pid, checkpoint: RING as u64, sent: 0 })
    }

    /// How many instances a connection has.
    fn each(&self) -> u64 {
        self.trial.instances / self.trial.connections
    }

    fn turn(&mut self) -> Result<(), String> {
        self.stop.check()?;
        let state = &mut self.state;
        self.conns.turn(&mut |index, what, bytes: &[u8]| state.take(index, &what, bytes))
    }

    fn announce(&mut self) -> Result<(), String> {
        for index in 0..self.state.connections {
            for number in 0..self.each() {
                let announce = Announce {
                    sequence: 0,
                    name: "pump".to_owned(),
                    id: index as u64 * IDS + number,
                    kind: InstanceType::Data,
                    groups: vec!["night".to_owned()],
                    activity_timeout_ms: self.trial.timeout_ms,
                    stalled_ms: 0,
                    state: InstanceState::Running,
                    addresses: Vec::new(),
                    meta: Vec::new(),
                    state_names: Vec::new(),
                };
                self.conns.write(index, |_, out| send(Frame::Announce(announce), out));
            }
            self.turn()?;
        }
        let (end, all) = (clock::now() + LIMIT, self.each() * self.trial.connections);
        while self.state.announced < all || self.state.messages < all {
            if clock::now() > end {
                let State { announced, messages, .. } = self.state;
                return Err(format!("{announced} announced, {messages} messages, of {all}"));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn beat(&mut self, index: usize) {
        self.checkpoint += 1;
        let instances = (0..self.each()).map(|number| BeatOf {
            id: index as u64 * IDS + number,
            checkpoint: self.checkpoint,
            is_idle: false,
        });
        let beat = Beat { beat: self.checkpoint as u32, instances: instances.collect() };
        self.state.beaten[index] = clock::now();
        self.state.is_waiting[index] = true;
        self.state.beats += self.each();
        self.conns.write(index, |_, out| send(Frame::Beat(beat), out));
    }

    fn change(&mut self, left: Instant) {
        let count = self.state.connections;
        let slot = self.sent % RING;
        let index = self.sent % count;
        let number = (self.sent / count) as u64 % self.each();
        let round = self.sent as u64 / (self.each() * count as u64);
        let state = [InstanceState::Stopping, InstanceState::Running][(round % 2) as usize];
        self.state.changed[slot] = Some(left);
        self.sent += 1;
        let change = StateChange {
            sequence: 0,
            id: index as u64 * IDS + number,
            state,
            checkpoint: Some(slot as u64),
            text: String::new(),
        };
        self.conns.write(index, |_, out| send(Frame::StateChange(change), out));
    }

    /// Beats, and changes states at a rate, for so long or until it is enough; the broker's
    /// processor time in per cent of a core.
    fn go(
        &mut self,
        (beats, changes): (bool, u64),
        span: Duration,
        is_enough: impl Fn(&State) -> bool,
    ) -> Result<f64, String> {
        let (before, begun) = (usage::cpu_nanos(self.pid)?, clock::now());
        let rate =
            if beats { self.trial.connections * 1000 / self.trial.beat_ms.max(1) } else { 0 };
        let total = rate + changes;
        self.conns.begin(total)?;
        let (mut owed, mut turn) = (0, 0);
        while clock::now() < begun + span && !is_enough(&self.state) {
            let now = clock::now();
            while let Some((_, meant)) = self.conns.next_due(now) {
                owed += rate;
                if owed < total {
                    self.change(meant);
                    continue;
                }
                owed -= total;
                let index = turn % self.state.connections;
                turn += 1;
                if self.state.silent != Some(index) && !self.state.is_waiting[index] {
                    self.beat(index);
                }
            }
            self.turn()?;
        }
        let took = clock::now() - begun;
        let cpu = usage::cpu_nanos(self.pid)?.saturating_sub(before);
        self.conns.begin(0)?;
        Ok(cpu as f64 / took.as_nanos() as f64 * 100.0)
    }
}

/// Measures isectd.
///
/// # Errors
/// Something failed, or an instance that beats timed out.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Outcome, String> {
    let alone = Hub::Isect.start(setup)?;
    let pid = alone.process.pid();
    let mut course = Course::new(trial, &alone, stop)?;
    let mut outcome = Outcome::default();
    let never = |_: &State| false;
    let span = seconds(trial.seconds)?;
    // In such a time each has beaten.
    let all_beat = Duration::from_millis(trial.beat_ms * 2);
    outcome.idle_percent = course.go((false, 0), span / 8, never)?;
    let before = usage::rss_bytes(pid)?;
    course.announce()?;
    outcome.bytes =
        usage::rss_bytes(pid)?.saturating_sub(before) as f64 / trial.instances.max(1) as f64;
    outcome.announced = course.state.messages;
    course.go((true, 0), all_beat, never)?;
    course.state.beat.reset();
    course.state.beats = 0;
    let messages = course.state.messages;
    outcome.beating_percent = course.go((true, 0), span, never)?;
    outcome.beats = course.state.beats as f64 / span.as_secs_f64().max(0.001);
    outcome.beat_us = p50_p99(&course.state.beat);
    if course.state.messages != messages {
        return Err(format!("beats gave {} messages", course.state.messages - messages));
    }
    say(&format!("beats: {:.2} % of a core", outcome.beating_percent));
    let span = span / 4;
    outcome.changing_percent = course.go((true, trial.changes), span, never)?;
    outcome.changes = course.state.changes as f64 / span.as_secs_f64().max(0.001);
    outcome.change_us = p50_p99(&course.state.change);
    let all = course.sent as u64;
    course.go((true, 0), LIMIT, move |state| state.changes == all)?;
    if course.state.changes != all {
        return Err(format!("{all} changes gave {} messages", course.state.changes));
    }
    // The last sign of each is a beat then.
    course.go((true, 0), all_beat, never)?;
    course.state.silent = Some(0);
    let each = course.each();
    let limit = Duration::from_millis(trial.timeout_ms) + Duration::from_secs(2);
    course.go((true, 0), limit, move |state| state.timed_out >= each)?;
    let late = &course.state.late_ms;
    if late.len() as u64 != each {
        return Err(format!("{} of {each} silent instances timed out", late.len()));
    }
    outcome.late_ms = [
        late.iter().copied().fold(f64::INFINITY, f64::min),
        late.iter().copied().fold(0.0, f64::max),
    ];
    Ok(outcome)
}

/// The result for people.
pub fn render(trial: &Trial, outcome: &Outcome) -> String {
    let Outcome { idle_percent, beating_percent, changing_percent, beats, changes, .. } = outcome;
    let ([beat, beat99], [change, change99]) = (outcome.beat_us, outcome.change_us);
    format!(
        "{} instances on {} connections, {:.0} bytes each\n\
         without instances       {idle_percent:>6.2} % of a core\n\
         {beats:>8.0} beats/s        {beating_percent:>6.2} %, beat p50 {beat:.0} µs, \
         p99 {beat99:.0} µs\n\
         {changes:>8.0} changes/s more {changing_percent:>6.2} %, change to message p50 \
         {change:.0} µs, p99 {change99:.0} µs\n\
         time-outs noticed       {:.0} to {:.0} ms after they were due\n",
        trial.instances, trial.connections, outcome.bytes, outcome.late_ms[0], outcome.late_ms[1]
    )
}

/// Everything, for machines.
pub fn json(outcome: &Outcome) -> Value {
    json!({
        "idle_percent": outcome.idle_percent, "beating_percent": outcome.beating_percent,
        "changing_percent": outcome.changing_percent, "beats_per_s": outcome.beats,
        "beat_us": outcome.beat_us, "changes_per_s": outcome.changes,
        "change_us": outcome.change_us, "bytes_per_instance": outcome.bytes,
        "announced_messages": outcome.announced, "late_ms": outcome.late_ms,
    })
}
