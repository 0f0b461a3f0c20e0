//! How a simulated worker serves: it takes pieces in order and replies according to its behaviour.
//! `procs` has its start and end.

use super::{OWN_ERROR, State, Work};
use crate::sim::body::{PieceId, turn_reply};
use crate::sim::model::Begin;
use crate::sim::plan::Behaviour;
use crate::sim::world::{Event, World};
use bytes::Bytes;
use protocol::bodies::ExitCause;
use protocol::encode;
use protocol::frame::Frame;
use protocol::header::Header;

impl World {
    /// With nothing under way: the next request, or the end.
    pub(super) fn go_on(&mut self, pid: u32) {
        loop {
            let Some(proc) = self.procs.get_mut(&pid) else { return };
            if proc.state != State::Serving {
                return;
            }
            if proc.has_many {
                return self.takes_all(pid);
            }
            let wanted = proc.work.as_ref().map(|work| work.head.transaction);
            let at = match wanted {
                Some(wanted) => proc.held.iter().position(|(head, _)| head.transaction == wanted),
                None => (!proc.held.is_empty()).then_some(0),
            };
            let Some((head, body)) = at.and_then(|at| proc.held.remove(at)) else {
                let is_over = wanted.is_none() && proc.is_ended;
                if wanted.is_none() && self.hides(pid, Behaviour::Hang, 15) {
                    return;
                }
                if is_over && !self.is_bad(pid, Behaviour::Stubborn, 1000) {
                    let wait = self.rng.below(5000);
                    self.act_in(pid, wait, State::Exiting);
                } else if wanted.is_none() && self.is_bad(pid, Behaviour::Quitter, 100) {
                    let wait = self.rng.below(500_000);
                    self.act_in(pid, wait, State::Serving);
                }
                return;
            };
            if proc.given_up.remove(&head.transaction) {
                self.ends_unbegun(pid, head.transaction);
            } else if !proc.ended_early.contains(&head.transaction) {
                self.take_piece(pid, head, &body);
            }
        }
    }

    /// A piece of the request under way, or the first one of a new one.
    pub(super) fn take_piece(&mut self, pid: u32, head: Header, body: &Bytes) {
        let piece = match PieceId::read(body) {
            Ok(piece) => piece,
            Err(broken) => return self.hold(Err(format!("pid {pid}: {broken}"))),
        };
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        let before = proc.work.as_ref().and_then(|work| work.piece);
        let is_first = proc.work.is_none();
        let is_right = match (piece, before) {
            (Some(piece), None) => is_first && piece.part == 0 && piece.turn == 0,
            (Some(piece), Some(old)) => {
                let is_next = if piece.turn == old.turn {
                    piece.part == old.part + 1
                } else {
                    piece.turn == old.turn + 1 && old.part + 1 == old.parts
                };
                piece.uid == old.uid && is_next
            }
            (None, None) => true,
            // A client that babbles may do so in the middle of its own request.
            (None, Some(old)) => self.model.get(old.uid).is_some_and(|asked| asked.is_left),
        };
        if !is_right {
            let text = format!("pid {pid} got {piece:?} after {before:?}, first: {is_first}");
            return self.hold(Err(text));
        }
        let client_more = head.more != 0;
        // What comes later keeps the number of parts of the first turn in mind.
        let piece = match (piece, before) {
            (Some(new), Some(old)) if new.turn > old.turn => {
                Some(PieceId { part: old.part, parts: old.parts, ..new })
            }
            (piece, _) => piece,
        };
        let was_open = proc.work.as_ref().is_some_and(|work| work.was_open);
        let is_given_up = proc.work.as_ref().is_some_and(|work| work.is_given_up);
        proc.got += u32::from(is_first);
        let (is_answered, is_ready) = (false, false);
        let work = Work { head, piece, client_more, was_open, is_answered, is_ready, is_given_up };
        proc.work = Some(work);
        if is_first && let Some(piece) = piece {
            let begin = Begin { pid, attempt: head.attempt, has_logged_out: false };
            self.note(format_args!("pid {pid} begins {} {begin:?}", piece.uid));
            let verdict = self.model.begins(&self.plan, piece.uid, begin);
            self.hold(verdict);
        }
        if self.is_bad(pid, Behaviour::Crash, 80) {
            self.kill_proc(pid, ExitCause::Signal(11));
        } else if !client_more {
            let wait = self.work_micros(pid, &head);
            self.answer_in(pid, wait);
        }
    }

    fn work_micros(&mut self, pid: u32, head: &Header) -> u64 {
        if self.is_bad(pid, Behaviour::Slow, 500) {
            self.rng.below(u64::from(head.deadline_ms) * 1500)
        } else {
            self.rng.below(3000)
        }
    }

    /// A frame of an answer.
    pub(super) fn reply(&mut self, pid: u32, body: &[u8], more: bool, error: i16) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        let Some(work) = &mut proc.work else { return };
        work.was_open |= more;
        work.is_answered |= more;
        let head = Header {
            sequence: work.head.sequence,
            transaction: work.head.transaction,
            workerid: proc.worker.0,
            more: u16::from(more),
            error,
            ..Header::default()
        };
        if !more {
            if work.client_more || work.was_open {
                proc.ended_early.insert(work.head.transaction);
            }
            proc.work = None;
        }
        self.proc_writes(pid, Frame::data(head, Bytes::copy_from_slice(body)));
    }

    /// The work is done: an answer, or what the program takes for one.
    pub(super) fn proc_answers(&mut self, pid: u32) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.state = State::Serving;
        let conn = proc.conn;
        let Some(work) = proc.work.clone() else { return };
        if self.is_bad(pid, Behaviour::Crash, 100) {
            self.die_answering(pid);
            return;
        }
        if self.hides(pid, Behaviour::Hang, 15) {
            return;
        }
        if self.is_bad(pid, Behaviour::Hang, 60) {
            self.act_in(pid, 0, State::Hung);
            return;
        }
        if self.is_bad(pid, Behaviour::Garbage, 100) {
            self.write_garbage(pid, &work);
        }
        if self.puts_off(pid, &work) {
            return;
        }
        match work.piece.filter(|_| !work.is_given_up) {
            Some(piece)
                if self.is_bad(pid, Behaviour::Slow, 50) && piece.turn + 1 == piece.turns =>
            {
                self.reply(pid, b"no", false, OWN_ERROR);
            }
            Some(piece) => {
                let bytes = turn_reply(piece.uid, piece.turn);
                let is_last = piece.turn + 1 >= piece.turns;
                self.reply_in_pieces(pid, &bytes, is_last);
            }
            None => self.reply(pid, b"what was that?", false, 0),
        }
        if self.is_bad(pid, Behaviour::Quitter, 30) {
            self.logs_out(pid);
        }
        self.go_on(pid);
        if let Some(conn) = conn {
            self.at(self.now, Event::Down(conn));
        }
    }

    fn reply_in_pieces(&mut self, pid: u32, bytes: &[u8], is_last: bool) {
        let max = self.procs.get(&pid).map_or(0, |proc| proc.limits.body_bytes_max as usize);
        let mut rest = bytes;
        // In a conversation the client takes a frame with `more` for a question.
        while is_last && rest.len() > 1 && (rest.len() > max || self.rng.hits(100)) {
            let (piece, after) = rest.split_at(self.rng.index(rest.len().min(max)).max(1));
            self.reply(pid, piece, true, 0);
            rest = after;
        }
        self.reply(pid, rest, !is_last, 0);
    }

    fn die_answering(&mut self, pid: u32) {
        if self.rng.hits(300) {
            self.reply(pid, b"half of", true, 0);
        } else if self.rng.hits(300)
            && let Some(conn) = self.procs.get(&pid).and_then(|proc| proc.conn)
        {
            self.write_up(conn, Bytes::from_static(&[0, 0, 0, 9, 0, 0]));
        }
        self.kill_proc(pid, ExitCause::Signal(11));
    }

    fn write_garbage(&mut self, pid: u32, work: &Work) {
        let Some(conn) = self.procs.get(&pid).and_then(|proc| proc.conn) else { return };
        let head = Header { transaction: work.head.transaction, ..Header::default() };
        let bytes = match self.rng.below(4) {
            0 => Bytes::from_static(&[0xff; 70]),
            1 => {
                let transaction = head.transaction + (1 << 40);
                let head = Header { transaction, ..head };
                encode::to_bytes(Frame::data(head, Bytes::from_static(b"for somebody else")))
            }
            2 => encode::to_bytes(Frame::data(Header { error: -17, ..head }, Bytes::new())),
            _ => {
                // A program that has logged out begins no further request.
                let received = self.procs.get(&pid).map(|proc| proc.got);
                self.announces_end(pid);
                let logout = Frame::Logout(protocol::bodies::Logout { received });
                self.write_up(conn, encode::to_bytes(logout));
                return self.kill_proc(pid, ExitCause::Exit(0));
            }
        };
        self.write_up(conn, bytes);
    }
}
