//! A histogram of durations in microseconds. Each power of two has sixteen steps, so a percentile
//! is right within 6 %. It takes a few kilobytes, and a few instructions for each value. `buckets`
//! has load over time.

/// Steps in each power of two.
const STEPS: usize = 16;
const STEP_BITS: u32 = 4;
/// Powers of two; values from 2^36 µs (19 hours) on count in the last step.
const POWERS: usize = 36;

/// Counts of durations by step, and their sum and maximum.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * POWERS].into_boxed_slice(), count: 0, sum: 0, max: 0 }
    }
}

/// The index of the step that a value counts in.
fn index(micros: u64) -> usize {
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros();
    let step = (micros >> (power - STEP_BITS)) as usize & (STEPS - 1);
    (((power - STEP_BITS + 1) as usize) * STEPS + step).min(STEPS * POWERS - 1)
}

/// The largest value of the step with this index.
fn upper(index: usize) -> u64 {
    let (row, step) = (index / STEPS, index % STEPS);
    if row == 0 { step as u64 } else { (((STEPS + step + 1) as u64) << (row - 1)) - 1 }
}

impl Histogram {
    /// Counts a value.
    pub(crate) fn add(&mut self, micros: u64) {
        self.counts[index(micros)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(micros);
        self.max = self.max.max(micros);
    }

    /// Number of values.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Mean of the values; 0 if there are none.
    pub(crate) fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// The largest value; 0 if there are none.
    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    /// The value that `per_mille` thousandths of the values do not exceed; 0 if there are none.
    pub(crate) fn percentile(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max);
            }
        }
        self.max
    }

    /// Forgets all values.
    pub(crate) fn reset(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum, self.max) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_at_or_below_the_upper_end_of_its_step() {
        let mut last = 0;
        for value in (0..100_000).chain([1 << 30, (1 << 36) - 1]) {
            let top = upper(index(value));
            assert!(top >= value && top <= value + value / 16 + 1, "{value}: {top}");
            assert!(index(value) >= last);
            last = index(value);
        }
        assert_eq!(index(u64::MAX), STEPS * POWERS - 1);
    }

    #[test]
    fn percentiles_of_a_known_row() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(500), 0);
        for value in 1..=1000 {
            histogram.add(value);
        }
        for (per_mille, exact) in [(500, 500), (990, 990), (1000, 1000)] {
            let got = histogram.percentile(per_mille);
            assert!(got >= exact && got <= exact + exact / 16 + 1, "p{per_mille}: {got}");
        }
        assert_eq!((histogram.mean(), histogram.max(), histogram.count()), (500, 1000, 1000));
        histogram.reset();
        assert_eq!((histogram.percentile(990), histogram.count()), (0, 0));
    }
}
