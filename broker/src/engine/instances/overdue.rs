//! Which instances are timed out, and when they are looked at.

use super::instance::Condition;
use super::look::Look;
use super::machine::{Instances, PART};
use super::table::LinkState;
use crate::engine::context::Context;
use crate::engine::keys::InstanceKey;
use crate::engine::timers::Timer;
use protocol::{LinkId, Micros, Tick};

/// The longest wait of the timer while instances are watched, so that a standstill is noticed.
const WAIT_MS: u64 = 250;
/// For so long after a standstill nobody is timed out: what was sent meanwhile is still read.
const TO_READ: Micros = Micros::from_millis(250);
/// How often in a row a standstill puts that off: a broker that is always late still finds who
/// hangs.
const PUT_OFF_MAX: u8 = 8;
/// Most instances that one step looks at.
const LOOKS_MAX: usize = 256;

impl Instances {
    /// From now on an instance may be timed out.
    pub(super) fn watch(&mut self, key: InstanceKey, cx: &mut Context<'_>) {
        let instance = &self.table[key];
        let at = instance.heard.plus(instance.timeout);
        self.look_again(key, Look { at, put_off: 0 });
        self.set_timer(cx);
    }

    fn look_again(&mut self, key: InstanceKey, look: Look) {
        self.unwatch(key);
        self.table.get_mut(key).look = Some(look);
        self.looks.insert(look, key);
    }

    /// An instance is timed out, or gone.
    pub(super) fn unwatch(&mut self, key: InstanceKey) {
        if let Some(look) = self.table.get_mut(key).look.take() {
            self.looks.remove(look, key);
        }
    }

    /// Sets the timer, if somebody is watched and it comes too late.
    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let Some((look, _)) = self.looks.first() else { return };
        // After everything that can be done now, if there is more than one step looks at.
        let soon = Tick(cx.now.0 + 1);
        let at = self.clock.tick(look.at).max(soon).min(cx.now.plus_millis(WAIT_MS));
        if self.clock.due().is_none_or(|due| at < due) {
            self.clock.set_due(Some(at));
            cx.timers.add(at, Timer::Instances);
        }
    }

    /// `Timer::Instances`. Links that are not read say nothing, so nothing is said of them.
    pub(crate) fn on_due(&mut self, is_unread: impl Fn(LinkId) -> bool, cx: &mut Context<'_>) {
        self.do_part(cx);
        self.look(is_unread, cx);
        self.settle(cx);
    }

    fn look(&mut self, is_unread: impl Fn(LinkId) -> bool, cx: &mut Context<'_>) {
        // A timer that was set before an earlier one took its place.
        if self.clock.due().is_none_or(|due| cx.now < due) {
            return;
        }
        let now = self.clock.read(cx.now);
        let read_by = self.clock.woke().map(|woke| woke.plus(TO_READ)).unwrap_or_default();
        self.clock.set_due(None);
        let mut room = PART;
        for _ in 0..LOOKS_MAX {
            let first = self.looks.first().filter(|(look, _)| look.at <= now && room > 0);
            let Some((look, key)) = first else { break };
            let instance = &self.table[key];
            let link = instance.owner.link();
            let of_link = link.and_then(|link| self.table.of_link(link));
            let read_since = of_link.map(|of_link| of_link.read_since);
            let heard = instance.heard.max(read_since.unwrap_or_default());
            let due = heard.plus(instance.timeout);
            if let Some(LinkState::Gone(reason)) = of_link.map(|of_link| of_link.state) {
                room = room.saturating_sub(instance.messages());
                self.end(key, reason, None, cx);
            } else if link.is_some_and(&is_unread) {
                let at = now.plus(instance.timeout);
                self.look_again(key, Look { at, put_off: 0 });
            } else if due > now {
                self.look_again(key, Look { at: due, put_off: 0 });
            } else if now < read_by && look.put_off < PUT_OFF_MAX {
                self.look_again(key, Look { at: read_by, put_off: look.put_off + 1 });
            } else {
                room = room.saturating_sub(instance.messages());
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
