//! Simulated clients of topics: they publish numbered messages, subscribe to patterns of a small
//! vocabulary, read slowly, go and come back where they were. Each keeps an account of what it got.
//! A further one, the spy, is at the broker itself, is never slow, and has all topics: so all
//! messages are known.

use super::links::{Peer, ReadResult};
use super::net::SPY;
use super::world::{Event, World};
use crate::shell::Player;
use broker::engine::input::{Input, Peer as From};
use bytes::Bytes;
use protocol::bodies::{Login, Subscribe, Unsubscribe};
use protocol::decode;
use protocol::encode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::messages::{MessageOf, Missing, Position, Removed, Retain};
use protocol::names::ServiceName;
use protocol::time::Tick;
use protocol::topics::Pattern;
use std::collections::{BTreeMap, BTreeSet};

/// Words of topics.
const WORDS: [&str; 3] = ["a", "b", "c"];
/// Words of patterns.
const PATTERN_WORDS: [&str; 5] = ["a", "b", "c", "*", "*"];
/// What no client may publish, subscribe to, or write.
const WRONG: [&str; 5] = ["isect.state.x.y", "isect.a", "a..b", "a.*", ""];

/// What a client wants of one pattern, and what it got; goes on over connections.
#[derive(Clone, Debug)]
struct Account {
    pattern: Pattern,
    retained: bool,
    /// It goes on where it was after a pause.
    resumes: bool,
    /// The start of the broker that it is about.
    epoch: u64,
    /// It has all after this, or knows what it has not.
    since: u64,
    /// The last message that it has; the next subscribe is from there.
    last: u64,
    got: BTreeSet<u64>,
    /// What it was told that it will not get.
    missing: Vec<(u64, u64)>,
    dropped: u64,
    /// Its subscribe on this connection was answered.
    is_answered: bool,
}

/// A client of topics.
#[derive(Debug, Default)]
pub struct BusClient {
    conn: Option<u64>,
    is_known: bool,
    accounts: BTreeMap<u32, Account>,
    next_subscription: u32,
    next_sequence: u32,
    reads_again: u64,
}

impl World {
    /// The spy is there, at the broker itself, and subscribes to all.
    pub(super) fn open_spy(&mut self) {
        let Some(broker) = &mut self.broker else { return };
        let link = broker.shell.open(None);
        broker.client_port_conns += 1;
        broker.spy = Some(link);
        let from =
            From { address: SPY.into(), fd: 3, uid: Some(0), is_owner: true, ..From::default() };
        self.feed(Input::ClientOpened { link, peer: from });
        let login = Box::new(Login::to(ServiceName::bus()));
        self.feed(Input::Login { link, login });
        for (subscription, pattern) in [(1, ">"), (2, "isect.>")] {
            self.model.topics.spy_subscribes(link, subscription, pattern);
            let pattern = pattern.to_owned();
            let subscribe = Subscribe { subscription, pattern, from: None, retained: true };
            self.feed(Input::Subscribe { link, subscribe: Box::new(subscribe) });
        }
    }

    /// A client of topics does something, and will again.
    pub fn bus_acts(&mut self, index: usize) {
        let think = if self.is_quiescent { 50 } else { self.plan.bus.think_ms };
        let wait = self.rng.between(1, think * 1000);
        self.later(wait, Event::Bus(index));
        let Some(conn) = self.buses[index].conn else { return self.bus_connects(index) };
        if !self.buses[index].is_known || self.is_quiescent {
            return;
        }
        let plan = self.plan.bus.clone();
        if self.rng.hits(plan.close) {
            return self.bus_closes(index, conn);
        }
        if self.rng.hits(plan.slow_reader) {
            self.buses[index].reads_again = self.now.0 + self.rng.below(5_000_000);
        }
        if self.rng.hits(plan.wrong) {
            return self.bus_errs(index, conn);
        }
        let has_room = self.buses[index].accounts.len() < plan.subscriptions;
        match self.rng.below(10) {
            0 | 1 if has_room => self.bus_subscribes(index),
            2 if self.rng.hits(300) => self.bus_unsubscribes(index, conn),
            _ if self.published < plan.messages => {
                for _ in 0..self.rng.between(1, plan.burst) {
                    self.bus_publishes(index, conn);
                }
            }
            _ => {}
        }
    }

    fn bus_connects(&mut self, index: usize) {
        let Some(conn) = self.dial_broker(Role::Client, Peer::Bus(index)) else { return };
        let heartbeat = self.rng.hits(300);
        let client = &mut self.buses[index];
        client.conn = Some(conn);
        client.is_known = false;
        client.reads_again = 0;
        let login = Login { heartbeat, ..Login::to(ServiceName::bus()) };
        self.write_up(conn, encode::to_bytes(Frame::Login(login)));
    }

    fn bus_closes(&mut self, index: usize, conn: u64) {
        self.note(format_args!("bus {index} closes"));
        self.bus_is_off(index);
        self.peer_closes(conn);
    }

    /// Its connection is gone. What goes on where it was stays wanted.
    fn bus_is_off(&mut self, index: usize) {
        let client = &mut self.buses[index];
        client.conn = None;
        client.is_known = false;
        client.accounts.retain(|_, account| account.resumes && account.is_begun());
        client.accounts.values_mut().for_each(|account| account.is_answered = false);
    }

    fn some_topic(&mut self) -> String {
        let words = self.rng.between(1, 3);
        let words: Vec<&str> = (0..words).map(|_| self.rng.pick(&WORDS)).collect();
        words.join(".")
    }

    fn some_pattern(&mut self) -> String {
        let words = self.rng.below(3);
        let mut words: Vec<&str> = (0..words).map(|_| self.rng.pick(&PATTERN_WORDS)).collect();
        words.push(self.rng.pick(&["a", "b", "*", ">", ">"]));
        if self.rng.hits(50) { "isect.state.>".to_owned() } else { words.join(".") }
    }

    fn bus_subscribes(&mut self, index: usize) {
        let pattern = self.some_pattern();
        let Ok(pattern) = Pattern::new(&pattern) else { return };
        let account = Account {
            pattern,
            retained: self.rng.hits(700),
            resumes: self.rng.hits(700),
            epoch: 0,
            since: 0,
            last: 0,
            got: BTreeSet::new(),
            missing: Vec::new(),
            dropped: 0,
            is_answered: false,
        };
        let client = &mut self.buses[index];
        client.next_subscription += 1;
        let number = client.next_subscription;
        client.accounts.insert(number, account);
        self.bus_asks_for(index, number);
    }

    /// Asks for the messages of an account.
    fn bus_asks_for(&mut self, index: usize, subscription: u32) {
        let client = &self.buses[index];
        let (Some(conn), Some(account)) = (client.conn, client.accounts.get(&subscription)) else {
            return;
        };
        let from = Position { epoch: account.epoch, number: account.last };
        let subscribe = Subscribe {
            subscription,
            pattern: account.pattern.to_string(),
            from: account.is_begun().then_some(from),
            retained: account.retained,
        };
        self.note(format_args!("bus {index} wants {subscribe:?}"));
        self.write_up(conn, encode::to_bytes(Frame::Subscribe(subscribe)));
    }

    fn bus_unsubscribes(&mut self, index: usize, conn: u64) {
        let client = &mut self.buses[index];
        let at = self.rng.index(client.accounts.len() + 1);
        let number = client.accounts.keys().nth(at).copied();
        if let Some(number) = number {
            client.accounts.remove(&number);
        }
        let subscription = number.unwrap_or(client.next_subscription + 50);
        let frame = Frame::Unsubscribe(Unsubscribe { subscription });
        self.write_up(conn, encode::to_bytes(frame));
    }

    fn bus_publishes(&mut self, index: usize, conn: u64) {
        let topic = self.some_topic();
        let is_kept = self.rng.hits(self.plan.bus.retain);
        let removes = is_kept && self.rng.hits(200);
        let retain = self.rng.pick(&[Retain::Yes, Retain::Yes, Retain::Connected]);
        let expires = self.rng.hits(300).then(|| self.rng.between(1, 3000));
        self.published += 1;
        let mut payload = Vec::new();
        if !removes {
            payload.resize(self.rng.below(self.plan.bus.bytes_max) as usize, b'.');
        }
        // What tells it from all others is a line that the broker does not know.
        let number = self.published.to_string();
        let message = MessageOf {
            retain: if is_kept && !removes { retain } else { Retain::No },
            expires_ms: expires.filter(|_| is_kept && !removes),
            removed: removes.then_some(Removed::Deleted),
            lines: &[("sim", &number)],
            ..MessageOf::new(&topic, &payload)
        };
        let body = message.body();
        self.model.count("published");
        self.bus_sends(index, conn, body);
    }

    fn bus_sends(&mut self, index: usize, conn: u64, body: Bytes) {
        let reply = u16::from(self.rng.hits(500));
        let client = &mut self.buses[index];
        // Numbers of subscriptions are below these.
        client.next_sequence += 1;
        let sequence = 1_000_000 + client.next_sequence;
        let head = Header { sequence, reply, ..Header::default() };
        self.write_up(conn, encode::to_bytes(Frame::Publish { head, body }));
    }

    /// Something that must be refused, and nothing else comes of it.
    fn bus_errs(&mut self, index: usize, conn: u64) {
        let wrong = self.rng.pick(&WRONG);
        self.model.count("wrong frames of bus clients");
        if self.rng.hits(500) {
            self.published += 1;
            let line = format!("topic {wrong}\nsim {}\n\n", self.published);
            return self.bus_sends(index, conn, Bytes::from(line));
        }
        let client = &mut self.buses[index];
        let used = client.accounts.iter().find(|(_, account)| account.is_answered);
        let (subscription, pattern) = match used {
            Some((number, _)) if self.rng.hits(500) => (*number, "a".to_owned()),
            Some(_) | None => {
                client.next_subscription += 1;
                let wrong = wrong.replace("state.x.y", "fact.>").replace("a.*", ">.a");
                (client.next_subscription, wrong)
            }
        };
        let subscribe = Subscribe { subscription, pattern, from: None, retained: true };
        self.write_up(conn, encode::to_bytes(Frame::Subscribe(subscribe)));
    }

    /// Handles the frames that arrived at a client of topics, if it reads.
    pub fn bus_reads(&mut self, index: usize, id: u64) {
        while self.broken.is_none() {
            let client = &self.buses[index];
            if client.conn != Some(id) {
                return;
            }
            if client.reads_again > self.now.0 && !self.is_quiescent {
                let again = Tick(client.reads_again);
                return self.at(again, Event::Down(id));
            }
            let Some(conn) = self.conns.get_mut(&id) else { return };
            match conn.down.pull(self.now, usize::MAX) {
                ReadResult::Nothing => return,
                ReadResult::Frame(kind, head, body) => match decode::frame(kind, head, body) {
                    Ok(frame) => {
                        let verdict = self.bus_hears(index, id, frame);
                        self.hold(verdict.map_err(|why| format!("bus {index}: {why}")));
                    }
                    Err(error) => self.hold(Err(format!("the broker sent bus {index} {error}"))),
                },
                ReadResult::Bad(error) => {
                    self.hold(Err(format!("the broker sent bus {index} {error}")));
                }
                ReadResult::Ended(_) => {
                    self.note(format_args!("bus {index} lost its connection"));
                    self.bus_is_off(index);
                    self.peer_closes(id);
                }
            }
        }
    }

    fn bus_hears(&mut self, index: usize, conn: u64, frame: Frame) -> Result<(), String> {
        let client = &mut self.buses[index];
        match frame {
            Frame::LoginOk(_) => {
                client.is_known = true;
                let wanted: Vec<u32> = client.accounts.keys().copied().collect();
                wanted.into_iter().for_each(|number| self.bus_asks_for(index, number));
            }
            Frame::Ping { sequence } => {
                self.write_up(conn, encode::to_bytes(Frame::Pong { sequence }));
            }
            Frame::Subscribed(said) => {
                let Some(account) = client.accounts.get_mut(&said.subscription) else {
                    return Ok(());
                };
                account.is_answered = true;
                match said.missing {
                    None if account.is_begun() => {}
                    Some(Missing::Numbers(first, last)) => account.missing.push((first, last)),
                    None | Some(Missing::Epoch) => account.begins(said.at),
                }
            }
            Frame::Message { head, .. } => {
                if let Some(account) = client.accounts.get_mut(&head.sequence) {
                    self.model.count("messages");
                    (0..head.attempt).for_each(|_| self.model.count("dropped messages"));
                    return account.takes(&head);
                }
            }
            Frame::CaughtUp(said) => {
                if let Some(account) = client.accounts.get_mut(&said.subscription) {
                    account.dropped += said.dropped;
                }
            }
            Frame::Error { head, error } => {
                self.note(format_args!("bus {index}: {error}"));
                self.model.count(&format!("bus: {}", error.code));
                let account = self.buses[index].accounts.get(&head.sequence);
                if account.is_some_and(|account| !account.is_answered) {
                    self.buses[index].accounts.remove(&head.sequence);
                }
            }
            Frame::Published(_) | Frame::Unsubscribed(_) | Frame::Pong { .. } | Frame::End => {}
            other => return Err(format!("a {} came", other.kind())),
        }
        Ok(())
    }

    /// What is not right with clients of topics yet, when nothing is published any more.
    pub(super) fn ailing_bus(&mut self) -> Option<String> {
        for (index, client) in self.buses.iter().enumerate() {
            if !client.is_known {
                return Some(format!("bus {index} is not logged in"));
            }
            if let Some((number, account)) = client.accounts.iter().find(|(_, a)| !a.is_answered) {
                return Some(format!("subscription {number} of bus {index} waits: {account:?}"));
            }
        }
        self.ailing_accounts().err()
    }

    /// Each client has all that was published since it subscribed, or was told what it has not.
    fn ailing_accounts(&self) -> Result<(), String> {
        let Some(epoch) = self.model.topics.epoch() else { return Ok(()) };
        for (index, client) in self.buses.iter().enumerate() {
            for (number, account) in &client.accounts {
                if account.epoch != epoch {
                    return Err(format!("subscription {number} of bus {index}: {account:?}"));
                }
                account
                    .is_complete(&self.model.topics.matching(&account.pattern, account.since))
                    .map_err(|why| format!("subscription {number} of bus {index}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Who is at this link of the broker.
    pub(super) fn is_spy(&self, link: LinkId) -> bool {
        self.broker.as_ref().is_some_and(|broker| broker.spy == Some(link))
    }
}

impl Account {
    const fn is_begun(&self) -> bool {
        self.epoch != 0
    }

    /// It begins anew.
    fn begins(&mut self, at: Position) {
        (self.epoch, self.since, self.last) = (at.epoch, at.number, at.number);
        self.got.clear();
        self.missing.clear();
        self.dropped = 0;
    }

    fn takes(&mut self, head: &Header) -> Result<(), String> {
        let number = head.transaction;
        self.dropped += u64::from(head.attempt);
        let is_again = !self.got.insert(number);
        // After a pause with something missing, the values that are kept come again.
        if is_again && !(head.more == 1 && number <= self.last) {
            return Err(format!("message {number} comes twice for '{}'", self.pattern));
        }
        self.last = self.last.max(number);
        Ok(())
    }

    fn is_complete(&self, published: &[u64]) -> Result<(), String> {
        let is_told =
            |n: u64| self.missing.iter().any(|(first, last)| (*first..=*last).contains(&n));
        let lacking = published.iter().filter(|n| !self.got.contains(n) && !is_told(**n));
        let lacking: Vec<u64> = lacking.copied().collect();
        if lacking.len() as u64 <= self.dropped {
            return Ok(());
        }
        let (count, first) = (lacking.len(), lacking.first());
        Err(format!(
            "{count} messages of '{}' are lacking from {first:?} on, {} were counted",
            self.pattern, self.dropped
        ))
    }
}
