//! The fault run with tokens and TLS on every connection between machines, both of which change
//! during the run. Length and seeds as in `fault.rs`.

use isect_tests::fault::run::{Order, run};

#[test]
fn every_promise_holds_over_tokens_and_tls() {
    run(Order::from_environment(true)).assert_good();
}
