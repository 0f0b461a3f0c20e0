//! Carries out the actions of the broker's engine in the simulated network: frames become bytes,
//! links close, outboxes fill and drain.

use crate::sim::body::PieceId;
use crate::sim::net::secret;
use crate::sim::plan::{Sabotage, ServicePlan};
use crate::sim::tokens;
use crate::sim::world::{Event, ShutdownKind, World};
use broker::engine::action::{Action, BrokerExit};
use broker::engine::fact::FactKind;
use broker::engine::input::{Close, Input, Start};
use broker::translate::outbound;
use protocol::bodies::ErrorBody;
use protocol::encode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::op::reply::OpReply;
use protocol::settings::Setting;

impl World {
    fn conn_of(&mut self, link: LinkId, what: &str) -> Option<u64> {
        let broker = self.broker.as_ref()?;
        match broker.links.get(&link) {
            Some(conn) => *conn,
            None => {
                self.hold(Err(format!("law 8: {what} for link {link}, which is gone")));
                None
            }
        }
    }

    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::Send { link, frame } => self.send(link, frame),
            Action::Answer { link, head, reply, format } => {
                let is_operator = self.broker.as_ref().is_some_and(|b| b.operator == Some(link));
                if is_operator {
                    self.answer(head.sequence, Ok(*reply));
                } else {
                    self.send(link, outbound::answer(head, &reply, format));
                }
            }
            Action::Start { link, start } => {
                if !self.access.trusted.contains(&link) {
                    self.hold(Err(format!("link {link} is asked to start and is not trusted")));
                }
                let given = Start { run: start.run, digest: start.digest };
                let secret = secret(start.worker, given);
                self.send(link, outbound::start(*start, secret));
            }
            Action::Close { link } => {
                self.note(format_args!("close {link}"));
                let id = self.conn_of(link, "close");
                if let Some(broker) = &mut self.broker {
                    broker.close_link(link);
                }
                self.model.link_gone(link);
                self.access.link_gone(link);
                let Some(id) = id else { return };
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.at_broker = false;
                    conn.up.discard();
                }
                self.end_down(id, Close::Eof);
                self.sweep(id);
            }
            Action::ShutWrite { link } => {
                self.note(format_args!("shut {link}"));
                if let Some(id) = self.conn_of(link, "shut") {
                    self.end_down(id, Close::Eof);
                }
            }
            Action::StopReading { link } => self.stop_reading(link),
            Action::ResumeReading { link } => self.resume_reading(link),
            Action::Dial { host, address } => {
                let way = 2 * self.way();
                self.later(way, Event::Dialled(self.epoch, host, address));
            }
            Action::Persist => self.persist(),
            Action::Challenge { link, .. } => self.send(link, tokens::challenge()),
            Action::Verify { link, proof } => self.verify(link, &proof),
            Action::Greet { link, hello } => {
                let hello = self.greet(link, *hello);
                self.send(link, hello);
            }
            Action::Prove { link, .. } => {
                let proof = self.prove_to_host(link);
                self.send(link, proof);
            }
            Action::ReadTokens { requester } => self.read_tokens(requester),
            Action::Source { link, head, path } => {
                let script = Err(format!("no file {path} in a simulation"));
                let input = Input::Sourced { link, head, path, script };
                if let Some(broker) = &mut self.broker {
                    broker.pending.push_back(input);
                }
            }
            Action::Record(fact) => {
                self.note(format_args!("{}: {}", fact.kind.row().name, fact.text));
                if fact.kind == FactKind::RequestRetried {
                    self.repeated(fact.about.service.as_ref());
                }
            }
            Action::ScriptDone { failures, .. } => {
                if !failures.is_empty() {
                    self.hold(Err(format!("the configuration is not taken back: {failures:?}")));
                }
            }
            Action::End(how) => {
                self.note(format_args!("the broker ends: {how:?}"));
                self.kill_broker();
                self.shutdown = match how {
                    BrokerExit::Exit(_) => ShutdownKind::InOrder,
                    BrokerExit::Abort => ShutdownKind::None,
                };
                let wait = self.rng.between(1, 2_000_000);
                self.later(wait, Event::StartBroker);
            }
        }
    }

    /// The broker will repeat a request. An operator may have moved its client to another service,
    /// so that nobody else can tell whose budget it is.
    fn repeated(&mut self, service: Option<&ServiceName>) {
        let named = |plan: &ServicePlan| service.is_some_and(|name| name.as_str() == plan.name);
        let service = self.plan.services.iter().position(named);
        if let (Some(service), 0) = (service, self.plan.operator_ms) {
            let verdict = self.model.given_again(&self.plan, service, self.now);
            self.hold(verdict);
        }
    }

    fn persist(&mut self) {
        let Some(broker) = &mut self.broker else { return };
        if self.persist_fails {
            broker.pending.push_back(Input::PersistFailed { why: "no room".into() });
        } else {
            self.saved = broker.engine.save_script();
        }
    }

    fn stop_reading(&mut self, link: LinkId) {
        let Some(id) = self.conn_of(link, "stop reading") else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if std::mem::replace(&mut conn.is_unread, true) {
            self.hold(Err(format!("link {link} is to be read no further twice")));
        }
    }

    fn resume_reading(&mut self, link: LinkId) {
        let Some(id) = self.conn_of(link, "resume reading") else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if std::mem::replace(&mut conn.is_unread, false) {
            self.at(self.now, Event::Up(id));
        } else {
            self.hold(Err(format!("link {link} is to be read again twice")));
        }
    }

    fn answer(&mut self, sequence: u32, answer: Result<OpReply, ErrorBody>) {
        let Some(broker) = &mut self.broker else { return };
        let is_asked = broker.asked.remove(&sequence) || sequence == 0;
        broker.answers.push_back((sequence, answer));
        if !is_asked {
            self.hold(Err(format!(
                "the operator has an answer to {sequence}, which it never asked"
            )));
        }
    }

    fn send(&mut self, link: LinkId, frame: Frame) {
        let is_operator = self.broker.as_ref().is_some_and(|b| b.operator == Some(link));
        let Some(id) = self.conn_of(link, "a frame") else {
            if let (true, Frame::Error { head, error }) = (is_operator, frame) {
                self.answer(head.sequence, Err(error));
            }
            return;
        };
        let frame = match self.plan.sabotage {
            Sabotage::None => Some(frame),
            _ => self.sabotage(id, frame),
        };
        let Some(frame) = frame else { return };
        let is_client = self.conns.get(&id).is_some_and(|conn| conn.role == Role::Client);
        if is_client && !self.is_wild(id) {
            let verdict = match &frame {
                Frame::Data { head, .. } => {
                    self.model.goes_out((link, head.sequence), None, head.more == 0)
                }
                Frame::Error { head, error } if head.sequence != 0 => {
                    self.model.goes_out((link, head.sequence), Some((error.code, error.ran)), true)
                }
                _ => Ok(()),
            };
            self.hold(verdict);
        }
        self.access_frame(link, &frame);
        if let Frame::Data { head, body } = &frame
            && head.attempt == 1
        {
            match PieceId::read(body) {
                Ok(Some(PieceId { uid, part: 0, turn: 0, .. })) => {
                    self.model.given_first(uid, self.now);
                    self.access_work(id, link, uid);
                }
                Ok(Some(_)) => {}
                // Of a client that sends anything: nobody knows to whom it went.
                Ok(None) | Err(_) => {
                    let services = 0..self.plan.services.len();
                    services.for_each(|service| self.model.given_unknown(service, self.now));
                }
            }
        }
        self.note(format_args!("to {link}: {}", Shown(&frame)));
        let parts = encode::to_bytes(frame);
        self.write_down(id, parts);
        self.check_outbox(id);
    }

    /// How much waits in the broker's outbox of a connection, beyond what the system takes.
    fn outbox(&self, id: u64) -> u64 {
        let waiting = self.conns.get(&id).map_or(0, |conn| conn.down.waiting);
        waiting.saturating_sub(if self.is_quiescent { 1 << 20 } else { self.plan.socket_bytes })
    }

    fn check_outbox(&mut self, id: u64) {
        let bytes = self.outbox(id);
        let Some(broker) = &mut self.broker else { return };
        let settings = broker.engine.settings();
        let (high, max) =
            (settings.get(Setting::OutboxBytesHigh), settings.get(Setting::OutboxBytesMax));
        let stall_ms = settings.get(Setting::StallMs);
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_broker) else { return };
        let link = conn.link;
        if bytes > high && !std::mem::replace(&mut conn.is_congested, true) {
            broker.pending.push_back(Input::Congested { link });
        }
        if bytes > max && !std::mem::replace(&mut conn.is_too_slow, true) {
            broker.pending.push_back(Input::OutboxFull { link, bytes });
        }
        if bytes > 0 {
            self.later(stall_ms * 1000, Event::Stall(id));
        }
    }

    /// A far end took something.
    pub fn took(&mut self, id: u64) {
        let bytes = self.outbox(id);
        let Some(broker) = &self.broker else { return };
        let high = broker.engine.settings().get(Setting::OutboxBytesHigh);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_broker) else { return };
        conn.moved = now;
        if conn.is_congested && bytes < high / 2 {
            conn.is_congested = false;
            let link = conn.link;
            self.feed(Input::Uncongested { link });
        }
    }

    /// Whether a connection took nothing for too long.
    pub fn check_stall(&mut self, id: u64) {
        let bytes = self.outbox(id);
        let Some(broker) = &self.broker else { return };
        let stall_ms = broker.engine.settings().get(Setting::StallMs);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_broker) else { return };
        let is_stalled = bytes > 0 && conn.moved.plus_millis(stall_ms) < now;
        if is_stalled && !std::mem::replace(&mut conn.is_too_slow, true) {
            let link = conn.link;
            self.feed(Input::Stalled { link, bytes });
        }
    }
}

/// A frame in a line of the trace.
struct Shown<'a>(&'a Frame);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Frame::Data { head, body } => write!(
                f,
                "data sequence={} transaction={} more={} worker={} error={} attempt={} {} bytes",
                head.sequence,
                head.transaction,
                head.more,
                head.workerid,
                head.error,
                head.attempt,
                body.len()
            ),
            Frame::Error { head, error } => {
                write!(
                    f,
                    "error sequence={} transaction={} {error}",
                    head.sequence, head.transaction
                )
            }
            Frame::ExecStart(start) => {
                write!(f, "exec-start worker={} run={} {}", start.worker, start.run, start.path)
            }
            Frame::ExecStop(stop) => write!(f, "{stop:?}"),
            frame => write!(f, "{}", frame.kind()),
        }
    }
}
