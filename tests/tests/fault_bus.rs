//! The short form of the fault run of topics and instances; `.ci/nightly.sh` runs the long one.
//! `FAULT_SEED=N` repeats the plan of a run, `FAULT_SECONDS=N` sets how long faults are injected.

use isect_tests::fault::bus::run;
use isect_tests::fault::run::Order;

#[test]
fn messages_and_states_are_told_in_order_or_counted_while_everything_breaks() {
    let order = Order::from_environment(false);
    let report = run(order.seed, order.length.as_secs());
    eprintln!("seed {}: {:#?}", order.seed, report.figures);
    let first: Vec<&str> = report.violations.iter().take(8).map(String::as_str).collect();
    let (count, first) = (report.violations.len(), first.join("\n\n"));
    assert!(count == 0, "{count} violations; the first ones:\n{first}");
    for what in ["got", "silences that were noticed"] {
        assert!(report.figures[what] > 0, "{what}: none");
    }
}
