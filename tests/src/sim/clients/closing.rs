//! How simulated clients give up requests, make sure that all was taken, and go without losing
//! anything.

use crate::sim::world::World;
use broker::engine::input::Close;
use protocol::bodies::Flushed;
use protocol::encode;

impl World {
    /// A client cancels a request, asks whether all was taken, or closes its side. Whether it did
    /// one of these.
    pub(super) fn client_closes_some(&mut self, index: usize, conn: u64) -> bool {
        if self.is_quiescent {
            return false;
        }
        if self.rng.hits(self.plan.cancel) {
            self.client_cancels(index, conn);
            return true;
        }
        if self.rng.hits(self.plan.flush) {
            self.client_flushes(index, conn);
            return true;
        }
        if self.clients[index].half_closes && self.rng.hits(self.plan.half_close) {
            self.client_half_closes(index, conn);
            return true;
        }
        false
    }

    /// A client cancels one of its requests, or one that has ended. Its outcome comes as always.
    fn client_cancels(&mut self, index: usize, conn: u64) {
        let at = self.rng.index(self.clients[index].open.len() + 1);
        let open = self.clients[index].open.keys().nth(at).copied();
        let sequence = open.unwrap_or_else(|| self.rng.below(50) as u32);
        self.model.count("cancels");
        self.cancel(index, conn, sequence);
    }

    pub(super) fn cancel(&mut self, index: usize, conn: u64, sequence: u32) {
        self.note(format_args!("client {index} cancels {sequence}"));
        match self.clients[index].session.cancel(sequence) {
            Ok(frame) => self.write_up(conn, encode::to_bytes(frame)),
            Err(error) => self.hold(Err(format!("client {index} can't cancel: {error}"))),
        }
    }

    fn client_flushes(&mut self, index: usize, conn: u64) {
        let client = &mut self.clients[index];
        match client.session.flush() {
            Ok((sequence, frame)) => {
                client.flushes.push_back(sequence);
                self.note(format_args!("client {index} flushes {sequence}"));
                self.write_up(conn, encode::to_bytes(frame));
            }
            Err(error) => self.hold(Err(format!("client {index} can't flush: {error}"))),
        }
    }

    /// The answer to a flush has arrived.
    pub(super) fn client_is_flushed(&mut self, index: usize, flushed: &Flushed) {
        let client = &mut self.clients[index];
        let oldest = client.flushes.pop_front();
        if oldest != Some(flushed.flush) && !client.is_wild {
            let text = format!("client {index} got {flushed:?}, its oldest flush is {oldest:?}");
            self.hold(Err(text));
        }
        self.model.count("flushes");
    }

    fn client_half_closes(&mut self, index: usize, id: u64) {
        self.note(format_args!("client {index} closes its side"));
        self.model.count("clients that closed their side");
        if let Err(error) = self.clients[index].session.finish() {
            self.hold(Err(format!("client {index} can't close its side: {error}")));
        }
        self.end_up(id, Close::Eof);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.is_shut = true;
        }
    }

    /// A client that wants no reply to what it sent just now may leave at once.
    pub(super) fn client_hurries(&mut self, index: usize, is_needed: bool) {
        if let Some(conn) = self.clients[index].conn
            && !is_needed
            && !self.is_quiescent
            && self.rng.hits(self.plan.hurry)
        {
            self.client_closes(index, conn);
        }
    }
}
