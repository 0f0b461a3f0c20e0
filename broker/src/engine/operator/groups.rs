//! The commands about groups of instances: `groups`, `group`, `config group`, `delete group`.

use super::cells::{blank, number, text, yes};
use super::lines::group_command;
use crate::engine::context::context;
use crate::engine::hub::Engine;
use crate::engine::instances::groups::{Group, GroupConfig, GroupState};
use crate::engine::instances::instance::Condition;
use crate::engine::keys::InstanceKey;
use crate::engine::operator::open_listing::Listing;
use crate::engine::operator::result::{OpResult, not_found, refused};
use crate::engine::origin::Origin;
use crate::engine::worker_instances::expected;
use protocol::op::parse::nearest;
use protocol::op::reply::span;
use protocol::op::spec::GroupMembers;
use protocol::{Block, OpError, OpReply, ServiceName, Value};
use std::collections::BTreeSet;

/// Most members in error that the page of a group names.
const SHOWN_MAX: usize = 20;

/// All groups, by name: those of services, and those of which there is something to say.
fn names(hub: &Engine) -> BTreeSet<ServiceName> {
    let services = hub.catalog.ids().filter(|(_, key)| *key != hub.catalog.op());
    let services = services.map(|(_, key)| hub.catalog[key].name.clone());
    // A built-in service is shown to who names it.
    let is_builtin = |name: &ServiceName| {
        hub.catalog.find(name.as_str()).is_some_and(|key| hub.catalog[key].id.is_builtin())
    };
    let others = hub.instances.groups().iter();
    let others = others.filter(|(name, group)| group.config.is_some() || !is_builtin(name));
    services.chain(others.map(|(name, _)| name.clone())).collect()
}

/// Begins the list of all groups.
pub(crate) fn begin(hub: &Engine) -> Listing {
    Listing::Groups { left: names(hub).into_iter().collect(), rows: Vec::new() }
}

/// Whether there is a group of this name.
///
/// # Errors
/// There is none; the error suggests a similar name.
pub(crate) fn check_known(hub: &Engine, name: &ServiceName) -> Result<(), OpError> {
    let is_service = !name.is_op() && hub.catalog.find(name.as_str()).is_some();
    if is_service || hub.instances.groups().get(name).is_some() {
        return Ok(());
    }
    let names = names(hub);
    let near = nearest(name.as_str(), names.iter().map(ServiceName::as_str));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    Err(not_found(format!(
        "group '{name}' is unknown; 'groups' lists them, 'config group NAME' makes one{hint}"
    )))
}

fn config_of(group: Option<&Group>) -> Option<&GroupConfig> {
    group.and_then(|group| group.config.as_ref())
}

/// How many members a group expects.
fn expected_of(hub: &Engine, name: &ServiceName, group: Option<&Group>) -> usize {
    expected(hub, name, config_of(group).map_or(0, |config| config.members.len()))
}

/// One group in the list; `None` = it is gone.
pub(crate) fn group_row(hub: &Engine, name: &ServiceName) -> Option<Vec<Value>> {
    check_known(hub, name).ok()?;
    let group = hub.instances.groups().get(name);
    let count = |count: fn(&Group) -> u64| number(group.map_or(0, count));
    let since = group.and_then(|group| group.since);
    Some(vec![
        text(name),
        Value::Word(group.map_or(GroupState::Down, |group| group.state).word()),
        count(|group| group.joined),
        number(expected_of(hub, name, group)),
        number(group.map_or(1, Group::min)),
        count(Group::error),
        number(group.map_or(0, |group| group.members().len())),
        since.map_or(Value::None, |at| Value::shown(span(hub.now.since(at).0), hub.clock(at))),
        blank(yes(config_of(group).is_some())),
    ])
}

/// `group`: the page of one.
pub(crate) fn show_group(hub: &Engine, name: &ServiceName) -> OpResult {
    check_known(hub, name)?;
    let group = hub.instances.groups().get(name);
    let named = config_of(group).map_or(&[][..], |config| &config.members);
    let table = hub.instances.table();
    let missing = named.iter().filter(|member| table.of_name(member, None).next().is_none());
    let texts = |names: Vec<&ServiceName>| {
        Value::Texts(names.into_iter().map(ToString::to_string).collect())
    };
    let since = group.and_then(|group| group.since);
    let fields = vec![
        ("name", text(name)),
        ("state", Value::Word(group.map_or(GroupState::Down, |group| group.state).word())),
        ("since", since.map_or(Value::None, |at| hub.clock(at))),
        ("joined", number(group.map_or(0, |group| group.joined))),
        ("expected", number(expected_of(hub, name, group))),
        ("min", number(group.map_or(1, Group::min))),
        ("error", number(group.map_or(0, Group::error))),
        ("members", number(group.map_or(0, |group| group.members().len()))),
        ("configured", yes(config_of(group).is_some())),
        ("names", texts(named.iter().collect())),
        ("missing", texts(missing.collect())),
        ("in_error", Value::Texts(in_error(hub, name, group))),
    ];
    Ok(OpReply::block(Block::Record { name: "group", prefix: "group->", width: 0, fields }))
}

/// The members that are timed out, then those that failed and were not replaced.
fn in_error(hub: &Engine, name: &ServiceName, group: Option<&Group>) -> Vec<String> {
    let table = hub.instances.table();
    let is_timed_out =
        |key: &&InstanceKey| matches!(table[**key].condition, Condition::TimedOut { .. });
    let timed_out = group.into_iter().filter(|group| group.error() > 0);
    let timed_out = timed_out.flat_map(Group::members).filter(is_timed_out).map(|&key| {
        let instance = &table[key];
        format!("{} {}: timed out", instance.name.name, instance.name.id)
    });
    let history = hub.instances.history();
    let failed = history
        .missed_of(name)
        .map(|ended| format!("{} {}: {}", ended.name.name, ended.name.id, ended.reason.word()));
    timed_out.chain(failed).take(SHOWN_MAX).collect()
}

fn configured_fields(hub: &Engine, name: &ServiceName) -> Vec<(&'static str, Value)> {
    let group = hub.instances.groups().get(name);
    vec![
        ("group", text(name)),
        ("min", number(group.map_or(1, Group::min))),
        ("expected", number(expected_of(hub, name, group))),
    ]
}

/// `config group`: says which members a group expects, and how many of them have to run.
pub(crate) fn config_group(
    hub: &mut Engine,
    origin: &Origin,
    name: &ServiceName,
    said: GroupMembers,
) -> OpResult {
    if name.is_op() {
        return Err(refused("'op' is the broker's own service, and is no group"));
    }
    let config = GroupConfig { min: said.min, members: said.members };
    let old = config_of(hub.instances.groups().get(name));
    let verb = match old {
        None => "configured",
        Some(old) if *old == config => "unchanged",
        Some(_) => "changed",
    };
    if verb == "unchanged" {
        hub.store.changed(Vec::new(), false);
    } else {
        let line = group_command(name, &config);
        hub.instances.configure_group(name, Some(config), context!(hub));
        hub.changed(origin, line.clone(), vec![line]);
    }
    let fields = configured_fields(hub, name);
    Ok(OpReply::line(verb, format!("{verb} group {name}"), fields))
}

/// `delete group`: what was said of it is forgotten.
pub(crate) fn delete_group(hub: &mut Engine, origin: &Origin, name: &ServiceName) -> OpResult {
    check_known(hub, name)?;
    if config_of(hub.instances.groups().get(name)).is_none() {
        return Err(refused(format!(
            "nothing is configured of group '{name}': it is there because of its members"
        )));
    }
    hub.instances.configure_group(name, None, context!(hub));
    let line = format!("delete group {name}");
    hub.changed(origin, line.clone(), vec![line]);
    Ok(OpReply::line("deleted", format!("group {name} deleted"), vec![("group", text(name))]))
}
