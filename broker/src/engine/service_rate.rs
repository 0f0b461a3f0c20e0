//! Measures how fast a service takes requests out of its queue, and estimates from that how long a
//! new request will take. It measures the time between two requests that leave a queue in which
//! others wait, and the time that a worker takes for one. `transaction` admits requests by the
//! estimate (docs/decisions/0015).

use protocol::time::{Micros, Tick};

/// A new sample moves the mean by one in so many parts of the difference.
const MEMORY: u64 = 16;
/// A sample counts for at most this many times the mean, because a longer one is an exception.
const OUTLIER: u64 = 8;
/// With fewer samples, no request is refused.
const SAMPLES_MIN: u64 = 8;
/// If no request was taken out of the queue for this long, the service has stopped and not just
/// slowed down: then the wait can't be estimated.
const STOPPED: Micros = Micros::from_millis(1000);

/// An exponentially weighted mean; 0 until there was a sample.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    /// The mean times [`MEMORY`].
    sum: u64,
    count: u64,
}

impl Mean {
    const fn add(&mut self, sample: u64) {
        let mean = self.get();
        self.count += 1;
        if self.count == 1 {
            self.sum = sample.saturating_mul(MEMORY);
            return;
        }
        // A millisecond more, so that a mean near zero can grow.
        let most = mean.saturating_mul(OUTLIER).saturating_add(1000);
        let sample = if sample < most { sample } else { most };
        self.sum = (self.sum - mean).saturating_add(sample);
    }

    const fn get(self) -> u64 {
        self.sum / MEMORY
    }
}

/// The measurements of one service.
#[derive(Debug, Default)]
pub(crate) struct ServiceRate {
    /// When a request was last taken out of the queue, if others were left in it.
    chain: Option<Tick>,
    /// When a request was last taken out of the queue.
    latest: Tick,
    /// Microseconds between two requests that leave the queue.
    step: Mean,
    /// Microseconds that a worker takes for a request.
    run: Mean,
}

impl ServiceRate {
    /// Whether no request was taken for so long that the measurements mean nothing any more.
    fn has_stopped(&self, now: Tick) -> bool {
        now.since(self.latest).0 > STOPPED.0.max(self.step.get().saturating_mul(OUTLIER))
    }

    /// Notes that a request was taken out of the queue for a worker, and how many are left.
    pub(crate) fn taken(&mut self, now: Tick, left: usize) {
        if self.has_stopped(now) {
            *self = Self::default();
        }
        if let Some(before) = self.chain {
            self.step.add(now.since(before).0);
        }
        self.chain = (left > 0).then_some(now);
        self.latest = now;
    }

    /// Notes how long a worker took for a request.
    pub(crate) const fn finished(&mut self, took: Micros) {
        self.run.add(took.0);
    }

    /// How long a request will take with so many ahead of it, from now to its reply; `None` = there
    /// are too few measurements.
    pub(crate) fn expect(&self, now: Tick, ahead: usize) -> Option<Micros> {
        // A single worker takes one request in the time that a request takes, so the step is no
        // longer than that.
        let step = self.step.get().min(self.run.get());
        let samples = self.step.count.min(self.run.count);
        if samples < SAMPLES_MIN || self.has_stopped(now) {
            return None;
        }
        Some(Micros((ahead as u64 + 1).saturating_mul(step).saturating_add(self.run.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    #[test]
    fn what_is_expected_follows_what_happens() {
        let mut rate = ServiceRate::default();
        assert_eq!(rate.expect(at(0), 100), None, "nothing is known");
        for index in 0..50 {
            rate.taken(at(index * 5), 10);
            rate.finished(Micros::from_millis(20));
        }
        let expected = rate.expect(at(250), 99).map(|micros| micros.as_millis());
        assert_eq!(expected, Some(520));
        for index in 50..200 {
            rate.taken(at(index * 5), 10);
            rate.finished(Micros::from_millis(5));
        }
        let expected = rate.expect(at(1000), 99).map_or(0, Micros::as_millis);
        assert!((495..=515).contains(&expected), "{expected}");
    }

    #[test]
    fn a_stop_is_no_low_rate_and_an_exception_no_rule() {
        let mut rate = ServiceRate::default();
        for index in 0..50 {
            rate.taken(at(index * 5), 10);
            rate.finished(Micros::from_millis(5));
        }
        assert!(rate.expect(at(1200), 1).is_some());
        assert_eq!(rate.expect(at(1300), 1), None);
        // One request that took long does not mean that the next ones will.
        rate.finished(Micros::from_millis(60_000));
        rate.taken(at(1100), 10);
        let expected = rate.expect(at(1100), 99).map_or(0, Micros::as_millis);
        assert!(expected < 900, "{expected}");
        // The last request left the queue empty, so the time until the next one is no measurement.
        rate.taken(at(1105), 0);
        let before = rate.step.get();
        rate.taken(at(1500), 3);
        assert_eq!(rate.step.get(), before);
        // After half a minute without a request, the measurements begin anew.
        rate.taken(at(30_000), 10);
        assert_eq!(rate.expect(at(30_000), 99), None);
    }
}
