//! The retry budget of a service: how many requests may be given to another worker after one died,
//! as a share of the requests that its workers get anyway, so that repetitions never become the
//! main load. A minimum is always allowed. What counts is the present window of time and the one
//! before. `dispatch` decides whether a request may be repeated at all.

use protocol::time::Tick;

/// Length of a window in milliseconds.
pub(crate) const WINDOW_MS: u64 = 10_000;

/// The state of a retry budget, over both windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Repetitions.
    pub(crate) used: u64,
    /// Most repetitions that are allowed.
    pub(crate) most: u64,
    /// Requests that a worker got for the first time.
    pub(crate) fresh: u64,
}

impl Level {
    /// Whether one more repetition is allowed.
    pub(crate) const fn has_room(self) -> bool {
        self.used < self.most
    }
}

/// Requests that workers got in both windows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetryBudget {
    /// When the present window ends.
    until: Tick,
    /// Requests given for the first time: in the window before, in the present one.
    fresh: [u64; 2],
    /// Requests given again, in the same two windows.
    again: [u64; 2],
}

impl RetryBudget {
    /// Begins a new window, if the present one is over.
    fn roll(&mut self, now: Tick) {
        if now < self.until {
            return;
        }
        let next = self.until.plus_millis(WINDOW_MS);
        let is_next = now < next;
        self.fresh = [if is_next { self.fresh[1] } else { 0 }, 0];
        self.again = [if is_next { self.again[1] } else { 0 }, 0];
        self.until = if is_next { next } else { now.plus_millis(WINDOW_MS) };
    }

    /// Counts a request that a worker gets for the first time.
    pub(crate) fn first(&mut self, now: Tick) {
        self.roll(now);
        self.fresh[1] += 1;
    }

    /// Counts a request that will be given to another worker.
    pub(crate) fn repeat(&mut self, now: Tick) {
        self.roll(now);
        self.again[1] += 1;
    }

    /// The state of the budget: `percent` of the first-time requests, and `min`.
    pub(crate) fn level(&mut self, now: Tick, percent: u64, min: u64) -> Level {
        self.roll(now);
        let fresh = self.fresh[0] + self.fresh[1];
        let most = min.saturating_add(fresh.saturating_mul(percent) / 100);
        Level { used: self.again[0] + self.again[1], most, fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    #[test]
    fn a_minimum_is_always_there_and_a_share_comes_with_the_traffic() {
        let mut budget = RetryBudget::default();
        assert_eq!(budget.level(at(0), 10, 3), Level { used: 0, most: 3, fresh: 0 });
        (0..29).for_each(|_| budget.first(at(5)));
        assert_eq!(budget.level(at(5), 10, 3).most, 5);
        budget.first(at(5));
        assert_eq!(budget.level(at(5), 10, 3), Level { used: 0, most: 6, fresh: 30 });
        (0..6).for_each(|_| budget.repeat(at(6)));
        assert!(!budget.level(at(6), 10, 3).has_room());
        assert!(!budget.level(at(6), 0, 0).has_room());
        assert!(budget.level(at(6), 100, u64::MAX).has_room());
    }

    #[test]
    fn what_is_two_windows_old_counts_no_more() {
        let mut budget = RetryBudget::default();
        (0..100).for_each(|_| budget.first(at(1000)));
        (0..13).for_each(|_| budget.repeat(at(1000)));
        assert_eq!(budget.level(at(10_999), 10, 3), Level { used: 13, most: 13, fresh: 100 });
        assert_eq!(budget.level(at(19_999), 10, 3), Level { used: 13, most: 13, fresh: 100 });
        assert_eq!(budget.level(at(20_000), 10, 3), Level { used: 0, most: 3, fresh: 0 });
        budget.repeat(at(20_000));
        assert_eq!(budget.level(at(500_000), 10, 3), Level { used: 0, most: 3, fresh: 0 });
    }
}
