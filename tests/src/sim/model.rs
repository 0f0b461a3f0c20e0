//! The model: which outcomes each request may have, as reported by the three that see it (the
//! client, the broker's port, the worker's program). It knows the promises, not the engine.
//! `closing` is what was promised to clients who give up requests or go, `seats` how much workers
//! are given, `topics` and `subscription` are about published messages, `instances` about programs.

mod closing;
pub mod instances;
mod seats;
mod subscription;
pub mod topics;

use super::body::reply_to;
use super::plan::Plan;
use closing::Inflow;
use instances::Instances;
use protocol::errors::{ErrorCode, Ran};
use protocol::ids::LinkId;
use protocol::settings::ServiceSetting;
use protocol::time::Tick;
use seats::Seat;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use topics::Topics;

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reply: its bytes.
    Reply(Vec<u8>),
    /// An error of the worker's program: its number.
    Application(i16),
    /// An error of isect's.
    Error(ErrorCode, Ran),
}

/// A worker's program that began a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Id of the worker's process.
    pub pid: u32,
    /// The attempt in the header.
    pub attempt: u32,
    /// It announced its end while it had the request: then it did not die of it.
    pub has_logged_out: bool,
}

/// One request as its client asked it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Index of the client in the world.
    pub client: usize,
    /// Index of the service in the plan.
    pub service: usize,
    /// It was sent with the idempotent flag.
    pub is_idempotent: bool,
    /// Whether the client wants a reply.
    pub wants_reply: bool,
    /// Whether the worker may put its deadline off.
    pub is_extendable: bool,
    /// Number of turns of the conversation, from 1.
    pub turns: u8,
    /// The deliveries that a worker's program began, in order.
    pub begun: Vec<Begin>,
    /// The outcome at the client; `None` = none yet.
    pub outcome: Option<Outcome>,
    /// Nobody waits for its outcome: its client is gone.
    pub is_left: bool,
}

/// A request that the broker has taken in and not answered.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    uid: u64,
    due: Tick,
    came: Tick,
    /// It is a conversation without a deadline by now.
    is_parked: bool,
}

/// When a service's requests were given to workers.
#[derive(Debug, Default)]
struct Given {
    first: VecDeque<Tick>,
    again: VecDeque<Tick>,
}

/// Everything that was promised so far.
#[derive(Debug, Default)]
pub struct Model {
    asked: Vec<Asked>,
    unanswered: BTreeMap<LinkId, BTreeMap<u32, Unanswered>>,
    /// Sequences on a link that wait for nothing.
    silent: BTreeSet<(LinkId, u32)>,
    dues: BTreeSet<(Tick, LinkId, u32)>,
    /// Frames that were too large, of requests that were not under way.
    too_large: BTreeSet<(LinkId, u32)>,
    /// What clients sent and asked about what they sent, by link.
    inflows: BTreeMap<LinkId, Inflow>,
    /// Requests that their clients gave up.
    cancelled: BTreeSet<(LinkId, u32)>,
    /// The transactions that each worker has, by link.
    seats: BTreeMap<LinkId, Seat>,
    /// What the broker gave to workers lately, by service: for the first time, and again.
    given: BTreeMap<usize, Given>,
    /// Processes that the broker replaces because of a limit of their service.
    recycled: BTreeSet<u32>,
    /// What was published, and to whom it goes.
    pub topics: Topics,
    /// What programs are there.
    pub instances: Instances,
    /// Figures for the report.
    pub figures: BTreeMap<String, u64>,
}

/// A law that is broken.
pub type Broken = String;

impl Model {
    /// A client is about to send a request; its number.
    pub fn ask(&mut self, asked: Asked) -> u64 {
        self.asked.push(asked);
        self.asked.len() as u64 - 1
    }

    /// A request by its number.
    pub fn get(&self, uid: u64) -> Option<&Asked> {
        self.asked.get(uid as usize)
    }

    /// Counts something for the report.
    pub(super) fn count(&mut self, what: &str) {
        *self.figures.entry(what.to_owned()).or_default() += 1;
    }

    /// The first frame of a request came in. It must be answered on its link before `due`.
    pub fn came_in(&mut self, (link, sequence): (LinkId, u32), uid: u64, came: Tick, due: Tick) {
        let Some(asked) = self.get(uid) else { return };
        let wants_reply = asked.wants_reply;
        self.sent(link, uid, due);
        self.cancelled.remove(&(link, sequence));
        if wants_reply {
            let entry = Unanswered { uid, due, came, is_parked: false };
            self.unanswered.entry(link).or_default().insert(sequence, entry);
            self.dues.insert((due, link, sequence));
        } else {
            self.silent.insert((link, sequence));
        }
    }

    /// A frame came in that was too large to be looked at.
    pub fn came_too_large(&mut self, link: LinkId, sequence: u32) {
        let is_under_way =
            self.unanswered.get(&link).is_some_and(|entries| entries.contains_key(&sequence));
        self.sent_unknown(link);
        if !is_under_way {
            self.too_large.insert((link, sequence));
        }
    }

    /// A data or error frame for a request leaves the broker.
    ///
    /// # Errors
    /// Nobody waits for it there.
    pub fn goes_out(
        &mut self,
        (link, sequence): (LinkId, u32),
        error: Option<(ErrorCode, Ran)>,
        is_last: bool,
    ) -> Result<(), Broken> {
        if self.silent.contains(&(link, sequence)) && error.is_none() {
            return Err(format!(
                "a frame leaves for link {link} sequence {sequence}, which wants no reply"
            ));
        }
        let entries = self.unanswered.get_mut(&link);
        let Some(entry) = entries.and_then(|entries| entries.get(&sequence).copied()) else {
            // A frame that came too late for its conversation is told so; that is no second
            // outcome.
            let is_stray = match error {
                Some((ErrorCode::NoConversation, Ran::No)) => true,
                Some((ErrorCode::BodyTooLarge, Ran::No)) => {
                    self.too_large.remove(&(link, sequence))
                }
                Some(_) | None => false,
            };
            return if is_stray {
                Ok(())
            } else {
                Err(format!(
                    "link {link} gets {error:?} for sequence {sequence}, which is not under way"
                ))
            };
        };
        if let Some((code, Ran::No)) = error {
            self.check_not_run(entry.uid, code)?;
        }
        if let Some((code, _)) = error {
            self.check_given_up((link, sequence), entry, code)?;
        }
        if is_last {
            self.answered(link, sequence);
        }
        Ok(())
    }

    /// The service that a request under way was asked of.
    pub fn service_of(&self, link: LinkId, sequence: u32) -> Option<usize> {
        let entry = self.unanswered.get(&link)?.get(&sequence)?;
        self.get(entry.uid).map(|asked| asked.service)
    }

    /// The moment at which a request must have its outcome changes.
    fn is_due(&mut self, (link, sequence): (LinkId, u32), due: Tick) {
        let entries = self.unanswered.get_mut(&link);
        if let Some(entry) = entries.and_then(|entries| entries.get_mut(&sequence)) {
            self.dues.remove(&(entry.due, link, sequence));
            entry.due = due;
            self.dues.insert((due, link, sequence));
        }
    }

    fn answered(&mut self, link: LinkId, sequence: u32) {
        if let Some(entries) = self.unanswered.get_mut(&link)
            && let Some(entry) = entries.remove(&sequence)
        {
            self.dues.remove(&(entry.due, link, sequence));
        }
    }

    /// A link of the broker is gone.
    pub fn link_gone(&mut self, link: LinkId) {
        for (sequence, entry) in self.unanswered.remove(&link).unwrap_or_default() {
            self.dues.remove(&(entry.due, link, sequence));
        }
        self.inflows.remove(&link);
        self.seats.remove(&link);
        self.cancelled.retain(|(of, _)| *of != link);
        self.silent.retain(|(of, _)| *of != link);
        self.too_large.retain(|(of, _)| *of != link);
    }

    /// The broker is gone, and all its links.
    pub fn broker_gone(&mut self) {
        self.unanswered.clear();
        self.inflows.clear();
        self.seats.clear();
        self.cancelled.clear();
        self.silent.clear();
        self.too_large.clear();
        self.dues.clear();
        self.given.clear();
        self.topics.broker_gone();
        self.instances.broker_gone();
    }

    /// The broker stood still for so long.
    pub fn stands_still(&mut self, micros: u64) {
        self.topics.stood += micros;
        self.instances.stood += micros;
        self.instances.stands += 1;
    }

    /// A request leaves for a worker, the first that gets it.
    pub fn given_first(&mut self, uid: u64, now: Tick) {
        if let Some(service) = self.get(uid).map(|asked| asked.service) {
            self.given.entry(service).or_default().first.push_back(now);
        }
    }

    /// A request that no client of the model sent leaves for a worker, perhaps of this service.
    pub fn given_unknown(&mut self, service: usize, now: Tick) {
        self.given.entry(service).or_default().first.push_back(now);
    }

    /// The broker says that a request will be given to a further worker.
    ///
    /// # Errors
    /// The retry budget does not allow it: at most `retry_percent` of what was given for the first
    /// time in 20 s, and `retry_min`, in 10 s.
    pub fn given_again(&mut self, plan: &Plan, service: usize, now: Tick) -> Result<(), Broken> {
        let given = self.given.entry(service).or_default();
        given.again.push_back(now);
        given.again.retain(|at| now.since(*at).as_millis() < 10_000);
        given.first.retain(|at| now.since(*at).as_millis() <= 20_000);
        let plan = &plan.services[service];
        let share = given.first.len() as u64 * plan.value(ServiceSetting::RetryPercent) / 100;
        let most = plan.value(ServiceSetting::RetryMin) + share;
        let count = given.again.len() as u64;
        self.count("given to another worker");
        if count > most {
            return Err(format!(
                "{count} requests of service '{}' were repeated within 10 s, the budget is {most}",
                plan.name
            ));
        }
        Ok(())
    }

    /// After each step: nothing that is unanswered is past its time.
    ///
    /// # Errors
    /// Names the request.
    pub fn check_unanswered(&self, now: Tick) -> Result<(), Broken> {
        match self.dues.first() {
            Some((due, link, sequence)) if *due < now => Err(format!(
                "link {link} sequence {sequence} was due at {due:?} and has no outcome"
            )),
            Some(_) | None => self.check_inflows(now),
        }
    }

    /// A worker's program begins a request.
    ///
    /// # Errors
    /// It may not have it (any more, or again).
    pub fn begins(&mut self, plan: &Plan, uid: u64, begin: Begin) -> Result<(), Broken> {
        let Some(asked) = self.asked.get_mut(uid as usize) else {
            return Err(format!("pid {} got request {uid}, which nobody sent", begin.pid));
        };
        let alive = asked.begun.iter().filter(|begin| begin.has_logged_out).count() as u64;
        let max = plan.begins_max(asked.service, asked.is_idempotent, alive);
        asked.begun.push(begin);
        if asked.begun.len() as u64 > max {
            return Err(format!(
                "request {uid} was begun {} times, {max} are allowed: {:?}",
                asked.begun.len(),
                asked.begun
            ));
        }
        if asked.begun.iter().filter(|other| other.attempt == begin.attempt).count() > 1 {
            return Err(format!("request {uid}: an attempt was begun twice: {:?}", asked.begun));
        }
        let code = match &asked.outcome {
            Some(Outcome::Error(code, Ran::No)) => *code,
            Some(_) | None => return Ok(()),
        };
        self.check_not_run(uid, code)
    }

    /// A worker's program announces its end, and will not answer this request.
    pub fn logs_out_with(&mut self, uid: u64, pid: u32) {
        let Some(asked) = self.asked.get_mut(uid as usize) else { return };
        let its = asked.begun.iter_mut().filter(|begin| begin.pid == pid);
        its.for_each(|begin| begin.has_logged_out = true);
    }

    fn check_not_run(&self, uid: u64, code: ErrorCode) -> Result<(), Broken> {
        let Some(asked) = self.get(uid).filter(|asked| !asked.begun.is_empty()) else {
            return Ok(());
        };
        Err(format!(
            "request {uid} is told {code} ran=no, but it ran: {:?} {:?}",
            asked.begun, asked.outcome
        ))
    }

    /// A client got the outcome of a request.
    ///
    /// # Errors
    /// It had one already, or it can't be.
    pub fn ends(&mut self, uid: u64, outcome: Outcome) -> Result<(), Broken> {
        let Some(asked) = self.asked.get_mut(uid as usize) else {
            return Err(format!("an outcome for request {uid}, which nobody sent"));
        };
        if let Some(old) = &asked.outcome {
            return Err(format!("request {uid} ended as {old:?} and again as {outcome:?}"));
        }
        if !asked.wants_reply {
            return Err(format!("request {uid} wanted no reply and got {outcome:?}"));
        }
        let has_run = !asked.begun.is_empty();
        let name = match &outcome {
            Outcome::Reply(_) => "reply".to_owned(),
            Outcome::Application(_) => "application error".to_owned(),
            Outcome::Error(code, ran) => format!("{code} ({ran})"),
        };
        let verdict = match &outcome {
            Outcome::Reply(bytes) => {
                let right = reply_to(uid, asked.turns);
                if !has_run {
                    Err(format!("request {uid} has a reply and was never begun"))
                } else if *bytes != right {
                    Err(format!(
                        "request {uid} got {:?} instead of {:?}",
                        String::from_utf8_lossy(&bytes[..bytes.len().min(200)]),
                        String::from_utf8_lossy(&right[..right.len().min(200)])
                    ))
                } else {
                    Ok(())
                }
            }
            Outcome::Application(_) if !has_run => {
                Err(format!("request {uid} has {outcome:?} and was never begun"))
            }
            Outcome::Error(code, Ran::No) if has_run => {
                Err(format!("request {uid} ended {code} ran=no, but it ran: {:?}", asked.begun))
            }
            Outcome::Application(_) | Outcome::Error(..) => Ok(()),
        };
        asked.outcome = Some(outcome);
        self.count(&name);
        verdict
    }

    /// Nobody waits for this request any more.
    pub fn left(&mut self, uid: u64) {
        if let Some(asked) = self.asked.get_mut(uid as usize) {
            asked.is_left = true;
        }
    }

    /// The broker says that a process is recycled.
    pub fn is_recycled(&mut self, pid: u32) {
        self.recycled.insert(pid);
    }

    /// Whether the process that began a request last was recycled.
    pub fn was_recycled(&self, asked: &Asked) -> bool {
        asked.begun.last().is_some_and(|begin| self.recycled.contains(&begin.pid))
    }

    /// Requests that still wait for their outcome.
    pub fn open(&self) -> impl Iterator<Item = (u64, &Asked)> {
        let all = self.asked.iter().enumerate().map(|(uid, asked)| (uid as u64, asked));
        all.filter(|(_, asked)| asked.wants_reply && !asked.is_left && asked.outcome.is_none())
    }

    /// Number of requests sent so far.
    pub fn count_asked(&self) -> usize {
        self.asked.len()
    }
}
