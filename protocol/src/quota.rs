//! A token bucket that limits what a peer may cause, for example facts or log lines: a burst, then
//! a sustained rate.

use crate::time::Tick;

/// How much a peer may cause: a burst, then a sustained rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Most that may be taken at one moment.
    pub burst: u32,
    /// How many become available again in each second.
    pub per_second: u32,
}

/// What is left of a [`Rate`] at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    rate: Rate,
    /// What may be taken now, in millionths of one.
    level: u64,
    at: Tick,
}

const ONE: u64 = 1_000_000;

impl Quota {
    /// A quota of which nothing was taken yet.
    pub const fn new(rate: Rate) -> Self {
        Self { rate, level: rate.burst as u64 * ONE, at: Tick(0) }
    }

    /// Whether `count` may be taken now.
    pub fn has(&mut self, count: u32, now: Tick) -> bool {
        let gained = now.since(self.at).0.saturating_mul(u64::from(self.rate.per_second));
        let full = u64::from(self.rate.burst) * ONE;
        self.level = self.level.saturating_add(gained).min(full);
        self.at = self.at.max(now);
        self.level >= u64::from(count) * ONE
    }

    /// Takes one, if one is left; returns whether it did.
    pub fn take(&mut self, now: Tick) -> bool {
        self.take_all(1, now)
    }

    /// Takes all of `count`, or nothing if fewer are left; returns whether it did.
    pub fn take_all(&mut self, count: u32, now: Tick) -> bool {
        let has_all = self.has(count, now);
        if has_all {
            self.level -= u64::from(count) * ONE;
        }
        has_all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_then_so_many_a_second() {
        let mut quota = Quota::new(Rate { burst: 3, per_second: 2 });
        let takes = |quota: &mut Quota, ms: u64| {
            (0..10).filter(|_| quota.take(Tick::from_millis(ms))).count()
        };
        assert_eq!(takes(&mut quota, 0), 3);
        assert_eq!(takes(&mut quota, 499), 0);
        assert_eq!(takes(&mut quota, 500), 1);
        assert_eq!(takes(&mut quota, 1500), 2);
        assert_eq!(takes(&mut quota, 1_000_000), 3);
        assert_eq!(takes(&mut quota, 0), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let mut quota = Quota::new(Rate { burst: 5, per_second: 1 });
        assert!(quota.take_all(3, Tick(0)));
        assert!(!quota.take_all(3, Tick(0)) && quota.take_all(2, Tick(0)));
        assert!(!quota.take_all(u32::MAX, Tick(u64::MAX)), "more than there can ever be");
        assert!(quota.take_all(0, Tick(0)));
    }
}
