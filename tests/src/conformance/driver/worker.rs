//! A worker: each request is told to the runner, which says what to do with it.

use super::{Command, Refusal, TIMEOUT, Values, hex, said, tell};
use client::caller::{Caller, Options, Send};
use client::error::Error;
use client::worker::{ConcurrentWorker, OwnedRequest, Request, Worker, WorkerOptions, own_args};
use nix::poll::{PollTimeout, poll};
use protocol::errors::ErrorCode;
use protocol::names::ServiceName;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;

/// What `status` is answered with.
const STATUS: &str = "all is well";
/// Milliseconds between two looks, and how many there are.
const LOOK: (u8, u128) = (2, TIMEOUT.as_millis() / 2);

/// Serves as the arguments say: `concurrency=N`, `max_requests=N`, `owned=yes`.
pub(super) fn serve() -> ExitCode {
    let args = own_args();
    let number = |key: &str| {
        let value = args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let concurrency = number("concurrency").and_then(|n| u32::try_from(n).ok());
    let is_owned = args.iter().any(|arg| arg == "owned=yes");
    let served = match concurrency {
        None if !is_owned => serve_one(number("max_requests")),
        count => serve_owned(count.unwrap_or(1), number("max_requests")),
    };
    match served {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn of_request(number: u64, request: &Request) -> Values {
    let remaining = request.remaining().map(|left| left.as_millis() as u64);
    said([
        ("request", json!(number)),
        ("body", hex(&request.body)),
        ("transaction", json!(request.transaction())),
        ("attempt", json!(request.attempt())),
        ("more", json!(request.more())),
        ("idempotent", json!(request.idempotent())),
        ("extendable", json!(request.extendable())),
        ("wants_reply", json!(request.is_reply_wanted())),
        ("trace_id", hex(&request.trace_id())),
        ("span_id", json!(request.span_id())),
        ("remaining_ms", json!(remaining)),
    ])
}

fn over(error: Option<&Error>) -> Values {
    let name = error.map(|error| super::of_error(error)["name"].clone());
    said([("over", json!(error.is_some())), ("name", json!(name))])
}

fn of_piece(piece: Option<&Request>) -> Values {
    match piece {
        Some(piece) => said([("body", hex(&piece.body)), ("more", json!(piece.more()))]),
        None => said([("piece", json!("none"))]),
    }
}

fn code(command: &Command) -> i16 {
    command.text("code").and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Asks another service within a request, at most for as long as that has left.
fn nested(request: &Request, command: &Command) -> Result<Values, Refusal> {
    let address = WorkerOptions::of_program()?.address;
    let service = ServiceName::new(command.text("service").unwrap_or("echo"));
    let service = service.map_err(|e| Error::new(ErrorCode::Usage, e.to_string()))?;
    let times = [command.millis("timeout"), request.remaining()];
    let (trace_id, span_id) = (request.trace_id(), request.span_id());
    let deadline = times.into_iter().flatten().min();
    let send = Send { deadline, trace_id, span_id, ..Send::default() };
    let answer =
        Caller::login(&[address], Options::new(service))?.call_with(command.body(), &send)?;
    Ok(said([("body", hex(&answer))]))
}

fn serve_one(requests_max: Option<u64>) -> Result<ExitCode, Error> {
    let mut worker = Worker::connect_from_args()?;
    worker.on_status(|| STATUS.to_owned());
    worker.on_reinit(|| tell("reinit", Values::new()));
    if let Some(count) = requests_max {
        worker.end_after(count);
    }
    let mut commands = Command::all();
    let mut number = 0;
    while let Some(request) = worker.next()? {
        number += 1;
        tell("request", of_request(number, &request));
        loop {
            let Some(command) = commands.next() else { return Ok(ExitCode::SUCCESS) };
            if command.verb == "exit" {
                return Ok(ExitCode::from(code(&command).unsigned_abs() as u8));
            }
            let done = match command.verb.as_str() {
                "nested" => nested(&request, &command),
                _ => answer(&mut worker, &command),
            };
            let is_last = matches!(command.verb.as_str(), "reply" | "fail" | "leave");
            let is_done = is_last && done.is_ok();
            command.answer(done);
            if is_done {
                break;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(worker: &mut Worker, command: &Command) -> Result<Values, Refusal> {
    match command.verb.as_str() {
        "reply" if command.is("logout") => worker.reply_and_logout(command.body())?,
        "reply" => worker.reply(command.body())?,
        "piece" => match command.millis("within") {
            Some(next) => worker.reply_piece_within(command.body(), next)?,
            None => worker.reply_piece(command.body())?,
        },
        "fail" => worker.fail(code(command), command.text("text").unwrap_or_default())?,
        // The program goes on with the next request, and has not answered.
        "leave" => {}
        "next-piece" => return Ok(of_piece(worker.next_piece()?.as_ref())),
        "await-over" => {
            for _ in 0..LOOK.1 {
                if worker.is_over() {
                    break;
                }
                let _ = poll(&mut [], PollTimeout::from(LOOK.0));
            }
            return Ok(over(worker.over()));
        }
        _ => return Err(command.unsupported()),
    }
    Ok(Values::new())
}

/// The requests that are not answered; `None` = something is being done with it.
type Requests = Arc<(Mutex<BTreeMap<u64, Option<OwnedRequest>>>, Condvar)>;

fn serve_owned(concurrency: u32, requests_max: Option<u64>) -> Result<ExitCode, Error> {
    let options = WorkerOptions { concurrency, ..WorkerOptions::of_program()? };
    let mut worker = ConcurrentWorker::connect(options)?;
    worker.on_status(|| STATUS.to_owned());
    worker.on_reinit(|| tell("reinit", Values::new()));
    if let Some(count) = requests_max {
        worker.end_after(count);
    }
    let requests = Requests::default();
    let theirs = Arc::clone(&requests);
    let commands = Builder::new().name("commands".to_owned()).spawn(move || {
        for command in Command::all() {
            if command.verb == "exit" {
                std::process::exit(code(&command).into());
            }
            answer_owned(&theirs, &command);
        }
        std::process::exit(0);
    });
    commands.expect("a thread starts");
    let mut number = 0;
    let ended = loop {
        let request = match worker.next() {
            Ok(Some(request)) => request,
            Ok(None) => break Ok(ExitCode::SUCCESS),
            Err(error) => break Err(error),
        };
        number += 1;
        let mut open = requests.0.lock().expect("no thread panics");
        let said = of_request(number, &request);
        open.insert(number, Some(request));
        drop(open);
        tell("request", said);
    };
    // What is begun is answered before the end.
    let open = requests.0.lock().expect("no thread panics");
    drop(requests.1.wait_while(open, |open| !open.is_empty()).expect("no thread panics"));
    ended
}

fn answer_owned(requests: &Requests, command: &Command) {
    let open = || requests.0.lock().expect("no thread panics");
    let taken = open().get_mut(&command.of()).and_then(Option::take);
    let Some(request) = taken else {
        let why = "no such request is open".to_owned();
        return command.answer(Err(Refusal::Unsupported(why)));
    };
    let (said, left) = does_owned(request, command);
    // This process may end when nothing is left to be answered.
    command.answer(said);
    match left {
        Some(request) => drop(open().insert(command.of(), Some(request))),
        None => {
            open().remove(&command.of());
            requests.1.notify_all();
        }
    }
}

/// Does what is to be done with a request; returns it if it is not answered.
fn does_owned(
    mut request: OwnedRequest,
    command: &Command,
) -> (Result<Values, Refusal>, Option<OwnedRequest>) {
    let said = match command.verb.as_str() {
        "reply" if !command.is("logout") => {
            request.reply(command.body());
            return (Ok(Values::new()), None);
        }
        "fail" => {
            let text = command.text("text").unwrap_or_default();
            let failed = request.fail(code(command), text);
            return (failed.map(|()| Values::new()).map_err(Refusal::from), None);
        }
        "leave" => return (Ok(Values::new()), None),
        "piece" => {
            match command.millis("within") {
                Some(next) => request.reply_piece_within(command.body(), next),
                None => request.reply_piece(command.body()),
            }
            Ok(Values::new())
        }
        "next-piece" => Ok(of_piece(request.next_piece().as_ref())),
        "nested" => nested(&request, command),
        "await-over" => {
            for _ in 0..LOOK.1 {
                if request.is_over() {
                    break;
                }
                let _ = poll(&mut [], PollTimeout::from(LOOK.0));
            }
            Ok(over(request.over()))
        }
        _ => Err(command.unsupported()),
    };
    (said, Some(request))
}
