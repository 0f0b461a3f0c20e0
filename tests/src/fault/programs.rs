//! Programs with instances in a run with faults: they beat, hang and die. A watcher sees what is
//! told of them, and `check` says whether that was true and in time.

use super::bus::Shared;
use super::clock::pause;
use super::conn::{Conn, Received, Sent};
use crate::sim::rng::Rng;
use protocol::bodies::{Announce, Beat, Subscribe};
use protocol::frame::Frame;
use protocol::instances::{BeatOf, InstanceState, InstanceType};
use protocol::lines::Lines;
use protocol::messages::MessageLines;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Instances of one program.
const EACH: u64 = 5;
/// How long an instance may be silent.
const TIMEOUT_US: u64 = 1_000_000;
/// Time between two beats.
const BEAT: Duration = Duration::from_millis(250);
/// How late a time-out or an end may be told, and what a loaded machine adds.
const LATE_US: u64 = 1_000_000 + 700_000;
/// So much may a gap between two beats be longer at the broker than at the program.
const JITTER_US: u64 = 100_000;

/// An instance, as its program knows it: each has an id of its own in the run.
#[derive(Clone, Debug)]
pub struct Lived {
    /// The id.
    pub id: u64,
    /// When its announce and its beats were sent.
    pub beats: Vec<u64>,
    /// When its program closed the connection; `None` = the broker did.
    pub closed: Option<u64>,
}

/// A state that was told.
#[derive(Clone, Debug)]
pub struct SeenState {
    /// The instance.
    pub id: u64,
    /// Its new state.
    pub state: String,
    /// Before this the watcher had looked, and it was not there.
    pub at: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// In words.
    pub violations: Vec<String>,
    /// How many silences and ends were noticed as they must be.
    pub noticed: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One program after another.
pub(super) fn run(shared: &Shared, number: u64, mut rng: Rng) {
    while shared.is_live() {
        let conn = Conn::open(&shared.near, None, shared.clock).ok();
        match conn.and_then(|conn| conn.log_in("bus", (false, false), None).ok()) {
            Some(conn) => live(shared, conn, (number, &mut rng)),
            None => pause(Duration::from_millis(20)),
        }
    }
}

fn announce(id: u64, number: u64) -> Frame {
    Frame::Announce(Announce {
        sequence: 1,
        name: format!("pump-{number}"),
        id,
        kind: InstanceType::Data,
        groups: vec!["night".to_owned()],
        activity_timeout_ms: TIMEOUT_US / 1000,
        stalled_ms: 0,
        state: InstanceState::Running,
        addresses: Vec::new(),
        meta: Vec::new(),
        state_names: Vec::new(),
    })
}

/// One connection of a program, until it dies or the broker does.
fn live(shared: &Shared, mut conn: Conn, (number, rng): (u64, &mut Rng)) {
    let clock = shared.clock;
    let mut all = Vec::new();
    let mut is_open = true;
    for _ in 0..EACH {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        is_open &= conn.send(announce(id, number)) == Sent::Whole;
        all.push(Lived { id, beats: vec![clock.now()], closed: None });
    }
    // One thread may hang alone.
    let stuck = rng.hits(300).then(|| rng.index(all.len()));
    let mut rounds = 0;
    let mut announced = 0;
    let rounds_max = rng.pick(&[4, 6, 20, 30]);
    while is_open && shared.is_live() && rounds < rounds_max {
        rounds += 1;
        let due = clock.now() + BEAT.as_micros() as u64;
        while let Some(wait) = due.checked_sub(clock.now()).filter(|wait| *wait > 0) {
            match conn.next(Duration::from_micros(wait)) {
                Received::Frame(Frame::Announced(_), _) => announced += 1,
                Received::Frame(Frame::BeatOk(ok), _) if ok.unknown.is_empty() => {}
                Received::Frame(Frame::Ping { sequence }, _) => {
                    let _ = conn.send(Frame::Pong { sequence });
                }
                Received::Frame(Frame::Error { head, .. }, _) if head.sequence == 0 => {}
                Received::Frame(Frame::End, _) | Received::Nothing => {}
                Received::Frame(other, _) => shared.stray(format!("a program got {other:?}")),
                Received::Lost => is_open = false,
            }
            if !is_open {
                break;
            }
        }
        if rng.hits(60) {
            pause(Duration::from_millis(rng.between(500, 4500)));
        }
        let beating = |at: usize| stuck != Some(at) || rounds < 4;
        let ids = all.iter().enumerate().filter(|(at, _)| beating(*at));
        let instances =
            ids.map(|(_, lived)| BeatOf { id: lived.id, checkpoint: rounds, is_idle: false });
        let beat = Beat { beat: 1, instances: instances.collect() };
        if is_open && announced == EACH {
            is_open = conn.send(Frame::Beat(beat)) == Sent::Whole;
            let now = clock.now();
            let beaten = all.iter_mut().enumerate().filter(|(at, _)| beating(*at));
            beaten.for_each(|(_, lived)| lived.beats.push(now));
        }
    }
    drop(conn);
    if is_open && announced == EACH {
        let now = clock.now();
        all.iter_mut().for_each(|lived| lived.closed = Some(now));
    }
    if announced == EACH {
        shared.silences.lock().expect("no panic").extend(all);
    }
}

/// Sees all states that are told, as long as the broker is there.
pub(super) fn watch(shared: &Shared) {
    while shared.is_live() {
        let conn = Conn::open(&shared.near, None, shared.clock).ok();
        let Some(mut conn) = conn.and_then(|conn| conn.log_in("bus", (false, false), None).ok())
        else {
            pause(Duration::from_millis(5));
            continue;
        };
        let pattern = "isect.state.>".to_owned();
        let subscribe = Subscribe { subscription: 1, pattern, from: None, retained: false };
        let _ = conn.send(Frame::Subscribe(subscribe));
        let mut from = None;
        while shared.is_live() {
            match conn.next(Duration::from_millis(50)) {
                Received::Frame(Frame::Subscribed(_), seen) => from = Some(seen.at),
                Received::Frame(Frame::Message { head, body }, seen) => {
                    if head.attempt > 0 {
                        shared.stray(format!("the watcher lost {} messages", head.attempt));
                    }
                    if let Some((id, state)) = read(&body) {
                        let told = SeenState { id, state, at: seen.looked };
                        shared.told.lock().expect("no panic").push(told);
                    }
                }
                Received::Frame(Frame::Ping { sequence }, _) => {
                    let _ = conn.send(Frame::Pong { sequence });
                }
                Received::Frame(..) | Received::Nothing => {}
                Received::Lost => break,
            }
        }
        let span = from.map(|from| (from, shared.clock.now()));
        shared.watched.lock().expect("no panic").extend(span);
    }
}

/// The instance that a message is about, and its state.
fn read(body: &[u8]) -> Option<(u64, String)> {
    let lines = MessageLines::read(body).ok()?;
    let payload = Lines::parse(&body[lines.payload_at..]).ok()?;
    Some((payload.get("id")?.parse().ok()?, payload.get("state")?.to_owned()))
}

/// Whether nobody was timed out who beat, and everybody told who did not, or was gone. `watched`
/// are the spans in which the watcher saw all, `stood` those in which the broker stood still.
pub fn check(
    told: &[SeenState],
    lived: &[Lived],
    watched: &[(u64, u64)],
    stood: &[(u64, u64)],
) -> Findings {
    let mut findings = Findings::default();
    let mut by_id: BTreeMap<u64, Vec<&SeenState>> = BTreeMap::new();
    for told in told {
        by_id.entry(told.id).or_default().push(told);
    }
    let excused = |from: u64, until: u64| -> u64 {
        let spans = stood.iter().map(|(a, b)| (*a.max(&from), *b.min(&until)));
        spans.map(|(a, b)| b.saturating_sub(a)).sum()
    };
    for lived in lived {
        let told = by_id.get(&lived.id).map(Vec::as_slice).unwrap_or_default();
        for told in told.iter().filter(|told| told.state == "timed out") {
            let before = lived.beats.iter().filter(|beat| **beat <= told.at);
            let mut before: Vec<u64> = before.copied().collect();
            before.push(told.at);
            let gap = before.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            // It was looked for a while ago, and told since.
            if gap + JITTER_US < TIMEOUT_US && told.at > lived.beats[0] {
                findings.violations.push(format!(
                    "{told:?}, but it beat every {gap} us at least: {:?}",
                    lived.beats
                ));
            }
        }
        let ends = lived.beats.iter().skip(1).copied().chain(lived.closed);
        for (from, until) in lived.beats.iter().copied().zip(ends) {
            let by = from + TIMEOUT_US + LATE_US;
            let by = by + excused(from, by + 5_000_000);
            if until > by {
                let is_told = |told: &&&SeenState| told.state == "timed out" && told.at >= from;
                let told = told.iter().find(is_told);
                findings.notice(told, (by, covers(watched, (from, by))), lived);
            }
        }
        if let Some(closed) = lived.closed {
            let by = closed + LATE_US + excused(closed, closed + LATE_US + 5_000_000);
            let told = told.iter().find(|told| told.state == "ended");
            findings.notice(told, (by, covers(watched, (closed, by))), lived);
        }
    }
    findings
}

fn covers(watched: &[(u64, u64)], (from, until): (u64, u64)) -> bool {
    watched.iter().any(|(a, b)| *a <= from && until <= *b)
}

impl Findings {
    /// What must be told by a time, if the watcher was there until then.
    fn notice(&mut self, told: Option<&&SeenState>, (by, is_watched): (u64, bool), lived: &Lived) {
        if told.is_some_and(|told| told.at <= by) {
            self.noticed += 1;
        } else if is_watched {
            self.violations.push(format!("told was {told:?}, due by {by}, of {lived:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lived(beats: &[u64], closed: Option<u64>) -> Lived {
        Lived { id: 1, beats: beats.to_vec(), closed }
    }

    fn told(state: &str, at: u64) -> SeenState {
        SeenState { id: 1, state: state.to_owned(), at }
    }

    const ALL: &[(u64, u64)] = &[(0, 90_000_000)];

    #[test]
    fn a_live_one_that_is_timed_out_is_found() {
        let steady = lived(&[1_000_000, 1_300_000, 1_600_000, 1_900_000, 2_200_000], None);
        let findings = check(&[told("timed out", 2_100_000)], &[steady], ALL, &[]);
        assert_eq!(findings.violations.len(), 1);
    }

    #[test]
    fn a_silent_one_must_be_told_in_time_unless_the_broker_stood_still() {
        let silent = [lived(&[1_000_000, 9_000_000], None)];
        assert_eq!(check(&[], &silent, ALL, &[]).violations.len(), 1);
        assert_eq!(check(&[told("timed out", 2_100_000)], &silent, ALL, &[]).noticed, 1);
        let late = [told("timed out", 5_000_000)];
        assert_eq!(check(&late, &silent, ALL, &[]).violations.len(), 1);
        assert_eq!(check(&late, &silent, ALL, &[(1_500_000, 4_000_000)]).noticed, 1);
        assert!(check(&[], &silent, &[(0, 2_000_000)], &[]).violations.is_empty());
    }

    #[test]
    fn one_that_is_gone_must_be_told() {
        let gone = [lived(&[1_000_000, 1_200_000], Some(1_300_000))];
        assert_eq!(check(&[], &gone, ALL, &[]).violations.len(), 1);
        assert_eq!(check(&[told("ended", 1_400_000)], &gone, ALL, &[]).noticed, 1);
    }
}
