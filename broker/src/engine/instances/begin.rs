//! How instances begin: a program announces one, or the process of a worker is started.

use super::announced::{Announcer, check, is_taken, refuse};
use super::instance::{Condition, EndReason, Instance, InstanceName, Owner};
use super::machine::Instances;
use super::state_messages::{Change, publish};
use super::table::LinkState;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::keys::InstanceKey;
use protocol::bodies::{Announce, Announced};
use protocol::{ErrorBody, ErrorCode, Frame, Micros, Setting};

/// How many beats fit into a time-out, so that one that comes late is not the end.
const BEATS: u64 = 3;

impl Instances {
    /// A program announces an instance.
    pub(crate) fn announce(&mut self, who: Announcer, body: Announce, cx: &mut Context<'_>) {
        let (link, sequence) = (who.link, body.sequence);
        if let Err(error) = self.begin(who, body, cx) {
            refuse(link, sequence, error, cx);
        }
        self.settle(cx);
    }

    fn begin(
        &mut self,
        who: Announcer,
        body: Announce,
        cx: &mut Context<'_>,
    ) -> Result<(), ErrorBody> {
        let now = self.clock.read(cx.now);
        let (name, groups) = check(&body, cx.catalog)?;
        let name = InstanceName { name, machine: who.machine.clone(), id: body.id };
        if let Some(key) = self.table.at(who.link, body.id) {
            return Err(is_taken(&self.table[key], true));
        }
        let old = self.table.named(&name).filter(|&key| !self.end_if_gone(key, cx));
        if let Some(key) = old
            && !self.may_displace(&who, key)
        {
            return Err(is_taken(&self.table[key], false));
        }
        let timeout_ms = match body.activity_timeout_ms {
            0 => cx.settings.get(Setting::ActivityTimeoutMs),
            given => given,
        };
        let link = who.link;
        let (sequence, id) = (body.sequence, body.id);
        let instance = Instance {
            name,
            owner: Owner::Link(link),
            incarnation: 0,
            kind: body.kind,
            named_groups: groups,
            groups: Vec::new(),
            addresses: body.addresses,
            meta: body.meta,
            state_names: body.state_names,
            timeout: Micros::from_millis(timeout_ms),
            stalled: Micros::from_millis(body.stalled_ms),
            condition: Condition::Alive(body.state),
            is_stalled: false,
            text: String::new(),
            began: cx.now,
            since: cx.now,
            checkpoint: 0,
            moved: now,
            heard: now,
            heard_at: cx.now,
            look: None,
        };
        self.check_room(&who, &instance, old, cx)?;
        if let Some(key) = old {
            self.end(key, EndReason::Displaced, None, cx);
        }
        let announced = Announced {
            sequence,
            id,
            incarnation: self.last_incarnation + 1,
            beat_ms: cx.settings.get(Setting::BeatMs).min(timeout_ms / BEATS),
            activity_timeout_ms: timeout_ms,
            displaced: old.is_some(),
        };
        cx.out.push(Action::Send { link, frame: Frame::Announced(announced) });
        let key = self.add(instance, Some(who), cx);
        self.watch(key, cx);
        Ok(())
    }

    /// Adds an instance: it gets its number, is in its groups, and replaces one that failed.
    pub(super) fn add(
        &mut self,
        mut instance: Instance,
        who: Option<Announcer>,
        cx: &mut Context<'_>,
    ) -> InstanceKey {
        self.last_incarnation += 1;
        instance.incarnation = self.last_incarnation;
        instance.groups = self.groups.of(&instance.name.name, &instance.named_groups);
        self.history.replaced(&instance.name, &mut self.groups);
        let key = self.table.insert(instance, who);
        let instance = &self.table[key];
        self.groups.join(key, instance);
        publish(instance, "none", Change::Begun, cx.effects);
        key
    }

    /// Ends an instance whose link is gone. Returns whether it is one.
    fn end_if_gone(&mut self, key: InstanceKey, cx: &mut Context<'_>) -> bool {
        let link = self.table[key].owner.link();
        match link.and_then(|link| self.table.of_link(link)).map(|of_link| of_link.state) {
            Some(LinkState::Gone(reason)) => {
                self.end(key, reason, None, cx);
                true
            }
            Some(LinkState::Open | LinkState::Closing) | None => false,
        }
    }

    /// Whether the instance is one of the same user, or of the holder of the same token.
    fn may_displace(&self, who: &Announcer, key: InstanceKey) -> bool {
        let old = self.table[key].owner.link().and_then(|link| self.table.of_link(link));
        old.is_some_and(|of_link| who.is_same_as(&of_link.who))
    }

    fn check_room(
        &self,
        who: &Announcer,
        instance: &Instance,
        old: Option<InstanceKey>,
        cx: &Context<'_>,
    ) -> Result<(), ErrorBody> {
        let limit = |text: String| Err(ErrorBody::new(ErrorCode::LimitReached, text));
        let here = self.table.of_link(who.link).map_or(0, |of_link| of_link.by_id.len()) as u64;
        let max = cx.settings.get(Setting::ConnectionInstancesMax);
        if here >= max {
            return limit(format!(
                "this connection has announced {here} instances (connection_instances_max is \
                 {max}); withdraw some, or raise the setting"
            ));
        }
        let all = (self.table.announced() - usize::from(old.is_some())) as u64;
        let max = cx.settings.get(Setting::InstancesMax);
        if all >= max {
            return limit(format!(
                "{all} instances are announced (instances_max is {max}); withdraw some, or raise \
                 the setting"
            ));
        }
        let all = self.table.bytes() - old.map_or(0, |key| self.table[key].bytes());
        let (bytes, max) = (instance.bytes(), cx.settings.get(Setting::InstancesBytesMax));
        if all + bytes > max {
            return limit(format!(
                "the instance takes {bytes} bytes, and those that are announced {all} \
                 (instances_bytes_max is {max}); announce less, withdraw some, or raise the setting"
            ));
        }
        Ok(())
    }
}
