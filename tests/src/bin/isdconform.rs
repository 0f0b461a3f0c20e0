//! The driver of the Rust library for the conformance suite (docs/conformance.md):
//! `isdconform client ADDRESS`, or a worker with the arguments and the environment of one.

use std::process::ExitCode;

fn main() -> ExitCode {
    isect_tests::conformance::driver::run()
}
