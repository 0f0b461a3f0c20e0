//! Reads a connection: bytes become frames, frames become inputs, and each input goes to the engine
//! at once. So a worker has its request before the next connection is read.

use super::Reactor;
use super::conn::{AtEnd, Conn, Phase};
use super::listen::who_is;
use crate::engine::input::Input;
use crate::translate::inbound::{self, Arrived};
use bytes::Bytes;
use protocol::decode::Limits;
use protocol::frame_reader::{Next, ReadBuffer};
use protocol::limits::BUS_SERVICE;
use protocol::{ErrorCode, Header, Kind, LinkId, WireError};
use std::io::ErrorKind;
use std::mem;

/// Most frames of one connection in one turn; the rest waits for the next.
const FRAMES_MAX: usize = 256;
/// The same for one that has not logged in.
const PRE_LOGIN_FRAMES_MAX: usize = 8;

impl Reactor {
    /// Reads once from a connection and gives its frames to the engine; a connection without a
    /// login may have to wait for its turn first.
    #[inline]
    pub(super) fn receive(&mut self, link: LinkId) {
        let is_known = self.io.links.get(link).is_some_and(|conn| conn.reader.is_known);
        if is_known || !self.io.must_wait(link) {
            self.receive_now(link);
        }
    }

    /// Reads once from a connection whose turn it is.
    pub(super) fn receive_now(&mut self, link: LinkId) {
        let Some(conn) = self.io.links.get(link) else { return };
        match conn.phase {
            Phase::Open if conn.is_unread => {}
            Phase::Open => {
                conn.heard_at = self.io.now;
                let mut buffer = mem::take(&mut self.buffer);
                let was_handshaking = conn.stream.is_handshaking();
                conn.reader.fill(&mut conn.stream, &mut buffer, &mut self.buffer_pool);
                // The system reports no event for bytes that are already decrypted.
                conn.reader.is_readable |= conn.stream.has_more() && conn.reader.ended.is_none();
                if let Some(how) = conn.broken
                    && !conn.reader.is_readable
                    && conn.reader.ended.is_none()
                {
                    conn.reader.end(how);
                }
                if was_handshaking && !conn.stream.is_handshaking() {
                    // Frames queued during the handshake must be sent now; no event comes for them.
                    self.io.writable(link);
                }
                self.parse(link, &mut buffer);
                self.buffer = buffer;
                self.io.flush_eager();
            }
            Phase::Lingering { .. } => self.discard(link),
            Phase::Dialling { .. } => {
                if let Some(opened) = self.io.dial_ready(link) {
                    self.step(opened);
                    self.io.read_again(link);
                }
            }
            Phase::Closing { .. } if conn.stream.is_handshaking() => self.handshake(link),
            Phase::Malformed | Phase::Closing { .. } => {}
        }
    }

    /// Goes on with the handshake of a connection that is to be told that there is no room.
    fn handshake(&mut self, link: LinkId) {
        let Some(conn) = self.io.links.get(link) else { return };
        match conn.stream.handshake() {
            Ok(()) => self.io.writable(link),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.io.drop_link(link),
        }
    }

    fn parse(&mut self, link: LinkId, buffer: &mut ReadBuffer) {
        let mut frames = 0;
        // A received frame shows that its sender is alive.
        let mut is_partial = true;
        let mut has_unread;
        loop {
            let must_flush = frames > 0 && self.io.must_flush();
            // The engine may have closed the link or stopped its reading in the last step.
            let Some(conn) = self.io.links.get(link) else { return };
            if conn.phase != Phase::Open {
                return;
            }
            // Before its login a connection may send only a few frames per turn.
            let most = if conn.reader.is_known { FRAMES_MAX } else { PRE_LOGIN_FRAMES_MAX };
            has_unread = frames >= most || must_flush;
            if conn.is_unread || has_unread {
                break;
            }
            frames += 1;
            let is_pre_login = !conn.reader.is_known;
            let limits = Limits { is_pre_login, ..Limits::new(self.io.limits.body) };
            match conn.reader.frames.next(buffer, limits) {
                Ok(Next::Whole(kind, head, body)) => {
                    let body = self.io.small_bodies.keep(body, &mut self.buffer_pool);
                    is_partial = false;
                    self.deliver(link, kind, head, body);
                }
                Ok(Next::Large(kind, head, body)) => {
                    self.io.partial_frames.release(conn);
                    let body = self.buffer_pool.lend(body, head.len as usize);
                    is_partial = false;
                    self.deliver(link, kind, head, body);
                }
                Ok(Next::Begun(kind, head)) => {
                    let inboxes_max = self.io.limits.inboxes;
                    match self.io.partial_frames.reserve(conn, &head, inboxes_max) {
                        Ok(()) => {
                            let body = self.buffer_pool.take(head.len as usize);
                            conn.reader.frames.begin_large(kind, head, body, buffer);
                            break;
                        }
                        Err(error) => {
                            conn.reader.frames.refuse(&head, buffer);
                            self.step(Input::Garbage { link, error });
                        }
                    }
                }
                Ok(Next::Partial) => break,
                Err(error) => {
                    if error.skip.is_none() {
                        conn.phase = Phase::Malformed;
                    }
                    self.step(Input::Garbage { link, error });
                }
            }
        }
        if let Some(conn) = self.io.links.get(link) {
            conn.reader.frames.keep(buffer, || self.buffer_pool.tail());
        }
        if is_partial {
            self.hear_partial(link);
        }
        self.after(link, has_unread);
    }

    /// Handles a read without a whole frame: bytes of one may have arrived.
    fn hear_partial(&mut self, link: LinkId) {
        let is_heard = |conn: &mut Conn| conn.reader.has_heard && conn.reader.frames.has_partial();
        if self.io.links.get(link).is_some_and(is_heard) {
            self.step(Input::Heard { link });
        }
    }

    /// Ends the reading of a connection for this turn; `has_unread` = frames were left for the
    /// next.
    fn after(&mut self, link: LinkId, has_unread: bool) {
        let Some(conn) = self.io.links.get(link) else { return };
        if conn.is_unread || conn.phase != Phase::Open {
            return;
        }
        match conn.reader.ended {
            None if has_unread || conn.reader.is_readable => self.io.read_again(link),
            None => {}
            Some(_) if has_unread => self.io.read_again(link),
            Some(_) if conn.stream.fault_text().is_some() => {
                let fault_text = conn.stream.fault_text().unwrap_or_default();
                // The peer is told the error, and gets time to read it.
                conn.reader.ended = None;
                self.garbage(link, WireError::fatal(ErrorCode::Tls, fault_text, 0));
            }
            Some(how) => match conn.at_end(how) {
                AtEnd::Closed(how) => {
                    self.io.drop_link(link);
                    self.step(Input::Closed { link, how });
                }
                AtEnd::HalfClosed => self.step(Input::HalfClosed { link }),
                AtEnd::Nothing => {}
            },
        }
    }

    /// Gives the engine one frame.
    #[inline]
    fn deliver(&mut self, link: LinkId, kind: Kind, head: Header, body: Bytes) {
        let Some(conn) = self.io.links.get(link) else { return };
        let arrived = Arrived { link, role: conn.role, kind, head, body };
        let (key, authenticator) = (&self.io.state.key, &mut self.io.authenticator);
        let input = inbound::input(
            arrived,
            |worker, secret| key.verify(worker, secret),
            |signature| authenticator.check_signature(link, signature),
        );
        match input {
            Ok(input) => {
                if depends_on_user(&input, self.io.authenticator.has_tokens())
                    && let Some(known) = who_is(link, conn)
                {
                    self.step(known);
                }
                self.step(input);
            }
            Err(error) => self.garbage(link, error),
        }
    }

    pub(super) fn garbage(&mut self, link: LinkId, error: WireError) {
        if let Some(conn) = self.io.links.get(link) {
            conn.phase = Phase::Malformed;
            self.step(Input::Garbage { link, error });
        }
    }

    /// Discards the bytes of a closed link until the peer closes.
    fn discard(&mut self, link: LinkId) {
        let Some(conn) = self.io.links.get(link) else { return };
        let scratch = self.buffer.scratch();
        match conn.stream.discard(scratch) {
            Ok(0) => self.io.drop_link(link),
            Ok(count) if count == scratch.len() || conn.reader.is_hung_up => {
                self.io.read_again(link);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.io.read_again(link),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.io.drop_link(link),
        }
    }
}

/// Whether the engine needs to know the peer's user for this input (a login without a token).
fn depends_on_user(input: &Input, has_tokens: bool) -> bool {
    match input {
        Input::Login { login, .. } => {
            // What a client of the bus may subscribe to and displace depends on it, too.
            let is_asked = login.service.is_op() || login.service.as_str() == BUS_SERVICE;
            login.token.is_none() && (has_tokens || is_asked)
        }
        // Who displaces its instances depends on it; its rights do not.
        Input::StartLogin { login, .. } => login.service.as_str() == BUS_SERVICE,
        Input::WorkerLogin { login, proof: None, .. } => has_tokens && login.token.is_none(),
        _ => false,
    }
}
