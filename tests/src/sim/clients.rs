//! Simulated client programs: each runs the library's real session under a workload; some
//! misbehave. Each reports its requests and replies to the model. `closing` is how they give up
//! requests, and go.

mod closing;

use super::access::Token;
use super::body::PieceId;
use super::links::{Peer, ReadResult};
use super::model::{Asked, Outcome};
use super::tokens::claim;
use super::world::{Event, World};
use bytes::Bytes;
use client::error::{Code, Error};
use client::session::{Event as Heard, Reply, Send, Session};
use protocol::bodies::Login;
use protocol::decode;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// More than the small settings of `body_bytes_max` allow.
const TOO_LARGE: u64 = 6000;

/// A request under way as its client knows it.
#[derive(Clone, Debug)]
struct Open {
    piece: PieceId,
    send: Send,
    /// The bytes of the answer so far.
    got: Vec<u8>,
    /// The worker waits for the next turn.
    is_asked: bool,
    /// The client never says more.
    is_lazy: bool,
}

/// A client program.
#[derive(Debug, Default)]
pub struct SimClient {
    session: Session,
    conn: Option<u64>,
    /// It sends malformed or forbidden frames on this connection.
    is_wild: bool,
    service: usize,
    open: BTreeMap<u32, Open>,
    reads_again: u64,
    /// Those it gave up, and that the broker may still have.
    given_up: BTreeSet<u32>,
    /// It gave up some on this connection; the broker may have them longer than it knows of them.
    has_given_up: bool,
    /// It closes its side when it leaves, and waits for its answers.
    half_closes: bool,
    /// Flushes that are not answered, oldest first.
    flushes: VecDeque<u32>,
    /// The token that it has.
    token: Option<Token>,
}

impl World {
    /// Whether the model says nothing about what leaves on this connection.
    pub fn is_wild(&self, id: u64) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.is_wild)
    }

    /// Lets a client act once, and schedules its next act.
    pub fn client_acts(&mut self, index: usize) {
        let think = self.plan.think_ms * 1000;
        let wait = self.rng.between(1, if self.is_quiescent { 20_000 } else { think });
        self.later(wait, Event::Client(index));
        let client = &mut self.clients[index];
        let Some(conn) = client.conn else { return self.client_connects(index) };
        let is_shut = self.conns.get(&conn).is_some_and(|conn| conn.is_shut);
        if !client.session.is_open() || is_shut {
            return;
        }
        let is_wild = client.is_wild;
        if !self.is_quiescent && self.rng.hits(self.plan.close) || is_wild && self.rng.hits(300) {
            return self.client_closes(index, conn);
        }
        if is_wild {
            return self.client_babbles(index, conn);
        }
        if !self.is_quiescent && self.rng.hits(self.plan.slow_reader) {
            let until = self.now.0 + self.rng.below(20_000_000);
            self.clients[index].reads_again = until;
        }
        if !self.is_quiescent && self.rng.hits(self.plan.nonsense) {
            return self.client_babbles(index, conn);
        }
        if !self.is_quiescent && self.rng.hits(self.plan.give_up) {
            return self.client_gives_up(index);
        }
        if self.client_closes_some(index, conn) || self.client_continues(index) {
            return;
        }
        let client = &self.clients[index];
        if client.open.len() < self.plan.window && self.requests_left > 0 {
            self.requests_left -= 1;
            self.client_asks(index);
        }
    }

    fn client_connects(&mut self, index: usize) {
        let Some(conn) = self.dial_broker(Role::Client, Peer::Client(index)) else { return };
        let service = self.rng.index(self.plan.services.len());
        let priority = self.rng.between(1, 255) as u8;
        let is_open_ended = self.plan.services[service].is_open_ended();
        let heartbeat = self.rng.hits(if is_open_ended { 900 } else { 300 });
        let half_close = self.plan.half_close > 0 && self.rng.hits(700);
        let token = self.now_holds(self.clients[index].token);
        let client = &mut self.clients[index];
        client.token = token;
        client.conn = Some(conn);
        client.service = service;
        client.is_wild = false;
        client.reads_again = 0;
        client.given_up.clear();
        client.has_given_up = false;
        client.half_closes = half_close;
        client.flushes.clear();
        let name = ServiceName::new(self.plan.services[service].name);
        let name = name.expect("the names of services are spelled right");
        let token = token.map(|token| claim(token.name));
        let login = Login { priority, heartbeat, half_close, token, ..Login::to(name) };
        match client.session.login(login) {
            Ok(frame) => self.write_up(conn, encode::to_bytes(frame)),
            Err(error) => self.hold(Err(format!("client {index} can't log in again: {error}"))),
        }
    }

    /// Lets a client give up one of its requests.
    fn client_gives_up(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some((sequence, open)) = client.open.pop_first() else { return };
        client.session.give_up(sequence);
        client.given_up.insert(sequence);
        client.has_given_up = true;
        self.model.left(open.piece.uid);
    }

    fn client_closes(&mut self, index: usize, conn: u64) {
        self.note(format_args!("client {index} closes"));
        let is_polite = self.rng.hits(500);
        let client = &mut self.clients[index];
        client.conn = None;
        for open in std::mem::take(&mut client.open).into_values() {
            self.model.left(open.piece.uid);
        }
        let goodbye = client.session.logout();
        if is_polite {
            self.write_up(conn, encode::to_bytes(goodbye));
        }
        self.peer_closes(conn);
    }

    /// Sends bytes that a client must not send; the model then ignores this connection.
    fn client_babbles(&mut self, index: usize, conn: u64) {
        self.note(format_args!("client {index} babbles"));
        let sequences: Vec<u32> = self.clients[index].open.keys().copied().collect();
        for open in std::mem::take(&mut self.clients[index].open).into_values() {
            self.model.left(open.piece.uid);
        }
        self.clients[index].is_wild = true;
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.is_wild = true;
            if conn.at_broker {
                self.model.link_gone(conn.link);
            }
        }
        let sequence = match sequences.first() {
            Some(first) if self.rng.hits(500) => *first,
            Some(_) | None => self.rng.below(5) as u32,
        };
        let number = |world: &mut Self| world.rng.pick(&[0, 0, 1, 2, 3, 77, u32::MAX]);
        let head = Header {
            sequence,
            reply: self.rng.below(2) as u16,
            more: self.rng.below(2) as u16,
            workerid: number(self),
            deadline_ms: number(self),
            flags: self.rng.below(2) as u8,
            ..Header::default()
        };
        let size = self.rng.pick(&[0, 10, 3000, 40_000]);
        let body = Bytes::from(vec![b'?'; size]);
        let bytes = match self.rng.below(6) {
            0 => Bytes::from(vec![0xee; 100]),
            1 => encode::to_bytes(Frame::Login(Login::to(ServiceName::op()))),
            2 => encode::to_bytes(Frame::End),
            _ => encode::to_bytes(Frame::data(head, body)),
        };
        self.write_up(conn, bytes);
    }

    fn client_asks(&mut self, index: usize) {
        let plan = &self.plan;
        let rng = &mut self.rng;
        let parts = if rng.hits(plan.pieces) { rng.between(2, 6) as u16 } else { 1 };
        let turns = if rng.hits(plan.turns) { rng.between(2, 4) as u8 } else { 1 };
        let is_idempotent = rng.hits(plan.idempotent);
        let wants_reply = turns > 1 || !rng.hits(plan.silent);
        let is_extendable = wants_reply && rng.hits(plan.extendable);
        let is_lazy = !self.is_quiescent && rng.hits(50);
        let (low, high) = plan.deadline_ms;
        let deadline = rng.hits(750).then(|| rng.between(low, high));
        let deadline = if self.is_quiescent { Some(20_000) } else { deadline };
        let priority = if rng.hits(700) { 0 } else { rng.between(1, 255) as u8 };
        let uid = self.model.ask(Asked {
            client: index,
            service: self.clients[index].service,
            is_idempotent,
            wants_reply,
            is_extendable,
            turns,
            begun: Vec::new(),
            outcome: None,
            is_left: false,
        });
        let piece = PieceId { uid, part: 0, parts, turn: 0, turns };
        let send = Send {
            more: parts > 1,
            idempotent: is_idempotent,
            extendable: is_extendable,
            priority,
            deadline: deadline.map(Duration::from_millis),
            reply: wants_reply,
            ..Send::default()
        };
        let open = Open { piece, send, got: Vec::new(), is_asked: false, is_lazy };
        self.client_sends(index, open);
        self.client_hurries(index, wants_reply || parts > 1);
    }

    /// The next piece or turn of a request under way, if one is to be sent.
    fn client_continues(&mut self, index: usize) -> bool {
        let is_quiescent = self.is_quiescent;
        let client = &self.clients[index];
        let next = client.open.iter().find(|(_, open)| {
            let has_parts = open.piece.part + 1 < open.piece.parts;
            (has_parts || open.is_asked) && (is_quiescent || !open.is_lazy)
        });
        let Some((&sequence, open)) = next else { return false };
        let mut open = open.clone();
        if open.piece.part + 1 < open.piece.parts {
            open.piece.part += 1;
            open.send.more = open.piece.part + 1 < open.piece.parts;
            let worker = open.send.conversation.map_or(0, |(_, worker)| worker);
            open.send.conversation = Some((sequence, worker));
        } else {
            open.is_asked = false;
            open.piece.turn += 1;
        }
        self.client_sends(index, open);
        true
    }

    fn client_sends(&mut self, index: usize, open: Open) {
        let filler = self.rng.below(self.plan.bytes_max);
        let is_blind = !self.is_quiescent && self.rng.hits(self.plan.nonsense);
        let body = Bytes::from(open.piece.body(filler));
        let client = &mut self.clients[index];
        let Some(conn) = client.conn else { return };
        match client.session.send(body, &open.send) {
            Ok((sequence, frame)) => {
                client.session.handed_over(sequence);
                let is_over = !open.send.reply && !open.send.more;
                let piece = open.piece;
                if is_over {
                    client.open.remove(&sequence);
                } else {
                    client.open.insert(sequence, open);
                }
                self.note(format_args!("client {index} sends {sequence} {piece:?} {is_blind}"));
                let frame = match frame {
                    // A program without the library knows no limits.
                    Frame::Data { head, .. } if is_blind && self.plan.has_small_bodies() => {
                        Frame::data(head, Bytes::from(piece.body(TOO_LARGE)))
                    }
                    frame => frame,
                };
                self.write_up(conn, encode::to_bytes(frame));
            }
            // Too large, or too many: it was never sent.
            Err(_) => {
                let sequence = open.send.conversation.map(|(sequence, _)| sequence);
                if sequence.is_none_or(|sequence| client.open.contains_key(&sequence)) {
                    self.model.left(open.piece.uid);
                }
                // A program that can't go on with a request gives it up.
                if let Some(sequence) = sequence {
                    client.session.give_up(sequence);
                    client.open.remove(&sequence);
                    self.client_closes(index, conn);
                }
            }
        }
    }

    /// Handles the frames that arrived at a client, if it reads.
    pub fn client_reads(&mut self, index: usize, id: u64) {
        while self.broken.is_none() {
            let client = &self.clients[index];
            if client.conn != Some(id) {
                return;
            }
            if client.reads_again > self.now.0 && !self.is_quiescent {
                let again = protocol::time::Tick(client.reads_again);
                self.at(again, Event::Down(id));
                return;
            }
            let Some(conn) = self.conns.get_mut(&id) else { return };
            match conn.down.pull(self.now, usize::MAX) {
                ReadResult::Nothing => return,
                ReadResult::Frame(kind, head, body) => match decode::frame(kind, head, body) {
                    Ok(frame) => self.client_hears(index, frame),
                    Err(error) => self.hold(Err(format!("the broker sent a client {error}"))),
                },
                ReadResult::Bad(error) => {
                    self.hold(Err(format!("the broker sent a client {error}")))
                }
                ReadResult::Ended(_) => self.client_lost(index, id),
            }
        }
    }

    fn client_lost(&mut self, index: usize, id: u64) {
        self.note(format_args!("client {index} lost its connection"));
        let client = &mut self.clients[index];
        client.conn = None;
        let error = Error::new(ErrorCode::BrokerLost, "the connection broke");
        let (_, replies) = client.session.lost(error);
        self.peer_closes(id);
        for reply in replies {
            self.client_gets(index, reply);
        }
        for open in std::mem::take(&mut self.clients[index].open).into_values() {
            if open.send.reply {
                let uid = open.piece.uid;
                self.hold(Err(format!("client {index} got no outcome of {uid} with the loss")));
            }
        }
    }

    fn client_hears(&mut self, index: usize, frame: Frame) {
        let client = &mut self.clients[index];
        let kind = frame.kind();
        match client.session.receive(frame) {
            // No client of the simulation publishes by its requests' connection.
            Ok(Heard::LoggedIn(_) | Heard::Refused(_) | Heard::Published(_) | Heard::Quiet) => {}
            Ok(Heard::Flushed(flushed)) => self.client_is_flushed(index, &flushed),
            Ok(Heard::Challenged(_)) => {
                let token = client.token;
                if let Some(conn) = client.conn {
                    self.answer_challenge(conn, token);
                }
            }
            Ok(Heard::Closing(error)) => self.note(format_args!("client {index}: {error}")),
            Ok(Heard::Answer(frame)) => {
                if let Some(conn) = client.conn {
                    self.write_up(conn, encode::to_bytes(frame));
                }
            }
            Ok(Heard::Reply(reply)) => self.client_gets(index, reply),
            // The model watches what the broker sends for what is sent twice.
            Ok(Heard::Dropped(_)) => {}
            Err(_) if client.is_wild => {}
            Err(error) => {
                self.hold(Err(format!("client {index} got a {kind} frame: {error}")));
            }
        }
    }

    fn client_gets(&mut self, index: usize, reply: Reply) {
        let client = &mut self.clients[index];
        if client.is_wild {
            client.open.remove(&reply.sequence);
            return;
        }
        let Some(open) = client.open.get_mut(&reply.sequence) else {
            let text = format!("client {index} got {:?} for {}", reply.error, reply.sequence);
            return self.hold(Err(text));
        };
        let uid = open.piece.uid;
        open.got.extend_from_slice(&reply.body);
        if reply.more {
            open.send.conversation = Some((reply.sequence, reply.worker));
            open.is_asked = open.piece.turn + 1 < open.piece.turns;
            return;
        }
        let outcome = match &reply.error {
            None => Outcome::Reply(std::mem::take(&mut open.got)),
            Some(Error { code: Code::Application(number) | Code::Newer(number), .. }) => {
                Outcome::Application(*number)
            }
            Some(Error { code: Code::Isect(code), ran, .. }) => Outcome::Error(*code, *ran),
        };
        client.open.remove(&reply.sequence);
        let has_given_up = client.has_given_up;
        self.note(format_args!("client {index} has the outcome of {uid}: {:?}", reply.error));
        let is_too_many = matches!(outcome, Outcome::Error(ErrorCode::TooManyRequests, _))
            && self.plan.silent == 0
            && !has_given_up;
        if is_too_many {
            self.hold(Err(format!("request {uid}: too many, though few are under way")));
        }
        let verdict = self.model.ends(uid, outcome);
        self.hold(verdict);
    }

    /// Makes every client read what has arrived, and tell the broker what it gave up: nothing else
    /// ends a conversation without a deadline while its client is connected.
    pub fn soothe_clients(&mut self) {
        for index in 0..self.clients.len() {
            if let Some(conn) = self.clients[index].conn {
                self.at(self.now, Event::Down(conn));
                // One that has shut its side can say nothing any more.
                if !self.clients[index].session.is_open() {
                    continue;
                }
                for sequence in std::mem::take(&mut self.clients[index].given_up) {
                    self.cancel(index, conn, sequence);
                }
            }
        }
    }
}
