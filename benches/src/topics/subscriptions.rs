//! Very many subscriptions with patterns that are made once, and changes of them at a rate while a
//! publisher goes on: the latency of changes and of messages, the broker's processor time and its
//! memory for each subscription.

use super::{Conns, LIMIT, histogram, p50_p99, seconds};
use crate::clock;
use crate::payload::Payload;
use crate::peers::{Hub, Setup};
use crate::protocols::topics::What;
use crate::round::say;
use crate::stop::Stop;
use crate::usage;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// What the subscriber that is measured beside them subscribes to.
const WATCHED: &str = "bench.watched";
/// Bytes of a message.
const SIZE: usize = 64;
/// Messages on their way whose beginning is remembered.
const RING: usize = 4096;
/// Subscriptions that are made at a time, of one connection.
const AT_ONCE: u32 = 500;

/// The parameters of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// Peers that publish, with commas between them; redis has no patterns of words.
    #[arg(long, value_delimiter = ',', default_value = "isect,nats")]
    pub peers: Vec<Hub>,
    /// Subscriptions in all.
    #[arg(long, default_value_t = 200_000)]
    pub subscriptions: u32,
    /// Connections that have them; `subscriptions_max` bounds those of one.
    #[arg(long, default_value_t = 20)]
    pub connections: u32,
    /// Changes a second; each ends a subscription and makes another one.
    #[arg(long, default_value_t = 10_000)]
    pub changes: u64,
    /// Messages a second.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Seconds of each of the two measurements: without changes, with them.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Processor time of the broker, in per cent of a core.
    pub cpu_percent: f64,
    /// Median and 99 % of a message, in microseconds.
    pub message_us: [f64; 2],
    /// Median and 99 % of a change, in microseconds.
    pub change_us: [f64; 2],
    /// Changes a second.
    pub changes: f64,
    /// Messages of the one-off patterns that came, besides those of the watched topic.
    pub matched: u64,
}

/// What was measured of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The peer.
    pub hub: Hub,
    /// Bytes of memory for a subscription.
    pub bytes: f64,
    /// Seconds in which all were made.
    pub made_s: f64,
    /// Without changes.
    pub quiet: Part,
    /// With them.
    pub changing: Part,
    /// Memory at the end of the changes, to that before them.
    pub grown: f64,
}

/// A pattern that no other subscription has; each fifth has a wildcard.
fn pattern(number: u32) -> String {
    let area = number % 211;
    match number % 10 {
        0 => format!("area{area}.*.item{number}"),
        5 => format!("area{area}.item{number}.>"),
        _ => format!("area{area}.item{number}.state"),
    }
}

/// A topic that the pattern of this number matches.
fn topic(number: u32) -> String {
    let area = number % 211;
    match number % 10 {
        0 => format!("area{area}.any.item{number}"),
        _ => format!("area{area}.item{number}.state"),
    }
}

/// Measures all peers.
///
/// # Errors
/// Something failed, or a message was lost.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for &hub in &trial.peers {
        stop.check()?;
        match hub.missing() {
            Some(why) => say(&format!("{hub}: skipped: {why}")),
            None => samples.push(one(trial, setup, hub, stop).map_err(|e| format!("{hub}: {e}"))?),
        }
    }
    Ok(samples)
}

fn one(trial: &Trial, setup: &Setup, hub: Hub, stop: &Stop) -> Result<Sample, String> {
    let alone = hub.start(setup)?;
    let pid = alone.process.pid();
    let count = trial.connections as usize;
    if trial.connections == 0 || trial.subscriptions < trial.connections {
        return Err("fewer subscriptions than connections, or none".into());
    }
    // The watcher and the publisher come after those who have the subscriptions.
    let conns = Conns::open((hub, &alone), count + 2, stop)?;
    let mut churn = Churn::new(conns, trial)?;
    let before = usage::rss_bytes(pid)?;
    let begun = clock::now();
    churn.fill(stop)?;
    let made_s = (clock::now() - begun).as_secs_f64();
    let rss = usage::rss_bytes(pid)?;
    say(&format!("{hub}: {} subscriptions in {made_s:.1} s", trial.subscriptions));
    let span = seconds(trial.seconds)?;
    let quiet = churn.go(pid, 0, span, stop)?;
    let changing = churn.go(pid, trial.changes, span, stop)?;
    let bytes = rss.saturating_sub(before) as f64 / f64::from(trial.subscriptions);
    let grown = usage::rss_bytes(pid)? as f64 / rss.max(1) as f64;
    Ok(Sample { hub, bytes, made_s, quiet, changing, grown })
}

/// A connection with subscriptions, whose numbers are consecutive: the oldest is ended first.
#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    oldest: u32,
    next: u32,
    /// Changes whose answers are to come.
    open: u32,
}

/// What goes on.
struct State {
    holders: Vec<Holder>,
    /// When the change with a number left, by connection.
    changed: Vec<Vec<Instant>>,
    published: Vec<Instant>,
    sent: u32,
    came: u32,
    matched: u64,
    changes: u64,
    message: Histogram<u64>,
    change: Histogram<u64>,
}

struct Churn {
    conns: Conns,
    state: State,
    each: u32,
    rate: u64,
}

impl State {
    fn take(&mut self, index: usize, what: &What, bytes: &[u8]) -> Result<(), String> {
        match what {
            What::Subscribed(number) if index < self.holders.len() => {
                let holder = &mut self.holders[index];
                holder.open -= 1;
                let began = self.changed[index][*number as usize % RING];
                self.change.saturating_record(clock::nanos(began, clock::now()).max(1));
                self.changes += 1;
            }
            What::Message(message) if message.dropped > 0 => {
                return Err(format!("{} messages to connection {index} dropped", message.dropped));
            }
            What::Message(message) if index == self.holders.len() => {
                let number = self.came + 1;
                let payload = Payload { conn: 0, number, size: SIZE };
                if !payload.is(&bytes[message.payload.clone()]) {
                    return Err(format!("the watcher got another message than {number}"));
                }
                self.came = number;
                let left = self.published[number as usize % RING];
                self.message.saturating_record(clock::nanos(left, clock::now()).max(1));
            }
            What::Message(_) => self.matched += 1,
            _ => {}
        }
        Ok(())
    }
}

impl Churn {
    fn new(conns: Conns, trial: &Trial) -> Result<Self, String> {
        let count = trial.connections as usize;
        let now = clock::now();
        let state = State {
            holders: vec![Holder { oldest: 1, next: 1, open: 0 }; count],
            changed: vec![vec![now; RING]; count],
            published: vec![now; RING],
            sent: 0,
            came: 0,
            matched: 0,
            changes: 0,
            message: histogram()?,
            change: histogram()?,
        };
        let each = trial.subscriptions / trial.connections;
        Ok(Self { conns, state, each, rate: trial.rate })
    }

    /// The number of a pattern among all connections.
    fn unique(&self, index: usize, number: u32) -> u32 {
        number * self.state.holders.len() as u32 + index as u32
    }

    fn subscribe(&mut self, index: usize, left: Instant) {
        let number = self.state.holders[index].next;
        let text = pattern(self.unique(index, number));
        let holder = &mut self.state.holders[index];
        holder.next += 1;
        holder.open += 1;
        self.state.changed[index][number as usize % RING] = left;
        self.conns.subscribe(index, number, &text);
    }

    /// Makes all subscriptions.
    fn fill(&mut self, stop: &Stop) -> Result<(), String> {
        let watcher = self.state.holders.len();
        self.conns.subscribe(watcher, 1, WATCHED);
        let end = clock::now() + LIMIT * 4;
        loop {
            let mut is_done = true;
            for index in 0..watcher {
                while self.state.holders[index].next <= self.each
                    && self.state.holders[index].open < AT_ONCE
                {
                    self.subscribe(index, clock::now());
                }
                let holder = self.state.holders[index];
                is_done &= holder.next > self.each && holder.open == 0;
            }
            if is_done {
                return Ok(());
            }
            stop.check()?;
            if clock::now() > end {
                return Err(format!("not all subscriptions after {} s", LIMIT.as_secs() * 4));
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        let state = &mut self.state;
        self.conns.turn(&mut |index, what, bytes: &[u8]| state.take(index, &what, bytes))
    }

    /// Publishes at the rate for so long, and changes subscriptions at another.
    fn go(&mut self, pid: u32, changes: u64, span: Duration, stop: &Stop) -> Result<Part, String> {
        self.state.message.reset();
        self.state.change.reset();
        (self.state.changes, self.state.matched) = (0, 0);
        let before = usage::cpu_nanos(pid)?;
        let begun = clock::now();
        // One schedule for both: `every` of its moments is one of the other kind.
        let total = (changes + self.rate).max(1);
        let first = self.state.sent;
        self.conns.begin(total)?;
        let mut owed = 0;
        loop {
            let now = clock::now();
            if now >= begun + span {
                break;
            }
            stop.check()?;
            while let Some((number, meant)) = self.conns.next_due(now) {
                owed += self.rate;
                if owed >= total {
                    owed -= total;
                    self.publish(meant);
                } else if changes > 0 {
                    self.change(number, meant);
                }
            }
            self.turn()?;
        }
        let took = clock::now() - begun;
        let cpu = usage::cpu_nanos(pid)?.saturating_sub(before);
        self.conns.begin(0)?;
        self.conns.until(
            ("the last answers", LIMIT),
            &mut self.state,
            |_, state| {
                let open = state.holders.iter().any(|holder| holder.open > 0);
                // Where nothing changes, each message has exactly one other subscriber.
                let missing = changes == 0 && state.matched != u64::from(state.sent - first);
                stop.check().map(|()| !open && !missing && state.came == state.sent)
            },
            |state, index, what, bytes| state.take(index, &what, bytes),
        )?;
        Ok(Part {
            cpu_percent: cpu as f64 / took.as_nanos() as f64 * 100.0,
            message_us: p50_p99(&self.state.message),
            change_us: p50_p99(&self.state.change),
            changes: self.state.changes as f64 / took.as_secs_f64(),
            matched: self.state.matched,
        })
    }

    /// A message to the watcher, and one to some other subscription.
    fn publish(&mut self, meant: Instant) {
        self.state.sent += 1;
        let number = self.state.sent;
        self.state.published[number as usize % RING] = meant;
        let publisher = self.state.holders.len() + 1;
        let payload = Payload { conn: 0, number, size: SIZE };
        self.conns.publish(publisher, WATCHED, payload);
        let index = number as usize % self.state.holders.len();
        // The newest: no change ends it soon.
        let newest = self.state.holders[index].next - 1;
        let topic = topic(self.unique(index, newest));
        self.conns.publish(publisher, &topic, payload);
    }

    /// Ends the oldest subscription of a connection, and makes a new one.
    fn change(&mut self, number: u64, meant: Instant) {
        let index = (number % self.state.holders.len() as u64) as usize;
        let holder = &mut self.state.holders[index];
        let oldest = holder.oldest;
        holder.oldest += 1;
        self.conns.write(index, |protocol, out| protocol.unsubscribe(oldest, out));
        self.subscribe(index, meant);
    }
}

/// The table for people.
pub fn render(samples: &[Sample]) -> String {
    let mut out = format!(
        "{:<12}{:>9}{:>9}{:>10}{:>10}{:>12}{:>9}{:>10}{:>10}{:>10}{:>10}{:>9}\n",
        "peer",
        "bytes",
        "made s",
        "quiet cpu",
        "p99 µs",
        "changes/s",
        "cpu",
        "p50 µs",
        "p99 µs",
        "msg p50",
        "msg p99",
        "memory"
    );
    for Sample { hub, bytes, made_s, quiet, changing, grown } in samples {
        let _ = writeln!(
            out,
            "{:<12}{:>9.0}{:>9.2}{:>9.1}%{:>10.0}{:>12.0}{:>8.1}%{:>10.0}{:>10.0}{:>10.0}{:>10.0}\
             {:>8.2}×",
            hub,
            bytes,
            made_s,
            quiet.cpu_percent,
            quiet.message_us[1],
            changing.changes,
            changing.cpu_percent,
            changing.change_us[0],
            changing.change_us[1],
            changing.message_us[0],
            changing.message_us[1],
            grown
        );
    }
    out
}

/// Everything, for machines.
pub fn json(samples: &[Sample]) -> Value {
    let part = |part: &Part| {
        json!({
            "cpu_percent": part.cpu_percent, "message_us": part.message_us,
            "change_us": part.change_us, "changes_per_s": part.changes, "matched": part.matched,
        })
    };
    let all: Vec<Value> = samples
        .iter()
        .map(|s| {
            json!({
                "peer": s.hub.to_string(), "bytes_per_subscription": s.bytes, "made_s": s.made_s,
                "quiet": part(&s.quiet), "changing": part(&s.changing), "grown": s.grown,
            })
        })
        .collect();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::topics::Pattern;

    #[test]
    fn each_pattern_matches_its_topic_and_no_other() {
        for number in 0..2000 {
            let pattern = Pattern::new(&pattern(number)).unwrap();
            assert!(pattern.matches(&topic(number)), "{pattern}");
            assert!(!pattern.matches(&topic(number + 211 * 10)), "{pattern}");
        }
    }
}
