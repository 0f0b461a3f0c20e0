//! `pub`: publishes one message, or each line of standard input.

use crate::cli::Cli;
use crate::output::{At, Output};
use crate::status::Failure;
use crate::stop::stop_flag;
use crate::verbs::{PubArgs, options};
use client::bus::{Bus, Options, Publish, Receipt};
use protocol::limits::BODY_BYTES_MAX;
use serde_json::json;
use std::io::{BufRead, Read as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often Ctrl-C is checked while the connection is kept.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for the broker to take what was sent.
const FLUSH: Duration = Duration::from_secs(10);
/// After so many lines it is looked whether the broker refused one.
const LINES: u64 = 100;

/// Publishes what the command line and standard input say.
///
/// # Errors
/// The failure that ended it.
pub fn run(
    cli: &Cli,
    args: &PubArgs,
    input: &mut dyn BufRead,
    out: &mut Output,
) -> Result<(), Failure> {
    // Whoever waits for its standard input answers no pings.
    let heartbeat = args.while_connected;
    let options = Options { heartbeat, reconnect: false, ..options(cli)? };
    let addresses = cli.addresses()?;
    if args.lines {
        let bus = Bus::connect(&addresses, options).map_err(Failure::Asked)?;
        return lines(&bus, args, input, out);
    }
    let payload = payload(args, input)?;
    // Who sees the value may interrupt this program at once.
    let stop = args.while_connected.then(stop_flag);
    let bus = Bus::connect(&addresses, options).map_err(Failure::Asked)?;
    let receipt = match args.remove {
        true => bus.remove(&args.topic),
        false => message(&bus, args).send_and_wait(payload),
    };
    let receipt = receipt.map_err(Failure::Asked)?;
    if args.verbose {
        tell(cli, args, receipt, out)?;
    }
    while stop.as_ref().is_some_and(|stop| !stop.load(Ordering::Relaxed)) {
        bus.wait(LOOK).map_err(Failure::Asked)?;
    }
    // The broker has the message, whatever becomes of the connection.
    let _ = bus.close();
    Ok(())
}

fn message<'a>(bus: &'a Bus, args: &'a PubArgs) -> Publish<'a> {
    let message = bus.message(&args.topic);
    let message = match (args.while_connected, args.retain || args.expires.is_some()) {
        (true, _) => message.while_connected(),
        (false, true) => message.retain(),
        (false, false) => message,
    };
    match args.expires {
        Some(millis) => message.expires(Duration::from_millis(millis)),
        None => message,
    }
}

/// The words of the command line, or standard input.
fn payload(args: &PubArgs, input: &mut dyn BufRead) -> Result<Vec<u8>, Failure> {
    let is_input = args.payload.is_empty() || args.payload == ["-"];
    if args.remove || !is_input {
        return Ok(args.payload.join(" ").into_bytes());
    }
    let mut payload = Vec::new();
    // One byte more shows that it is too large; the broker's own limit is lower.
    let limit = BODY_BYTES_MAX as u64 + 1;
    input.take(limit).read_to_end(&mut payload).map_err(Failure::Input)?;
    Ok(payload)
}

fn tell(cli: &Cli, args: &PubArgs, receipt: Receipt, out: &mut Output) -> Result<(), Failure> {
    let Receipt { subscriptions, position } = receipt;
    let topic = &args.topic;
    if cli.json {
        let position = position.to_string();
        let line = json!({ "topic": topic, "subscriptions": subscriptions, "position": position });
        return out.text(&line.to_string());
    }
    out.text(&format!("{topic}: {subscriptions} subscriptions, position {position}"))
}

/// Publishes each line, without its line break.
fn lines(
    bus: &Bus,
    args: &PubArgs,
    input: &mut dyn BufRead,
    out: &mut Output,
) -> Result<(), Failure> {
    let message = message(bus, args);
    let mut line = Vec::new();
    let mut count = 0_u64;
    loop {
        line.clear();
        let limit = BODY_BYTES_MAX as u64 + 1;
        let size =
            (&mut *input).take(limit).read_until(b'\n', &mut line).map_err(Failure::Input)?;
        if size == 0 {
            break;
        }
        message.send(line.strip_suffix(b"\n").unwrap_or(&line)).map_err(Failure::Asked)?;
        count += 1;
        if count.is_multiple_of(LINES) {
            bus.poll().map_err(Failure::Asked)?;
            refusals(bus.refused(), out);
        }
    }
    refusals(bus.flush(FLUSH).map_err(Failure::Asked)?, out);
    if args.verbose {
        out.text(&format!("{}: {count} messages", args.topic))?;
    }
    let _ = bus.clone().close();
    Ok(())
}

/// Tells the first refusal of several, and how many others there are.
fn refusals(refused: Vec<client::error::Error>, out: &mut Output) {
    let count = refused.len();
    if let Some(first) = refused.into_iter().next() {
        out.failure(At::Only(""), &Failure::Asked(first));
        if count > 1 {
            out.note(&format!("isdclient: {} further messages were refused", count - 1));
        }
    }
}
