//! Simulated programs that work on several requests at a time, that are told to give one up, that
//! put a deadline off, and that leave.

use super::{Proc, State, Work};
use crate::sim::plan::Behaviour;
use crate::sim::world::{Event, World};
use broker::engine::input::Close;
use bytes::Bytes;
use protocol::bodies::{ExitCause, Logout};
use protocol::frame::Frame;
use protocol::header::{FLAG_EXTENDABLE, Header};

impl Proc {
    /// Whether it has a request.
    pub(super) fn has_work(&self) -> bool {
        self.work.is_some() || !self.works.is_empty()
    }

    /// Whether it has this one.
    pub(super) fn has(&self, transaction: u64) -> bool {
        let is_before_it = self.work.as_ref().is_some_and(|w| w.head.transaction == transaction);
        is_before_it || self.works.contains_key(&transaction)
    }
}

impl Proc {
    /// The frame that it takes next. One that takes one request at a time takes the next when the
    /// others are conversations that wait for their clients.
    fn next_frame(&mut self) -> Option<(Header, Bytes)> {
        let is_free = self.announces > 1 || self.works.values().all(|work| work.was_open);
        let is_taken = |transaction| is_free || self.has(transaction);
        let is_over = |transaction| self.ended_early.contains(&transaction);
        let next =
            |(head, _): &(Header, Bytes)| is_taken(head.transaction) || is_over(head.transaction);
        let at = self.held.iter().position(next)?;
        self.held.remove(at)
    }
}

impl World {
    /// Lays the request before a program that it goes on with now, and the others aside.
    fn turns_to(&mut self, pid: u32, transaction: Option<u64>) {
        let Some(proc) = self.procs.get_mut(&pid).filter(|proc| proc.has_many) else { return };
        if let Some(work) = proc.work.take() {
            proc.works.insert(work.head.transaction, work);
        }
        proc.work = transaction.and_then(|transaction| proc.works.remove(&transaction));
    }

    /// A program with several requests takes all that came.
    pub(super) fn takes_all(&mut self, pid: u32) {
        self.turns_to(pid, None);
        loop {
            let Some(proc) = self.procs.get_mut(&pid) else { return };
            if proc.state != State::Serving {
                return;
            }
            let Some((head, body)) = proc.next_frame() else { break };
            if proc.given_up.remove(&head.transaction) {
                self.ends_unbegun(pid, head.transaction);
                continue;
            }
            if proc.ended_early.contains(&head.transaction) {
                continue;
            }
            self.turns_to(pid, Some(head.transaction));
            self.take_piece(pid, head, &body);
            self.turns_to(pid, None);
            if self.is_bad(pid, Behaviour::Quitter, 20) {
                self.logs_out(pid);
            }
        }
        let Some(proc) = self.procs.get(&pid) else { return };
        if proc.has_work() {
            return;
        }
        let is_over = proc.is_ended;
        if self.hides(pid, Behaviour::Hang, 15) {
            return;
        }
        if is_over && !self.is_bad(pid, Behaviour::Stubborn, 1000) {
            let wait = self.rng.below(5000);
            self.act_in(pid, wait, State::Exiting);
        } else if self.is_bad(pid, Behaviour::Quitter, 100) {
            let wait = self.rng.below(500_000);
            self.act_in(pid, wait, State::Serving);
        }
    }

    /// The request before a program is answered in this time.
    pub(super) fn answer_in(&mut self, pid: u32, micros: u64) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        match &mut proc.work {
            Some(work) if proc.has_many => {
                work.is_ready = true;
                let transaction = work.head.transaction;
                self.later(micros, Event::Work(pid, transaction));
            }
            Some(_) | None => self.act_in(pid, micros, State::Working),
        }
    }

    /// A program with several requests answers one of them.
    pub fn work_acts(&mut self, pid: u32, transaction: u64) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        if proc.frozen > self.now {
            let thaw = proc.frozen;
            self.at(thaw, Event::Work(pid, transaction));
            return;
        }
        let Some(work) = proc.works.get_mut(&transaction) else { return };
        if proc.state != State::Serving || !std::mem::take(&mut work.is_ready) {
            return;
        }
        self.turns_to(pid, Some(transaction));
        self.proc_answers(pid);
        self.turns_to(pid, None);
        // The end is read only once, and what it answered with `more` waits for nothing any more.
        let is_left = |proc: &Proc| proc.is_shut && proc.conn.is_some();
        if self.procs.get(&pid).is_some_and(is_left) && !self.answers_first(pid, Close::Eof) {
            self.proc_lost(pid);
        }
    }

    /// A program that hung goes on with what it has not answered.
    pub(super) fn works_again(&mut self, pid: u32) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.state = State::Serving;
        let conn = proc.conn;
        let waits = |work: &&mut Work| !work.client_more && !work.is_answered;
        let ready: Vec<u64> = proc
            .works
            .values_mut()
            .filter(waits)
            .map(|work| {
                work.is_ready = true;
                work.head.transaction
            })
            .collect();
        for transaction in ready {
            self.later(0, Event::Work(pid, transaction));
        }
        self.go_on(pid);
        if let Some(conn) = conn {
            self.at(self.now, Event::Down(conn));
        }
    }

    /// Nobody waits for a request any more. Its program ends it soon, or when it is done.
    pub(super) fn proc_may_stop(&mut self, pid: u32, head: &Header) {
        let transaction = head.transaction;
        let is_patient = self.rng.hits(400);
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        if !proc.has(transaction) {
            if proc.held.iter().any(|(held, _)| held.transaction == transaction) {
                proc.given_up.insert(transaction);
            }
            return;
        }
        if let Some(work) = proc.works.get_mut(&transaction).filter(|work| work.is_ready)
            && is_patient
        {
            work.is_given_up = true;
            return;
        }
        self.turns_to(pid, Some(transaction));
        self.reply(pid, b"nobody waits for it", false, 1);
        self.turns_to(pid, None);
    }

    /// A program ends a request that nobody waits for any more, and that it never began.
    pub(super) fn ends_unbegun(&mut self, pid: u32, transaction: u64) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.got += 1;
        let head = Header { transaction, error: 1, ..Header::default() };
        self.proc_writes(pid, Frame::data(head, Bytes::from_static(b"it was given up")));
    }

    /// A program may put the deadline of its request off, with an empty part of the answer.
    pub(super) fn puts_off(&mut self, pid: u32, work: &Work) -> bool {
        let is_last = work.piece.is_some_and(|piece| piece.turn + 1 >= piece.turns);
        let may = !work.is_given_up
            && work.head.flags & FLAG_EXTENDABLE != 0
            && work.head.reply != 0
            && is_last;
        if !may || self.is_quiescent || !self.rng.hits(400) {
            return false;
        }
        let deadline_ms = self.rng.between(1, 5000) as u32;
        let wait = self.rng.below(u64::from(deadline_ms) * 1200);
        let Some(proc) = self.procs.get_mut(&pid) else { return true };
        if let Some(work) = &mut proc.work {
            work.was_open = true;
        }
        let head = Header {
            sequence: work.head.sequence,
            transaction: work.head.transaction,
            workerid: proc.worker.0,
            more: 1,
            deadline_ms,
            ..Header::default()
        };
        self.proc_writes(pid, Frame::data(head, Bytes::new()));
        self.answer_in(pid, wait);
        true
    }

    /// A program announces its end: it dies of nothing that it has now.
    pub(super) fn announces_end(&mut self, pid: u32) {
        let Some(proc) = self.procs.get(&pid) else { return };
        let works = proc.work.iter().chain(proc.works.values());
        let pieces = works.filter_map(|work| work.piece);
        pieces.for_each(|piece| self.model.logs_out_with(piece.uid, pid));
    }

    /// A program leaves: it takes no further request, says how many it took if it has not answered
    /// all of them, answers these, and closes when the broker says `end`. Some close at once.
    pub(super) fn logs_out(&mut self, pid: u32) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        if std::mem::replace(&mut proc.has_logged_out, true) {
            return;
        }
        let has_work = proc.has_work();
        let received = has_work.then_some(proc.got);
        let held = std::mem::take(&mut proc.held);
        proc.held = held.into_iter().filter(|(head, _)| proc.has(head.transaction)).collect();
        proc.given_up.clear();
        self.note(format_args!("pid {pid} logs out, it got {received:?}"));
        self.model.count(if has_work { "logouts in the middle" } else { "logouts" });
        self.announces_end(pid);
        self.proc_writes(pid, Frame::Logout(Logout { received }));
        if self.rng.hits(if has_work { 200 } else { 500 }) {
            self.kill_proc(pid, ExitCause::Exit(0));
        }
    }

    /// Whether a program that leaves, and is sent nothing more, has something to answer yet. What
    /// can't become whole it drops.
    pub(super) fn answers_first(&mut self, pid: u32, how: Close) -> bool {
        let Some(proc) = self.procs.get_mut(&pid) else { return false };
        if how != Close::Eof || !proc.is_ended {
            return false;
        }
        proc.is_shut = true;
        proc.works.retain(|_, work| work.is_ready);
        !proc.works.is_empty()
    }
}
