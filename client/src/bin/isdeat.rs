//! A sample worker that reads each request, however many pieces it has, and answers with no bytes.

use client::worker;
use std::process::ExitCode;

const USAGE: &str = "\
isdeat swallows each request and answers with an empty reply. The broker starts it:
  isdclient -c 'config service eat'
  isdclient -c 'config worker eat localhost /path/of/isdeat'
  isdclient -c 'start eat'
usage: isdeat HOST|unix:PATH PORT WORKER SERVICE";

fn main() -> ExitCode {
    worker::run(USAGE, |worker| {
        while let Some(request) = worker.next()? {
            let mut more = request.more();
            drop(request);
            while more {
                // `None`: the client is gone or its time is over, so nobody waits.
                more = worker.next_piece()?.is_some_and(|piece| piece.more());
            }
            worker.reply("")?;
        }
        Ok(())
    })
}
