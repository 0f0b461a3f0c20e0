//! What is published of each change: one message for each group of the instance, with topic
//! `isect.state.GROUP.NAME`.

use super::instance::{EndReason, Instance, Owner};
use crate::engine::effect::{Effect, Effects};
use protocol::topics::escape_word;

/// The group of an instance without one, in topics and messages.
pub(crate) const NO_GROUP: &str = "-";

/// What an instance turned into.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// It was announced.
    Begun,
    /// Its condition, its text, or whether it is stalled.
    State,
    /// It is gone.
    Ended(EndReason),
}

/// Publishes a change; `was` is the state before.
pub(crate) fn publish(instance: &Instance, was: &str, change: Change, effects: &mut Effects) {
    let source = match instance.owner {
        Owner::Link(link) => Some(link),
        Owner::Worker { .. } => None,
    };
    let mut publish = |group: &str, word: &str| {
        let topic = format!("isect.state.{word}.{}", escape_word(instance.name.name.as_str()));
        let lines = lines(instance, group, was, change);
        effects.push(Effect::Publish { topic, lines, source });
    };
    if instance.groups.is_empty() {
        publish(NO_GROUP, NO_GROUP);
    }
    for group in &instance.groups {
        publish(group.as_str(), &escape_word(group.as_str()));
    }
}

fn lines(
    instance: &Instance,
    group: &str,
    was: &str,
    change: Change,
) -> Vec<(&'static str, String)> {
    let state = match change {
        Change::Begun | Change::State => instance.condition.to_string(),
        Change::Ended(_) => "ended".to_owned(),
    };
    let mut lines = vec![
        ("name", instance.name.name.to_string()),
        ("id", instance.name.id.to_string()),
        ("incarnation", instance.incarnation.to_string()),
        ("group", group.to_owned()),
        ("state", state),
        ("was", was.to_owned()),
    ];
    match change {
        Change::Begun | Change::State => {
            lines.extend(instance.state_name().map(|name| ("state_name", name.to_owned())));
        }
        Change::Ended(_) => {}
    }
    if !instance.text.is_empty() {
        lines.push(("text", instance.text.clone()));
    }
    lines.push(("checkpoint", instance.checkpoint.to_string()));
    match change {
        Change::Begun | Change::State if instance.is_stalled => {
            lines.push(("stalled", "yes".to_owned()));
        }
        Change::Begun | Change::State => {}
        Change::Ended(reason) => lines.push(("reason", reason.word().to_owned())),
    }
    lines
}
