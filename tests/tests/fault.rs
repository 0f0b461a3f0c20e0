//! The short form of the fault run with real processes; `.ci/nightly.sh` runs the long one.
//! `FAULT_SEED=N` repeats the plan of a run, `FAULT_SECONDS=N` sets how long faults are injected.

use isect_tests::fault::run::{Order, run};

#[test]
fn every_promise_holds_while_everything_breaks() {
    run(Order::from_environment(false)).assert_good();
}
