//! Messages and instances, by one connection to the bus.

use super::{Command, Refusal, TIMEOUT, Values, hex, said};
use client::address::Address;
use client::bus::{
    Bus, Event, Instance, InstanceOptions, InstanceState, Options, Position, Standing,
    SubscribeOptions, Subscription,
};
use client::error::Error;
use client::token::Token;
use protocol::errors::ErrorCode;
use serde_json::json;
use std::collections::BTreeMap;

/// What a program has on the bus, by the numbers of the commands that made it.
#[derive(Default)]
pub(super) struct Programs {
    bus: Option<Bus>,
    subscriptions: BTreeMap<u64, Subscription>,
    instances: BTreeMap<u64, Instance>,
}

impl Programs {
    pub(super) fn does(
        &mut self,
        command: &Command,
        addresses: &[Address],
        option: impl Fn(&str) -> Option<String>,
    ) -> Result<Values, Refusal> {
        if self.bus.is_none() {
            let mut options = Options { answer_timeout: TIMEOUT, ..Options::default() };
            options.reconnect = option("reconnect").as_deref() != Some("no");
            options.token = option("token").map(|text| Token::parse(&text)).transpose()?;
            options.name = option("name");
            self.bus = Some(Bus::connect(addresses, options)?);
        }
        let bus = self.bus.clone().expect("it is there");
        match command.verb.as_str() {
            "publish" | "remove" => publish(&bus, command),
            "flush-messages" => {
                let refused = bus.flush(TIMEOUT)?;
                let first = refused.first().map(|error| super::of_error(error)["name"].clone());
                Ok(said([("refused", json!(refused.len())), ("name", json!(first))]))
            }
            "subscribe" => {
                let from = command.text("start").map(|text| {
                    let wrong = || Error::new(ErrorCode::Usage, "a start is EPOCH:NUMBER");
                    Position::read(text).ok_or_else(wrong)
                });
                let retained = command.text("retained") != Some("no");
                let options = SubscribeOptions { from: from.transpose()?, retained };
                let pattern = command.text("pattern").unwrap_or_default();
                let subscription = bus.subscribe_with(pattern, options)?;
                self.subscriptions.insert(command.id, subscription);
                Ok(Values::new())
            }
            "next" | "event" => self.next(command),
            "position" => {
                let subscription = self.subscription(command)?;
                let at = Subscription::position(subscription).map(|at| at.to_string());
                Ok(said([("at", json!(at))]))
            }
            "unsubscribe" => {
                let subscription = self.subscriptions.remove(&command.of());
                let answer = subscription.ok_or_else(nothing)?.unsubscribe()?;
                let (delivered, dropped) = (answer.delivered, answer.dropped);
                Ok(said([("delivered", json!(delivered)), ("dropped", json!(dropped))]))
            }
            "close" => {
                self.bus = None;
                bus.close()?;
                Ok(Values::new())
            }
            _ => self.instance(command, &bus),
        }
    }

    fn subscription(&mut self, command: &Command) -> Result<&mut Subscription, Refusal> {
        self.subscriptions.get_mut(&command.of()).ok_or_else(nothing)
    }

    /// The next message, or with `event` whatever is next.
    fn next(&mut self, command: &Command) -> Result<Values, Refusal> {
        let subscription = self.subscription(command)?;
        loop {
            let event = subscription.next_within(TIMEOUT)?;
            let late = || Error::new(ErrorCode::Timeout, "no message came");
            let said = shown(event.ok_or_else(late)?);
            if command.verb == "event" || said["kind"] == "message" {
                return Ok(said);
            }
        }
    }

    fn instance(&mut self, command: &Command, bus: &Bus) -> Result<Values, Refusal> {
        match command.verb.as_str() {
            "announce" => {
                let options = announcement(command);
                let instance = bus.announce(options)?;
                let said = standing(&instance);
                self.instances.insert(command.id, instance);
                return Ok(said);
            }
            "beat" => {
                bus.beat()?;
                return Ok(Values::new());
            }
            "poll" => {
                bus.poll()?;
                return Ok(Values::new());
            }
            "withdraw" => {
                let instance = self.instances.remove(&command.of()).ok_or_else(nothing)?;
                let text = command.text("text").unwrap_or_default();
                match command.is("failed") {
                    true => instance.fail(text)?,
                    false => instance.withdraw(text)?,
                }
                return Ok(Values::new());
            }
            _ => {}
        }
        if !["state", "checkpoint", "idle", "standing"].contains(&command.verb.as_str()) {
            return Err(command.unsupported());
        }
        let instance = self.instances.get(&command.of()).ok_or_else(nothing)?;
        match command.verb.as_str() {
            "state" => {
                let text = command.text("text").unwrap_or_default();
                match command.number("state").and_then(|number| u32::try_from(number).ok()) {
                    Some(number) => instance.set_own_state(number, text)?,
                    None => instance.set_state(state(command), text)?,
                }
            }
            "checkpoint" => instance.checkpoint(command.number("checkpoint").unwrap_or(0)),
            "idle" => instance.idle(command.is("idle")),
            _ => {
                bus.poll()?;
                return match instance.standing() {
                    Standing::Ended(error) => Err(error.into()),
                    Standing::Asked | Standing::Watched(_) => Ok(standing(instance)),
                };
            }
        }
        Ok(Values::new())
    }
}

fn nothing() -> Refusal {
    Refusal::Unsupported("nothing was made by that command".to_owned())
}

fn publish(bus: &Bus, command: &Command) -> Result<Values, Refusal> {
    let topic = command.text("topic").unwrap_or_default();
    if command.verb == "remove" {
        let receipt = bus.remove(topic)?;
        return Ok(said([("at", json!(receipt.position.to_string()))]));
    }
    let mut message = bus.message(topic);
    if command.is("retain") {
        message = message.retain();
    }
    if command.is("while_connected") {
        message = message.while_connected();
    }
    if let Some(after) = command.millis("expires") {
        message = message.expires(after);
    }
    if let Some(line) = command.text("line") {
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        message = message.line(word, value);
    }
    if !command.is("wait") {
        message.send(command.body())?;
        return Ok(Values::new());
    }
    let receipt = message.send_and_wait(command.body())?;
    let at = receipt.position.to_string();
    Ok(said([("at", json!(at)), ("subscriptions", json!(receipt.subscriptions))]))
}

fn shown(event: Event) -> Values {
    match event {
        Event::Message(message) => {
            let lines = message.lines.iter().map(|(word, value)| format!("{word} {value}"));
            said([
                ("kind", json!("message")),
                ("topic", json!(message.topic)),
                ("body", hex(&message.payload)),
                ("before", json!(message.kept)),
                ("dropped", json!(message.dropped)),
                ("at", json!(message.position.to_string())),
                ("removed", json!(message.removed.map(client::bus::Removed::word))),
                ("lines", json!(lines.collect::<Vec<_>>().join("; "))),
            ])
        }
        Event::CaughtUp { kept, dropped } => {
            said([("kind", json!("caught_up")), ("kept", json!(kept)), ("dropped", json!(dropped))])
        }
        Event::Missing(missing) => {
            said([("kind", json!("missing")), ("missing", json!(missing.to_string()))])
        }
        Event::Lost(error) => {
            said([("kind", json!("lost")), ("name", super::of_error(&error)["name"].clone())])
        }
        Event::Resumed(at) => said([("kind", json!("resumed")), ("at", json!(at.to_string()))]),
    }
}

fn announcement(command: &Command) -> InstanceOptions {
    let mut options = InstanceOptions::new(command.text("name").unwrap_or_default());
    if let Some(id) = command.number("instance") {
        options = options.id(id);
    }
    for group in command.text("groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        options = options.group(group);
    }
    if let Some(timeout) = command.millis("activity_timeout") {
        options = options.timeout(timeout);
    }
    if let Some(stalled) = command.millis("stalled") {
        options = options.stalled(stalled);
    }
    options.state(state(command))
}

fn state(command: &Command) -> InstanceState {
    match command.text("state") {
        Some("running") => InstanceState::Running,
        Some("stopping") => InstanceState::Stopping,
        Some("stopped") => InstanceState::Stopped,
        Some(_) | None => InstanceState::Starting,
    }
}

fn standing(instance: &Instance) -> Values {
    let mut said = said([("instance", json!(instance.id()))]);
    if let Standing::Watched(watching) = instance.standing() {
        said.insert("incarnation".to_owned(), json!(watching.incarnation));
        said.insert("displaced".to_owned(), json!(watching.displaced));
    }
    said
}
