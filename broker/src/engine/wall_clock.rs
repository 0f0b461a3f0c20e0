//! Converts a tick to the wall clock's time, with the offset of the local time at that tick. The
//! reactor reads the clock and the time zone, and reports changes. If the clock is set, or summer
//! time begins, times recorded before do not change.

use super::Engine;
use protocol::op::reply::Value;
use protocol::time::{Tick, Wall};
use std::collections::VecDeque;

/// Most changes of the clock that are kept; the oldest one kept also counts for the time before it.
const CHANGES_MAX: usize = 64;

/// The changes of the wall clock, oldest first.
#[derive(Debug, Default)]
pub(crate) struct WallClock(VecDeque<(Tick, Wall)>);

impl WallClock {
    /// From this tick on, the clock runs on from `wall`.
    pub(crate) fn set(&mut self, at: Tick, wall: Wall) {
        if self.0.back().is_some_and(|(last, _)| *last == at) {
            self.0.pop_back();
        }
        if self.0.len() == CHANGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at, wall));
    }

    /// The wall clock's time at a tick.
    pub(crate) fn wall(&self, at: Tick) -> Wall {
        let in_force = self.0.iter().rev().find(|(since, _)| *since <= at);
        match in_force.or_else(|| self.0.front()) {
            Some((since, wall)) => wall.plus(at.since(*since)),
            None => Wall { epoch_ms: at.as_millis(), offset_secs: 0 },
        }
    }
}

impl Engine {
    /// What the clock showed at a tick.
    pub(crate) fn wall(&self, at: Tick) -> Wall {
        self.wall_clock.wall(at)
    }

    /// The wall clock's time at a tick, as a value of an answer.
    pub(crate) fn clock(&self, at: Tick) -> Value {
        Value::Time(self.wall(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_changes_what_comes_and_not_what_was() {
        let ms = Tick::from_millis;
        let mut wall_clock = WallClock::default();
        assert_eq!(wall_clock.wall(ms(7)).epoch_ms, 7);
        wall_clock.set(ms(0), Wall { epoch_ms: 1000, offset_secs: 0 });
        wall_clock.set(ms(50), Wall { epoch_ms: 9_000_000, offset_secs: 3600 });
        assert_eq!(wall_clock.wall(ms(49)), Wall { epoch_ms: 1049, offset_secs: 0 });
        assert_eq!(wall_clock.wall(ms(51)), Wall { epoch_ms: 9_000_001, offset_secs: 3600 });
        for n in 0..1000 {
            wall_clock.set(ms(100 + n), Wall { epoch_ms: n, offset_secs: 0 });
        }
        assert_eq!(wall_clock.0.len(), CHANGES_MAX);
        assert_eq!(wall_clock.wall(ms(2099)).epoch_ms, 1999);
        // A tick before all changes that are kept.
        assert_eq!(wall_clock.wall(ms(0)).epoch_ms, 936);
    }
}
