//! Limits the work for connections that have not logged in: a fixed amount in each turn, shared in
//! rotation between peer groups (see `protocol::peer_group`). TLS handshakes run on their own
//! threads, because one RSA signature takes longer than a whole turn may. Peers that have logged in
//! never wait for this work.

use super::Reactor;
use super::conn::{Conn, Phase};
use super::helpers::HelperResult;
use super::io::Io;
use crossbeam_channel::{Sender, bounded};
use protocol::{LinkId, PeerGroup, Role};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::thread;
use transport::session::{SCRATCH_BYTES, Session};

/// Connections that are read before their login in one turn.
const READS_MAX: usize = 32;
/// Most threads for handshakes.
const THREADS_MAX: usize = 4;

/// A queue of connections that serves the peer groups in rotation.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    groups: BTreeMap<PeerGroup, BTreeMap<u64, LinkId>>,
    last: Option<PeerGroup>,
    count: u64,
}

impl FairQueue {
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

    /// The next connection: the oldest or the newest of the group after the last one served.
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

/// In which queue a connection waits before its login, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// Waits to be read.
    Read(u64),
    /// Waits for the first step of its handshake, which is the expensive one.
    Begin(u64),
    /// Waits for a further step of its handshake.
    GoOn(u64),
}

/// A step of a handshake.
struct Job {
    link: LinkId,
    session: Session,
    bytes: Vec<u8>,
}

/// Connections that wait before their login.
#[derive(Debug, Default)]
pub(super) struct PreLogin {
    reads: FairQueue,
    begin: FairQueue,
    go_on: FairQueue,
    jobs: Option<Sender<Job>>,
    /// Steps that the helpers are working on.
    running: usize,
    running_max: usize,
    /// Steps done so far.
    pub(super) steps: u64,
}

impl PreLogin {
    fn remove(&mut self, peer_group: PeerGroup, queued: Queued) {
        match queued {
            Queued::Read(number) => self.reads.remove(peer_group, number),
            Queued::Begin(number) => self.begin.remove(peer_group, number),
            Queued::GoOn(number) => self.go_on.remove(peer_group, number),
        }
    }

    /// Whether somebody waits to be read in the next turn.
    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// The next connection for a handshake step. A begun handshake comes before a new one. Of the
    /// new ones, the newest of a group is first: those that wait longest are most likely to have
    /// given up, and a crowd that arrived at once does not shut out later clients.
    fn next_step(&mut self) -> Option<LinkId> {
        self.go_on.next(false).or_else(|| self.begin.next(true))
    }
}

impl Conn {
    /// Whether the connection has not logged in. An execd was dialled, so it never counts.
    fn is_pre_login(&self) -> bool {
        !self.reader.is_known && self.role != Role::Host
    }
}

impl Io {
    /// Takes a connection out of the queue that it waits in.
    pub(super) fn unqueue(&mut self, conn: &mut Conn) {
        if let Some(queued) = conn.queued.take() {
            self.pre_login.remove(conn.peer_group, queued);
        }
    }

    /// Queues a connection if it must wait for its turn; returns whether it waits.
    pub(super) fn must_wait(&mut self, link: LinkId) -> bool {
        let Some(conn) = self.links.get(link) else { return true };
        let is_handshaking = conn.stream.is_handshaking();
        let is_open = conn.phase == Phase::Open;
        let is_closing = matches!(conn.phase, Phase::Closing { .. });
        if !(is_handshaking && (is_open || is_closing) || is_open && conn.is_pre_login()) {
            return false;
        }
        if conn.stream.is_lent() || conn.queued.is_some() {
            // Its bytes are read at its turn, or when its session is back.
            return true;
        }
        let pre_login = &mut self.pre_login;
        conn.queued = Some(match (is_handshaking, conn.is_begun) {
            (true, false) => Queued::Begin(pre_login.begin.add(conn.peer_group, link)),
            (true, true) => Queued::GoOn(pre_login.go_on.add(conn.peer_group, link)),
            (false, _) => Queued::Read(pre_login.reads.add(conn.peer_group, link)),
        });
        true
    }

    /// Gives steps of handshakes to the helpers, as many as they can take; connections whose
    /// handshake has ended are given back, to be read.
    fn start_handshakes(&mut self) -> Vec<LinkId> {
        let mut ended = Vec::new();
        while self.pre_login.jobs.is_none() || self.pre_login.running < self.pre_login.running_max {
            let Some(link) = self.pre_login.next_step() else { break };
            let Some(conn) = self.links.get(link) else { continue };
            conn.queued = None;
            conn.reader.is_readable = false;
            match conn.stream.lend() {
                Some((session, bytes)) => {
                    // A full read may have left bytes in the socket.
                    conn.reader.is_readable =
                        bytes.len() == SCRATCH_BYTES || conn.reader.is_hung_up;
                    conn.is_begun = true;
                    self.pre_login.running += 1;
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
        if self.pre_login.jobs.is_none() {
            self.start_threads();
        }
        let job = match &self.pre_login.jobs {
            // The channel has room for as many steps as are given at once.
            Some(jobs) => jobs.try_send(job).map_err(|back| back.into_inner()),
            None => Err(job),
        };
        if let Err(Job { link, mut session, bytes }) = job {
            // If no thread can be started, the loop does the step itself.
            session.advance(&bytes);
            self.helpers.tell(HelperResult::Handshake { link, session: Box::new(session) });
        }
    }

    fn start_threads(&mut self) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = (cores / 2).clamp(1, THREADS_MAX);
        // One spare step per thread, so that no thread waits for the loop.
        self.pre_login.running_max = 2 * count;
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
        self.pre_login.jobs = (started > 0).then_some(jobs);
    }
}

impl Reactor {
    /// Reads connections before their login whose turn it is, and goes on with handshakes.
    pub(super) fn serve_pre_login(&mut self) {
        for _ in 0..READS_MAX {
            let Some(link) = self.io.pre_login.reads.next(false) else { break };
            if let Some(conn) = self.io.links.get(link) {
                conn.queued = None;
                self.receive_now(link);
            }
        }
        for link in self.io.start_handshakes() {
            self.receive_now(link);
        }
    }

    /// Takes a session back after a step: sends its output and reads what arrived meanwhile.
    pub(super) fn handshake_advanced(&mut self, link: LinkId, session: Session) {
        self.io.pre_login.running -= 1;
        self.io.pre_login.steps += 1;
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
        // The system reports no event for bytes that are already decrypted, or for a failed
        // handshake.
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

    fn take_all(queue: &mut FairQueue, is_newest: bool) -> Vec<u32> {
        std::iter::from_fn(|| queue.next(is_newest)).map(|link| link.index).collect()
    }

    #[test]
    fn one_of_each_group_after_the_other() {
        let mut queue = FairQueue::default();
        for index in 0..5 {
            queue.add(PeerGroup::V4(1), link(index));
        }
        queue.add(PeerGroup::V4(2), link(10));
        queue.add(PeerGroup::V6(3), link(20));
        queue.add(PeerGroup::V6(3), link(21));
        assert_eq!(take_all(&mut queue, false), [0, 10, 20, 1, 21, 2, 3, 4]);
        assert!(queue.is_empty() && queue.next(false).is_none());
    }

    #[test]
    fn the_newest_first_where_it_is_wanted_and_who_is_gone_not_at_all() {
        let mut queue = FairQueue::default();
        let numbers: Vec<u64> =
            (0..4).map(|index| queue.add(PeerGroup::V4(1), link(index))).collect();
        queue.remove(PeerGroup::V4(1), numbers[3]);
        queue.remove(PeerGroup::V4(9), 7);
        assert_eq!(take_all(&mut queue, true), [2, 1, 0]);
        queue.remove(PeerGroup::V4(1), numbers[0]);
        assert!(queue.groups.is_empty(), "nothing is left of who is gone");
    }
}
