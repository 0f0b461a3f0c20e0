//! What clients and workers do in a script about topics and instances.

use super::words::Cursor;
use super::world::World;
use broker::engine::input::Input;
use protocol::bodies::{Announce, Beat, StateChange, Subscribe, Withdraw};
use protocol::header::Header;
use protocol::instances::{BeatOf, InstanceState, InstanceType, StateName};
use protocol::messages::{MessageOf, Position, Removed, Retain};

/// The verbs of this file.
pub(super) const TOPICS: &str = "subscribes N PATTERN [from=EPOCH:NUMBER] [no-retained] [times=N], \
unsubscribes N, publishes TOPIC [BODY] [retain] [while-connected] [expires=MS] [removed] [ack] \
[seq=N] [times=N], publishes-lines \"LINES\", \
announces NAME ID [type=WORD] [groups=A,B] [timeout=MS] [stalled=MS] [state=WORD] \
[names=N:TEXT] [address=X] [meta=\"WORD VALUE\"] [times=N], turns ID STATE [checkpoint=N] [\"TEXT\"], \
beats [ID=CHECKPOINT[:idle]]…, withdraws ID [failed] [\"TEXT\"]";

fn number<T: std::str::FromStr>(line: &mut Cursor) -> Result<T, String> {
    let word = line.word("a number")?;
    word.parse().map_err(|_| format!("'{word}' is not a number in range"))
}

fn words(list: Option<String>) -> Vec<String> {
    list.map_or_else(Vec::new, |list| list.split(',').map(str::to_owned).collect())
}

fn text(line: &mut Cursor) -> String {
    line.quoted().map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned())
}

impl World {
    /// Carries out a verb about topics or instances; `None` = no such verb.
    pub(super) fn act_topics(
        &mut self,
        name: &str,
        verb: &str,
        line: &mut Cursor,
    ) -> Result<Option<()>, String> {
        match verb {
            "subscribes" => self.subscribes(name, line)?,
            "unsubscribes" => {
                let subscription = number(line)?;
                self.step(Input::Unsubscribe { link: self.link(name)?, subscription })?;
            }
            "publishes" => self.publishes(name, line)?,
            "publishes-lines" => {
                let body = line.quoted().ok_or("publishes-lines \"LINES\"")?.into();
                let head = Header { sequence: 1, ..Header::default() };
                self.step(Input::Publish { link: self.link(name)?, head, body })?;
            }
            "announces" => self.announces(name, line)?,
            "turns" => {
                let (id, state) = (number(line)?, line.word("a state")?);
                let state = InstanceState::read(&state).ok_or("a state, or a number from 100")?;
                let checkpoint = line.number("checkpoint")?;
                let text = text(line);
                let change = StateChange { sequence: 1, id, state, checkpoint, text };
                let link = self.link(name)?;
                self.step(Input::StateChange { link, change: Box::new(change) })?;
            }
            "beats" => {
                let mut beat = Beat { beat: 1, instances: Vec::new() };
                for (id, what) in line.pairs() {
                    let (checkpoint, is_idle) = match what.split_once(':') {
                        Some((checkpoint, "idle")) => (checkpoint, true),
                        Some(_) => return Err(format!("'{what}' is no CHECKPOINT[:idle]")),
                        None => (what.as_str(), false),
                    };
                    let id = id.parse().map_err(|_| format!("'{id}' is no id"))?;
                    let checkpoint =
                        checkpoint.parse().map_err(|_| format!("'{what}' is no checkpoint"))?;
                    beat.instances.push(BeatOf { id, checkpoint, is_idle });
                }
                self.step(Input::Beat { link: self.link(name)?, beat })?;
            }
            "withdraws" => {
                let (id, failed) = (number(line)?, line.flag("failed"));
                let withdraw = Withdraw { sequence: 1, id, failed, text: text(line) };
                let link = self.link(name)?;
                self.step(Input::Withdraw { link, withdraw: Box::new(withdraw) })?;
            }
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    fn subscribes(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let (first, pattern): (u32, String) = (number(line)?, line.word("a pattern")?);
        let from = match line.pair("from") {
            Some(from) => Some(Position::read(&from).ok_or("from=EPOCH:NUMBER")?),
            None => None,
        };
        let retained = !line.flag("no-retained");
        for subscription in first..first + line.number("times")?.unwrap_or(1) {
            let subscribe = Subscribe { subscription, pattern: pattern.clone(), from, retained };
            let link = self.link(name)?;
            self.step(Input::Subscribe { link, subscribe: Box::new(subscribe) })?;
        }
        Ok(())
    }

    fn publishes(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let topic = line.word("a topic")?;
        let payload = line.body();
        let retain = match (line.flag("retain"), line.flag("while-connected")) {
            (_, true) => Retain::Connected,
            (true, false) => Retain::Yes,
            (false, false) => Retain::No,
        };
        let message = MessageOf {
            retain,
            expires_ms: line.number("expires")?,
            removed: line.flag("removed").then_some(Removed::Deleted),
            ..MessageOf::new(&topic, &payload)
        };
        let reply = u16::from(line.flag("ack"));
        let mut head =
            Header { sequence: line.number("seq")?.unwrap_or(1), reply, ..Header::default() };
        let body = message.body();
        for _ in 0..line.number("times")?.unwrap_or(1) {
            self.step(Input::Publish { link: self.link(name)?, head, body: body.clone() })?;
            head.sequence += 1;
        }
        Ok(())
    }

    fn announces(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let (instance, id): (_, u64) = (line.word("a name")?, number(line)?);
        let kind = line.pair("type").unwrap_or_else(|| "data".into());
        let state = line.pair("state").unwrap_or_else(|| "starting".into());
        let mut state_names = Vec::new();
        for word in words(line.pair("names")) {
            let (number, text) = word.split_once(':').ok_or("names=N:TEXT")?;
            let number = number.parse().map_err(|_| format!("'{number}' is no number"))?;
            state_names.push(StateName { number, text: text.to_owned() });
        }
        let announce = Announce {
            sequence: line.number("seq")?.unwrap_or(1),
            name: instance,
            id,
            kind: InstanceType::read(&kind).ok_or("type=WORD or a number")?,
            groups: words(line.pair("groups")),
            activity_timeout_ms: line.number("timeout")?.unwrap_or(0),
            stalled_ms: line.number("stalled")?.unwrap_or(0),
            state: InstanceState::read(&state).ok_or("state=WORD or a number from 100")?,
            addresses: words(line.pair("address")),
            meta: line.pair("meta").into_iter().collect(),
            state_names,
        };
        let link = self.link(name)?;
        for more in 0..line.number("times")?.unwrap_or(1) {
            let announce = Box::new(Announce { id: id + more, ..announce.clone() });
            self.step(Input::Announce { link, announce })?;
        }
        Ok(())
    }
}
