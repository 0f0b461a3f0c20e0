//! The clock by which instances are timed out. It stands still while the broker itself stood still:
//! what programs sent meanwhile is not read yet, and nobody is to blame.

use protocol::{Micros, Tick};

/// How late a timer may be before that counts as a standstill of the broker.
const LATE_MS: u64 = 50;

/// A time of this clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Activity(u64);

impl Activity {
    /// The time that passed since an earlier one; 0 if it is later.
    pub(crate) const fn since(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }

    /// The time that is so much later.
    pub(crate) const fn plus(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct ActivityClock {
    /// All times together in which the broker stood still.
    stood_still: Micros,
    /// When the timer of the machine is due; `None` = it has none.
    due: Option<Tick>,
    /// When the broker last went on after it had stood still; `None` = it never stood still.
    woke: Option<Activity>,
}

impl ActivityClock {
    /// The time now. If the timer should have come already, the broker stood still.
    pub(crate) fn read(&mut self, now: Tick) -> Activity {
        if let Some(due) = self.due {
            let late = now.since(due);
            if late.as_millis() > LATE_MS {
                self.stood_still = self.stood_still + late;
                self.due = Some(now);
                self.woke = Some(self.at(now));
            }
        }
        self.at(now)
    }

    /// The time at a tick at which the broker did not stand still.
    pub(crate) fn at(&self, now: Tick) -> Activity {
        Activity(now.0.saturating_sub(self.stood_still.0))
    }

    /// The tick at which it will be that time, if the broker does not stand still until then.
    pub(crate) const fn tick(&self, at: Activity) -> Tick {
        Tick(at.0.saturating_add(self.stood_still.0))
    }

    /// When the timer is due.
    pub(crate) const fn due(&self) -> Option<Tick> {
        self.due
    }

    /// The timer is set.
    pub(crate) const fn set_due(&mut self, due: Option<Tick>) {
        self.due = due;
    }

    /// When the broker last went on after it had stood still.
    pub(crate) const fn woke(&self) -> Option<Activity> {
        self.woke
    }
}
