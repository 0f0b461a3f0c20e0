//! The checker: reads the histories of clients and workers and reports broken promises. It is pure.
//! Its own tests are hand-made histories with one violation each, so that it is known to find them.

use super::history::{Asked, Begun, End, Got};
use super::proxy::{Incident, Kind};
use super::watch::Slow;
use protocol::errors::{ErrorCode, Ran};
use std::collections::BTreeMap;
use std::fmt;

/// Time after its deadline by which a request's outcome must be at its client, microseconds.
pub const LATE_US: u64 = 1_000_000;
/// A client may notice the end of its connection this long after the broker was killed,
/// microseconds.
const AFTERMATH_US: u64 = 1_000_000;
/// Longest time between two reads of a client's connection that excuses nothing, microseconds.
const BLIND_US: u64 = 50_000;

/// The limits of a service on repeated deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Deliveries after the first one, without the idempotent flag.
    pub retry: u32,
    /// Deliveries after the first one, with the idempotent flag.
    pub retry_idempotent: u32,
}

/// Why something that took long is not the broker's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The broker was killed, until it listened again.
    Killed,
    /// The broker was stopped, until it was continued.
    Stopped,
    /// The whole machine stood still.
    Machine,
    /// The broker was ready and had no CPU, as the kernel counts it.
    Starved,
    /// The clients' proxy stood still; for those who go through it.
    Proxy,
    /// The client itself had not looked: its answer may have been there.
    Client,
    /// A token was renewed, so clients that logged in with the old one are shut out.
    Renewed,
}

impl Cause {
    /// For the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "the broker was killed",
            Self::Stopped => "the broker was stopped",
            Self::Machine => "the machine stood still",
            Self::Starved => "the broker waited for a CPU",
            Self::Proxy => "the checker's proxy stood still",
            Self::Client => "the checker's client did not look",
            Self::Renewed => "its token was made anew",
        }
    }
}

/// All that can make an outcome late, in the order in which the report names them.
const LATE_MAKERS: [Cause; 6] =
    [Cause::Killed, Cause::Stopped, Cause::Machine, Cause::Starved, Cause::Proxy, Cause::Client];

/// A time (microseconds of the run) in which something other than the broker was the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// The cause that is not the broker's fault.
    pub cause: Cause,
    /// From when.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// All that the checker reads.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Every request that clients sent, with its outcomes.
    pub asked: &'a [Asked],
    /// Every request that a worker process began.
    pub begun: &'a [Begun],
    /// The limits of each service; `Asked::service` is the index.
    pub rules: &'a [Rules],
    /// Times in which something other than the broker caused delays or losses.
    pub excuses: &'a [Excuse],
    /// What the clients' proxy did to which connection.
    pub incidents: &'a [Incident],
    /// Times in which the broker's loop answered no ping, whatever the cause. They excuse nothing;
    /// they show whether the broker or the way to it was slow.
    pub slow: &'a [Slow],
}

/// The promises that the checker tests, named by their violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// More than one outcome.
    TwoOutcomes,
    /// No outcome, and nothing that explains it.
    NoOutcome,
    /// The connection ended for no reason that is known.
    LostForNothing,
    /// "It did not run", but a worker saw it.
    RanNoLied,
    /// A request ran more often than it may.
    RanTooOften,
    /// The outcome came too late.
    Late,
    /// The reply belongs to another request, or was made from other bytes.
    WrongAnswer,
    /// An answer to something that no worker saw.
    NobodyAnswered,
    /// Something came back although no answer was wanted.
    Unwanted,
    /// A worker got a request that no client sent.
    Invented,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The broken promise.
    pub broken: Broken,
    /// Id of the request.
    pub id: u64,
    /// The entries of the histories that show it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: request {}: {}", self.broken, self.id, self.text)
    }
}

/// The result of the checker for a run or a round.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Number of requests checked.
    pub checked: u64,
    /// Requests that were late or had no outcome, with a known cause that excuses it.
    pub excused: u64,
    /// Late requests by the name of their cause.
    pub causes: BTreeMap<String, u64>,
    /// The request that was latest: by how many microseconds, and a description.
    pub latest: Option<(u64, String)>,
    /// Number of requests by the name of their outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// The violations found.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Adds what was found of other requests.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.excused += other.excused;
        for (sum, more) in [(&mut self.causes, other.causes), (&mut self.outcomes, other.outcomes)]
        {
            for (name, count) in more {
                *sum.entry(name).or_default() += count;
            }
        }
        let most = |latest: &Option<(u64, String)>| latest.as_ref().map_or(0, |(late, _)| *late);
        if most(&other.latest) > most(&self.latest) {
            self.latest = other.latest;
        }
        self.violations.extend(other.violations);
    }
}

/// Checks each request of the histories.
pub fn check(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut begun: BTreeMap<u64, Vec<Begun>> = BTreeMap::new();
    for one in case.begun {
        begun.entry(one.id).or_default().push(*one);
    }
    let mut ports: BTreeMap<u16, Vec<Incident>> = BTreeMap::new();
    for incident in case.incidents {
        ports.entry(incident.port).or_default().push(*incident);
    }
    for asked in case.asked {
        let begun = begun.remove(&asked.id).unwrap_or_default();
        let incidents = ports.get(&asked.port).map_or(&[][..], Vec::as_slice);
        Check { case, asked, begun: &begun, incidents }.run(&mut verdict);
    }
    for (id, begun) in begun {
        let text = format!("begun by process {} but asked by nobody", begun[0].pid);
        verdict.violations.push(Violation { broken: Broken::Invented, id, text });
    }
    verdict
}

/// The check of one request.
struct Check<'a> {
    case: &'a Case<'a>,
    asked: &'a Asked,
    begun: &'a [Begun],
    incidents: &'a [Incident],
}

impl Check<'_> {
    fn run(&self, verdict: &mut Verdict) {
        let asked = self.asked;
        verdict.checked += 1;
        *verdict.outcomes.entry(self.outcome_text()).or_default() += 1;
        let mut broken = Vec::new();
        if asked.outcomes.len() > 1 {
            broken.push(Broken::TwoOutcomes);
        }
        if !asked.reply && !asked.outcomes.is_empty() {
            broken.push(Broken::Unwanted);
        }
        if !self.begun.is_empty() && self.is_said_not_to_have_run() {
            broken.push(Broken::RanNoLied);
        }
        if self.ran_too_often() {
            broken.push(Broken::RanTooOften);
        }
        for outcome in &asked.outcomes {
            if outcome.got == (Got::Answer { right: false }) {
                broken.push(Broken::WrongAnswer);
            }
            let is_workers = match outcome.got {
                Got::Answer { .. } => true,
                Got::Error { code, .. } => code > 0,
            };
            if is_workers && self.begun.is_empty() {
                broken.push(Broken::NobodyAnswered);
            }
            if is_shutting_out(outcome.got) && !self.was_shut_out(outcome.at) {
                broken.push(Broken::LostForNothing);
            }
        }
        let mut is_excused = false;
        match self.lateness() {
            Lateness::InTime => {}
            Lateness::Excused { late, at } => {
                is_excused = true;
                for name in self.late_makers(at) {
                    *verdict.causes.entry(name).or_default() += 1;
                }
                if verdict.latest.as_ref().is_none_or(|(most, _)| *most < late) {
                    verdict.latest = Some((late, self.who_was_late(late, at)));
                }
            }
            Lateness::Late { late, at } => {
                let text = format!("{}; {}", self.who_was_late(late, at), self.text());
                verdict.violations.push(Violation { broken: Broken::Late, id: asked.id, text });
            }
        }
        match self.silence() {
            None => {}
            Some(None) => is_excused = true,
            Some(Some(how)) => broken.push(how),
        }
        verdict.excused += u64::from(is_excused);
        for broken in broken {
            verdict.violations.push(Violation { broken, id: asked.id, text: self.text() });
        }
    }

    fn text(&self) -> String {
        format!("{:?}; begun {:?}; {:?}", self.asked, self.begun, self.incidents)
    }

    /// How it ended, for the counts.
    fn outcome_text(&self) -> String {
        match (self.asked.outcomes.first(), self.asked.end) {
            (Some(outcome), _) => match outcome.got {
                Got::Answer { .. } => "answered".to_owned(),
                Got::Error { code, .. } if code > 0 => "the worker's own error".to_owned(),
                Got::Error { code, ran } => match ErrorCode::of(code) {
                    Some(row) => format!("{}, ran {ran}", row.name()),
                    None => format!("error {code}, ran {ran}"),
                },
            },
            (None, _) if !self.asked.reply => "no answer wanted".to_owned(),
            (None, Some((_, End::Lost))) => "connection lost".to_owned(),
            (None, Some((_, End::Partial))) => "never left whole".to_owned(),
            (None, Some((_, End::Closed))) => "client closed its connection".to_owned(),
            (None, Some((_, End::GaveUp)) | None) => "nothing came".to_owned(),
        }
    }

    fn is_said_not_to_have_run(&self) -> bool {
        let said = |got: Got| matches!(got, Got::Error { ran: Ran::No, .. });
        self.asked.outcomes.iter().any(|outcome| said(outcome.got))
            || matches!(self.asked.end, Some((_, End::Partial)))
    }

    fn ran_too_often(&self) -> bool {
        let rules = &self.case.rules[self.asked.service];
        let most = match (self.asked.idempotent, self.asked.library) {
            // It asks again by itself after it lost the connection.
            (true, true) => u32::MAX,
            (true, false) => 1 + rules.retry_idempotent.max(rules.retry),
            (false, _) => 1 + rules.retry,
        };
        self.begun.len() as u64 > u64::from(most)
    }

    fn lateness(&self) -> Lateness {
        let last = self.asked.outcomes.iter().map(|outcome| outcome.at).max();
        last.map_or(Lateness::InTime, |at| self.lateness_at(at))
    }

    /// How late an outcome is that arrives, or is given up, at this time.
    fn lateness_at(&self, at: u64) -> Lateness {
        let asked = self.asked;
        // A request behind a large one in the stream is accepted only after that one ended, because
        // the broker stops reading while a worker takes no more.
        let limit = asked.sent.max(asked.behind) + asked.deadline + LATE_US;
        if at <= limit {
            return Lateness::InTime;
        }
        let late = at - limit;
        if late <= self.stood_still(asked.sent, at) || self.is_slowed(asked.sent, at) {
            return Lateness::Excused { late, at };
        }
        Lateness::Late { late, at }
    }

    /// Names of the causes that made it late.
    fn late_makers(&self, at: u64) -> Vec<String> {
        let from = self.asked.sent;
        let made = |cause: &Cause| sum(self.spans(&[*cause], from, at)) > 0;
        let names = LATE_MAKERS.iter().filter(|cause| made(cause)).map(|cause| cause.name());
        let slowed = self.is_slowed(from, at).then_some("the proxy slowed it as it was told");
        names.chain(slowed).map(str::to_owned).collect()
    }

    /// Who was late, by how much: broker, checker or machine.
    fn who_was_late(&self, late: u64, at: u64) -> String {
        let from = self.asked.sent;
        let ms = |micros: u64| format!("{}.{:03} ms", micros / 1000, micros % 1000);
        let mut text = format!(
            "request {} came {} later than its deadline and a second; in its {}:",
            self.asked.id,
            ms(late),
            ms(at - from)
        );
        for cause in LATE_MAKERS {
            let span = sum(self.spans(&[cause], from, at));
            if span > 0 {
                text += &format!(" {} for {},", cause.name(), ms(span));
            }
        }
        for incident in self.incidents.iter().filter(|i| i.from <= at && from <= i.until) {
            text += &format!(" its connection was {},", incident.kind.name());
        }
        let slow = self.case.slow.iter().filter(|slow| slow.from < at && from < slow.until);
        let slow: Vec<String> = slow.map(|slow| format!(" answered no ping {slow}")).collect();
        match slow.is_empty() {
            true => text + " the broker's loop answered all pings within 50 ms",
            false => text + " the broker's loop" + &slow.join(", and"),
        }
    }

    /// Judges a request without an outcome: `None` = nothing is wrong,
    /// `Some(None)` = excused, `Some(Some(_))` = a violation.
    fn silence(&self) -> Option<Option<Broken>> {
        let asked = self.asked;
        if !asked.outcomes.is_empty() {
            return None;
        }
        match asked.end {
            Some((_, End::Partial | End::Closed)) => None,
            Some((at, End::Lost)) => {
                let is_explained =
                    self.was_killed(at) || self.is_faulted(at) || self.was_shut_out(at);
                if is_explained { None } else { Some(Some(Broken::LostForNothing)) }
            }
            _ if !asked.reply => None,
            // If the outcome may still arrive this late, giving it up is not the broker's fault.
            Some((at, End::GaveUp)) => match self.lateness_at(at) {
                Lateness::InTime | Lateness::Excused { .. } => Some(None),
                Lateness::Late { .. } => Some(Some(Broken::NoOutcome)),
            },
            None => Some(Some(Broken::NoOutcome)),
        }
    }

    /// Whether a broker died so shortly before that this can be what was seen.
    fn was_killed(&self, at: u64) -> bool {
        self.came_shortly_before(Cause::Killed, at)
    }

    /// Whether its client's token was made anew shortly before.
    fn was_shut_out(&self, at: u64) -> bool {
        self.asked.changing && self.came_shortly_before(Cause::Renewed, at)
    }

    /// Whether the cause was shortly before, or as long before as the proxy may have delayed its
    /// news.
    fn came_shortly_before(&self, cause: Cause, at: u64) -> bool {
        self.case.excuses.iter().any(|excuse| {
            if excuse.cause != cause || excuse.from > at {
                return false;
            }
            let after = at.saturating_sub(excuse.until);
            after <= AFTERMATH_US
                || after <= AFTERMATH_US + self.stood_still(excuse.until, at)
                || self.is_slowed(excuse.until, at)
        })
    }

    /// Whether the proxy did something to the connection before that can have ended it. A short
    /// delay of each byte, or sending bytes one by one, can't; a client that gives up a stalled
    /// write reports it itself (`GaveUp`).
    fn is_faulted(&self, at: u64) -> bool {
        self.incidents.iter().any(|incident| {
            let is_grave = match incident.kind {
                Kind::Delayed | Kind::Split => false,
                Kind::Closed
                | Kind::Reset
                | Kind::HalfOpen
                | Kind::Stalled
                | Kind::StalledForEver
                | Kind::Throttled => true,
            };
            is_grave && incident.from <= at
        })
    }

    /// Whether the proxy held back bytes of the connection in this time.
    fn is_slowed(&self, from: u64, until: u64) -> bool {
        self.incidents.iter().any(|incident| {
            let is_slow = match incident.kind {
                Kind::Closed | Kind::Reset => false,
                Kind::HalfOpen
                | Kind::Stalled
                | Kind::StalledForEver
                | Kind::Delayed
                | Kind::Split
                | Kind::Throttled => true,
            };
            is_slow && incident.from <= until && from <= incident.until
        })
    }

    /// How much of this time an excused party stood still, microseconds.
    fn stood_still(&self, from: u64, until: u64) -> u64 {
        sum(self.spans(&LATE_MAKERS, from, until))
    }

    /// The parts of this time in which any of these causes held.
    fn spans(&self, causes: &[Cause], from: u64, until: u64) -> Vec<(u64, u64)> {
        let is_on_its_way = |cause| cause != Cause::Proxy || self.asked.port != 0;
        let excuses = self.case.excuses.iter();
        let excuses = excuses.filter(|e| causes.contains(&e.cause) && is_on_its_way(e.cause));
        let mut spans: Vec<(u64, u64)> = excuses.map(|e| (e.from, e.until)).collect();
        if causes.contains(&Cause::Client) {
            let blind = self.asked.outcomes.iter().filter(|outcome| outcome.blind > BLIND_US);
            spans.extend(
                blind.map(|outcome| (outcome.at - outcome.blind.min(outcome.at), outcome.at)),
            );
        }
        spans.iter_mut().for_each(|span| *span = (span.0.max(from), span.1.min(until)));
        spans.retain(|(from, until)| from < until);
        spans
    }
}

/// Total length of the spans; overlaps count once.
fn sum(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut seen) = (0, 0);
    for (from, until) in spans {
        sum += until.saturating_sub(from.max(seen));
        seen = seen.max(until);
    }
    sum
}

/// Whether this is an error that denies the client access, which all clients of the run have.
fn is_shutting_out(got: Got) -> bool {
    let codes = [ErrorCode::BadToken, ErrorCode::NeedsToken, ErrorCode::Denied, ErrorCode::Tls];
    let Got::Error { code, .. } = got else { return false };
    codes.iter().any(|shut| shut.number() == code)
}

/// Microseconds past the allowed time, and when the client knew it.
enum Lateness {
    InTime,
    Excused { late: u64, at: u64 },
    Late { late: u64, at: u64 },
}

#[cfg(test)]
mod tests;
