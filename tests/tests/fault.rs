//! The fault run with real processes, in its short form; `.ci/nightly.sh` runs the long one.
//! `FAULT_SEED=N` repeats the plan of a run, `FAULT_SECONDS=N` says how long faults are injected.

use isect_tests::fault::run::{Order, run};

#[test]
fn every_promise_holds_while_everything_breaks() {
    run(Order::from_environment(false)).assert_good();
}
