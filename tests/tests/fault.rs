//! The fault run with real processes, in its short form; `.ci/nightly.sh` runs the long one.
//! `FAULT_SEED=N` repeats the plan of a run, `FAULT_SECONDS=N` says how long it storms.

use isect_tests::fault::run::{Order, run};
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "the length and the seed of a run are given by hand")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name} is '{text}': {e}")))
}

#[test]
fn every_promise_holds_while_everything_breaks() {
    let seconds = number("FAULT_SECONDS").unwrap_or(8);
    let seed = number("FAULT_SEED").unwrap_or(1);
    let order = Order {
        seed,
        storm: Duration::from_secs(seconds),
        round: Duration::from_secs(20),
        eyes: 24,
        faithful: 8,
    };
    let report = run(order);
    eprintln!("{}", report.text);
    assert!(
        report.violations.is_empty(),
        "seed {seed}: {} violations; the first ones:\n{}",
        report.violations.len(),
        report.violations.iter().take(8).cloned().collect::<Vec<_>>().join("\n\n")
    );
}
