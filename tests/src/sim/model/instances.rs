//! What is promised about instances: who may have which, when one is timed out, and that each
//! change is told once, in order.

use super::Broken;
use crate::sim::plan::SERVICES;
use protocol::bodies::{Announce, Announced, Beat, BeatOk, StateChange, Withdraw};
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::instances::STATE_TEXT_CHARS_MAX;
use protocol::lines::Lines;
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How late a time-out may be, in microseconds of the time in which the broker did not stand still.
const LATE_US: u64 = 1_000_000;
/// How much of a standstill the broker may not notice: its timer was not due yet.
const UNNOTICED_US: u64 = 300_000;
/// The state of one that is timed out.
const TIMED_OUT: &str = "timed out";
/// The state of one that has ended.
const ENDED: &str = "ended";

/// A program's connection, as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The machine.
    pub machine: String,
    /// The user, if it is known.
    pub user: Option<u32>,
}

/// A moment, and how often and how long the broker had stood still before.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Tick,
    stood: u64,
    stands: u64,
}

/// What was told last of an instance in one of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LastState {
    state: String,
    text: String,
    stalled: bool,
    reason: String,
}

/// An instance that was announced and has not ended.
#[derive(Clone, Debug)]
struct Instance {
    name: String,
    machine: String,
    id: u64,
    link: LinkId,
    incarnation: u64,
    groups: Vec<String>,
    state: String,
    text: String,
    timeout_us: u64,
    may_stall: bool,
    is_timed_out: bool,
    heard: Moment,
    /// When it was heard before, if it is heard in this very step: what is due may be done first.
    before: Option<Moment>,
}

/// Limits that the broker has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// `instances_max`.
    pub all: u64,
    /// `connection_instances_max`.
    pub of_connection: u64,
    /// `activity_timeout_ms`.
    pub timeout_ms: u64,
    /// `beat_ms`.
    pub beat_ms: u64,
}

/// An announce that has no answer yet.
#[derive(Clone, Debug)]
struct Wanted {
    link: LinkId,
    announce: Announce,
    /// It names a group that is a service, as long as that is configured.
    names_service: bool,
}

/// All that is known of instances.
#[derive(Debug, Default)]
pub struct Instances {
    limits: Limits,
    origins: BTreeMap<LinkId, Origin>,
    /// Links whose program has logged out.
    orderly: Vec<LinkId>,
    /// The incarnations of programs; the others are workers.
    announced: BTreeSet<u64>,
    live: BTreeMap<u64, Instance>,
    wanted: VecDeque<Wanted>,
    /// Errors that are due, by link and sequence.
    errors: VecDeque<(LinkId, u32)>,
    /// Beats that have no answer, and which of their instances are not known.
    beats: VecDeque<(LinkId, u32, Vec<u64>)>,
    /// What was told, by incarnation and group.
    told: BTreeMap<(u64, String), LastState>,
    /// What must be told of those that have ended: the reasons that are true.
    ended: BTreeMap<u64, (Vec<String>, Vec<&'static str>)>,
    groups: BTreeMap<String, String>,
    /// How long the broker has stood still so far, in microseconds.
    pub stood: u64,
    /// How often.
    pub stands: u64,
    /// How many were timed out, came back, were displaced.
    pub figures: [u64; 3],
}

impl Instances {
    /// The broker has these limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The broker is gone.
    pub fn broker_gone(&mut self) {
        let (limits, stood, stands) = (self.limits, self.stood, self.stands);
        *self = Self { limits, stood, stands, figures: self.figures, ..Self::default() };
    }

    /// A program has a connection.
    pub fn opened(&mut self, link: LinkId, origin: Origin) {
        self.origins.insert(link, origin);
    }

    /// A program logs out.
    pub fn logs_out(&mut self, link: LinkId) {
        self.orderly.push(link);
    }

    /// A link is gone, with its instances.
    pub fn link_gone(&mut self, link: LinkId) {
        self.wanted.retain(|wanted| wanted.link != link);
        self.errors.retain(|(of, _)| *of != link);
        self.beats.retain(|(of, ..)| *of != link);
        let reasons: &[&str] =
            if self.orderly.contains(&link) { &["closed"] } else { &["lost", "closed"] };
        for incarnation in self.of_link(link) {
            self.end(incarnation, reasons);
        }
        self.orderly.retain(|of| *of != link);
        self.origins.remove(&link);
    }

    fn of_link(&self, link: LinkId) -> Vec<u64> {
        self.live.values().filter(|i| i.link == link).map(|i| i.incarnation).collect()
    }

    fn at(&self, link: LinkId, id: u64) -> Option<u64> {
        let found = self.live.values().find(|i| i.link == link && i.id == id);
        found.map(|instance| instance.incarnation)
    }

    fn end(&mut self, incarnation: u64, reasons: &[&'static str]) {
        if let Some(instance) = self.live.remove(&incarnation) {
            self.ended.insert(incarnation, (instance.groups, reasons.to_vec()));
        }
    }

    const fn moment(&self, at: Tick) -> Moment {
        Moment { at, stood: self.stood, stands: self.stands }
    }

    /// A program announces an instance.
    pub fn announces(&mut self, link: LinkId, announce: &Announce) {
        let names_service = announce.groups.iter().any(|group| SERVICES.contains(&group.as_str()));
        let announce = announce.clone();
        self.wanted.push_back(Wanted { link, announce, names_service });
    }

    /// The reasons for which an announce may be refused now, and the one that it displaces. This is
    /// looked up when it is answered: in the step in which it comes the broker may first close the
    /// connection of the same instance, because that was silent for too long.
    fn due_answer(&self, link: LinkId, announce: &Announce) -> (Vec<ErrorCode>, Option<u64>) {
        let mut refusals = Vec::new();
        let origin = self.origins.get(&link).cloned();
        let origin = origin.unwrap_or(Origin { machine: String::new(), user: None });
        let is_bad = (1..100).contains(&announce.activity_timeout_ms) || announce.name.is_empty();
        if is_bad || self.at(link, announce.id).is_some() {
            refusals.push(ErrorCode::BadInstance);
        }
        let same = self.live.values().find(|i| {
            i.name == announce.name && i.machine == origin.machine && i.id == announce.id
        });
        let same = same.filter(|same| same.link != link);
        if let Some(same) = same {
            let user = self.origins.get(&same.link).and_then(|origin| origin.user);
            if user.is_none() || user != origin.user {
                refusals.push(ErrorCode::InstanceTaken);
            }
        }
        let here = self.of_link(link).len() as u64;
        let all = (self.live.len() - usize::from(same.is_some())) as u64;
        if here >= self.limits.of_connection || all >= self.limits.all {
            refusals.push(ErrorCode::LimitReached);
        }
        (refusals, same.map(|same| same.incarnation))
    }

    /// The answer to an announce leaves.
    ///
    /// # Errors
    /// It was to be refused, or another one is displaced than may be.
    pub fn announced(&mut self, link: LinkId, said: &Announced, now: Tick) -> Result<(), Broken> {
        let of = |w: &Wanted| w.link == link && w.announce.sequence == said.sequence;
        let at = self.wanted.iter().position(of);
        let Some(wanted) = at.and_then(|at| self.wanted.remove(at)) else {
            return Err(format!("{said:?} of link {link}, which announced nothing"));
        };
        let (refusals, displaces) = self.due_answer(link, &wanted.announce);
        if !refusals.is_empty() || displaces.is_some() != said.displaced {
            return Err(format!(
                "{wanted:?} has the answer {said:?}: {refusals:?}, {displaces:?} was due"
            ));
        }
        let announce = wanted.announce;
        let timeout_ms = match announce.activity_timeout_ms {
            0 => self.limits.timeout_ms,
            given => given,
        };
        let beat_ms = self.limits.beat_ms.min(timeout_ms / 3);
        if (said.activity_timeout_ms, said.beat_ms, said.id) != (timeout_ms, beat_ms, announce.id) {
            return Err(format!("{announce:?} has the answer {said:?}"));
        }
        if self.told.keys().next_back().is_some_and(|(last, _)| *last > said.incarnation) {
            return Err(format!("{said:?} comes after {:?}", self.told.keys().next_back()));
        }
        if let Some(displaced) = displaces {
            self.figures[2] += 1;
            self.end(displaced, &["displaced"]);
        }
        let mut groups = announce.groups;
        if groups.is_empty() {
            groups.push("-".to_owned());
        }
        let machine = self.origins.get(&link).map(|origin| origin.machine.clone());
        let instance = Instance {
            name: announce.name,
            machine: machine.unwrap_or_default(),
            id: announce.id,
            link,
            incarnation: said.incarnation,
            groups,
            state: announce.state.to_string(),
            text: String::new(),
            timeout_us: timeout_ms * 1000,
            may_stall: announce.stalled_ms > 0,
            is_timed_out: false,
            heard: self.moment(now),
            before: None,
        };
        self.announced.insert(said.incarnation);
        self.live.insert(said.incarnation, instance);
        Ok(())
    }

    fn heard(&mut self, incarnation: u64, now: Tick) -> Option<&mut Instance> {
        let heard = self.moment(now);
        let instance = self.live.get_mut(&incarnation)?;
        instance.before = Some(std::mem::replace(&mut instance.heard, heard));
        self.figures[1] += u64::from(std::mem::take(&mut instance.is_timed_out));
        Some(instance)
    }

    /// A program says that an instance has another state.
    pub fn turns(&mut self, link: LinkId, change: &StateChange, now: Tick) {
        let is_bad = change.text.chars().count() > STATE_TEXT_CHARS_MAX;
        match self.at(link, change.id) {
            Some(incarnation) if !is_bad => {
                if let Some(instance) = self.heard(incarnation, now) {
                    instance.state = change.state.to_string();
                    instance.text.clone_from(&change.text);
                }
            }
            _ => self.errors.push_back((link, change.sequence)),
        }
    }

    /// A program ends an instance.
    pub fn withdraws(&mut self, link: LinkId, withdraw: &Withdraw) {
        match self.at(link, withdraw.id) {
            Some(incarnation) => {
                self.end(incarnation, if withdraw.failed { &["failed"] } else { &["withdrawn"] });
            }
            None => self.errors.push_back((link, withdraw.sequence)),
        }
    }

    /// A program says that its instances go on.
    pub fn beats(&mut self, link: LinkId, beat: &Beat, now: Tick) {
        let mut unknown = Vec::new();
        for of in &beat.instances {
            match self.at(link, of.id) {
                Some(incarnation) => {
                    self.heard(incarnation, now);
                }
                None => unknown.push(of.id),
            }
        }
        self.beats.push_back((link, beat.beat, unknown));
    }

    /// The answer to a beat leaves.
    ///
    /// # Errors
    /// It names others than those that are not known, or nobody beat.
    pub fn beat_ok(&mut self, link: LinkId, said: &BeatOk) -> Result<(), Broken> {
        let at = self.beats.iter().position(|(of, beat, _)| (*of, *beat) == (link, said.beat));
        match at.and_then(|at| self.beats.remove(at)) {
            Some((_, _, unknown)) if unknown == said.unknown => Ok(()),
            beat => Err(format!("link {link} gets {said:?} for {beat:?}")),
        }
    }

    /// An error goes to a program.
    ///
    /// # Errors
    /// Nothing that it sent is to be answered so.
    pub fn refused(&mut self, link: LinkId, sequence: u32, code: ErrorCode) -> Result<(), Broken> {
        let of = |w: &Wanted| w.link == link && w.announce.sequence == sequence;
        if let Some(at) = self.wanted.iter().position(of) {
            let wanted = self.wanted.remove(at);
            let is_due = wanted.as_ref().is_some_and(|wanted| {
                let is_of_service = wanted.names_service && code == ErrorCode::BadInstance;
                is_of_service || self.due_answer(link, &wanted.announce).0.contains(&code)
            });
            return if is_due { Ok(()) } else { Err(format!("{wanted:?} is told {code}")) };
        }
        let at = self.errors.iter().position(|due| *due == (link, sequence));
        match at.and_then(|at| self.errors.remove(at)) {
            Some(_) if code == ErrorCode::BadInstance => Ok(()),
            due => Err(format!("link {link} is told {code} for {sequence}, {due:?} was due")),
        }
    }

    /// A change of a state is published. `had_beat` says whether a beat of a link for an instance
    /// had arrived by a tick that is not read.
    ///
    /// # Errors
    /// It is no change, or not true.
    pub fn is_told(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Tick,
        had_beat: impl Fn(LinkId, u64, Tick) -> bool,
    ) -> Result<(), Broken> {
        let lines = Lines::parse(payload).map_err(|error| error.to_string())?;
        let get = |key: &str| lines.get(key).unwrap_or_default().to_owned();
        let words = topic.split('.').count();
        let (group, was, state) = (get("group"), get("was"), get("state"));
        if words == 3 {
            let last = self.groups.insert(group.clone(), state.clone());
            let is_next = last.as_ref().is_none_or(|last| *last == was);
            let is_change = was != state || last.is_none();
            return if is_next && is_change {
                Ok(())
            } else {
                Err(format!("group '{group}' is {state}, was {was}; told before: {last:?}"))
            };
        }
        let Ok(incarnation) = get("incarnation").parse::<u64>() else {
            return Err(format!("'{topic}' names no incarnation: {lines:?}"));
        };
        let stalled = lines.get("stalled") == Some("yes");
        let told = LastState { state, text: get("text"), stalled, reason: get("reason") };
        let before = self.told.insert((incarnation, group.clone()), told.clone());
        let last = before.as_ref().map_or("none", |before| before.state.as_str());
        if last != was || before.as_ref() == Some(&told) || last == ENDED {
            return Err(format!(
                "incarnation {incarnation} in '{group}' is {told:?}, was '{was}'; told before: \
                 {before:?}"
            ));
        }
        if stalled && self.live.get(&incarnation).is_some_and(|instance| !instance.may_stall) {
            return Err(format!("incarnation {incarnation} is stalled, and never may be"));
        }
        // A worker whose connection is lost is so called, until it comes back.
        if told.state == TIMED_OUT && self.announced.contains(&incarnation) {
            self.is_timed_out(incarnation, now, had_beat)?;
        }
        Ok(())
    }

    fn is_timed_out(
        &mut self,
        incarnation: u64,
        now: Tick,
        had_beat: impl Fn(LinkId, u64, Tick) -> bool,
    ) -> Result<(), Broken> {
        let (stood, stands) = (self.stood, self.stands);
        let Some(instance) = self.live.get_mut(&incarnation) else {
            return Err(format!("incarnation {incarnation} is timed out, and not there"));
        };
        let heard = instance.before.unwrap_or(instance.heard);
        let excused = stood - heard.stood;
        let unnoticed = (stands - heard.stands) * UNNOTICED_US;
        let silent = now.since(heard.at).0.saturating_sub(excused.saturating_sub(unnoticed));
        if silent < instance.timeout_us {
            return Err(format!(
                "timed out after {silent} us, of which {unnoticed} may be a standstill: {instance:?}"
            ));
        }
        let due = Tick(now.0 - (silent - instance.timeout_us));
        if had_beat(instance.link, instance.id, due) {
            return Err(format!("timed out with a beat that had arrived: {instance:?}"));
        }
        self.figures[0] += 1;
        // One that is heard in this step comes back in it.
        instance.is_timed_out = instance.before.is_none();
        Ok(())
    }

    /// After each step: all that there is was told as it is, and nobody is silent too long.
    /// `is_unread` says of which links nothing can be heard.
    ///
    /// # Errors
    /// Names it.
    pub fn check(&mut self, now: Tick, is_unread: impl Fn(LinkId) -> bool) -> Result<(), Broken> {
        let moment = self.moment(now);
        let (stood, told) = (self.stood, &self.told);
        for instance in self.live.values_mut() {
            instance.before = None;
            if is_unread(instance.link) {
                instance.heard = moment;
            }
            let silent =
                now.since(instance.heard.at).0.saturating_sub(stood - instance.heard.stood);
            if !instance.is_timed_out && silent > instance.timeout_us + LATE_US {
                return Err(format!("silent for {silent} us and not timed out: {instance:?}"));
            }
            let state = if instance.is_timed_out { TIMED_OUT } else { &instance.state };
            for group in &instance.groups {
                let told = told.get(&(instance.incarnation, group.clone()));
                if told.is_none_or(|told| told.state != state || told.text != instance.text) {
                    return Err(format!("told in '{group}' is {told:?} of {instance:?}"));
                }
            }
        }
        while let Some((incarnation, (groups, reasons))) = self.ended.pop_first() {
            for group in groups {
                let told = self.told.get(&(incarnation, group.clone()));
                let is_true =
                    |t: &LastState| t.state == ENDED && reasons.contains(&t.reason.as_str());
                if !told.is_some_and(is_true) {
                    return Err(format!(
                        "incarnation {incarnation} ended ({reasons:?}), told in '{group}' is \
                         {told:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The instances that are timed out.
    pub fn silent(&self) -> impl Iterator<Item = (&str, u64)> {
        let silent = self.live.values().filter(|instance| instance.is_timed_out);
        silent.map(|instance| (instance.name.as_str(), instance.id))
    }

    /// The instances as an operator sees them: name and id, incarnation, state.
    ///
    /// # Errors
    /// One is lacking, or is not as it was told last.
    pub fn is_listed(
        &self,
        listed: impl Iterator<Item = (String, u64, String)>,
    ) -> Result<(), Broken> {
        let mut lacking: BTreeSet<u64> = self.live.keys().copied().collect();
        for (name, incarnation, state) in listed {
            lacking.remove(&incarnation);
            if self.announced.contains(&incarnation) && !self.live.contains_key(&incarnation) {
                return Err(format!("'{name}' is listed, and has ended"));
            }
            let told = self.told.range((incarnation, String::new())..);
            let told = told.take_while(|((of, _), _)| *of == incarnation);
            for ((_, group), told) in told {
                if told.state != state {
                    return Err(format!("'{name}' is listed as {state}, in '{group}' {told:?}"));
                }
            }
        }
        match lacking.first().and_then(|incarnation| self.live.get(incarnation)) {
            None => Ok(()),
            Some(instance) => Err(format!("is not listed: {instance:?}")),
        }
    }

    /// The groups as an operator sees them: name and state.
    ///
    /// # Errors
    /// One is not as it was told last.
    pub fn are_listed(&self, listed: impl Iterator<Item = (String, String)>) -> Result<(), Broken> {
        for (group, state) in listed {
            let told = self.groups.get(&group);
            if told.is_some_and(|told| *told != state) {
                return Err(format!("group '{group}' is listed as {state}, told was {told:?}"));
            }
        }
        Ok(())
    }
}
