//! A sample worker that turns any program into a worker. Each request is the stdin of one run, and
//! its stdout is the reply. A status other than 0 becomes an application error with that status and
//! the stderr. It never uses a shell. `child` runs the program.

use super::child::{self, Child, Ended, Step};
use crate::error::Error;
use crate::worker::{self, Request, Worker, own_args};
use std::process::ExitCode;
use sys::stderr::{LAST_WORDS_TIME, Stderr, last_words};

const USAGE: &str = "\
isdpipe makes any program a worker: a request is its stdin, its stdout is the reply. A status other
than 0 (or 128 + N after signal N) goes to the client as the error's code, with the last of stderr.
When the request's deadline passes, the program's process group is killed. No shell is between them;
ISECT_SERVICE, ISECT_TRANSACTION and ISECT_ATTEMPT stand in the program's environment.
  isdclient -c 'config worker upper localhost /path/of/isdpipe tr a-z A-Z'
usage: isdpipe HOST|unix:PATH PORT WORKER SERVICE PROGRAM [ARG]...";

/// The `main` of the program `isdpipe`.
pub fn main() -> ExitCode {
    if let Some(status) = child::become_program(std::env::args_os().collect()) {
        return status;
    }
    if let Some(status) = worker::help(USAGE) {
        return status;
    }
    let mut command = own_args();
    match child::find(&command) {
        Ok(path) => command[0] = path,
        Err(why) => return worker::misused(&why, USAGE),
    }
    // The thread starts before the first program, which must not wait for a reader of our stderr.
    let own_stderr = Stderr::start(tell_lost);
    let status = worker::run(USAGE, |worker| {
        while let Some(request) = worker.next()? {
            serve(worker, request, &command, &own_stderr)?;
        }
        Ok(())
    });
    own_stderr.flush_within(LAST_WORDS_TIME);
    status
}

/// Reports how many pieces of the programs' stderr could not be written.
fn tell_lost(pieces: u64) {
    last_words(&format!("isdpipe: {pieces} pieces of stderr dropped: it was not read"));
}

fn serve(
    worker: &mut Worker,
    request: Request,
    command: &[String],
    own_stderr: &Stderr,
) -> Result<(), Error> {
    let mut child = match Child::start(command, &request, worker, own_stderr) {
        Ok(child) => child,
        Err(why) => return worker.fail(126, &format!("can't start '{}': {why}", command[0])),
    };
    let mut more = request.more();
    let mut input = request.body;
    loop {
        match child.feed(&input, more, worker)? {
            Step::Hungry => match worker.next_piece()? {
                Some(piece) => (more, input) = (piece.more(), piece.body),
                // The client is gone or its time is over; dropping the child kills the program.
                None => return Ok(()),
            },
            Step::Ended(ended) => {
                while more {
                    more = worker.next_piece()?.is_some_and(|piece| piece.more());
                }
                return answer(worker, child, &ended);
            }
        }
    }
}

fn answer(worker: &mut Worker, mut child: Child, ended: &Ended) -> Result<(), Error> {
    match ended.code {
        0 => worker.reply(std::mem::take(&mut child.out)),
        code => worker.fail(code, &ended.text),
    }
}
