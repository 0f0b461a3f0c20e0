//! Everything that an action may touch: connections, outboxes, helper threads, and the list of
//! inputs for the engine. It never calls the engine.

use super::authenticator::Authenticator;
use super::built_in_execd::BuiltInExecd;
use super::conn::{HalfClose, Phase, deregister, watch_writable};
use super::dial::Redial;
use super::helpers::Helpers;
use super::links::{Links, Ready};
use super::listen::Acceptor;
use super::liveness::LivenessWatch;
use super::outbox::{Flushed, OutboxPool};
use super::partial_frames::PartialFrames;
use super::pre_login::PreLogin;
use super::small_bodies::SmallBodies;
use super::socket_reader::end_of;
use super::state_dir::StateDir;
use super::store::Storing;
use super::tls_config::TlsConfig;
use crate::engine::action::BrokerExit;
use crate::engine::input::{Close, Input};
use crate::translate::outbound;
use mio::Registry;
use protocol::limits::HEADER_BYTES;
use protocol::{Frame, Kind, LinkId, Role, Setting, Settings, Tick};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;
use std::time::Duration;

/// Bytes put into outboxes in one turn after which nothing more is read before they are flushed.
const UNFLUSHED_BYTES_MAX: usize = 10 << 20;

/// How long a closed connection may take to read what was sent last.
const LINGER_MS: u64 = 1000;

/// The settings that limit the reactor; the engine has the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bytes in a body (`body_bytes_max`).
    pub(super) body: usize,
    high: usize,
    most: usize,
    /// Most bytes waiting in all outboxes, those of workers and hosts, too; beyond it, clients with
    /// much of it are closed.
    all: usize,
    /// Most bytes of all clients' incomplete frames.
    pub(super) inboxes: usize,
    /// Time limit for receiving a frame (`frame_ms`), in milliseconds.
    pub(super) frame_ms: u64,
    pub(super) stall_ms: u64,
    /// Time after which a machine that acknowledges nothing counts as gone (`silence_ms`).
    pub(super) silence: Duration,
}

impl Limits {
    /// Reads the limits from the settings in force.
    pub(super) fn of(settings: &Settings) -> Self {
        let size = |setting| usize::try_from(settings.get(setting)).unwrap_or(usize::MAX);
        let body = size(Setting::BodyBytesMax);
        Self {
            body,
            high: size(Setting::OutboxBytesHigh),
            most: size(Setting::OutboxBytesMax).max(body + HEADER_BYTES),
            all: size(Setting::OutboxesBytesMax),
            inboxes: size(Setting::InboxesBytesMax).max(body),
            frame_ms: settings.get(Setting::FrameMs),
            stall_ms: settings.get(Setting::StallMs),
            silence: Duration::from_millis(settings.get(Setting::SilenceMs)),
        }
    }
}

/// Everything of the reactor that an action may touch.
#[derive(Debug)]
pub(super) struct Io {
    /// Time of this turn, read once at its beginning.
    pub(super) now: Tick,
    /// mio's registry, which adds sockets to the poll.
    pub(super) registry: Registry,
    /// Every connection.
    pub(super) links: Links,
    /// Memory for small bodies.
    pub(super) small_bodies: SmallBodies,
    /// Spare buffers for outboxes.
    pub(super) outbox_pool: OutboxPool,
    /// Limits on incomplete frames.
    pub(super) partial_frames: PartialFrames,
    /// The limits on accepted connections, and their state.
    pub(super) acceptor: Acceptor,
    /// Connections that wait before their login.
    pub(super) pre_login: PreLogin,
    /// Certificates.
    pub(super) tls_config: TlsConfig,
    /// The state directory.
    pub(super) state: StateDir,
    /// Helper threads.
    pub(super) helpers: Helpers,
    /// The tokens that are known, and logins that prove one.
    pub(super) authenticator: Authenticator,
    /// The built-in execd.
    pub(super) built_in_execd: Option<BuiltInExecd>,
    /// The settings the reactor obeys.
    pub(super) limits: Limits,
    /// Inputs for the engine, in order. An input of a link is dropped if the link closes first.
    /// Inputs made from frames are not among them: `read` gives them to the engine at once.
    pub(super) inputs: VecDeque<(Option<LinkId>, Input)>,
    /// Connections to read in the next turn without waiting for an event.
    pub(super) again: Vec<LinkId>,
    /// Dials to the built-in execd, which may not listen yet, to be tried again. The engine has
    /// other hosts dialled again (`Timer::Dial`).
    pub(super) redials: Vec<Redial>,
    /// Number of dials that have ended, well or not.
    pub(super) dials_done: u64,
    /// The scripts of the start are run; a command that fails ends the broker.
    pub(super) is_starting: bool,
    /// The configuration that is being stored.
    pub(super) storing: Storing,
    /// Commands of `--source` that failed at the start.
    pub(super) failures: Vec<String>,
    /// How the broker is to end; `None` = it runs on.
    pub(super) exit: Option<BrokerExit>,
    /// Workers and hosts that got something to send, flushed after each read of a connection.
    eager: Vec<LinkId>,
    /// The other connections that got something, flushed at the end of the turn.
    dirty: Vec<LinkId>,
    /// Bytes that waited in all outboxes after the last flush of all of them.
    waiting_before: usize,
    /// Connections whose socket did not accept everything, looked at in `sweep`.
    pub(super) waiting: Vec<LinkId>,
    /// Watches the connections to which something was sent.
    pub(super) liveness: LivenessWatch,
    /// When `waiting` is looked at next for those that accept nothing; `None` = it is empty.
    pub(super) sweep_at: Option<Tick>,
    /// When the phases `Dialling`, `Closing` and `Lingering` end at the latest. Entries of an
    /// earlier phase stay and are passed over. Logins are limited by the engine, partial frames by
    /// `partial_frames`.
    pub(super) deadlines: BinaryHeap<Reverse<(Tick, LinkId)>>,
}

impl Io {
    /// Makes the state without any connection.
    pub(super) fn new(
        registry: Registry,
        state: StateDir,
        helpers: Helpers,
        limits: Limits,
    ) -> Self {
        Self {
            now: Tick::default(),
            registry,
            links: Links::default(),
            small_bodies: SmallBodies::default(),
            outbox_pool: OutboxPool::default(),
            partial_frames: PartialFrames::default(),
            acceptor: Acceptor::default(),
            pre_login: PreLogin::default(),
            tls_config: TlsConfig::default(),
            state,
            helpers,
            authenticator: Authenticator::default(),
            built_in_execd: None,
            limits,
            inputs: VecDeque::new(),
            again: Vec::new(),
            redials: Vec::new(),
            dials_done: 0,
            is_starting: true,
            storing: Storing::default(),
            failures: Vec::new(),
            exit: None,
            eager: Vec::new(),
            dirty: Vec::new(),
            waiting_before: 0,
            waiting: Vec::new(),
            liveness: LivenessWatch::default(),
            sweep_at: None,
            deadlines: BinaryHeap::new(),
        }
    }

    /// Puts an input at the end of the queue.
    pub(super) fn tell(&mut self, link: Option<LinkId>, input: Input) {
        self.inputs.push_back((link, input));
    }

    /// Takes the next input whose link, if any, is still open.
    pub(super) fn next_input(&mut self) -> Option<Input> {
        loop {
            let (link, input) = self.inputs.pop_front()?;
            let is_open = |link| self.links.get(link).is_some_and(|conn| conn.phase == Phase::Open);
            if link.is_none_or(is_open) {
                return Some(input);
            }
        }
    }

    /// Puts a frame into the outbox of a link; it leaves at the next flush.
    pub(super) fn send(&mut self, link: LinkId, frame: Frame) {
        let Some(conn) = self.links.get(link) else { return };
        if conn.broken.is_some() || !matches!(conn.phase, Phase::Open | Phase::Malformed) {
            return;
        }
        if matches!(frame.kind(), Kind::LoginOk | Kind::WorkerLoginOk) {
            conn.reader.is_known = true;
        }
        conn.outbox.push(outbound::encode(frame, conn.role), &mut self.outbox_pool);
        if !conn.is_dirty {
            conn.is_dirty = true;
            match conn.role {
                Role::Worker | Role::Host => self.eager.push(link),
                Role::Client | Role::Broker => self.dirty.push(link),
            }
        }
    }

    /// Flushes the outboxes of workers and hosts, so that they begin at once. Called after each
    /// read of a connection, thus after all frames that it brought.
    pub(super) fn flush_eager(&mut self) {
        if !self.eager.is_empty() {
            let mut list = mem::take(&mut self.eager);
            list.drain(..).for_each(|link| self.flush(link));
            self.eager = list;
        }
    }

    /// Flushes all outboxes that got something.
    pub(super) fn flush_all(&mut self) {
        self.flush_eager();
        if !self.dirty.is_empty() {
            let mut list = mem::take(&mut self.dirty);
            list.drain(..).for_each(|link| self.flush(link));
            self.dirty = list;
        }
        self.waiting_before = self.outbox_pool.waiting;
    }

    /// Whether so much was put into outboxes in this turn that they should be flushed before more
    /// is read: one small message may be sent to thousands.
    pub(super) const fn must_flush(&self) -> bool {
        self.outbox_pool.waiting > self.waiting_before + UNFLUSHED_BYTES_MAX
    }

    /// Flushes one link, unless its socket is known to be full.
    pub(super) fn flush(&mut self, link: LinkId) {
        let Some(conn) = self.links.get(link) else { return };
        conn.is_dirty = false;
        if conn.is_waiting {
            self.gauge(link);
        } else {
            self.write(link);
        }
    }

    /// Flushes a link whose socket has room again.
    pub(super) fn writable(&mut self, link: LinkId) {
        if self.links.get(link).is_some_and(|conn| conn.is_waiting || conn.stream.has_unsent()) {
            self.write(link);
        }
    }

    fn write(&mut self, link: LinkId) {
        let Some(conn) = self.links.get(link) else { return };
        self.liveness.sent(link, conn, self.now, self.limits.silence);
        let flushed = conn.outbox.flush(&mut conn.stream, &mut self.outbox_pool);
        let token = Ready::Link(link).token();
        match flushed {
            Ok(Flushed::All) => {
                if mem::take(&mut conn.is_waiting) {
                    // A failure only means that room is reported too often.
                    let _ = watch_writable(&conn.stream, &self.registry, token, false);
                    conn.is_too_slow = false;
                }
                if conn.is_shutting {
                    conn.stream.shut_write();
                }
                if mem::take(&mut conn.is_congested) {
                    self.tell(Some(link), Input::Uncongested { link });
                }
                self.sent(link);
            }
            Ok(Flushed::Some { progress }) => {
                if progress || !conn.is_waiting {
                    conn.progress_at = self.now;
                }
                if !mem::replace(&mut conn.is_waiting, true) {
                    if watch_writable(&conn.stream, &self.registry, token, true).is_err() {
                        self.broke(link, Close::Reset);
                        return;
                    }
                    self.waiting.push(link);
                    let interval = self.limits.stall_ms / 4 + 1;
                    self.sweep_at.get_or_insert_with(|| self.now.plus_millis(interval));
                }
                self.gauge(link);
            }
            Err(error) => self.broke(link, end_of(&error)),
        }
    }

    /// Tells the engine when an outbox crosses the high or the low mark.
    fn gauge(&mut self, link: LinkId) {
        let Limits { high, most, all, .. } = self.limits;
        let is_crowded = self.outbox_pool.waiting > all;
        let Some(conn) = self.links.get(link) else { return };
        let bytes = conn.outbox.bytes();
        if bytes > high && !conn.is_congested {
            conn.is_congested = true;
            self.inputs.push_back((Some(link), Input::Congested { link }));
        } else if bytes < high / 2 && conn.is_congested {
            conn.is_congested = false;
            self.inputs.push_back((Some(link), Input::Uncongested { link }));
        }
        if !conn.is_too_slow && (bytes > most || is_crowded && conn.is_crowding(high)) {
            conn.is_too_slow = true;
            let bytes = bytes as u64;
            self.inputs.push_back((Some(link), Input::OutboxFull { link, bytes }));
        }
    }

    /// Marks a link as broken: nothing more is sent; what the peer sent before is still read, and
    /// then the link ends with `how`.
    pub(super) fn broke(&mut self, link: LinkId, how: Close) {
        let Some(conn) = self.links.get(link) else { return };
        conn.broken = Some(how);
        // Its reading may be stopped until its own outbox is sent, which never happens now.
        conn.is_unread = false;
        conn.is_waiting = false;
        conn.outbox.clear(&mut self.outbox_pool);
        if mem::take(&mut conn.is_congested) {
            // The outbox is dropped, so the engine may resume this link and those that waited for
            // it.
            self.inputs.push_back((Some(link), Input::Uncongested { link }));
        }
        conn.reader.is_readable = true;
        conn.reader.is_hung_up = true;
        match conn.phase {
            Phase::Open => self.read_again(link),
            Phase::Malformed | Phase::Dialling { .. } => {}
            Phase::Closing { .. } | Phase::Lingering { .. } => self.drop_link(link),
        }
    }

    /// Handles an empty outbox: a closed link begins to linger.
    fn sent(&mut self, link: LinkId) {
        let Some(conn) = self.links.get(link) else { return };
        if !matches!(conn.phase, Phase::Closing { .. }) {
            return;
        }
        if conn.reader.ended.is_some() || conn.broken.is_some() {
            if conn.half_close == HalfClose::Reported {
                // TLS tells a peer that still reads that nothing is missing.
                conn.stream.shut_write();
            }
            self.drop_link(link);
            return;
        }
        // Closing a socket with unread bytes resets the connection, and the peer may lose the last
        // frame. So this side only shuts writing, and the peer closes first.
        conn.stream.shut_write();
        let until = self.now.plus_millis(LINGER_MS);
        conn.phase = Phase::Lingering { until };
        conn.reader.is_readable = true;
        self.watch_deadline(until, link);
        self.read_again(link);
    }

    /// Closes a link once its outbox is sent.
    pub(super) fn close(&mut self, link: LinkId) {
        let until = self.now.plus_millis(self.limits.stall_ms);
        let Some(conn) = self.links.get(link) else { return };
        match conn.phase {
            Phase::Closing { .. } | Phase::Lingering { .. } => return,
            Phase::Dialling { .. } | Phase::Open | Phase::Malformed => {}
        }
        conn.phase = Phase::Closing { until };
        // A peer that accepts too little would keep its outbox in memory until the time limit.
        if conn.broken.is_some() || conn.is_too_slow || conn.stream.is_handshaking() {
            self.drop_link(link);
            return;
        }
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(link);
        }
        self.watch_deadline(until, link);
    }

    /// Shuts a link for writing once its outbox is sent.
    pub(super) fn shut_write(&mut self, link: LinkId) {
        if let Some(conn) = self.links.get(link) {
            conn.is_shutting = true;
            if !mem::replace(&mut conn.is_dirty, true) {
                self.dirty.push(link);
            }
        }
    }

    /// From now on the end of what a link's peer sends is not the end of the link.
    pub(super) fn allow_half_close(&mut self, link: LinkId) {
        if let Some(conn) = self.links.get(link) {
            conn.half_close = HalfClose::Allowed;
        }
    }

    /// Stops reading a link. A broken one is read to its end all the same.
    pub(super) fn stop_reading(&mut self, link: LinkId) {
        if let Some(conn) = self.links.get(link) {
            conn.is_unread = conn.broken.is_none();
        }
    }

    /// Reads a link again.
    pub(super) fn resume_reading(&mut self, link: LinkId) {
        if let Some(conn) = self.links.get(link) {
            conn.is_unread = false;
            self.read_again(link);
        }
    }

    /// Has a link read in the next turn although no event comes.
    pub(super) fn read_again(&mut self, link: LinkId) {
        let Some(conn) = self.links.get(link) else { return };
        if !mem::replace(&mut conn.is_listed, true) {
            self.again.push(link);
        }
    }

    /// Closes a link at once, whatever is left to send.
    pub(super) fn drop_link(&mut self, link: LinkId) {
        let Some(mut conn) = self.links.remove(link) else { return };
        self.authenticator.forget(link);
        self.unqueue(&mut conn);
        self.partial_frames.release(&mut conn);
        conn.outbox.clear(&mut self.outbox_pool);
        deregister(&conn.stream, &self.registry);
        if conn.is_refused {
            self.acceptor.refusals -= 1;
        } else if conn.role == Role::Client {
            self.acceptor.clients -= 1;
        }
    }

    /// Frees the slots of links closed in this turn, so that no index is used again within it. Ids
    /// are never used again: the next link of a slot has the next generation.
    pub(super) fn end_turn(&mut self) {
        self.links.reuse();
    }

    /// Whether nothing is left to send; called only when the broker ends.
    pub(super) fn all_lingering(&mut self) -> bool {
        self.links.ids().into_iter().all(|link| {
            let conn = self.links.get(link);
            conn.is_none_or(|conn| matches!(conn.phase, Phase::Lingering { .. }))
        })
    }
}
