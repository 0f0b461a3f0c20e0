//! A run with real processes about topics and instances: publishers, subscribers that come back
//! where they were, some of which read slowly, and programs that beat, hang and die, while the
//! broker is killed, stopped and started again, and connections break. What they saw is findings by
//! `bus_checker`.

use super::bus_checker::{Seen, Sent as Published, check};
use super::clock::{Clock, pause};
use super::conn::{Conn, Endpoint, Received, Sent};
use super::programs::{self, Lived, SeenState};
use super::proxy::{CloseBy, ConnFault, Proxy};
use crate::proc::Broker;
use crate::sim::rng::Rng;
use nix::sys::signal::Signal;
use protocol::bodies::{Subscribe, Unsubscribe};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::messages::{MessageOf, Missing, Position};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Publishers, subscribers, programs.
const PUBLISHERS: u64 = 4;
const SUBSCRIBERS: u64 = 8;
const PROGRAMS: u64 = 6;
/// How long a connection may say nothing, with a ping under way, before it is given up.
const SILENCE: Duration = Duration::from_millis(2500);
/// How long everything may take to end when the faults are over.
const END: Duration = Duration::from_secs(30);

/// What all of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    endpoints: Vec<Endpoint>,
    /// Straight to the broker, for those who are findings by the time.
    pub(super) near: Endpoint,
    is_publishing: AtomicBool,
    /// Publishers that have all their answers.
    done: AtomicU64,
    published: Mutex<Vec<Published>>,
    seen: Mutex<Vec<Seen>>,
    pub(super) told: Mutex<Vec<SeenState>>,
    pub(super) silences: Mutex<Vec<Lived>>,
    /// When the state messages could be seen: from, until.
    pub(super) watched: Mutex<Vec<(u64, u64)>>,
    pub(super) strays: Mutex<Vec<String>>,
}

impl Shared {
    /// Whether publishers, programs and the watcher still go on.
    pub(super) fn is_live(&self) -> bool {
        self.is_publishing.load(Ordering::Acquire)
    }

    /// Writes down something that must not be.
    pub(super) fn stray(&self, text: String) {
        self.strays.lock().expect("no panic").push(text);
    }

    fn endpoint(&self, rng: &mut Rng) -> &Endpoint {
        &self.endpoints[rng.index(self.endpoints.len())]
    }
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// In words; empty = all promises were kept.
    pub violations: Vec<String>,
    /// How often what happened.
    pub figures: BTreeMap<&'static str, u64>,
}

/// Runs for so many seconds of faults.
pub fn run(seed: u64, seconds: u64) -> Report {
    let clock = Clock::start();
    let settings = ["topic_queue_max=100", "topic_ring_max=3000", "outbox_bytes_high=16384"];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let mut broker = Broker::start(&[args, vec!["--log", "info"]].concat());
    let address = broker.port("client").parse().expect("an address");
    let proxy = Proxy::start(address, clock, seed);
    let unix = broker.port("client_unix");
    let near = Endpoint::Unix(PathBuf::from(unix.trim_start_matches("unix:")));
    let through = Endpoint::Proxy(proxy.address);
    let shared = Shared {
        clock,
        endpoints: vec![through.clone(), through, Endpoint::Tcp(address), near.clone()],
        near,
        is_publishing: AtomicBool::new(true),
        done: AtomicU64::new(0),
        published: Mutex::default(),
        seen: Mutex::default(),
        told: Mutex::default(),
        silences: Mutex::default(),
        watched: Mutex::default(),
        strays: Mutex::default(),
    };
    let mut report = Report::default();
    let mut standstills = Vec::new();
    std::thread::scope(|scope| {
        let shared = &shared;
        let end = End(shared);
        for number in 0..PUBLISHERS {
            let rng = Rng::new(seed.wrapping_mul(77) + number);
            scope.spawn(move || publish(shared, number, rng));
        }
        for number in 0..SUBSCRIBERS {
            let rng = Rng::new(seed.wrapping_mul(177) + number);
            scope.spawn(move || Subscriber::new(number).run(shared, rng));
        }
        for number in 0..PROGRAMS {
            let rng = Rng::new(seed.wrapping_mul(277) + number);
            scope.spawn(move || programs::run(shared, number, rng));
        }
        scope.spawn(|| programs::watch(shared));
        let mut faults = Rng::new(seed);
        proxy.set_impaired(300);
        while clock.now() < seconds * 1_000_000 {
            strike(&mut broker, &proxy, &mut faults, (clock, &mut standstills), &mut report);
            pause(Duration::from_millis(faults.between(50, 400)));
        }
        proxy.set_impaired(0);
        proxy.heal();
        drop(end);
    });
    assert_eq!(broker.end(), 0);
    check_all(shared, &standstills, &mut report);
    report
}

/// All that was seen is findings.
fn check_all(shared: Shared, standstills: &[(u64, u64)], report: &mut Report) {
    report.violations = shared.strays.into_inner().expect("no panic");
    let published = shared.published.into_inner().expect("no panic");
    let seen = shared.seen.into_inner().expect("no panic");
    let told = shared.told.into_inner().expect("no panic");
    let silences = shared.silences.into_inner().expect("no panic");
    let watched = shared.watched.into_inner().expect("no panic");
    let count = |state: &str| told.iter().filter(|told| told.state == state).count() as u64;
    let findings = programs::check(&told, &silences, &watched, standstills);
    report.figures.extend([
        ("published", published.len() as u64),
        ("got", seen.iter().map(|seen| seen.got.len() as u64).sum()),
        ("dropped", seen.iter().map(|seen| seen.dropped).sum()),
        ("pauses", seen.iter().map(|seen| seen.pauses).sum()),
        ("changes of states", told.len() as u64),
        ("told to be timed out", count("timed out")),
        ("told to have ended", count("ended")),
        ("instances", silences.len() as u64),
        ("silences that were noticed", findings.noticed),
    ]);
    report.violations.extend(check(&published, &seen));
    report.violations.extend(findings.violations);
}

/// Everybody ends, also when the run fails.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_publishing.store(false, Ordering::Release);
    }
}

/// One fault; the broker stands still or is gone in the spans that it adds.
fn strike(
    broker: &mut Broker,
    proxy: &Proxy,
    rng: &mut Rng,
    (clock, standstills): (Clock, &mut Vec<(u64, u64)>),
    report: &mut Report,
) {
    let from = clock.now();
    let name = match rng.below(16) {
        0 => {
            broker.kill();
            broker.restart();
            standstills.push((from, clock.now()));
            "broker killed and started again"
        }
        1 | 2 => {
            broker.process.signal(Signal::SIGSTOP);
            pause(Duration::from_millis(rng.between(20, 2000)));
            broker.process.signal(Signal::SIGCONT);
            standstills.push((from, clock.now()));
            "broker stopped and continued"
        }
        3..=8 => {
            let how = rng.pick(&[CloseBy::Fin, CloseBy::Rst]);
            proxy.inject(rng.bits(), ConnFault::Close(how));
            "connection closed"
        }
        9..=11 => {
            let span = Duration::from_millis(rng.between(50, 1500));
            proxy.inject(rng.bits(), ConnFault::Stall(rng.hits(500), Some(span)));
            "connection stalled"
        }
        _ => {
            proxy.inject(rng.bits(), ConnFault::HalfOpen);
            "connection half-opened"
        }
    };
    *report.figures.entry(name).or_default() += 1;
}

/// Publishes numbered messages to a topic of its own until the faults are over.
fn publish(shared: &Shared, number: u64, mut rng: Rng) {
    let topic = format!("load.{number}");
    let (mut count, mut next_at) = (0, 0);
    while shared.is_live() {
        let conn = Conn::open(shared.endpoint(&mut rng), None, shared.clock).ok();
        let Some(mut conn) = conn.and_then(|conn| conn.log_in("bus", (true, false), None).ok())
        else {
            pause(Duration::from_millis(20));
            continue;
        };
        let mut open: BTreeMap<u32, u64> = BTreeMap::new();
        let mut heard = shared.clock.now();
        loop {
            if !shared.is_live() && open.is_empty() {
                break;
            }
            if shared.is_live() && open.len() < 200 && shared.clock.now() >= next_at {
                next_at = shared.clock.now() + rng.between(200, 3000);
                count += 1;
                let mut payload = format!("{count} ").into_bytes();
                payload.resize(payload.len() + rng.index(3000), b'.');
                let sequence = u32::try_from(count).unwrap_or(0);
                let head = Header { sequence, reply: 1, ..Header::default() };
                let body = MessageOf::new(&topic, &payload).body();
                open.insert(sequence, count);
                if conn.send(Frame::Publish { head, body }) != Sent::Whole {
                    break;
                }
            }
            match conn.next(Duration::from_micros(rng.below(2500))) {
                Received::Frame(frame, _) => {
                    heard = shared.clock.now();
                    match frame {
                        Frame::Published(said) => {
                            let Some(count) = open.remove(&said.publish) else {
                                shared.stray(format!("{said:?} for nothing"));
                                continue;
                            };
                            let sent = Published { publisher: number, count, at: said.at };
                            shared.published.lock().expect("no panic").push(sent);
                        }
                        Frame::Ping { sequence } => {
                            let _ = conn.send(Frame::Pong { sequence });
                        }
                        Frame::Error { head, error } if head.sequence != 0 => {
                            shared.stray(format!("a publisher is told {error:?}"));
                        }
                        _ => {}
                    }
                }
                Received::Nothing => {}
                Received::Lost => break,
            }
            if shared.clock.now() > heard + 2 * SILENCE.as_micros() as u64 {
                break;
            }
        }
    }
    shared.done.fetch_add(1, Ordering::AcqRel);
}

/// A subscriber, over all its connections.
struct Subscriber {
    seen: Seen,
    /// Counters of publishers, so that their order is kept.
    counts: BTreeMap<u64, u64>,
    /// What was told to be dropped in the present subscription, and how many messages came.
    here: (u64, u64),
    /// All from before came in the present subscription: what it is not sent now, is counted.
    has_caught_up: bool,
    is_done: bool,
}

impl Subscriber {
    fn new(number: u64) -> Self {
        Self {
            seen: Seen { subscriber: number, ..Seen::default() },
            counts: BTreeMap::new(),
            here: (0, 0),
            has_caught_up: false,
            is_done: false,
        }
    }

    fn run(mut self, shared: &Shared, mut rng: Rng) {
        let is_slow = self.seen.subscriber % 2 == 1;
        let mut end = u64::MAX;
        while !self.is_done {
            if !shared.is_live() && end == u64::MAX {
                end = shared.clock.now() + END.as_micros() as u64;
            }
            if shared.clock.now() > end {
                shared.stray(format!("subscriber {} comes to no end", self.seen.subscriber));
                break;
            }
            let conn = Conn::open(shared.endpoint(&mut rng), None, shared.clock).ok();
            match conn.and_then(|conn| conn.log_in("bus", (true, false), None).ok()) {
                Some(conn) => self.follow(shared, conn, (&mut rng, is_slow)),
                None => pause(Duration::from_millis(20)),
            }
        }
        shared.seen.lock().expect("no panic").push(self.seen);
    }

    /// One connection, until it ends or all was got.
    fn follow(&mut self, shared: &Shared, mut conn: Conn, (rng, is_slow): (&mut Rng, bool)) {
        let from = self.seen.is_begun().then_some(self.seen.last);
        let pattern = "load.*".to_owned();
        let subscribe = Subscribe { subscription: 1, pattern, from, retained: false };
        (self.here, self.has_caught_up) = ((0, 0), false);
        self.seen.pauses += 1;
        if conn.send(Frame::Subscribe(subscribe)) != Sent::Whole {
            return;
        }
        let mut heard = shared.clock.now();
        let mut has_left = false;
        let mut is_pinged = false;
        loop {
            if is_slow && shared.is_live() && rng.hits(2) {
                pause(Duration::from_millis(rng.between(50, 1500)));
                heard = shared.clock.now();
            }
            let is_time = shared.done.load(Ordering::Acquire) == PUBLISHERS && self.has_caught_up;
            if is_time && !std::mem::replace(&mut has_left, true) {
                let _ = conn.send(Frame::Unsubscribe(Unsubscribe { subscription: 1 }));
            }
            match conn.next(Duration::from_millis(20)) {
                Received::Frame(frame, _) => {
                    heard = shared.clock.now();
                    is_pinged = false;
                    if let Err(why) = self.hears(&mut conn, frame) {
                        shared.stray(format!("subscriber {}: {why}", self.seen.subscriber));
                    }
                }
                Received::Nothing => {}
                Received::Lost => return,
            }
            let silent = Duration::from_micros(shared.clock.now() - heard);
            if silent > SILENCE / 4 && !is_pinged {
                is_pinged = true;
                let _ = conn.send(Frame::Ping { sequence: 1 });
            }
            if self.is_done || silent > SILENCE {
                return;
            }
        }
    }

    fn hears(&mut self, conn: &mut Conn, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Subscribed(said) => match said.missing {
                None if self.seen.is_begun() => {}
                Some(Missing::Numbers(first, last)) => self.seen.missing.push((first, last)),
                None | Some(Missing::Epoch) => self.begins(said.at),
            },
            Frame::CaughtUp(said) => {
                self.has_caught_up = true;
                self.drops(said.dropped);
            }
            Frame::Message { head, body } => return self.gets(&head, &body),
            Frame::Ping { sequence } => {
                let _ = conn.send(Frame::Pong { sequence });
            }
            Frame::Unsubscribed(said) => {
                self.is_done = true;
                let (delivered, dropped) = self.here;
                if said.delivered != delivered || said.dropped < dropped {
                    return Err(format!("{said:?}, but {delivered} came and {dropped} were told"));
                }
                self.seen.dropped += said.dropped - dropped;
            }
            Frame::Error { head, error } if head.sequence != 0 => {
                return Err(format!("is told {error:?}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// It begins anew: the broker was started since.
    fn begins(&mut self, at: Position) {
        self.counts.clear();
        self.seen.begins(at);
    }

    fn drops(&mut self, count: u64) {
        self.seen.dropped += count;
        self.here.1 += count;
    }

    fn gets(&mut self, head: &Header, body: &[u8]) -> Result<(), String> {
        self.here.0 += 1;
        self.drops(head.attempt.into());
        let text = String::from_utf8_lossy(body);
        let publisher = text.strip_prefix("topic load.").and_then(|text| text.lines().next());
        let count = text.split("\n\n").nth(1).and_then(|payload| payload.split(' ').next());
        let (Some(publisher), Some(count)) = (
            publisher.and_then(|word| word.parse::<u64>().ok()),
            count.and_then(|word| word.parse::<u64>().ok()),
        ) else {
            return Err(format!("a message of nobody: {:?}", &text[..text.len().min(60)]));
        };
        // What the ring of a broker that was started since has is older than its answer.
        if head.more != 0 && head.transaction <= self.seen.since.number {
            return Ok(());
        }
        let before = self.counts.insert(publisher, count);
        if before.is_some_and(|before| before >= count) {
            return Err(format!("{count} of publisher {publisher} comes after {before:?}"));
        }
        self.seen.takes(head.transaction, publisher, count)
    }
}
