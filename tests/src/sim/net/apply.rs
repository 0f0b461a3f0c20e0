//! What becomes of the engine's actions in the simulated network: frames become bytes, links close,
//! outboxes fill and drain, and what the engine waits for is answered. The model and the access
//! rights are told of each step.

use crate::shell::{self, Ask, Deed, Player, TestShell};
use crate::sim::body::PieceId;
use crate::sim::model::Broken;
use crate::sim::plan::{Sabotage, ServicePlan};
use crate::sim::procs::Proc;
use crate::sim::world::{Event, ShutdownKind, World};
use broker::engine::action::BrokerExit;
use broker::engine::fact::FactKind;
use broker::engine::input::{Close, Input};
use broker::engine::view::WorkerView;
use broker::translate::outbound;
use protocol::bodies::ErrorBody;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::names::ServiceName;
use protocol::op::reply::OpReply;
use protocol::settings::Setting;
use protocol::time::Tick;

impl Player for World {
    type End = Option<u64>;

    /// Its clock is the world's.
    fn shell(&mut self) -> Option<&mut TestShell<Self::End>> {
        let broker = self.broker.as_mut()?;
        broker.shell.now = Tick(self.now.0 - broker.start.0);
        Some(&mut broker.shell)
    }

    fn broken(&mut self, law: String) {
        self.hold(Err(law));
    }

    fn gives(&mut self, input: Input) {
        // A broker that has ended within this turn gets nothing.
        if self.broker.is_some() {
            self.access_input(&input);
            self.steps += 1;
        }
        self.carry_out(input);
    }

    /// The clock is looked at after the input, and by some seeds before it, too. That a link is
    /// gone the engine learns before anything else happens.
    fn turn(&mut self, input: Input) {
        if self.broken.is_some() {
            return;
        }
        let is_due = self.shell().is_some_and(|shell| shell.is_due());
        let is_end = matches!(input, Input::Closed { .. });
        if is_due && !is_end && self.rng.hits(self.plan.deadline_first) {
            self.gives(Input::Deadline);
        }
        self.gives(input);
        self.look_at_clock(Self::gives);
        self.check();
        self.hold(self.model.check_unanswered(self.now));
        self.check_bus();
        self.hold(self.access.check());
    }

    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Send(link, frame) => self.sent(link, frame),
            Deed::Answer(link, head, reply, _) if self.is_operator(link) => {
                self.answered(head.sequence, Ok(*reply));
            }
            Deed::Answer(link, head, reply, format) => {
                let frames = outbound::answer(head, &reply, format, BODY_BYTES_DEFAULT);
                frames.into_iter().for_each(|frame| self.sent(link, frame));
            }
            Deed::Ask(ask) => self.asked(ask),
            Deed::Close(link) => {
                self.note(format_args!("close {link}"));
                let id = self.conn_of(link);
                let conn = id.and_then(|id| self.conns.get(&id));
                let is_too_slow = conn.is_some_and(|conn| conn.is_too_slow);
                self.hold(self.model.closes(link, is_too_slow));
                self.link_gone(link);
                let Some(id) = id else { return };
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.at_broker = false;
                    conn.up.discard();
                }
                self.end_down(id, Close::Eof);
                self.sweep(id);
            }
            Deed::HalfClose(link) => {
                let id = self.conn_of(link);
                if let Some(conn) = id.and_then(|id| self.conns.get_mut(&id)) {
                    conn.may_half_close = true;
                }
            }
            Deed::Shut(link) => {
                self.note(format_args!("shut {link}"));
                if let Some(id) = self.conn_of(link) {
                    self.end_down(id, Close::Eof);
                }
            }
            Deed::Read(link, is_on) => {
                if let Some(id) = self.conn_of(link).filter(|_| is_on) {
                    self.at(self.now, Event::Up(id));
                }
            }
            Deed::Record(fact) => {
                self.note(format_args!("{}: {}", fact.kind.row().name, fact.text));
                if fact.kind == FactKind::RequestRetried {
                    self.repeated(fact.about.service.as_ref());
                }
                if fact.kind == FactKind::RestartDone {
                    self.model.count("restarts that ended");
                }
                if fact.kind == FactKind::WorkerDied {
                    self.says_died(&fact);
                }
                if fact.kind == FactKind::WorkerRecycled {
                    let is_it = |proc: &Proc| Some(proc.worker) == fact.about.worker;
                    let pids = self.procs.iter().filter(|(_, proc)| is_it(proc));
                    pids.for_each(|(pid, _)| self.model.is_recycled(*pid));
                }
            }
            Deed::ScriptDone(_, failures) => {
                if !failures.is_empty() {
                    self.hold(Err(format!("the configuration is not taken back: {failures:?}")));
                }
            }
            Deed::End(how) => {
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

    /// Nothing happens any more when a law is broken.
    fn has_ended(&self) -> bool {
        self.broken.is_some()
    }
}

impl World {
    /// How each question of the engine is answered: at once, or later.
    fn asked(&mut self, ask: Ask) {
        let answer = match ask {
            Ask::Dial(host, address) => {
                let way = 2 * self.way();
                return self.later(way, Event::Dialled(self.epoch, host, address));
            }
            Ask::Challenge(link) => return self.sent(link, shell::challenge()),
            Ask::Verify(link, proof) => self.verify(link, &proof),
            Ask::Claim(link, host) => self.claims(link, &host),
            Ask::Prove(link) => return self.sent(link, self.prove_to_host(link)),
            Ask::Tokens(requester) => return self.read_tokens(requester),
            Ask::File(link, head, path) => {
                let script = Err(format!("no file {path} in a simulation"));
                Input::Sourced { link, head, path, script }
            }
            Ask::Store(number) if self.persist_fails => {
                Input::Stored { number, result: Err("no room".to_owned()) }
            }
            // The operator waits for each of its answers, so the disk takes it at once.
            Ask::Store(number) => {
                let Some(broker) = &self.broker else { return };
                self.saved = broker.shell.kept();
                Input::Stored { number, result: Ok(()) }
            }
        };
        if let Some(shell) = self.shell() {
            shell.push(answer);
        }
    }

    /// The connection of a link; the operator's has none.
    pub(super) fn conn_of(&self, link: LinkId) -> Option<u64> {
        *self.broker.as_ref()?.shell.ends.get(&link)?
    }

    fn is_operator(&self, link: LinkId) -> bool {
        self.broker.as_ref().is_some_and(|broker| broker.operator == Some(link))
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

    pub(super) fn sent(&mut self, link: LinkId, frame: Frame) {
        let Some(id) = self.conn_of(link) else {
            match frame {
                Frame::Error { head, error } if self.is_operator(link) => {
                    self.answered(head.sequence, Err(error));
                }
                frame if self.is_spy(link) => {
                    self.note(format_args!("to the spy: {}", Shown(&frame)));
                    self.bus_goes(link, &frame);
                }
                _ => {}
            }
            return;
        };
        if matches!(frame, Frame::ExecStart(_)) && !self.access.trusted.contains(&link) {
            self.hold(Err(format!("link {link} is asked to start and is not trusted")));
        }
        if self.is_bus(id) {
            for frame in self.sabotage_bus(frame) {
                self.bus_goes(link, &frame);
                self.note(format_args!("to {link}: {}", Shown(&frame)));
                self.write_down(id, encode::to_bytes(frame));
            }
            return self.check_outbox(id);
        }
        let frame = match self.plan.sabotage {
            Sabotage::None => Some(frame),
            _ => self.sabotage(id, frame),
        };
        let Some(frame) = frame else { return };
        let is_client = self.conns.get(&id).is_some_and(|conn| conn.role == Role::Client);
        if is_client && !self.is_wild(id) {
            let verdict = match &frame {
                Frame::Data { head, .. } => {
                    let at = (link, head.sequence);
                    let verdict = self.model.goes_out(at, None, head.more == 0);
                    verdict.and_then(|()| self.goes_on(at, head))
                }
                Frame::Flushed(flushed) => self.model.flushed(link, flushed),
                Frame::Error { head, .. } if head.sequence == 0 => {
                    self.model.refuses(link);
                    Ok(())
                }
                Frame::Error { head, error } => {
                    self.model.goes_out((link, head.sequence), Some((error.code, error.ran)), true)
                }
                _ => Ok(()),
            };
            self.hold(verdict);
            if let Frame::Error { error, .. } = &frame
                && error.code == ErrorCode::NoWorker
            {
                self.hold(self.check_no_worker(&error.text));
            }
        }
        self.access_frame(link, &frame);
        self.gives_work(id, &frame);
        if let Frame::Data { head, body } = &frame {
            self.given_to(id, head, body);
        }
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

    fn answered(&mut self, sequence: u32, answer: Result<OpReply, ErrorBody>) {
        let Some(broker) = &mut self.broker else { return };
        let is_asked = broker.asked.remove(&sequence) || sequence == 0;
        broker.answers.push_back((sequence, answer));
        if !is_asked {
            self.hold(Err(format!(
                "the operator has an answer to {sequence}, which it never asked"
            )));
        }
    }

    /// How much waits in the broker's outbox of a connection, beyond what the system takes.
    fn outbox(&self, id: u64) -> u64 {
        let waiting = self.conns.get(&id).map_or(0, |conn| conn.down.waiting);
        waiting.saturating_sub(if self.is_quiescent { 1 << 20 } else { self.plan.socket_bytes })
    }

    fn check_outbox(&mut self, id: u64) {
        let bytes = self.outbox(id);
        let Some(broker) = &self.broker else { return };
        let settings = broker.shell.engine.settings();
        let (high, max) =
            (settings.get(Setting::OutboxBytesHigh), settings.get(Setting::OutboxBytesMax));
        let stall_ms = settings.get(Setting::StallMs);
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_broker) else { return };
        let link = conn.link;
        let is_congested = bytes > high && !std::mem::replace(&mut conn.is_congested, true);
        let is_full = bytes > max && !std::mem::replace(&mut conn.is_too_slow, true);
        let Some(shell) = self.shell() else { return };
        if is_congested {
            shell.push(Input::Congested { link });
        }
        if is_full {
            shell.push(Input::OutboxFull { link, bytes });
        }
        if bytes > 0 {
            self.later(stall_ms * 1000, Event::Stall(id));
        }
    }

    /// A far end took something.
    pub fn took(&mut self, id: u64) {
        let bytes = self.outbox(id);
        let Some(broker) = &self.broker else { return };
        let high = broker.shell.engine.settings().get(Setting::OutboxBytesHigh);
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
        let stall_ms = broker.shell.engine.settings().get(Setting::StallMs);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_broker) else { return };
        let is_stalled = bytes > 0 && conn.moved.plus_millis(stall_ms) < now;
        if is_stalled && !std::mem::replace(&mut conn.is_too_slow, true) {
            let link = conn.link;
            self.feed(Input::Stalled { link, bytes });
        }
    }

    /// A client is told that no worker can come: then the service that the text names has none that
    /// is idle, or whose process comes. One that was stopped while it was busy, and lost its
    /// connection, comes back only to end.
    fn check_no_worker(&self, text: &str) -> Result<(), Broken> {
        let name = text.split('\'').nth(1).unwrap_or_default();
        let Some(broker) = &self.broker else { return Ok(()) };
        let workers = broker.shell.engine.workers_view();
        let may_come = |worker: &&WorkerView| {
            let comes = match worker.state {
                "returning" => !worker.is_stopped,
                state => ["backoff", "starting", "up"].contains(&state),
            };
            worker.service.as_str() == name && (comes || worker.list == "idle")
        };
        match workers.iter().find(may_come) {
            None => Ok(()),
            Some(worker) => Err(format!("'{text}' is told, but there is {worker:?}")),
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
            Frame::Message { head, .. } => write!(
                f,
                "message {} for {} more={} attempt={}",
                head.transaction, head.sequence, head.more, head.attempt
            ),
            Frame::Subscribed(said) => write!(f, "{said:?}"),
            Frame::Unsubscribed(said) => write!(f, "{said:?}"),
            Frame::CaughtUp(said) => write!(f, "{said:?}"),
            Frame::Published(said) => write!(f, "{said:?}"),
            Frame::Announced(said) => write!(f, "{said:?}"),
            Frame::BeatOk(said) => write!(f, "{said:?}"),
            frame => write!(f, "{}", frame.kind()),
        }
    }
}
