//! Makes small decisions from a fuzzer's bytes, read from the front. After the last byte each
//! decision is the first choice, so that a shorter input is a simpler one. Random numbers from a
//! seed are in `sim::rng`.

/// Bytes that are used up one decision at a time.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    left: &'a [u8],
}

impl<'a> Source<'a> {
    /// Decisions out of these bytes.
    pub const fn new(left: &'a [u8]) -> Self {
        Self { left }
    }

    /// Whether nothing is left to decide with.
    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, left)) = self.left.split_first() else { return 0 };
        self.left = left;
        *first
    }

    /// The next eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// The next four bytes as a number.
    pub fn word(&mut self) -> u32 {
        (0..4).fold(0, |number, _| number << 8 | u32::from(self.byte()))
    }

    /// 0 to `end - 1`; `end` is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// Yes or no; no at the end.
    pub fn is_yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of these, which are at most 256 and at least one.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Up to `max` bytes: one byte says how many, times `step`.
    pub fn bytes(&mut self, max: usize, step: usize) -> &'a [u8] {
        let count = (usize::from(self.byte()) * step).min(max).min(self.left.len());
        let (bytes, left) = self.left.split_at(count);
        self.left = left;
        bytes
    }

    /// Up to 255 bytes as text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes(255, 1)).into_owned()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }
}
