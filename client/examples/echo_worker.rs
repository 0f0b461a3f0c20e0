//! A complete worker. The broker starts it after `config worker echo localhost
//! /path/of/target/debug/examples/echo_worker`. By hand, for a service with `selfstart=1`:
//! `echo_worker HOST PORT 0 echo`.

use client::worker::Worker;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut worker = Worker::connect_from_args()?;
    worker.on_status(|| "echoing happily".to_owned());
    while let Some(request) = worker.next()? {
        if request.body.is_empty() {
            worker.fail(1, "there is nothing to echo")?;
        } else {
            worker.reply(request.body)?;
        }
    }
    Ok(())
}
