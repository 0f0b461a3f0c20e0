//! Facts as messages: while somebody subscribes to topics of the broker, each fact is published as
//! `isect.fact.KIND`, with the fields of its JSON as lines.

use super::context::context;
use super::fact::Fact;
use super::fact_log;
use super::hub::Engine;
use protocol::{Block, Value};

/// `Effect::Fact`: publishes a fact.
pub(crate) fn publish(hub: &mut Engine, fact: &Fact) {
    if !hub.topics.keeps_own(hub.now) {
        // Further facts are not even looked at.
        hub.facts.set_published(false);
        hub.topics.pass_over_own();
        return;
    }
    let Block::Line { fields, .. } = fact_log::line(fact) else { return };
    let lines = fields.into_iter().filter_map(|(key, value)| Some((key, text(value)?)));
    let lines: Vec<(&'static str, String)> = lines.collect();
    let topic = format!("isect.fact.{}", fact.kind.row().name);
    hub.topics.publish_own(&topic, &lines, None, context!(hub));
}

/// A value as a line has it; `None` = there is none.
fn text(value: Value) -> Option<String> {
    Some(match value {
        Value::None | Value::Unsaid => return None,
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Word(word) => word.to_owned(),
        Value::Flag(is_so) => (if is_so { "yes" } else { "no" }).to_owned(),
        Value::Micros(span) => span.to_string(),
        Value::Time(wall) => wall.rfc3339(),
        Value::Numbers(numbers) => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
        Value::Texts(texts) => texts.join(" "),
        Value::As { value, .. } => return text(*value),
    })
}
