//! Which instances are timed out. Each has one entry, at the time of this machine's clock at which
//! it is looked at next; a beat does not move it, so that beats cost little.

use super::activity::Activity;
use super::instance::{Condition, Owner};
use super::machine::Instances;
use crate::engine::context::Context;
use crate::engine::keys::InstanceKey;
use crate::engine::timers::Timer;
use protocol::{LinkId, Micros, Tick};
use std::collections::BTreeSet;

/// The longest wait of the timer while instances are watched, so that a standstill is noticed.
const WAIT_MS: u64 = 250;
/// After a standstill nobody is timed out before what was sent meanwhile can be read.
const SECOND_LOOK: Micros = Micros::from_millis(50);
/// Most instances that one step looks at.
const PART: usize = 256;

/// When an instance is looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Look {
    at: Activity,
    /// It was overdue before, right after a standstill.
    is_second: bool,
}

/// The entries of the instances that are alive.
#[derive(Debug, Default)]
pub(super) struct Overdue(BTreeSet<(Look, InstanceKey)>);

impl Overdue {
    /// How many instances are watched.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether an instance is watched with this entry.
    pub(super) fn has(&self, look: Look, key: InstanceKey) -> bool {
        self.0.contains(&(look, key))
    }
}

impl Instances {
    /// From now on an instance may be timed out.
    pub(super) fn watch(&mut self, key: InstanceKey, cx: &mut Context<'_>) {
        let instance = &self.table[key];
        let at = instance.heard.plus(instance.timeout);
        self.look_again(key, Look { at, is_second: false });
        self.set_timer(cx);
    }

    fn look_again(&mut self, key: InstanceKey, look: Look) {
        self.unwatch(key);
        self.table.get_mut(key).look = Some(look);
        self.overdue.0.insert((look, key));
    }

    /// An instance is timed out, or gone.
    pub(super) fn unwatch(&mut self, key: InstanceKey) {
        if let Some(look) = self.table.get_mut(key).look.take() {
            self.overdue.0.remove(&(look, key));
        }
    }

    /// Sets the timer, if somebody is watched and it comes too late.
    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let Some((look, _)) = self.overdue.0.first() else { return };
        let at = self.clock.tick(look.at).max(cx.now).min(cx.now.plus_millis(WAIT_MS));
        if self.clock.due().is_none_or(|due| at < due) {
            self.clock.set_due(Some(at));
            cx.timers.add(at, Timer::Instances);
        }
    }

    /// `Timer::Instances`. Links that are not read say nothing, so nothing is said of them.
    pub(crate) fn on_due(&mut self, is_unread: impl Fn(LinkId) -> bool, cx: &mut Context<'_>) {
        // A timer that was set before an earlier one took its place.
        if self.clock.due().is_none_or(|due| cx.now < due) {
            return;
        }
        let now = self.clock.read(cx.now);
        let was_late = self.clock.take_late();
        self.clock.set_due(None);
        for _ in 0..PART {
            let Some(&(look, key)) = self.overdue.0.first().filter(|(look, _)| look.at <= now)
            else {
                break;
            };
            let instance = &self.table[key];
            let of_link = match instance.owner {
                Owner::Link(link) => Some((link, self.table.of_link(link))),
                Owner::Broker => None,
            };
            let read_since = of_link.and_then(|(_, of_link)| Some(of_link?.read_since));
            let heard = instance.heard.max(read_since.unwrap_or_default());
            let due = heard.plus(instance.timeout);
            if of_link.is_some_and(|(link, _)| is_unread(link)) {
                let at = now.plus(instance.timeout);
                self.look_again(key, Look { at, is_second: false });
            } else if due > now {
                self.look_again(key, Look { at: due, is_second: false });
            } else if was_late && !look.is_second {
                self.look_again(key, Look { at: now.plus(SECOND_LOOK), is_second: true });
            } else {
                self.time_out(key, cx);
            }
        }
        self.set_timer(cx);
    }

    fn time_out(&mut self, key: InstanceKey, cx: &mut Context<'_>) {
        self.unwatch(key);
        let state = self.table[key].condition.state();
        self.turn(key, Condition::TimedOut { state }, false, cx);
    }

    /// When the timer of the machine is due.
    pub(super) const fn due(&self) -> Option<Tick> {
        self.clock.due()
    }
}
