//! The links as the engine knows them: what stands at the other end, who waits because it is
//! congested, when it was last heard. Not the connections: those are the reactor's.

use super::access::PendingLogin;
use super::action::Action;
use super::input::Peer;
use super::keys::{ClientKey, HostKey, WorkerKey};
use super::quotas::Share;
use protocol::ids::LinkId;
use protocol::time::{Micros, Tick};
use std::collections::BTreeMap;

/// What stands at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody: the link is gone.
    Free,
    /// A program on the client port that has not logged in.
    NewClient,
    /// A client, by key.
    Client(ClientKey),
    /// A program on the worker port that has not logged in.
    NewWorker,
    /// A worker, by key.
    Worker(WorkerKey),
    /// The execd of a host, by key.
    Host(HostKey),
}

/// The limits of silence that were announced to a peer at its login. It keeps to them, so it is
/// judged by them, whatever is set later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncedLimits {
    pub(crate) heartbeat_ms: u32,
    pub(crate) silence_ms: u32,
}

/// One slot of the table of links.
#[derive(Debug)]
pub(crate) struct Slot {
    generation: u32,
    /// What stands there.
    pub(crate) end: End,
    /// Who it is, as the kernel says.
    pub(crate) peer: Peer,
    /// The login whose proof is awaited.
    pub(crate) pending: Option<Box<PendingLogin>>,
    /// When something last came from it.
    pub(crate) heard: Tick,
    /// Heartbeats since then.
    pub(crate) missed: u32,
    /// What was announced to it, if it has logged in.
    pub(crate) announced: Option<AnnouncedLimits>,
    /// More than `outbox_bytes_high` wait to be sent to it.
    is_congested: bool,
    /// Links that are read no further until this one is uncongested.
    waiters: Vec<LinkId>,
    /// How many reasons there are to read this link no further.
    read_stops: u32,
    /// How many facts it may still cause.
    pub(crate) share: Share,
}

/// All links, by the index of their id.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: Vec<Slot>,
    /// To how many links each `heartbeat_ms` was announced.
    heartbeats: BTreeMap<u32, usize>,
    /// How many are read no further for now.
    unread: usize,
}

impl Links {
    /// A link began.
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

    /// Nobody could be heard for this long: nobody's silence counts for it.
    pub(crate) fn put_off(&mut self, late: Micros, now: Tick) {
        for slot in &mut self.slots {
            slot.heard = (slot.heard + late).min(now);
        }
    }

    /// These limits were announced to whoever is at the other end of a link.
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

    /// The shortest `heartbeat_ms` that was announced to somebody who is still there.
    pub(crate) fn announced_heartbeat_ms(&self) -> Option<u32> {
        self.heartbeats.keys().next().copied()
    }

    /// Silence is counted in other beats, or to another number of them, from now on: nobody is
    /// judged by what was counted before.
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

    /// Gives up room behind the last link that is not gone.
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

    /// A link is gone: who waited for it is read again.
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

    /// Too much waits to be sent to a link. A client that takes no answers is asked for no further
    /// requests: their answers would pile up, too, for each of 10,000 such clients.
    pub(crate) fn congested(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        slot.is_congested = true;
        if matches!(slot.end, End::Client(_)) && !slot.waiters.contains(&link) {
            slot.waiters.push(link);
            self.stop_reading(link, out);
        }
    }

    /// Whether too much waits to be sent to a link.
    pub(crate) fn is_congested(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|slot| slot.is_congested)
    }

    /// A link took what waited for it: who waited for that is read again.
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

    /// After something of `source` was sent to `to`: if that is congested, `source` waits.
    pub(crate) fn hold_back(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(to) else { return };
        if !slot.is_congested || source == to || slot.waiters.contains(&source) {
            return;
        }
        slot.waiters.push(source);
        self.stop_reading(source, out);
    }

    /// `source` sends nothing more to `to`, and need not wait for it.
    pub(crate) fn let_go(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(to) else { return };
        let count = slot.waiters.len();
        slot.waiters.retain(|&waiter| waiter != source);
        if slot.waiters.len() < count {
            self.resume_reading(source, out);
        }
    }

    /// One more reason to read a link no further.
    pub(crate) fn stop_reading(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        slot.read_stops += 1;
        if slot.read_stops == 1 {
            self.unread += 1;
            out.push(Action::StopReading { link });
        }
    }

    /// One reason less.
    pub(crate) fn resume_reading(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(slot) = self.get_mut(link) else { return };
        if slot.read_stops == 0 {
            return;
        }
        slot.read_stops -= 1;
        if slot.read_stops == 0 {
            // What it said meanwhile is not read yet: its silence counts from now on.
            slot.missed = 0;
            self.unread -= 1;
            out.push(Action::ResumeReading { link });
        }
    }

    /// Whether a link is not read for now, so that its silence says nothing.
    pub(crate) fn is_unread(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|slot| slot.read_stops > 0)
    }

    /// All links that are not read for now.
    pub(crate) fn unread(&self) -> Vec<LinkId> {
        if self.unread == 0 {
            return Vec::new();
        }
        self.iter().filter(|(_, slot)| slot.read_stops > 0).map(|(link, _)| link).collect()
    }
}
