//! What the machine owns, and what becomes of each frame about instances.

use super::activity::ActivityClock;
use super::announced::{bad, check_state_text, refuse};
use super::groups::{GroupConfig, Groups};
use super::history::History;
use super::instance::{Condition, EndReason, Instance};
use super::look::Looks;
use super::state_messages::{Change, publish};
use super::table::{InstanceTable, LinkState, Start};
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{InstanceKey, SideTable, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::timers::Timer;
use protocol::bodies::{Beat, BeatOk, StateChange, Withdraw};
use protocol::{ErrorBody, Frame, LinkId, RunId, ServiceName, Setting, Tick, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// Most messages that one step publishes of many instances, or a few more.
pub(super) const PART: usize = 384;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    pub(super) table: InstanceTable,
    pub(super) last_incarnation: u64,
    pub(super) clock: ActivityClock,
    pub(super) looks: Looks,
    pub(super) groups: Groups,
    pub(super) history: History,
    /// The instances that are workers.
    pub(super) workers: BTreeMap<WorkerId, InstanceKey>,
    /// How each of them was when it was last looked at.
    pub(super) seen: SideTable<WorkerKey, (RunId, Condition)>,
    /// Links that are gone, and whose instances are still to be ended.
    gone: VecDeque<LinkId>,
    /// Instances that were timed out, sent a beat, and are still to be told to be back.
    back: VecDeque<(InstanceKey, u64)>,
    /// Names whose instances may be in other groups since a group was configured, and how far they
    /// have been moved.
    pub(super) regrouped: VecDeque<(ServiceName, Start)>,
}

/// Records a fact about an instance, unless its peer caused too many. `text` continues its name.
fn record(
    kind: FactKind,
    instance: &Instance,
    text: impl FnOnce(String) -> String,
    cx: &mut Context<'_>,
) {
    if !cx.may_cause(Class::LoggedIn, instance.owner.link()) {
        return;
    }
    let name = format!("{} {}", instance.name.name, instance.name.id);
    let is = format!("instance {name} on {}", instance.machine());
    let about = About { instance: Some(name), ..About::default() };
    cx.record(kind, about, text(is));
}

fn not_announced(id: u64) -> ErrorBody {
    bad(format!(
        "this connection has no instance with id {id}; it was displaced, withdrawn, or never \
         announced"
    ))
}

impl Instances {
    /// Publishes which groups have another state.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        self.groups.settle(cx.now, cx.effects);
    }

    /// A program says that an instance has another state.
    pub(crate) fn state_change(&mut self, link: LinkId, body: StateChange, cx: &mut Context<'_>) {
        let StateChange { sequence, id, state, checkpoint, text } = body;
        if let Err(error) = check_state_text(&text) {
            return refuse(link, sequence, error, cx);
        }
        let Some(key) = self.table.at(link, id) else {
            return refuse(link, sequence, not_announced(id), cx);
        };
        let now = self.clock.read(cx.now);
        let instance = self.table.get_mut(key);
        (instance.heard, instance.heard_at) = (now, cx.now);
        let was = instance.condition;
        // While it did something else, its checkpoint need not have moved.
        if !was.is_running() || checkpoint.is_some_and(|new| new != instance.checkpoint) {
            instance.moved = now;
        }
        instance.checkpoint = checkpoint.unwrap_or(instance.checkpoint);
        let condition = Condition::Alive(state);
        let is_stalled = instance.is_stalled && condition.is_running() && instance.moved != now;
        if (condition, is_stalled) == (was, instance.is_stalled) && text == instance.text {
            return;
        }
        instance.text = text;
        self.turn(key, condition, is_stalled, cx);
        self.settle(cx);
    }

    /// An instance has another condition, or is stalled or no more.
    pub(super) fn turn(
        &mut self,
        key: InstanceKey,
        condition: Condition,
        is_stalled: bool,
        cx: &mut Context<'_>,
    ) {
        let instance = self.table.get_mut(key);
        let was = std::mem::replace(&mut instance.condition, condition);
        instance.is_stalled = is_stalled;
        if was != condition {
            instance.since = cx.now;
            self.groups.turn(instance, was);
        }
        publish(instance, &was.to_string(), Change::State, cx.effects);
        if instance.owner.link().is_none() {
            return;
        }
        if condition.is_timed_out() {
            let ms = instance.timeout.as_millis();
            record(
                FactKind::InstanceTimedOut,
                instance,
                |is| format!("{is} is timed out: no beat came for {ms} ms (activity_timeout_ms)"),
                cx,
            );
        } else if was.is_timed_out() {
            record(
                FactKind::InstanceBack,
                instance,
                |is| format!("{is} goes on: a beat came, or a change of its state"),
                cx,
            );
            self.watch(key, cx);
        }
    }

    /// A program says that its instances go on.
    pub(crate) fn beat(&mut self, link: LinkId, body: &Beat, cx: &mut Context<'_>) {
        let now = self.clock.read(cx.now);
        let read_since = self.table.of_link(link).map(|of_link| of_link.read_since);
        let read_since = read_since.unwrap_or_default();
        let (mut unknown, mut turned) = (Vec::new(), Vec::new());
        self.table.each_of(link, &body.instances, |beat, found| {
            let Some((key, instance)) = found else { return unknown.push(beat.id) };
            (instance.heard, instance.heard_at) = (now, cx.now);
            let (condition, was_stalled) = (instance.condition, instance.is_stalled);
            let is_back = condition.is_timed_out();
            if beat.checkpoint != instance.checkpoint || beat.is_idle || is_back {
                instance.checkpoint = beat.checkpoint;
                instance.moved = now;
            }
            let is_stalled = instance.stalled.0 > 0
                && condition.is_running()
                && now.since(instance.moved.max(read_since)) >= instance.stalled;
            if is_back || is_stalled != was_stalled {
                turned.push((key, Condition::Alive(condition.state()), is_stalled));
            }
        });
        let mut room = PART;
        for (key, condition, is_stalled) in turned {
            // A beat may name an instance twice.
            let instance = &self.table[key];
            if (instance.condition, instance.is_stalled) == (condition, is_stalled) {
                continue;
            }
            if room > 0 {
                room = room.saturating_sub(instance.messages());
                self.turn(key, condition, is_stalled, cx);
            } else if instance.condition.is_timed_out() {
                // That others are stalled is found again with their next beat.
                self.back.push_back((key, instance.incarnation));
                self.go_on(cx);
            }
        }
        self.settle(cx);
        let frame = Frame::BeatOk(BeatOk { beat: body.beat, unknown });
        cx.out.push(Action::Send { link, frame });
    }

    /// A program ends an instance.
    pub(crate) fn withdraw(&mut self, link: LinkId, body: Withdraw, cx: &mut Context<'_>) {
        if let Err(error) = check_state_text(&body.text) {
            return refuse(link, body.sequence, error, cx);
        }
        let Some(key) = self.table.at(link, body.id) else {
            return refuse(link, body.sequence, not_announced(body.id), cx);
        };
        let reason = if body.failed { EndReason::Failed } else { EndReason::Withdrawn };
        self.end(key, reason, Some(body.text), cx);
        self.settle(cx);
    }

    /// An instance ends; `text` replaces what its program said of its state.
    pub(super) fn end(
        &mut self,
        key: InstanceKey,
        reason: EndReason,
        text: Option<String>,
        cx: &mut Context<'_>,
    ) {
        self.unwatch(key);
        let mut instance = self.table.remove(key);
        self.groups.part(key, &instance);
        if let Some(text) = text {
            instance.text = text;
        }
        publish(&instance, &instance.condition.to_string(), Change::Ended(reason), cx.effects);
        if reason == EndReason::Lost && reason.is_failure(instance.condition) {
            record(
                FactKind::InstanceLost,
                &instance,
                |is| format!("{is} is lost: its connection ended without a logout"),
                cx,
            );
        }
        let max = cx.settings.get(Setting::InstanceHistoryMax) as usize;
        self.history.add(instance, (reason, cx.now), max, &mut self.groups);
    }

    /// The peer of a link has logged out, or was asked to end: that its connection ends is no loss.
    pub(crate) fn ends_in_order(&mut self, link: LinkId) {
        if let Some(of_link) = self.table.of_link_mut(link) {
            of_link.state = LinkState::Closing;
        }
    }

    /// A link is gone, with its instances. If they are many, they end part by part.
    pub(crate) fn link_gone(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let Some(of_link) = self.table.of_link_mut(link) else { return };
        of_link.state = LinkState::Gone(match of_link.state {
            LinkState::Open => EndReason::Lost,
            LinkState::Closing => EndReason::Closed,
            LinkState::Gone(reason) => reason,
        });
        self.gone.push_back(link);
        if self.gone.len() == 1 {
            self.do_part(cx);
            self.settle(cx);
        }
    }

    /// Goes on with many after everything that can be done now.
    fn go_on(&self, cx: &mut Context<'_>) {
        cx.timers.add(Tick(cx.now.0 + 1), Timer::Instances);
    }

    /// Ends some instances of links that are gone, says of some that they are back, and moves some
    /// to other groups; the others follow in later steps.
    pub(super) fn do_part(&mut self, cx: &mut Context<'_>) {
        let mut room = PART;
        while let Some(&link) = self.gone.front() {
            let of_link = self.table.of_link(link);
            let next =
                of_link.and_then(|of_link| Some((of_link.state, *of_link.by_id.values().next()?)));
            let Some((LinkState::Gone(reason), key)) = next else {
                self.gone.pop_front();
                continue;
            };
            if room == 0 {
                return self.go_on(cx);
            }
            room = room.saturating_sub(self.table[key].messages());
            self.end(key, reason, None, cx);
        }
        while let Some(&(key, incarnation)) = self.back.front() {
            if room == 0 {
                return self.go_on(cx);
            }
            self.back.pop_front();
            if let Some(instance) = self.table.get(key).filter(|it| it.incarnation == incarnation)
                && let Condition::TimedOut { state } = instance.condition
            {
                room = room.saturating_sub(instance.messages());
                self.turn(key, Condition::Alive(state), false, cx);
            }
        }
        self.regroup_part(room, cx);
    }

    fn regroup_part(&mut self, mut room: usize, cx: &mut Context<'_>) {
        while let Some((name, start)) = self.regrouped.front_mut() {
            if room == 0 {
                return self.go_on(cx);
            }
            let next = self.table.behind(start).next();
            let Some((key, _)) = next.filter(|(_, instance)| instance.name.name == *name) else {
                self.regrouped.pop_front();
                continue;
            };
            let instance = self.table.get_mut(key);
            *start = Start::After(instance.name.clone());
            let groups = self.groups.of(&instance.name.name, &instance.named_groups);
            room = room.saturating_sub(instance.messages().max(groups.len()));
            if groups != instance.groups {
                self.groups.part(key, instance);
                instance.groups = groups;
                self.groups.join(key, instance);
            }
        }
    }

    /// A link is read again: what was sent meanwhile comes now.
    pub(crate) fn resumed(&mut self, link: LinkId, now: Tick) {
        let now = self.clock.read(now);
        if let Some(of_link) = self.table.of_link_mut(link) {
            of_link.read_since = now;
        }
    }

    /// Configures a group, or makes it what follows from its members alone.
    pub(crate) fn configure_group(
        &mut self,
        name: &ServiceName,
        config: Option<GroupConfig>,
        cx: &mut Context<'_>,
    ) {
        for member in self.groups.configure(name, config) {
            self.history.regroup(&member, &mut self.groups);
            self.regrouped.push_back((member.clone(), Start::Name(member)));
        }
        self.do_part(cx);
        self.settle(cx);
    }

    /// The groups.
    pub(crate) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The instances that ended.
    pub(crate) const fn history(&self) -> &History {
        &self.history
    }

    /// The instances that are there.
    pub(crate) const fn table(&self) -> &InstanceTable {
        &self.table
    }
}
