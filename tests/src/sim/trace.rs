//! The record of a simulation. Every event is hashed, so that two runs of one seed can be compared;
//! the text is kept only when a seed is replayed. The engine's facts are part of it.

use protocol::time::Tick;
use std::fmt::{self, Write as _};

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    text: Option<String>,
}

struct Fold<'a>(&'a mut u64);

impl fmt::Write for Fold<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// An empty trace; `is_kept` keeps its text.
    pub fn new(is_kept: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: 0, text: is_kept.then(String::new) }
    }

    /// Adds a line.
    pub fn note(&mut self, now: Tick, line: fmt::Arguments<'_>) {
        self.lines += 1;
        // Neither writer can fail.
        let _ = writeln!(Fold(&mut self.hash), "{} {line}", now.0);
        if let Some(text) = &mut self.text {
            let _ = writeln!(text, "{:>12.6} {line}", now.0 as f64 / 1e6);
        }
    }

    /// One number for all that happened.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The text, if it is kept.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}
