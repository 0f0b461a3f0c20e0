//! Helpers for tests that also measure: the clock, the long form, and the figures for the
//! documents. Benchmarks are in `benches`.

use std::time::Instant;

/// Whether the long form is asked for, by `OVERLOAD=long`.
#[expect(clippy::disallowed_methods, reason = "the long form is asked for by the environment")]
pub fn is_long() -> bool {
    std::env::var("OVERLOAD").is_ok_and(|value| value == "long")
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "it is the time that is tested")]
pub fn now() -> Instant {
    Instant::now()
}

/// Prints a figure.
#[expect(clippy::print_stdout, reason = "the figures, for the documents")]
pub fn say(text: &str) {
    println!("{text}");
}
