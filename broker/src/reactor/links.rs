//! The table of connections, indexed by mio's token and by [`LinkId`]. A slot is reused with the
//! next generation, so a late event of its previous connection finds nothing.

use super::conn::Conn;
use mio::Token;
use protocol::ids::LinkId;

/// The generation in the tokens of everything but connections.
const SPECIAL: u32 = u32::MAX;

/// The source of an event, encoded in mio's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// A connection.
    Link(LinkId),
    /// The listener with this index in the table of listeners.
    Listener(usize),
    /// The descriptor that signals are read from.
    Signal,
    /// The waker of the helper threads.
    Wake,
    /// The timer.
    Alarm,
}

const SIGNAL: u32 = u32::MAX;
const WAKE: u32 = u32::MAX - 1;
const ALARM: u32 = u32::MAX - 2;

impl Ready {
    /// The token that stands for this.
    pub(super) fn token(self) -> Token {
        let join = |generation: u32, index: u32| {
            Token(((u64::from(generation) << 32) | u64::from(index)) as usize)
        };
        match self {
            Self::Link(link) => join(link.generation, link.index),
            Self::Listener(index) => join(SPECIAL, index as u32),
            Self::Signal => join(SPECIAL, SIGNAL),
            Self::Wake => join(SPECIAL, WAKE),
            Self::Alarm => join(SPECIAL, ALARM),
        }
    }

    /// What a token stands for.
    pub(super) fn of(token: Token) -> Self {
        let value = token.0 as u64;
        let (generation, index) = ((value >> 32) as u32, value as u32);
        match (generation, index) {
            (SPECIAL, SIGNAL) => Self::Signal,
            (SPECIAL, WAKE) => Self::Wake,
            (SPECIAL, ALARM) => Self::Alarm,
            (SPECIAL, index) => Self::Listener(index as usize),
            (generation, index) => Self::Link(LinkId { index, generation }),
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// Every connection there is.
#[derive(Debug, Default)]
pub(super) struct Links {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose connection is gone, free at the end of the turn.
    gone: Vec<u32>,
    live: usize,
    /// The first generation of new slots, so that no id of a removed slot is used again.
    fresh: u32,
}

impl Links {
    /// How many connections there are.
    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// The id that the next [`insert`](Self::insert) gives.
    pub(super) fn next_id(&self) -> LinkId {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(self.fresh, |slot| slot.generation);
        LinkId { index, generation }
    }

    /// Adds a connection.
    pub(super) fn insert(&mut self, conn: Conn) -> LinkId {
        let link = self.next_id();
        self.free.pop();
        if link.index as usize == self.slots.len() {
            self.slots.push(Slot { generation: link.generation, conn: None });
        }
        self.slots[link.index as usize].conn = Some(Box::new(conn));
        self.live += 1;
        link
    }

    /// The connection of an id, if it is still the same one.
    #[inline]
    pub(super) fn get(&mut self, link: LinkId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(link.index as usize)?;
        if slot.generation != link.generation {
            return None;
        }
        slot.conn.as_deref_mut()
    }

    /// Takes a connection out; its slot stays empty until [`reuse`](Self::reuse).
    pub(super) fn remove(&mut self, link: LinkId) -> Option<Box<Conn>> {
        self.get(link)?;
        let slot = &mut self.slots[link.index as usize];
        // Slots are retired before they reach the special generation.
        slot.generation += 1;
        if slot.generation != SPECIAL {
            self.gone.push(link.index);
        }
        self.live -= 1;
        slot.conn.take()
    }

    /// Frees the slots of the connections that went away in this turn.
    pub(super) fn reuse(&mut self) {
        self.free.append(&mut self.gone);
    }

    /// Gives up the slots at the end that are free.
    pub(super) fn shrink(&mut self) {
        self.reuse();
        let used = self.slots.iter().rposition(|slot| slot.conn.is_some());
        let len = used.map_or(0, |last| last + 1);
        let oldest = self.slots[len..].iter().map(|slot| slot.generation).max();
        if let Some(oldest) = oldest.filter(|generation| *generation < SPECIAL - 1) {
            self.fresh = self.fresh.max(oldest);
            self.slots.truncate(len);
            self.slots.shrink_to_fit();
            self.free.retain(|index| (*index as usize) < len);
            self.free.shrink_to_fit();
            self.gone.shrink_to_fit();
        }
    }

    /// Calls `f` for each connection.
    pub(super) fn each(&mut self, mut show: impl FnMut(LinkId, &mut Conn)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(conn) = &mut slot.conn {
                show(LinkId { index: index as u32, generation: slot.generation }, conn);
            }
        }
    }

    /// The ids of all connections.
    pub(super) fn ids(&self) -> Vec<LinkId> {
        let ids = self.slots.iter().enumerate().filter(|(_, slot)| slot.conn.is_some());
        ids.map(|(index, slot)| LinkId { index: index as u32, generation: slot.generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::kinds::Role;
    use std::os::unix::net::UnixStream;

    fn conn() -> Conn {
        let (one, _) = UnixStream::pair().unwrap();
        Conn::new(one.into(), Role::Client, false)
    }

    #[test]
    fn tokens_and_what_they_stand_for_are_each_others_inverse() {
        for ready in [
            Ready::Link(LinkId { index: 0, generation: 0 }),
            Ready::Link(LinkId { index: 7, generation: u32::MAX - 1 }),
            Ready::Listener(0),
            Ready::Listener(9),
            Ready::Signal,
            Ready::Wake,
            Ready::Alarm,
        ] {
            assert_eq!(Ready::of(ready.token()), ready);
        }
    }

    #[test]
    fn an_old_id_never_finds_the_new_connection() {
        let mut links = Links::default();
        let first = links.insert(conn());
        assert!(links.get(first).is_some());
        assert!(links.remove(first).is_some());
        assert!(links.get(first).is_none() && links.remove(first).is_none());
        let other = links.insert(conn());
        assert_ne!(other.index, first.index, "a slot is free only at the end of the turn");
        links.reuse();
        let second = links.insert(conn());
        assert_eq!((second.index, second.generation), (first.index, first.generation + 1));
        assert!(links.get(first).is_none() && links.get(second).is_some());
        assert_eq!((links.len(), links.ids().len()), (2, 2));
    }

    #[test]
    fn places_that_were_given_up_never_give_an_old_id_again() {
        let mut links = Links::default();
        let stays = links.insert(conn());
        let old: Vec<LinkId> = (0..50).map(|_| links.insert(conn())).collect();
        for link in &old {
            links.remove(*link);
        }
        links.shrink();
        assert_eq!((links.slots.len(), links.free.len()), (1, 0));
        let new: Vec<LinkId> = (0..50).map(|_| links.insert(conn())).collect();
        assert!(old.iter().all(|link| links.get(*link).is_none() && !new.contains(link)));
        assert!(new.iter().all(|link| links.get(*link).is_some()));
        assert!(links.get(stays).is_some());
        links.shrink();
        assert_eq!(links.len(), 51);
    }
}
