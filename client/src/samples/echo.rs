//! A sample worker that answers each request with its own bytes, piece by piece; one request at a
//! time, or several.

use crate::error::Error;
use crate::worker::{self, ConcurrentWorker, OwnedRequest, Request, Worker, own_args};
use protocol::ErrorCode;
use protocol::limits::CONCURRENCY_MAX;
use std::process::ExitCode;
use std::thread;

const USAGE: &str = "\
isdecho answers each request with its own bytes. The broker starts it:
  isdclient -c 'config service echo'
  isdclient -c 'config worker echo localhost /path/of/isdecho [concurrency N] [end N]'
  isdclient -c 'start echo'
concurrency N  it has up to N requests at a time, 1 to 1024
end N          it logs out and ends after N requests; the broker starts it again
usage: isdecho HOST|unix:PATH PORT WORKER SERVICE [concurrency N] [end N]";

/// What its own arguments say.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    concurrency: Option<u32>,
    end_after: Option<u64>,
}

/// The `main` of the program `isdecho`.
pub fn main() -> ExitCode {
    if let Some(status) = worker::help(USAGE) {
        return status;
    }
    let plan = match plan(&own_args()) {
        Ok(plan) => plan,
        Err(why) => return worker::misused(&why, USAGE),
    };
    match plan.concurrency {
        None => worker::run(USAGE, |worker| {
            plan.end_after.into_iter().for_each(|requests| worker.end_after(requests));
            while let Some(request) = worker.next()? {
                echo(worker, request)?;
            }
            Ok(())
        }),
        Some(concurrency) => worker::run_concurrent(USAGE, concurrency, |mut worker| {
            plan.end_after.into_iter().for_each(|requests| worker.end_after(requests));
            echo_concurrently(worker)
        }),
    }
}

/// Arguments that begin with another word are not for it: it is also started to look at them.
fn plan(args: &[String]) -> Result<Plan, String> {
    let mut plan = Plan::default();
    if !args.first().is_some_and(|word| word == "concurrency" || word == "end") {
        return Ok(plan);
    }
    for pair in args.chunks(2) {
        let [what, number] = pair else { return Err(format!("'{}' lacks its number", pair[0])) };
        let whole: u64 =
            number.parse().map_err(|_| format!("'{number}' stands where a number must stand"))?;
        match what.as_str() {
            "concurrency" => {
                let small = u32::try_from(whole).ok().filter(|n| (1..=CONCURRENCY_MAX).contains(n));
                let text = || format!("concurrency {whole} is not 1 to {CONCURRENCY_MAX}");
                plan.concurrency = Some(small.ok_or_else(text)?);
            }
            "end" => plan.end_after = Some(whole),
            _ => return Err(format!("'{what}' is neither 'concurrency' nor 'end'")),
        }
    }
    Ok(plan)
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

/// Answers requests of one piece on this thread, because it is done within a microsecond; the
/// others on threads of their own, because they wait for their clients.
fn echo_concurrently(mut worker: ConcurrentWorker) -> Result<(), Error> {
    thread::scope(|scope| {
        while let Some(mut request) = worker.next()? {
            if request.more() {
                let thread = thread::Builder::new().name("pieces".to_owned());
                thread.spawn_scoped(scope, || echo_pieces(request)).map_err(|e| {
                    let text = format!("the system starts no thread: {e}");
                    Error::new(ErrorCode::Internal, text).with_source(e)
                })?;
            } else {
                let body = request.take_body();
                request.reply_batched(body);
            }
        }
        Ok(())
    })
}

fn echo_pieces(mut request: OwnedRequest) {
    let mut body = request.take_body();
    loop {
        request.reply_piece(body);
        match request.next_piece() {
            Some(piece) if piece.more() => body = piece.body,
            Some(piece) => return request.reply(piece.body),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_arguments_are_words_with_numbers() {
        let read =
            |text: &str| plan(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for others in ["", "one two words", "begin 1"] {
            assert_eq!(read(others), Ok(Plan::default()), "{others}");
        }
        let both = Plan { concurrency: Some(1024), end_after: Some(0) };
        assert_eq!(read("end 0 concurrency 1024"), Ok(both));
        for (text, part) in [
            ("end", "lacks its number"),
            ("end x", "where a number"),
            ("end 1 begin 1", "neither"),
            ("concurrency 0", "not 1 to 1024"),
            ("concurrency 1025", "not 1 to 1024"),
        ] {
            assert!(read(text).unwrap_err().contains(part), "{text}");
        }
    }
}
