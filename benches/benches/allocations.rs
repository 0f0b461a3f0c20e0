//! Counts the heap allocations of single steps in their steady state, and fails if a step makes
//! more than the table of steps allows; a request must make none. Run it by `cargo bench --bench
//! allocations`.
#![expect(unsafe_code, reason = "a global allocator can't be written without; it only counts")]

use isect_benches::steps::STEPS;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Repetitions before the steady state.
const WARM: u64 = 100_000;
const COUNT: u64 = 100_000;

static CALLS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let mut is_good = true;
    for row in STEPS {
        let line = match count(row) {
            Ok(calls) => {
                let is_within = calls * 1000 <= COUNT * row.allocations_max;
                is_good &= is_within;
                let word = if is_within { "" } else { "  TOO MANY" };
                format!("{:<24}{:.5} allocations{word}", row.name, calls as f64 / COUNT as f64)
            }
            Err(why) => {
                is_good = false;
                format!("{}: {why}", row.name)
            }
        };
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn count(row: &isect_benches::steps::StepRow) -> Result<u64, String> {
    let mut step = row.prepare()?;
    (0..WARM).try_for_each(|_| step.once())?;
    let before = CALLS.load(Ordering::Relaxed);
    (0..COUNT).try_for_each(|_| step.once())?;
    Ok(CALLS.load(Ordering::Relaxed) - before)
}
