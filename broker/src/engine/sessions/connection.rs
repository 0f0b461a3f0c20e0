//! The connections as the engine knows them: which client, worker or host is at the other end, how
//! far its login is, and when it was last heard. The reactor has the sockets.

use super::phase::{Phase, PhaseEvent};
use crate::engine::input::Peer;
use crate::engine::keys::{ClientKey, HostKey, WorkerKey};
use crate::engine::sessions::pending::PendingLogin;
use protocol::{LinkId, Micros, Tick};
use std::collections::BTreeMap;

/// The other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The link is gone, and its slot is free.
    Free,
    /// A program on the client port that has not logged in.
    NewClient,
    /// A client that is logged in.
    Client(ClientKey),
    /// A program on the worker port that has not logged in.
    NewWorker,
    /// A worker that is logged in.
    Worker(WorkerKey),
    /// The execd of a host.
    Host(HostKey),
}

/// The limits of silence that a peer was sent at its login. The peer keeps to them as long as it is
/// connected, so the broker applies them to it, whatever is set later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncedLimits {
    pub(crate) heartbeat_ms: u32,
    pub(crate) silence_ms: u32,
}

/// A connection, or a free slot of the table.
#[derive(Debug)]
pub(crate) struct Connection {
    generation: u32,
    /// The other end; `Free` = there is none.
    pub(crate) end: End,
    /// How far its login is; [`enter`](Self::enter) changes it.
    pub(crate) phase: Phase,
    /// The peer, as the kernel reports it.
    pub(crate) peer: Peer,
    /// The login that waits for its proof. Valid from `Challenged` to `Checking`.
    pub(crate) pending: Option<Box<PendingLogin>>,
    /// When bytes last came from it.
    pub(crate) heard: Tick,
    /// Heartbeats since then, or since silence was last counted anew.
    pub(crate) missed: u32,
    /// Limits of silence, from its login on. Valid in `LoggedIn`, except of a host, which is told
    /// none.
    pub(crate) announced: Option<AnnouncedLimits>,
}

/// All links, by the index of their id.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Connection>,
    /// How many links each value of `heartbeat_ms` was announced to.
    heartbeats: BTreeMap<u32, usize>,
}

impl Connections {
    /// Adds a link. Its slot must be free.
    pub(crate) fn open(&mut self, link: LinkId, end: End, peer: Peer, now: Tick) {
        let index = link.index as usize;
        while self.slots.len() <= index {
            self.slots.push(Connection {
                generation: 0,
                end: End::Free,
                phase: Phase::START,
                peer: Peer::default(),
                pending: None,
                heard: now,
                missed: 0,
                announced: None,
            });
        }
        let slot = &mut self.slots[index];
        debug_assert!(slot.end == End::Free, "link {link} is open already");
        slot.generation = link.generation;
        slot.end = end;
        let is_host = matches!(end, End::Host(_));
        slot.enter(if is_host { PhaseEvent::OpenHost } else { PhaseEvent::Open });
        slot.peer = peer;
        slot.heard = now;
        slot.missed = 0;
    }

    /// Adds a time in which the broker could hear nobody to the times at which links were heard.
    pub(crate) fn put_off(&mut self, late: Micros, now: Tick) {
        for slot in &mut self.slots {
            slot.heard = (slot.heard + late).min(now);
        }
    }

    /// Notes which limits of silence a link is sent at its login.
    pub(crate) fn announce(&mut self, link: LinkId, limits: AnnouncedLimits) {
        self.forget_announced(link);
        if let Some(slot) = self.get_mut(link) {
            slot.announced = Some(limits);
            *self.heartbeats.entry(limits.heartbeat_ms).or_default() += 1;
        }
    }

    fn forget_announced(&mut self, link: LinkId) {
        let Some(limits) = self.get_mut(link).and_then(|slot| slot.announced.take()) else {
            return;
        };
        if let Some(count) = self.heartbeats.get_mut(&limits.heartbeat_ms) {
            *count -= 1;
            if *count == 0 {
                self.heartbeats.remove(&limits.heartbeat_ms);
            }
        }
    }

    /// The shortest `heartbeat_ms` that was announced to a link that still exists.
    pub(crate) fn announced_heartbeat_ms(&self) -> Option<u32> {
        self.heartbeats.keys().next().copied()
    }

    /// How many links each `heartbeat_ms` was announced to.
    pub(super) const fn heartbeats(&self) -> &BTreeMap<u32, usize> {
        &self.heartbeats
    }

    /// Sets all counts of missed heartbeats to 0: the length of a heartbeat or the limit changed,
    /// and the old counts mean nothing now.
    pub(crate) fn count_anew(&mut self) {
        for slot in &mut self.slots {
            slot.missed = 0;
        }
    }

    /// The slot of a link that is not gone.
    pub(crate) fn get(&self, link: LinkId) -> Option<&Connection> {
        let slot = self.slots.get(link.index as usize)?;
        (slot.generation == link.generation && slot.end != End::Free).then_some(slot)
    }

    /// The slot of a link that is not gone.
    pub(crate) fn get_mut(&mut self, link: LinkId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(link.index as usize)?;
        (slot.generation == link.generation && slot.end != End::Free).then_some(slot)
    }

    /// Gives up the room behind the last link that is not gone. Returns for how many there is room
    /// then.
    pub(crate) fn shrink(&mut self) -> usize {
        let used = self.slots.iter().rposition(|slot| slot.end != End::Free);
        self.slots.truncate(used.map_or(0, |last| last + 1));
        self.slots.shrink_to_fit();
        self.slots.len()
    }

    /// All links that are not gone, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Connection)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.end != End::Free).map(
            |(index, slot)| (LinkId { index: index as u32, generation: slot.generation }, slot),
        )
    }

    /// The link with this descriptor (column `fd`).
    pub(crate) fn with_fd(&self, fd: i32) -> Option<LinkId> {
        self.iter().find(|(_, slot)| slot.peer.fd == fd).map(|(link, _)| link)
    }

    /// A link is gone.
    pub(crate) fn free(&mut self, link: LinkId) {
        self.forget_announced(link);
        if let Some(slot) = self.get_mut(link) {
            slot.end = End::Free;
            slot.enter(PhaseEvent::Close);
            slot.peer = Peer::default();
            slot.pending = None;
        }
    }

    /// A link is read again: what it said meanwhile is not read yet, so its silence counts from now
    /// on.
    pub(crate) fn resumed(&mut self, link: LinkId) {
        if let Some(slot) = self.get_mut(link) {
            slot.missed = 0;
        }
    }
}

impl Connection {
    /// Goes on to its next phase.
    pub(super) fn enter(&mut self, event: PhaseEvent) {
        let next = self.phase.on(event);
        debug_assert!(next.is_some(), "{event:?} of a connection in {:?}", self.phase);
        self.phase = next.unwrap_or(self.phase);
    }
}
