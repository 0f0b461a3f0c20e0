//! Work for those who have not logged in: so much of it in a turn of the loop, each peer group (see
//! `protocol::peer_group`) in its turn, and TLS handshakes on threads of their own, because one
//! signature with an RSA key takes longer than a whole turn may. Whoever is in never waits for it.
//! Not what is said once a connection is agreed: `read`.

use super::Reactor;
use super::conn::{Conn, Phase};
use super::helpers::HelperResult;
use super::io::Io;
use crossbeam_channel::{Sender, bounded};
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::peer_group::PeerGroup;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::thread;
use tls::session::{SCRATCH_BYTES, Session};

/// Connections of strangers that are read in one turn.
const STRANGERS_MAX: usize = 32;
/// Most threads for handshakes.
const THREADS_MAX: usize = 4;

/// Who waits for a turn: one of each peer group after the other.
#[derive(Debug, Default)]
pub(super) struct Line {
    groups: BTreeMap<PeerGroup, BTreeMap<u64, LinkId>>,
    last: Option<PeerGroup>,
    count: u64,
}

impl Line {
    /// Puts a connection at the end; the number with which it is taken out again.
    fn add(&mut self, peer_group: PeerGroup, link: LinkId) -> u64 {
        self.count += 1;
        self.groups.entry(peer_group).or_default().insert(self.count, link);
        self.count
    }

    /// Takes a connection out, wherever it stands.
    fn remove(&mut self, peer_group: PeerGroup, number: u64) {
        if let Some(links) = self.groups.get_mut(&peer_group) {
            links.remove(&number);
            if links.is_empty() {
                self.groups.remove(&peer_group);
            }
        }
    }

    /// The next connection: of the group after the last one, its oldest or its newest.
    fn next(&mut self, is_newest: bool) -> Option<LinkId> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.groups.range((after, Bound::Unbounded)).next();
        let peer_group = *rest.or_else(|| self.groups.first_key_value())?.0;
        self.last = Some(peer_group);
        let links = self.groups.get_mut(&peer_group)?;
        let (_, link) = if is_newest { links.pop_last()? } else { links.pop_first()? };
        if links.is_empty() {
            self.groups.remove(&peer_group);
        }
        Some(link)
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// In which line a connection waits, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// To be read.
    Read(u64),
    /// For the first step of its handshake, which is the dear one.
    Begin(u64),
    /// For a further one.
    GoOn(u64),
}

/// A step of a handshake.
struct Job {
    link: LinkId,
    session: Session,
    bytes: Vec<u8>,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    strangers: Line,
    begin: Line,
    go_on: Line,
    jobs: Option<Sender<Job>>,
    /// Steps on their way.
    running: usize,
    running_max: usize,
    /// Steps done so far.
    pub(super) steps: u64,
}

impl Turns {
    fn forget(&mut self, peer_group: PeerGroup, turn: Turn) {
        match turn {
            Turn::Read(number) => self.strangers.remove(peer_group, number),
            Turn::Begin(number) => self.begin.remove(peer_group, number),
            Turn::GoOn(number) => self.go_on.remove(peer_group, number),
        }
    }

    /// Whether somebody waits to be read in the next turn.
    pub(super) fn has_strangers(&self) -> bool {
        !self.strangers.is_empty()
    }

    /// The next connection whose handshake goes on. One that is half through comes before a new
    /// one; of new ones the newest of a group: whoever waits longest has given up first, and a
    /// crowd that came at once keeps nobody out who comes after it.
    fn next_step(&mut self) -> Option<LinkId> {
        self.go_on.next(false).or_else(|| self.begin.next(true))
    }
}

impl Conn {
    /// Whether it has not logged in. An execd was dialled, so it is none.
    fn is_stranger(&self) -> bool {
        !self.reader.is_known && self.role != Role::Host
    }
}

impl Io {
    /// Takes a connection out of whatever line it stands in.
    pub(super) fn forget_turn(&mut self, conn: &mut Conn) {
        if let Some(turn) = conn.turn.take() {
            self.turns.forget(conn.peer_group, turn);
        }
    }

    /// Has a connection wait for its turn, if it has to: whether it does.
    pub(super) fn must_wait(&mut self, link: LinkId) -> bool {
        let Some(conn) = self.links.get(link) else { return true };
        let is_handshaking = conn.stream.is_handshaking();
        let is_open = conn.phase == Phase::Open;
        let is_closing = matches!(conn.phase, Phase::Closing { .. });
        if !(is_handshaking && (is_open || is_closing) || is_open && conn.is_stranger()) {
            return false;
        }
        if conn.stream.is_lent() || conn.turn.is_some() {
            // What came is found when it is its turn, or its session is back.
            return true;
        }
        let turns = &mut self.turns;
        conn.turn = Some(match (is_handshaking, conn.is_begun) {
            (true, false) => Turn::Begin(turns.begin.add(conn.peer_group, link)),
            (true, true) => Turn::GoOn(turns.go_on.add(conn.peer_group, link)),
            (false, _) => Turn::Read(turns.strangers.add(conn.peer_group, link)),
        });
        true
    }

    /// Gives steps of handshakes to the helpers, as many as they can take; connections whose
    /// handshake has ended are given back, to be read.
    fn start_handshakes(&mut self) -> Vec<LinkId> {
        let mut ended = Vec::new();
        while self.turns.jobs.is_none() || self.turns.running < self.turns.running_max {
            let Some(link) = self.turns.next_step() else { break };
            let Some(conn) = self.links.get(link) else { continue };
            conn.turn = None;
            conn.reader.is_readable = false;
            match conn.stream.lend() {
                Some((session, bytes)) => {
                    // A full read may have left something in the socket.
                    conn.reader.is_readable =
                        bytes.len() == SCRATCH_BYTES || conn.reader.is_hung_up;
                    conn.is_begun = true;
                    self.turns.running += 1;
                    self.give(Job { link, session, bytes });
                }
                None => {
                    conn.reader.is_readable = true;
                    ended.push(link);
                }
            }
        }
        ended
    }

    fn give(&mut self, job: Job) {
        if self.turns.jobs.is_none() {
            self.start_threads();
        }
        let job = match &self.turns.jobs {
            // There is room for all that are given at once.
            Some(jobs) => jobs.try_send(job).map_err(|back| back.into_inner()),
            None => Err(job),
        };
        if let Err(Job { link, mut session, bytes }) = job {
            // Without a thread the loop does it itself.
            session.advance(&bytes);
            self.helpers.tell(HelperResult::Handshake { link, session: Box::new(session) });
        }
    }

    fn start_threads(&mut self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = (cores / 2).clamp(1, THREADS_MAX);
        // One more for each, so that no thread waits for the loop.
        self.turns.running_max = 2 * count;
        let (jobs, work) = bounded::<Job>(2 * count);
        let mut started = 0;
        for _ in 0..count {
            let (work, results) = (work.clone(), self.helpers.result_sender());
            let spawned = thread::Builder::new().name("isectd-tls".to_owned()).spawn(move || {
                for Job { link, mut session, bytes } in work {
                    session.advance(&bytes);
                    results.tell(HelperResult::Handshake { link, session: Box::new(session) });
                }
            });
            started += usize::from(spawned.is_ok());
        }
        self.turns.jobs = (started > 0).then_some(jobs);
    }
}

impl Reactor {
    /// Reads connections of strangers whose turn it is, and goes on with handshakes.
    pub(super) fn serve_strangers(&mut self) {
        for _ in 0..STRANGERS_MAX {
            let Some(link) = self.io.turns.strangers.next(false) else { break };
            if let Some(conn) = self.io.links.get(link) {
                conn.turn = None;
                self.receive_now(link);
            }
        }
        for link in self.io.start_handshakes() {
            self.receive_now(link);
        }
    }

    /// A step of a handshake is done: what it has to say leaves, and what came meanwhile is next.
    pub(super) fn handshake_advanced(&mut self, link: LinkId, session: Session) {
        self.io.turns.running -= 1;
        self.io.turns.steps += 1;
        let Some(conn) = self.io.links.get(link) else { return };
        conn.stream.take_back(session);
        self.io.writable(link);
        let Some(conn) = self.io.links.get(link) else { return };
        if conn.stream.is_handshaking() {
            if conn.reader.is_readable {
                self.receive(link);
            }
            return;
        }
        // What is decrypted already, or why it failed, is not reported by the system.
        conn.reader.is_readable = true;
        self.io.writable(link);
        self.receive(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32) -> LinkId {
        LinkId { index, generation: 0 }
    }

    fn drain(line: &mut Line, is_newest: bool) -> Vec<u32> {
        std::iter::from_fn(|| line.next(is_newest)).map(|link| link.index).collect()
    }

    #[test]
    fn one_of_each_group_after_the_other() {
        let mut line = Line::default();
        for index in 0..5 {
            line.add(PeerGroup::V4(1), link(index));
        }
        line.add(PeerGroup::V4(2), link(10));
        line.add(PeerGroup::V6(3), link(20));
        line.add(PeerGroup::V6(3), link(21));
        assert_eq!(drain(&mut line, false), [0, 10, 20, 1, 21, 2, 3, 4]);
        assert!(line.is_empty() && line.next(false).is_none());
    }

    #[test]
    fn the_newest_first_where_it_is_wanted_and_who_is_gone_not_at_all() {
        let mut line = Line::default();
        let numbers: Vec<u64> =
            (0..4).map(|index| line.add(PeerGroup::V4(1), link(index))).collect();
        line.remove(PeerGroup::V4(1), numbers[3]);
        line.remove(PeerGroup::V4(9), 7);
        assert_eq!(drain(&mut line, true), [2, 1, 0]);
        line.remove(PeerGroup::V4(1), numbers[0]);
        assert!(line.groups.is_empty(), "nothing is left of who is gone");
    }
}
