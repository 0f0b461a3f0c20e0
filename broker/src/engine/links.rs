//! The links as the engine knows them: which client, worker or host is at the other end, when it
//! was last heard, and which links are not read because another one is congested. The reactor has
//! the connections themselves.

use super::access::PendingLogin;
use super::action::Action;
use super::input::Peer;
use super::keys::{ClientKey, HostKey, WorkerKey};
use super::quotas::Share;
use protocol::ids::LinkId;
use protocol::time::{Micros, Tick};
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

/// A slot of the table of links.
#[derive(Debug)]
pub(crate) struct Slot {
    generation: u32,
    /// The other end; `Free` = there is none.
    pub(crate) end: End,
    /// The peer, as the kernel reports it.
    pub(crate) peer: Peer,
    /// The login that waits for its proof.
    pub(crate) pending: Option<Box<PendingLogin>>,
    /// When bytes last came from it.
    pub(crate) heard: Tick,
    /// Heartbeats since then, or since silence was last counted anew.
    pub(crate) missed: u32,
    /// Limits of silence, from its login on.
    pub(crate) announced: Option<AnnouncedLimits>,
    /// More than `outbox_bytes_high` bytes wait to be sent to it.
    is_congested: bool,
    /// Links that are not read until this one takes bytes again; a client may wait for itself.
    waiters: Vec<LinkId>,
    /// Number of reasons not to read this link; it is read again at 0.
    read_stops: u32,
    /// How many facts it may still cause.
    pub(crate) share: Share,
}

/// All links, by the index of their id.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: Vec<Slot>,
    /// How many links each value of `heartbeat_ms` was announced to.
    heartbeats: BTreeMap<u32, usize>,
    /// How many links are not read.
    unread: usize,
}

impl Links {
    /// Adds a link. Its slot must be free.
    pub(crate) fn open(&mut self, link: LinkId, end: End, peer: Peer, now: Tick) {
        let index = link.index as usize;
        while self.slots.len() <= index {
            self.slots.push(Slot {
                generation: 0,
                end: End::Free,
                peer: Peer::default(),
                pending: None,
                heard: now,
                missed: 0,
                announced: None,
                is_congested: false,
                waiters: Vec::new(),
                read_stops: 0,
                share: Share::default(),
            });
        }
        let slot = &mut self.slots[index];
        debug_assert!(slot.end == End::Free, "link {link} is open already");
        slot.generation = link.generation;
        slot.end = end;
        slot.peer = peer;
        slot.heard = now;
        slot.missed = 0;
        slot.share = Share::default();
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

    /// Sets all counts of missed heartbeats to 0: the length of a heartbeat or the limit changed,
    /// and the old counts mean nothing now.
    pub(crate) fn count_anew(&mut self) {
        for slot in &mut self.slots {
            slot.missed = 0;
        }
    }

    /// The slot of a link that is not gone.
    pub(crate) fn get(&self, link: LinkId) -> Option<&Slot> {
        let slot = self.slots.get(link.index as usize)?;
        (slot.generation == link.generation && slot.end != End::Free).then_some(slot)
    }

    /// The slot of a link that is not gone.
    pub(crate) fn get_mut(&mut self, link: LinkId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(link.index as usize)?;
        (slot.generation == link.generation && slot.end != End::Free).then_some(slot)
    }

    /// Gives back the memory of the free slots at the end.
    pub(crate) fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.end != End::Free);
        self.slots.truncate(used.map_or(0, |last| last + 1));
        self.slots.shrink_to_fit();
    }

    /// All links that are not gone, by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Slot)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.end != End::Free).map(
            |(index, slot)| (LinkId { index: index as u32, generation: slot.generation }, slot),
        )
    }

    /// The link with this descriptor (column `fd`).
    pub(crate) fn with_fd(&self, fd: i32) -> Option<LinkId> {
        self.iter().find(|(_, slot)| slot.peer.fd == fd).map(|(link, _)| link)
    }

    /// Removes a link; the links that waited for it are read again.
    pub(crate) fn free(&mut self, link: LinkId, out: &mut Vec<Action>) {
        if let Some(slot) = self.get_mut(link) {
            slot.waiters.retain(|&waiter| waiter != link);
        }
        self.uncongested(link, out);
        self.forget_announced(link);
        if let Some(slot) = self.get_mut(link) {
            slot.end = End::Free;
            slot.peer = Peer::default();
            slot.pending = None;
            let was_unread = std::mem::take(&mut slot.read_stops) > 0;
            self.unread -= usize::from(was_unread);
        }
    }

    /// Marks a link as congested. A client is read no further then: as long as it takes no answers,
    /// it gets no further requests in, whose answers would pile up as well.
    pub(crate) fn congested(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        slot.is_congested = true;
        if matches!(slot.end, End::Client(_)) && !slot.waiters.contains(&link) {
            slot.waiters.push(link);
            self.stop_reading(link, out);
        }
    }

    /// Whether too many bytes wait to be sent to a link.
    pub(crate) fn is_congested(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|slot| slot.is_congested)
    }

    /// Marks a link as no longer congested; the links that waited for it are read again.
    pub(crate) fn uncongested(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        slot.is_congested = false;
        if slot.waiters.is_empty() {
            return;
        }
        for source in std::mem::take(&mut slot.waiters) {
            self.resume_reading(source, out);
        }
    }

    /// Stops reading `source` if `to` is congested. Called after a frame from `source` was sent on
    /// to `to`.
    pub(crate) fn hold_back(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(to) else { return };
        if !slot.is_congested || source == to || slot.waiters.contains(&source) {
            return;
        }
        slot.waiters.push(source);
        self.stop_reading(source, out);
    }

    /// Ends the wait of `source` for `to`, because it sends nothing more to it.
    pub(crate) fn let_go(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(to) else { return };
        let count = slot.waiters.len();
        slot.waiters.retain(|&waiter| waiter != source);
        if slot.waiters.len() < count {
            self.resume_reading(source, out);
        }
    }

    /// Adds a reason not to read a link.
    pub(crate) fn stop_reading(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        slot.read_stops += 1;
        if slot.read_stops == 1 {
            self.unread += 1;
            out.push(Action::StopReading { link });
        }
    }

    /// Removes a reason; without any, the link is read again.
    pub(crate) fn resume_reading(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        if slot.read_stops == 0 {
            return;
        }
        slot.read_stops -= 1;
        if slot.read_stops == 0 {
            // What it sent meanwhile is not read yet, so its silence counts from now on.
            slot.missed = 0;
            self.unread -= 1;
            out.push(Action::ResumeReading { link });
        }
    }

    /// Whether a link is not read, so that its silence says nothing.
    pub(crate) fn is_unread(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|slot| slot.read_stops > 0)
    }

    /// All links that are not read.
    pub(crate) fn unread(&self) -> Vec<LinkId> {
        if self.unread == 0 {
            return Vec::new();
        }
        self.iter().filter(|(_, slot)| slot.read_stops > 0).map(|(link, _)| link).collect()
    }
}
