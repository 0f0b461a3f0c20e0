//! The memory of children that have a `memory_max`: each is looked at once a second until it has
//! more, and then its broker is told, once. `os` does the looking.

use super::action::Action;
use super::child::{Child, ChildId};
use super::{Engine, State};
use protocol::bodies::ExecMemory;
use protocol::{Frame, Tick};

/// Milliseconds between two looks at a child.
const LOOK_MS: u64 = 1000;
/// Looks come at multiples of so many milliseconds, so that those at many children wake execd
/// only so often.
const SLOT_MS: u64 = 20;

/// How the memory of a child is watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryWatch {
    /// Bytes that it may have; 0 = it is not watched.
    max: u64,
    /// When it is looked at next.
    due: Option<Tick>,
}

impl MemoryWatch {
    /// Watches a child from now on, if it has a `memory_max`. Children of which the ids differ are
    /// looked at in different slots, also if they were all adopted at once.
    pub(super) fn new(max: u64, id: u64, now: Tick) -> Self {
        let slot = id % (LOOK_MS / SLOT_MS) * SLOT_MS;
        Self { max, due: (max > 0).then(|| in_slot(now, slot)) }
    }
}

fn in_slot(now: Tick, more_ms: u64) -> Tick {
    let slot = Tick::from_millis(SLOT_MS).0;
    Tick(now.plus_millis(LOOK_MS + more_ms).0.div_ceil(slot) * slot)
}

impl Engine {
    /// When a child is looked at next; `None` = none is watched.
    pub(super) fn memory_due(&self) -> Option<Tick> {
        self.children.values().filter_map(|child| child.memory.due).min()
    }

    /// Looks at the children of which the time has come.
    pub(super) fn look_at_memory(&mut self) {
        let now = self.now;
        for (id, child) in &mut self.children {
            if child.memory.due.is_some_and(|due| due <= now) {
                child.memory.due = Some(in_slot(now, 0));
                if child.state == State::Up {
                    self.out.push(Action::Measure { child: *id });
                }
            }
        }
    }

    /// A child has so much memory: its broker is told if that is too much.
    pub(super) fn measured(&mut self, id: ChildId, rss_bytes: u64) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.memory.due.is_none() || rss_bytes <= child.memory.max {
            return;
        }
        child.memory.due = None;
        let Child { worker, run, .. } = *child;
        let broker = child.who().broker;
        self.report(&broker, Frame::ExecMemory(ExecMemory { worker, run, rss_bytes }));
    }
}
