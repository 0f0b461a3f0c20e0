//! Very many kept values and subscribers of all topics that do not read, while a publisher goes on:
//! the memory of isectd must stay the same, and one of them that reads then must get all values,
//! the marker, and the messages of the meantime, with those that were dropped counted.

use super::{Conns, LIMIT, seconds};
use crate::clock;
use crate::payload::Payload;
use crate::peers::{Hub, Setup};
use crate::protocols::topics::{Isect, Message, TopicProtocol, What};
use crate::round::say;
use crate::stop::Stop;
use crate::usage;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// Bytes of a value.
const SIZE: usize = 64;
/// Values, or messages, on their way while it does not matter how fast they go.
const WINDOW: u32 = 500;
/// The payload of a message that is not kept has this in place of a publisher's index.
const LIVE: u32 = 1;
/// Time between two looks at the memory.
const LOOK: Duration = Duration::from_millis(250);
/// How long the one that reads may take.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// So much more memory while the publisher goes on is a failure, in per cent.
const GROWTH_MAX: f64 = 10.0;

/// The parameters of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// Kept values.
    #[arg(long, default_value_t = 100_000)]
    pub values: u32,
    /// Subscribers of all topics that do not read.
    #[arg(long, default_value_t = 50)]
    pub stalled: usize,
    /// Messages at the beginning: more than the queue of a subscription has room for, so that all
    /// of its memory is in use.
    #[arg(long, default_value_t = 25_000)]
    pub before: u32,
    /// Messages a second while it is watched.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Seconds before that: by and by the system takes more bytes for those who do not read, and
    /// the broker fills their outboxes again.
    #[arg(long, default_value_t = 10.0)]
    pub settle: f64,
    /// Seconds for which it is watched.
    #[arg(long, default_value_t = 15.0)]
    pub seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Stage and bytes of memory at its end.
    pub stages: Vec<(&'static str, u64)>,
    /// Bytes of memory, look by look, while the publisher goes on.
    pub looks: Vec<u64>,
    /// Median latency of a subscriber that reads, in microseconds, meanwhile, and its 99 %.
    pub latency_us: [f64; 2],
    /// Milliseconds from the first read of one that stood still to its marker.
    pub caught_up_ms: f64,
    /// Messages that it got, and that it was told were dropped.
    pub late: [u64; 2],
}

impl Outcome {
    /// How much the memory grew while the publisher went on, in per cent.
    pub fn growth(&self) -> f64 {
        let first = self.looks.first().copied().unwrap_or_default().max(1);
        let most = self.looks.iter().copied().max().unwrap_or_default();
        (most as f64 / first as f64 - 1.0) * 100.0
    }
}

/// Who is at which index.
#[derive(Clone, Copy)]
enum Who {
    /// Publishes values that are kept.
    Keeper,
    /// Publishes messages.
    Publisher,
    /// Reads these messages.
    Witness,
    /// The first of those that do not read.
    Stalled,
}

/// What came.
struct State {
    accepted: u32,
    sent: u32,
    witnessed: u32,
    left: Vec<std::time::Instant>,
    latency: hdrhistogram::Histogram<u64>,
    /// Of the one that reads at last: which values it has.
    has: Vec<bool>,
    values: u32,
    marker: Option<u64>,
    late: u64,
    late_last: u32,
    dropped: u64,
}

impl State {
    fn take(&mut self, index: usize, what: &What, bytes: &[u8]) -> Result<(), String> {
        match what {
            What::Published(_) => self.accepted += 1,
            What::Message(message) if index == Who::Witness as usize => {
                let number = self.witnessed + 1;
                let payload = Payload { conn: LIVE, number, size: SIZE };
                if message.dropped > 0 || !payload.is(&bytes[message.payload.clone()]) {
                    return Err(format!("who reads did not get message {number}"));
                }
                self.witnessed = number;
                let left = self.left[number as usize % self.left.len()];
                self.latency.saturating_record(clock::nanos(left, clock::now()).max(1));
            }
            What::Message(message) => self.late(message, bytes)?,
            What::CaughtUp { kept, dropped } if index == Who::Stalled as usize => {
                self.marker = Some(*kept);
                self.dropped += dropped;
            }
            _ => {}
        }
        Ok(())
    }

    /// A message to one that stood still.
    fn late(&mut self, message: &Message, bytes: &[u8]) -> Result<(), String> {
        self.dropped += u64::from(message.dropped);
        let body = &bytes[message.payload.clone()];
        let number = Payload::number_in(body).unwrap_or_default();
        if !message.is_kept {
            self.late += 1;
            let is_after = self.marker.is_some() && number > self.late_last;
            self.late_last = number;
            return if is_after { Ok(()) } else { Err("a message before the marker".into()) };
        }
        let is_right = Payload { conn: 0, number, size: SIZE }.is(body)
            && bytes[message.topic.clone()] == *topic(number).as_bytes();
        let slot = self.has.get_mut(number as usize).filter(|has| !**has && is_right);
        *slot.ok_or_else(|| format!("value {number} came twice, or is another one"))? = true;
        self.values += 1;
        Ok(())
    }
}

fn topic(number: u32) -> String {
    format!("kept.area{}.item{number}", number % 97)
}

struct Course<'a> {
    conns: Conns,
    state: State,
    pid: u32,
    stop: &'a Stop,
}

impl Course<'_> {
    fn turn(&mut self) -> Result<(), String> {
        self.stop.check()?;
        let state = &mut self.state;
        self.conns.turn(&mut |index, what, bytes: &[u8]| state.take(index, &what, bytes))
    }

    /// Publishes all values that are kept.
    fn keep(&mut self, values: u32) -> Result<(), String> {
        let (end, mut sent) = (clock::now() + LIMIT * 2, 0);
        while self.state.accepted < values {
            while sent < values && sent - self.state.accepted < WINDOW {
                let payload = Payload { conn: 0, number: sent, size: SIZE };
                self.conns.publish(Who::Keeper as usize, &topic(sent), payload);
                sent += 1;
            }
            if clock::now() > end {
                return Err(format!("only {} values are accepted", self.state.accepted));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn publish(&mut self, left: std::time::Instant) {
        self.state.sent += 1;
        let number = self.state.sent;
        let slot = number as usize % self.state.left.len();
        self.state.left[slot] = left;
        let payload = Payload { conn: LIVE, number, size: SIZE };
        self.conns.publish(Who::Publisher as usize, &format!("live.{}", number % 97), payload);
    }

    /// Publishes so many messages as fast as the one that reads gets them.
    fn burst(&mut self, count: u32) -> Result<(), String> {
        let (end, last) = (clock::now() + LIMIT * 2, self.state.sent + count);
        while self.state.witnessed < last {
            while self.state.sent < last && self.state.sent - self.state.witnessed < WINDOW {
                self.publish(clock::now());
            }
            if clock::now() > end {
                return Err(format!("who reads has only {} messages", self.state.witnessed));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Publishes at a rate until it is enough; `look` is asked after each turn.
    fn go_on(
        &mut self,
        rate: u64,
        mut look: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        self.conns.begin(rate)?;
        while !look(self)? {
            let now = clock::now();
            while let Some((_, meant)) = self.conns.next_due(now) {
                self.publish(meant);
            }
            self.turn()?;
        }
        self.conns.begin(0)
    }

    /// Publishes at the rate and looks at the memory.
    fn watch(&mut self, rate: u64, span: Duration) -> Result<Vec<u64>, String> {
        let (begun, mut next) = (clock::now(), clock::now());
        let mut looks = Vec::new();
        self.go_on(rate, |course| {
            let now = clock::now();
            if now >= next {
                looks.push(usage::rss_bytes(course.pid)?);
                next += LOOK;
            }
            Ok(now >= begun + span)
        })?;
        Ok(looks)
    }

    /// One of those that stood still reads, while the publisher goes on; milliseconds to its
    /// marker.
    fn read(&mut self, rate: u64) -> Result<f64, String> {
        let begun = clock::now();
        let index = Who::Stalled as usize;
        let state = &mut self.state;
        let mut each = |index: usize, what: What, bytes: &[u8]| state.take(index, &what, bytes);
        if !self.conns.resume(index, &mut each)? {
            return Err("the broker closed the one that did not read".into());
        }
        let mut took = None;
        self.go_on(rate, |course| {
            let now = clock::now();
            if now > begun + READ_LIMIT {
                return Err(format!(
                    "who reads at last has {} values after {} s",
                    course.state.values,
                    READ_LIMIT.as_secs()
                ));
            }
            if course.state.marker.is_some() && took.is_none() {
                took = Some(now - begun);
            }
            Ok(took.is_some_and(|took| now > begun + took + Duration::from_millis(500)))
        })?;
        let end = clock::now() + LIMIT;
        while self.state.late_last != self.state.sent {
            if clock::now() > end {
                return Err("who reads at last did not get the last message".into());
            }
            self.turn()?;
        }
        Ok(took.unwrap_or_default().as_secs_f64() * 1000.0)
    }
}

/// Measures isectd.
///
/// # Errors
/// Something failed, a value was missing, the count was wrong, or memory grew.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Outcome, String> {
    let mut setup = setup.clone();
    setup.set.extend(["stall_ms=3600000".to_owned(), format!("retained_max={}", trial.values)]);
    let alone = Hub::Isect.start(&setup)?;
    let pid = alone.process.pid();
    let mut conns = Conns::new()?;
    let protocol = |index: usize| -> Box<dyn TopicProtocol> {
        let retains = index == Who::Keeper as usize;
        Box::new(Isect::retaining(retains))
    };
    conns.add(&alone.endpoint, Who::Stalled as usize + trial.stalled, &protocol, stop)?;
    let state = State {
        accepted: 0,
        sent: 0,
        witnessed: 0,
        left: vec![clock::now(); 8192],
        latency: super::histogram()?,
        has: vec![false; trial.values as usize],
        values: 0,
        marker: None,
        late: 0,
        late_last: 0,
        dropped: 0,
    };
    let mut course = Course { conns, state, pid, stop };
    let mut outcome = Outcome::default();
    let mut note = |name| {
        let bytes = usage::rss_bytes(pid)?;
        say(&format!("{name}: {:.1} MiB", bytes as f64 / 1_048_576.0));
        outcome.stages.push((name, bytes));
        Ok::<(), String>(())
    };
    note("alone")?;
    course.keep(trial.values)?;
    note("values kept")?;
    course.conns.subscribe(Who::Witness as usize, 1, "live.>");
    for index in 0..trial.stalled {
        course.conns.stop_reading(Who::Stalled as usize + index);
        course.conns.subscribe(Who::Stalled as usize + index, 1, ">");
    }
    // The subscriptions are made before the first message that is counted.
    let begun = clock::now();
    course.go_on(0, |_| Ok(clock::now() > begun + Duration::from_secs(2)))?;
    note("subscribers stopped")?;
    course.burst(trial.before)?;
    note("their queues are full")?;
    course.watch(trial.rate, seconds(trial.settle)?)?;
    note("settled")?;
    course.state.latency.reset();
    outcome.looks = course.watch(trial.rate, seconds(trial.seconds)?)?;
    outcome.latency_us = super::p50_p99(&course.state.latency);
    let mut note = |name| usage::rss_bytes(pid).map(|bytes| outcome.stages.push((name, bytes)));
    note("watched")?;
    let caught_up_ms = course.read(trial.rate)?;
    note("one has read")?;
    outcome.caught_up_ms = caught_up_ms;
    let State { values, marker, late, dropped, sent, .. } = course.state;
    outcome.late = [late, dropped];
    if values != trial.values || marker != Some(u64::from(trial.values)) {
        return Err(format!("it got {values} values of {}; the marker: {marker:?}", trial.values));
    }
    if late + dropped != u64::from(sent) {
        return Err(format!("{late} messages and {dropped} dropped are not the {sent} sent"));
    }
    Ok(outcome)
}

/// The result for people.
///
/// # Errors
/// Memory grew; the text is in the error.
pub fn render(outcome: &Outcome) -> Result<String, String> {
    let mut out = String::new();
    for (name, bytes) in &outcome.stages {
        let _ = writeln!(out, "{name:<24}{:>9.1} MiB", *bytes as f64 / 1_048_576.0);
    }
    let [late, dropped] = outcome.late;
    let [p50, p99] = outcome.latency_us;
    let _ = writeln!(
        out,
        "while the publisher went on memory grew by {:.1} % ({} looks); who read had p50 {p50:.0} \
         µs, p99 {p99:.0} µs\none that stood still had all values and its marker after {:.0} ms, \
         then {late} messages, and {dropped} counted as dropped",
        outcome.growth(),
        outcome.looks.len(),
        outcome.caught_up_ms
    );
    if outcome.growth() > GROWTH_MAX {
        return Err(format!("{out}memory grew by more than {GROWTH_MAX} %"));
    }
    Ok(out)
}

/// Everything, for machines.
pub fn json(outcome: &Outcome) -> Value {
    let stages: serde_json::Map<String, Value> =
        outcome.stages.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect();
    json!({
        "rss_bytes": stages, "looks": outcome.looks, "growth_percent": outcome.growth(),
        "latency_us": outcome.latency_us, "caught_up_ms": outcome.caught_up_ms,
        "late": outcome.late[0], "dropped": outcome.late[1],
    })
}
