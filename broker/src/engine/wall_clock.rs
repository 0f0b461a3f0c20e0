//! Converts a tick to the wall clock's time, with the local time zone valid at that tick. The
//! reactor reads the clock and the zone and reports changes. Setting the clock, or a change to
//! summer time, does not alter times recorded before.

use protocol::time::{Micros, Tick, Wall};
use std::collections::VecDeque;

/// So many changes of the clock are known; before them the oldest that is known counts.
const CHANGES_MAX: usize = 64;

/// The changes of the clock so far.
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

    /// What it showed at a tick.
    pub(crate) fn wall(&self, at: Tick) -> Wall {
        let in_force = self.0.iter().rev().find(|(since, _)| *since <= at);
        match in_force.or_else(|| self.0.front()) {
            Some((since, wall)) => wall.plus(at.since(*since)),
            None => Wall { epoch_ms: at.as_millis(), offset_secs: 0 },
        }
    }
}

/// A span in few characters: `213 ms`, `2.1 s`, `2m 05s`, `3h 07m`.
pub(crate) fn short(span: Micros) -> String {
    let ms = span.as_millis();
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000.. => protocol::op::reply::span(span.0),
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
        // What was before all that are known.
        assert_eq!(wall_clock.wall(ms(0)).epoch_ms, 936);
    }

    #[test]
    fn spans_are_short() {
        for (micros, text) in [
            (0, "0 ms"),
            (999_999, "999 ms"),
            (1_000_000, "1.0 s"),
            (2_149_000, "2.1 s"),
            (59_999_000, "59.9 s"),
            (60_000_000, "1m 00s"),
        ] {
            assert_eq!(short(Micros(micros)), text);
        }
    }
}
