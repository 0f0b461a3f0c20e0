//! A worker that answers up to eight requests at a time, each on a thread of its own, and ends in
//! order after a thousand: the broker starts it anew. `config worker slow localhost
//! /path/of/target/debug/examples/concurrent_worker`. By hand, for a service with `selfstart=1`:
//! `concurrent_worker HOST PORT 0 slow`.

use client::worker::{OwnedRequest, run_concurrent, serve_concurrently};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// Waits for something slow, for example a database, and looks now and then whether somebody still
/// waits for the answer.
#[expect(clippy::disallowed_methods, reason = "the sleep stands for the work")]
fn answer(mut request: OwnedRequest) {
    for _ in 0..10 {
        if request.is_over() {
            // Its caller gave it up. It is answered as a failure, which frees its place.
            return;
        }
        sleep(Duration::from_millis(10));
    }
    if request.body.is_empty() {
        // The code is above 0, so it can't fail.
        let _ = request.fail(1, "there is nothing to answer");
    } else {
        let body = request.take_body();
        request.reply(body);
    }
}

fn main() -> ExitCode {
    run_concurrent("usage: concurrent_worker HOST PORT WORKER SERVICE", 8, |mut worker| {
        worker.end_after(1000);
        serve_concurrently(worker, answer)
    })
}
