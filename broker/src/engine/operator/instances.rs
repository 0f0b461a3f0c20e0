//! The commands `instances` and `instance`: what programs have announced, workers, and what ended.

use super::cells::{blank, number, text, yes};
use crate::engine::hub::Engine;
use crate::engine::instances::groups::Group;
use crate::engine::instances::history::EndedInstance;
use crate::engine::instances::instance::{Condition, Instance, Owner};
use crate::engine::instances::table::Start;
use crate::engine::keys::InstanceKey;
use crate::engine::operator::open_listing::{InstancesLeft, Listing};
use crate::engine::operator::result::{OpResult, not_found, refused};
use crate::engine::sessions::connection::End;
use protocol::instances::InstanceState;
use protocol::op::reply::span;
use protocol::op::spec::{InstanceWanted, InstancesOf};
use protocol::{Block, LinkId, OpError, OpReply, ServiceName, Value};

/// So many instances are collected and sorted at once; more are found part by part.
const FEW: usize = 512;

/// The list that `instances` asks for.
///
/// # Errors
/// There is no such group.
pub(crate) fn chosen(hub: &Engine, of: &InstancesOf) -> Result<Listing, OpError> {
    let table = hub.instances.table();
    let mut few: Vec<InstanceKey> = match of {
        InstancesOf::All => table.iter().map(|(key, _)| key).take(FEW + 1).collect(),
        InstancesOf::Name(name) => table.of_name(name, None).take(FEW + 1).collect(),
        InstancesOf::Group(name) => {
            super::groups::check_known(hub, name)?;
            let members = hub.instances.groups().get(name).into_iter().flat_map(Group::members);
            members.take(FEW + 1).copied().collect()
        }
        InstancesOf::History => {
            let history = hub.instances.history();
            return Ok(Listing::Ended { left: history.len(), before: u64::MAX, rows: Vec::new() });
        }
    };
    let left = if few.len() <= FEW {
        few.sort_by(|a, b| table[*a].name.cmp(&table[*b].name));
        InstancesLeft::Few(few.into_iter().map(|key| (key, table[key].incarnation)).collect())
    } else {
        let start = match of {
            InstancesOf::Name(name) => Start::Name(name.clone()),
            InstancesOf::All | InstancesOf::Group(_) | InstancesOf::History => Start::Beginning,
        };
        InstancesLeft::Walk { of: of.clone(), start, left: table.len() }
    };
    Ok(Listing::Instances { left, rows: Vec::new() })
}

impl InstancesLeft {
    /// How many are still to be looked at at most.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(left) => left.len(),
            Self::Walk { left, .. } => *left,
        }
    }
}

/// The next instances of a listing, of up to `most` that are looked at.
pub(crate) fn next<'a>(
    hub: &'a Engine,
    listed: &mut InstancesLeft,
    most: usize,
) -> Vec<&'a Instance> {
    let table = hub.instances.table();
    match listed {
        InstancesLeft::Few(few) => {
            let there = few.drain(..most).filter_map(|(key, incarnation)| {
                table.get(key).filter(|instance| instance.incarnation == incarnation)
            });
            there.collect()
        }
        InstancesLeft::Walk { of, start, left } => {
            let next = table.behind(start).map(|(_, instance)| instance).take(most);
            let next: Vec<&Instance> = match of {
                InstancesOf::Name(name) => next.take_while(|it| it.name.name == *name).collect(),
                InstancesOf::All | InstancesOf::Group(_) | InstancesOf::History => next.collect(),
            };
            // Others may have come meanwhile, so that there are more.
            *left = if next.len() < most { 0 } else { left.saturating_sub(most).max(most) };
            if let Some(last) = next.last() {
                *start = Start::After(last.name.clone());
            }
            let is_listed = |instance: &&Instance| match of {
                InstancesOf::Group(name) => instance.groups.contains(name),
                InstancesOf::All | InstancesOf::Name(_) | InstancesOf::History => true,
            };
            next.into_iter().filter(is_listed).collect()
        }
    }
}

/// A state as people read it: that of a program's own by its name, if it has one.
fn state_text(condition: Condition, name: Option<&str>) -> String {
    match (condition, name) {
        (Condition::Alive(InstanceState::Own(_)), Some(name)) => name.to_owned(),
        (Condition::Alive(_) | Condition::TimedOut { .. }, _) => condition.to_string(),
    }
}

/// The number that shows that an instance goes on. Those of workers are counted by `dispatch`.
fn checkpoint(hub: &Engine, instance: &Instance) -> u64 {
    match instance.owner {
        Owner::Link(_) => instance.checkpoint,
        Owner::Worker { id, .. } => {
            let key = hub.supervision.find_worker(id);
            key.map_or(instance.checkpoint, |key| hub.dispatch.seat(key).transactions)
        }
    }
}

fn groups(groups: &[ServiceName]) -> Value {
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    Value::shown(names.join(" "), Value::Texts(names))
}

/// Since when nothing was heard of an instance; a worker sends no beats for itself.
fn last_beat(hub: &Engine, instance: &Instance) -> Value {
    match instance.owner {
        Owner::Link(_) => Value::Micros(hub.now.since(instance.heard_at).0),
        Owner::Worker { .. } => Value::None,
    }
}

/// One instance in the list.
pub(crate) fn instance_row(hub: &Engine, instance: &Instance) -> Vec<Value> {
    vec![
        text(&instance.name.name),
        number(instance.name.id),
        text(instance.machine()),
        text(state_text(instance.condition, instance.state_name())),
        yes(instance.is_stalled),
        number(checkpoint(hub, instance)),
        Value::shown(span(hub.now.since(instance.since).0), hub.clock(instance.since)),
        last_beat(hub, instance),
        groups(&instance.groups),
        blank(number(instance.incarnation)),
        blank(yes(instance.owner.link().is_none())),
        text(&instance.text),
    ]
}

/// One that ended, in the list.
pub(crate) fn ended_row(hub: &Engine, ended: &EndedInstance) -> Vec<Value> {
    vec![
        text(&ended.name.name),
        number(ended.name.id),
        text(&ended.machine),
        Value::Word(ended.reason.word()),
        text(state_text(ended.condition, ended.state_name.as_deref())),
        number(ended.checkpoint),
        Value::shown(span(hub.now.since(ended.ended).0), hub.clock(ended.ended)),
        blank(hub.clock(ended.began)),
        groups(&ended.groups),
        blank(number(ended.incarnation)),
        text(&ended.text),
    ]
}

/// `instance`: the page of one.
pub(crate) fn show_instance(hub: &Engine, wanted: &InstanceWanted) -> OpResult {
    let table = hub.instances.table();
    let is_meant = |id: u64, machine: &str| {
        wanted.id.is_none_or(|wanted| wanted == id)
            && wanted.machine.as_ref().is_none_or(|wanted| wanted == machine)
    };
    let all = table.of_name(&wanted.name, wanted.id).map(|key| &table[key]);
    let mut meant = all.filter(|instance| is_meant(instance.name.id, instance.machine()));
    if let Some(first) = meant.next() {
        // A worker stands before what programs of its machine announced under its name and id.
        let place = (first.name.id, first.machine());
        if meant.any(|other| (other.name.id, other.machine()) != place) {
            return Err(refused(format!(
                "several instances are '{}'; name one with its id, and its machine if that is not \
                 enough: 'instances {}' lists them",
                Named(wanted),
                wanted.name
            )));
        }
        return Ok(page(page_of(hub, first)));
    }
    let mut ended = hub.instances.history().iter();
    let ended = ended
        .find(|ended| ended.name.name == wanted.name && is_meant(ended.name.id, &ended.machine));
    match ended {
        Some(ended) => Ok(page(page_of_ended(hub, ended))),
        None => Err(not_found(format!(
            "there is no instance '{}', and none that ended is remembered; 'instances' lists them",
            Named(wanted)
        ))),
    }
}

/// An instance as a command names it.
struct Named<'a>(&'a InstanceWanted);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(wanted) = self;
        wanted.name.fmt(f)?;
        wanted.id.iter().try_for_each(|id| write!(f, " {id}"))?;
        wanted.machine.iter().try_for_each(|machine| write!(f, " {machine}"))
    }
}

fn page(fields: Vec<(&'static str, Value)>) -> OpReply {
    OpReply::block(Block::Record { name: "instance", prefix: "instance->", width: 0, fields })
}

/// The client or worker that announced an instance.
fn announcer(hub: &Engine, link: LinkId) -> (Value, Value) {
    match hub.sessions.end(link) {
        Some(End::Client(key)) => (number(hub.sessions.client(key).id.0), Value::Unsaid),
        Some(End::Worker(key)) => (Value::Unsaid, number(hub.supervision.worker(key).id.0)),
        Some(End::Free | End::NewClient | End::NewWorker | End::Host(_)) | None => {
            (Value::Unsaid, Value::Unsaid)
        }
    }
}

/// A span of time, unless it is none.
fn limit(micros: u64) -> Value {
    if micros == 0 { Value::Unsaid } else { Value::Micros(micros) }
}

fn page_of(hub: &Engine, instance: &Instance) -> Vec<(&'static str, Value)> {
    let (client, worker) = match &instance.owner {
        Owner::Link(link) => announcer(hub, *link),
        Owner::Worker { id, .. } => (Value::Unsaid, number(id.0)),
    };
    let is_worker = instance.owner.link().is_none();
    vec![
        ("name", text(&instance.name.name)),
        ("id", number(instance.name.id)),
        ("machine", text(instance.machine())),
        ("incarnation", number(instance.incarnation)),
        ("is_worker", yes(is_worker)),
        ("state", text(state_text(instance.condition, instance.state_name()))),
        ("stalled", yes(instance.is_stalled)),
        ("text", text(&instance.text)),
        ("checkpoint", number(checkpoint(hub, instance))),
        ("since", hub.clock(instance.since)),
        ("began", hub.clock(instance.began)),
        ("ended", Value::Unsaid),
        ("reason", Value::Unsaid),
        ("last_beat", if is_worker { Value::Unsaid } else { last_beat(hub, instance) }),
        ("activity_timeout", limit(instance.timeout.0)),
        ("stalled_after", limit(instance.stalled.0)),
        ("type", if is_worker { Value::Unsaid } else { text(instance.kind) }),
        ("groups", Value::Texts(instance.groups.iter().map(ToString::to_string).collect())),
        ("addresses", Value::Texts(instance.addresses.clone())),
        ("meta", Value::Texts(instance.meta.clone())),
        ("client", client),
        ("by_worker", worker),
    ]
}

fn page_of_ended(hub: &Engine, ended: &EndedInstance) -> Vec<(&'static str, Value)> {
    vec![
        ("name", text(&ended.name.name)),
        ("id", number(ended.name.id)),
        ("machine", text(&ended.machine)),
        ("incarnation", number(ended.incarnation)),
        ("is_worker", yes(ended.is_worker)),
        ("state", text(state_text(ended.condition, ended.state_name.as_deref()))),
        ("stalled", Value::Unsaid),
        ("text", text(&ended.text)),
        ("checkpoint", number(ended.checkpoint)),
        ("since", hub.clock(ended.since)),
        ("began", hub.clock(ended.began)),
        ("ended", hub.clock(ended.ended)),
        ("reason", Value::Word(ended.reason.word())),
        ("last_beat", Value::Unsaid),
        ("activity_timeout", Value::Unsaid),
        ("stalled_after", Value::Unsaid),
        ("type", Value::Unsaid),
        ("groups", Value::Texts(ended.groups.iter().map(ToString::to_string).collect())),
        ("addresses", Value::Texts(Vec::new())),
        ("meta", Value::Texts(Vec::new())),
        ("client", Value::Unsaid),
        ("by_worker", Value::Unsaid),
    ]
}
