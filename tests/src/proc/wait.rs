//! Waits for a condition, with a time limit.

use std::time::{Duration, Instant};

/// Time limit for anything in a test; far longer than it should take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls `look` until it gives something.
///
/// # Panics
/// If that takes longer than [`TIMEOUT`]; `what` says what was waited for.
pub fn await_that<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(TIMEOUT, look).unwrap_or_else(|| panic!("waited {TIMEOUT:?} for {what}"))
}

/// Calls `look` until it gives something; `None` if that takes too long.
#[expect(clippy::disallowed_methods, reason = "waits for the thing itself, with a limit")]
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begun.elapsed() > limit {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
