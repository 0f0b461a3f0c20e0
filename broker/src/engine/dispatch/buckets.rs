//! The manual's histogram of load: completed transactions in each window of `BucketSecs` seconds,
//! for the last `NumBuckets` windows. `histogram` has latencies.

use protocol::time::Tick;
use std::collections::VecDeque;

/// Most windows that `buckets` may ask for.
pub(crate) const COUNT_MAX: u32 = 1440;
/// Longest window that `buckets` may ask for, in seconds.
pub(crate) const SECS_MAX: u32 = 86_400;

/// Completed transactions in each window, the running window first.
#[derive(Debug)]
pub(crate) struct Buckets {
    secs: u32,
    counts: VecDeque<u64>,
    /// Number of the running window, counted from tick 0.
    window: u64,
    peak: u64,
}

impl Default for Buckets {
    /// Six windows of ten seconds, as on the manual's status page.
    fn default() -> Self {
        Self::new(6, 10, Tick(0))
    }
}

impl Buckets {
    /// `count` windows of `secs` seconds, empty.
    pub(crate) fn new(count: u32, secs: u32, now: Tick) -> Self {
        let window = now.as_millis() / (u64::from(secs) * 1000);
        Self { secs, counts: vec![0; count as usize].into(), window, peak: 0 }
    }

    /// Counts a completed transaction in the running window, as `step`, which is 0 or 1.
    pub(crate) fn add(&mut self, now: Tick, step: u64) {
        self.turn(now);
        if let Some(running) = self.counts.front_mut() {
            *running += step;
            self.peak = self.peak.max(*running);
        }
    }

    /// Adds the windows that began since the last call, and drops the oldest.
    pub(crate) fn turn(&mut self, now: Tick) {
        let window = now.as_millis() / (u64::from(self.secs) * 1000);
        for _ in 0..window.saturating_sub(self.window).min(self.counts.len() as u64) {
            self.counts.pop_back();
            self.counts.push_front(0);
        }
        self.window = window;
    }

    /// The counts, the running window first, the oldest last.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.counts.iter().copied().collect()
    }

    /// Number of windows (`NumBuckets`).
    pub(crate) fn count(&self) -> u32 {
        self.counts.len() as u32
    }

    /// Length of a window in seconds (`BucketSecs`).
    pub(crate) const fn secs(&self) -> u32 {
        self.secs
    }

    /// Largest count of a window since the last `reset` (`PeakBucket`).
    pub(crate) const fn peak(&self) -> u64 {
        self.peak
    }

    /// Sets all counts and the peak to 0.
    pub(crate) fn reset(&mut self) {
        self.counts.iter_mut().for_each(|count| *count = 0);
        self.peak = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_move_on_with_time_and_the_peak_stays() {
        let mut buckets = Buckets::new(3, 5, Tick(0));
        for _ in 0..4 {
            buckets.add(Tick::from_millis(100), 1);
        }
        buckets.add(Tick::from_millis(5_000), 1);
        assert_eq!(buckets.counts(), [1, 4, 0]);
        buckets.turn(Tick::from_millis(14_999));
        assert_eq!(buckets.counts(), [0, 1, 4]);
        buckets.turn(Tick::from_millis(1_000_000));
        assert_eq!((buckets.counts(), buckets.peak()), (vec![0, 0, 0], 4));
        buckets.reset();
        assert_eq!(buckets.peak(), 0);
    }
}
