//! A raw client, which sees every frame: it keeps requests in flight on one connection after
//! another and records everything that comes back, also duplicates, which the client library would
//! hide.

use super::ask::{Act, Ask, Sum};
use super::checker::LATE_US;
use super::clock::pause;
use super::conn::{Conn, Endpoint, Received, Seen, Sent};
use super::history::{Asked, End, Got, Outcome};
use super::load::{Load, Phase, Plan, SERVICES};
use crate::sim::rng::Rng;
use bytes::Bytes;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::{FLAG_IDEMPOTENT, Header};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// So long past a deadline and its second nothing is waited for any more, microseconds.
const GIVE_UP_US: u64 = 4_000_000;
/// A body so large may not be taken at once.
const HEAVY: usize = 60_000;
/// Of a thousand looks, how many are preceded by a cancel.
const CANCELS: u64 = 5;
/// Most requests under way.
const WINDOW: usize = 6;

/// A request under way.
struct Open {
    /// Index among the requests of this connection.
    at: usize,
    ask: Ask,
    sum: Sum,
    /// Pieces of a conversation that are still to be said.
    rest: Vec<Vec<u8>>,
}

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnState {
    Open,
    Lost,
    /// The client waits no longer for its bytes to be taken.
    GaveUp,
    /// The client closes it, with or without a logout.
    Closed,
}

impl ConnState {
    /// After a frame was sent.
    const fn after(sent: Sent) -> Self {
        match sent {
            Sent::Whole => Self::Open,
            Sent::Part => Self::Lost,
            Sent::Stuck => Self::GaveUp,
        }
    }
}

/// A client that speaks the protocol itself.
pub struct RawClient<'a> {
    load: &'a Load,
    rng: Rng,
}

/// One connection of it.
struct Session<'a, 'b> {
    load: &'a Load,
    rng: &'b mut Rng,
    conn: Conn,
    service: usize,
    /// It is in with the token that is made anew now and then.
    is_changing: bool,
    /// It closes its side when it has asked enough, and reads on.
    half_close: bool,
    /// It has closed its side.
    is_shut: bool,
    asked: Vec<Asked>,
    open: BTreeMap<u32, Open>,
    /// Which request a sequence was, for as long as the connection lives.
    known: BTreeMap<u32, usize>,
    /// Which of this connection's requests are in pieces or large.
    heavy: Vec<usize>,
    next_at: u64,
    pong: bool,
    /// How many requests were refused, as the answer to a flush said.
    refused: Option<u64>,
    /// When the last frame came.
    seen: Seen,
    /// The connection as a whole failed, and the broker said why.
    why: Option<Got>,
}

impl<'a> RawClient<'a> {
    /// With random numbers of its own.
    pub fn new(load: &'a Load, seed: u64) -> Self {
        Self { load, rng: Rng::new(seed) }
    }

    /// Connects and asks, again and again, until the load is stopped.
    pub fn run(mut self) {
        let mut is_drained = false;
        loop {
            match self.load.phase() {
                Phase::Stop => return,
                Phase::Drain => {
                    if !std::mem::replace(&mut is_drained, true) {
                        self.load.drained.fetch_add(1, Ordering::AcqRel);
                    }
                    pause(Duration::from_millis(10));
                }
                Phase::Ask => {
                    is_drained = false;
                    self.run_connection();
                }
            }
        }
    }

    /// One connection from login to end.
    fn run_connection(&mut self) {
        let endpoint = &self.load.endpoints[self.rng.index(self.load.endpoints.len())];
        let service = self.rng.index(SERVICES.len());
        let secrets =
            self.load.secrets.as_deref().filter(|_| !matches!(endpoint, Endpoint::Unix(_)));
        let is_changing = secrets.is_some() && self.rng.hits(300);
        let token = secrets.map(|secrets| secrets.token(is_changing));
        let heartbeat = self.rng.hits(500);
        // What the proxy makes of a closed side is its own affair.
        let is_plain = secrets.is_none() && !matches!(endpoint, Endpoint::Proxy(_));
        let half_close = is_plain && self.rng.hits(300);
        let name = SERVICES[service].name;
        let conn = Conn::open(endpoint, secrets, self.load.clock).ok();
        let conn =
            conn.and_then(|conn| conn.log_in(name, (heartbeat, half_close), token.as_ref()).ok());
        self.load.logins[usize::from(conn.is_none())].fetch_add(1, Ordering::Relaxed);
        let Some(conn) = conn else {
            pause(Duration::from_millis(self.rng.between(5, 60)));
            return;
        };
        let mut session = Session {
            load: self.load,
            rng: &mut self.rng,
            conn,
            service,
            is_changing,
            half_close,
            is_shut: false,
            asked: Vec::new(),
            open: BTreeMap::new(),
            known: BTreeMap::new(),
            heavy: Vec::new(),
            next_at: 0,
            pong: false,
            refused: None,
            seen: Seen::default(),
            why: None,
        };
        session.run();
        self.load.keep(session.asked);
    }
}

impl Session<'_, '_> {
    fn run(&mut self) {
        let most = usize::try_from(self.rng.between(5, 300)).unwrap_or(5);
        let mut state = ConnState::Open;
        while state == ConnState::Open {
            let is_asking = self.load.phase() == Phase::Ask && self.asked.len() < most;
            if !is_asking && self.half_close && !std::mem::replace(&mut self.is_shut, true) {
                self.conn.shut();
            }
            if self.is_shut && self.open.is_empty() {
                state = ConnState::Closed;
                break;
            }
            if !is_asking && self.open.is_empty() {
                state = self.goodbye();
                break;
            }
            let now = self.load.clock.now();
            if is_asking && !self.is_shut && self.open.len() < WINDOW && now >= self.next_at {
                state = self.ask();
                self.next_at = now + self.rng.between(500, 60_000);
            }
            if state == ConnState::Open && !self.is_shut && self.rng.hits(CANCELS) {
                state = self.cancel();
            }
            if state == ConnState::Open {
                let wait = Duration::from_micros(self.next_at.saturating_sub(now).min(20_000));
                state = self.look(wait);
            }
            if state == ConnState::Open {
                state = self.expire();
            }
        }
        self.end(state);
    }

    /// Sends a request.
    fn ask(&mut self) -> ConnState {
        let plan = Plan::by(self.rng, &SERVICES[self.service], self.load.id());
        let sequence = u32::try_from(self.asked.len() + 1).expect("few");
        let sent = self.load.clock.now();
        self.asked.push(Asked {
            id: plan.ask.id,
            service: self.service,
            idempotent: plan.idempotent,
            reply: plan.reply,
            deadline: plan.deadline_us(),
            sent,
            behind: 0,
            port: self.conn.port,
            library: false,
            changing: self.is_changing,
            outcomes: Vec::new(),
            end: None,
        });
        let at = self.asked.len() - 1;
        self.known.insert(sequence, at);
        if plan.pieces.len() > 1 || plan.pieces[0].len() > HEAVY {
            self.heavy.push(at);
        }
        let head = Header {
            sequence,
            reply: u16::from(plan.reply),
            flags: if plan.idempotent { FLAG_IDEMPOTENT } else { 0 },
            deadline_ms: plan.deadline_ms,
            ..Header::default()
        };
        let mut open = Open { at, ask: plan.ask, sum: Sum::default(), rest: plan.pieces };
        if self.rng.hits(3) {
            return self.close_inside_frame(head, &open);
        }
        let at_once = if open.ask.act == Act::Talk { 1 } else { open.rest.len() };
        for piece in 0..at_once {
            let body = open.rest.remove(0);
            open.sum.add(&body);
            let more = u16::from(!open.rest.is_empty());
            let frame = Frame::data(Header { more, ..head }, Bytes::from(body));
            let sent = self.conn.send(frame);
            if sent != Sent::Whole {
                if piece == 0 {
                    self.asked[at].end = Some((self.load.clock.now(), End::Partial));
                } else {
                    self.open.insert(sequence, open);
                }
                return ConnState::after(sent);
            }
        }
        if plan.reply {
            self.open.insert(sequence, open);
        }
        ConnState::Open
    }

    /// Gives up a request, which has its outcome at once; or one that has it already.
    fn cancel(&mut self) -> ConnState {
        let at = self.rng.index(self.open.len() + 1);
        let open = self.open.keys().nth(at).copied();
        let head = Header { sequence: open.unwrap_or(1), ..Header::default() };
        ConnState::after(self.conn.send(Frame::Cancel { head, text: String::new() }))
    }

    /// Closes in the middle of a frame: that request was never sent whole.
    fn close_inside_frame(&mut self, head: Header, open: &Open) -> ConnState {
        let body = Bytes::from(open.rest[0].clone());
        let bytes = protocol::encode::to_bytes(Frame::data(head, body));
        let size = 1 + self.rng.index(bytes.len() - 1);
        let _ = self.conn.write(&bytes[..size]);
        self.asked[open.at].end = Some((self.load.clock.now(), End::Partial));
        ConnState::Closed
    }

    /// Takes one frame, if one comes.
    fn look(&mut self, wait: Duration) -> ConnState {
        let frame = match self.conn.next(wait) {
            Received::Frame(frame, seen) => {
                self.seen = seen;
                frame
            }
            Received::Nothing => return ConnState::Open,
            Received::Lost => return ConnState::Lost,
        };
        match frame {
            Frame::Data { head, body } => return self.answered(head, &body),
            Frame::Error { head, error } => {
                let got = Got::Error { code: error.code.number(), ran: error.ran };
                if error.code == ErrorCode::NoConversation && self.has_outcome(head.sequence) {
                    // The rest of a request that had ended: that it was dropped is no outcome.
                } else if head.sequence == 0 {
                    self.why = Some(got);
                } else {
                    self.came(head.sequence, got, &format!("{error:?}"));
                }
            }
            Frame::Ping { .. } if self.is_shut => {}
            Frame::Ping { sequence } => {
                // A failure shows at the next read.
                let _ = self.conn.send(Frame::Pong { sequence });
            }
            Frame::Pong { .. } => self.pong = true,
            Frame::Flushed(flushed) if flushed.refused <= self.asked.len() as u64 => {
                self.refused = Some(flushed.refused);
            }
            other => self.load.stray(format!("a client got {other:?}")),
        }
        ConnState::Open
    }

    fn answered(&mut self, head: Header, body: &Bytes) -> ConnState {
        let sequence = head.sequence;
        if head.error != 0 {
            let got = Got::Error { code: head.error, ran: Ran::Yes };
            self.came(sequence, got, "an error of the worker's");
            return ConnState::Open;
        }
        let Some(open) = self.open.get_mut(&sequence) else {
            self.came(sequence, Got::Answer { right: false }, "an answer");
            return ConnState::Open;
        };
        let right = *body == open.sum.answer(&open.ask);
        let is_talking = open.ask.act == Act::Talk && !open.rest.is_empty();
        if head.more == 0 || !is_talking || !right {
            self.came(sequence, Got::Answer { right: right && head.more == 0 }, "an answer");
            return ConnState::Open;
        }
        if self.is_shut {
            // It can't go on with the conversation, which has its outcome all the same.
            return ConnState::Open;
        }
        let said = open.rest.remove(0);
        open.sum.add(&said);
        let asked = &self.asked[open.at];
        let head = Header {
            sequence,
            reply: 1,
            workerid: head.workerid,
            more: u16::from(!open.rest.is_empty()),
            flags: if asked.idempotent { FLAG_IDEMPOTENT } else { 0 },
            ..Header::default()
        };
        ConnState::after(self.conn.send(Frame::data(head, Bytes::from(said))))
    }

    fn has_outcome(&self, sequence: u32) -> bool {
        let asked = self.known.get(&sequence).map(|at| &self.asked[*at]);
        asked.is_some_and(|asked| !asked.outcomes.is_empty())
    }

    /// Writes down what came for a request.
    fn came(&mut self, sequence: u32, got: Got, text: &str) {
        self.open.remove(&sequence);
        match self.known.get(&sequence) {
            Some(at) => {
                let Seen { at: came, looked } = self.seen;
                let outcome = Outcome { at: came, blind: came.saturating_sub(looked), got };
                self.asked[*at].outcomes.push(outcome);
            }
            None => self.load.stray(format!("{text} for sequence {sequence}, never asked")),
        }
    }

    /// Gives up what is long past its time.
    fn expire(&mut self) -> ConnState {
        let now = self.load.clock.now();
        let mut state = ConnState::Open;
        for open in self.open.values() {
            let asked = &mut self.asked[open.at];
            if now > asked.sent + asked.deadline + LATE_US + GIVE_UP_US {
                asked.end = Some((now, End::GaveUp));
                state = ConnState::Closed;
            }
        }
        state
    }

    /// Nothing is under way that wants an answer. What the broker still has to say of that would
    /// come before the pong; with a flush, all that wants none was taken or refused.
    fn goodbye(&mut self) -> ConnState {
        let until = self.load.clock.now() + LATE_US + GIVE_UP_US;
        let flushes = self.rng.hits(500);
        let ping = Frame::Ping { sequence: 1 };
        let flush = Frame::Flush { sequence: 1 };
        for frame in [ping].into_iter().chain(flushes.then_some(flush)) {
            let sent = self.conn.send(frame);
            if sent != Sent::Whole {
                return ConnState::after(sent);
            }
        }
        let is_told = |client: &Self| client.pong && (!flushes || client.refused.is_some());
        while !is_told(self) && self.load.clock.now() < until {
            if self.look(Duration::from_millis(50)) != ConnState::Open {
                return ConnState::Lost;
            }
        }
        match self.rng.below(3) {
            0 => drop(self.conn.send(Frame::Logout(protocol::bodies::Logout::default()))),
            1 => self.conn.shut(),
            _ => {}
        }
        ConnState::Closed
    }

    /// What is still under way ends with the connection.
    fn end(&mut self, state: ConnState) {
        let now = self.load.clock.now();
        let end = match state {
            ConnState::Lost => End::Lost,
            ConnState::GaveUp => End::GaveUp,
            ConnState::Open | ConnState::Closed => End::Closed,
        };
        for open in self.open.values() {
            let asked = &mut self.asked[open.at];
            match (self.why, state) {
                (Some(got), ConnState::Lost) => {
                    asked.outcomes.push(Outcome { at: now, blind: 0, got })
                }
                _ => asked.end = asked.end.or(Some((now, end))),
            }
        }
        for asked in &mut self.asked {
            if !asked.reply {
                asked.end = asked.end.or(Some((now, End::Closed)));
            }
        }
        for at in 0..self.asked.len() {
            let sent = self.asked[at].sent;
            let before = self.heavy.iter().take_while(|heavy| **heavy < at);
            let ends = before.map(|heavy| self.asked[*heavy].ended().unwrap_or(now));
            self.asked[at].behind = ends.filter(|end| *end > sent).max().unwrap_or(0);
        }
    }
}
