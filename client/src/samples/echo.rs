//! A sample worker that answers each request with its own bytes, piece by piece.

use crate::error::Error;
use crate::worker::{self, Request, Worker};
use std::process::ExitCode;

const USAGE: &str = "\
isdecho answers each request with its own bytes. The broker starts it:
  isdclient -c 'config service echo'
  isdclient -c 'config worker echo localhost /path/of/isdecho'
  isdclient -c 'start echo'
usage: isdecho HOST|unix:PATH PORT WORKER SERVICE";

/// The `main` of the program `isdecho`.
pub fn main() -> ExitCode {
    worker::run(USAGE, |worker| {
        while let Some(request) = worker.next()? {
            echo(worker, request)?;
        }
        Ok(())
    })
}

fn echo(worker: &mut Worker, request: Request) -> Result<(), Error> {
    let mut piece = request;
    while piece.more() {
        worker.reply_piece(piece.body)?;
        match worker.next_piece()? {
            Some(next) => piece = next,
            // The client is gone or its time is over: nobody waits for the rest.
            None => return Ok(()),
        }
    }
    worker.reply(piece.body)
}
