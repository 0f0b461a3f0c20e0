//! What an operator sees of topics and instances must be what was delivered and told.

use super::world::World;
use crate::shell::Player;
use broker::engine::input::Input;
use protocol::op::reply::{Block, OpReply, Value};
use std::collections::BTreeMap;

/// A row of a table, by the keys of its columns.
type Row = BTreeMap<String, Value>;

fn rows(reply: &OpReply) -> Vec<Row> {
    let Some(Block::Table { columns, rows, .. }) = reply.blocks.first() else { return Vec::new() };
    let row = |row: &Vec<Value>| {
        let keys = columns.iter().map(|column| column.key.to_owned());
        keys.zip(row.iter().cloned()).collect()
    };
    rows.iter().map(row).collect()
}

fn count(row: &Row, key: &str) -> u64 {
    let value = match row.get(key) {
        Some(Value::As { value, .. }) => Some(value.as_ref()),
        value => value,
    };
    match value {
        Some(Value::Number(number)) => u64::try_from(*number).unwrap_or(u64::MAX),
        _ => 0,
    }
}

fn word(row: &Row, key: &str) -> String {
    match row.get(key) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Word(word)) => (*word).to_owned(),
        Some(Value::As { shown, .. }) => shown.trim_matches('"').to_owned(),
        _ => String::new(),
    }
}

impl World {
    /// Compares the lists of an operator with what the model knows. `is_quiet`: nothing waits.
    pub(super) fn check_listings(&mut self, is_quiet: bool) {
        if !self.plan.bus.is_on() || self.broken.is_some() {
            return;
        }
        // What is due is done before, not between the list and the look at it.
        self.feed(Input::Deadline);
        if self.broker.as_ref().is_none_or(|broker| broker.shell.engine.is_working()) {
            return;
        }
        if let Some(Ok(reply)) = self.operate("subscriptions") {
            let verdict = self.check_subscriptions(&rows(&reply), is_quiet);
            self.hold(verdict);
        }
        if let Some(Ok(reply)) = self.operate("instances all") {
            let verdict = self.model.instances.is_listed(rows(&reply).iter().map(|row| {
                let name = format!("{} {}", word(row, "instance"), count(row, "id"));
                (name, count(row, "incarnation"), word(row, "state"))
            }));
            self.hold(verdict);
        }
        if let Some(Ok(reply)) = self.operate("groups") {
            let listed = rows(&reply);
            let listed = listed.iter().map(|row| (word(row, "group"), word(row, "state")));
            let verdict = self.model.instances.are_listed(listed);
            self.hold(verdict);
        }
    }

    /// Each subscription is listed, with what it got, and what it did not get.
    fn check_subscriptions(&self, rows: &[Row], is_quiet: bool) -> Result<(), String> {
        let mut listed = Vec::new();
        for row in rows {
            let lost = count(row, "dropped") + count(row, "queued");
            let (number, pattern) = (count(row, "subscription"), word(row, "pattern"));
            if is_quiet && count(row, "queued") > 0 {
                return Err(format!("something waits for subscription {number} of '{pattern}'"));
            }
            listed.push((number, pattern, count(row, "delivered"), lost));
        }
        let known = self.model.topics.subscriptions().filter(|(_, known)| known.is_live());
        let mut known: Vec<_> = known
            .map(|((_, number), known)| {
                let lost = known.dropped + known.owed.len() as u64;
                (u64::from(*number), known.pattern.to_string(), known.delivered, lost)
            })
            .collect();
        if !is_quiet {
            // What is not caught up is not known so well.
            listed.retain(|row| known.contains(row) || is_quiet);
            known.retain(|row| !listed.contains(row));
            return match known.first() {
                None => Ok(()),
                Some(row) => Err(format!("{row:?} (and {}) is not listed", known.len() - 1)),
            };
        }
        listed.sort();
        known.sort();
        if listed == known {
            return Ok(());
        }
        let first = listed.iter().zip(&known).find(|(a, b)| a != b);
        Err(format!(
            "{} subscriptions are listed, {} are known; the first that differ: {first:?}",
            listed.len(),
            known.len()
        ))
    }
}
