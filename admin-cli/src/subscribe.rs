//! `sub`: prints messages, a line each.

use crate::cli::Cli;
use crate::output::Output;
use crate::status::Failure;
use crate::stop::stop_flag;
use crate::verbs::{SubArgs, options};
use client::bus::{Bus, Event, Message, Missing, SubscribeOptions, Subscription};
use client::error::Error;
use protocol::{ErrorCode, Ran, show};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often Ctrl-C is checked.
const LOOK: Duration = Duration::from_millis(100);

/// What the loop is to do after an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// What is being printed.
struct Printer<'a> {
    cli: &'a Cli,
    args: &'a SubArgs,
    /// How many messages are still wanted; `None` = no limit.
    left: Option<u64>,
    /// How many subscriptions have not caught up.
    behind: usize,
}

/// Prints messages until enough came, nothing comes any more, or Ctrl-C.
///
/// # Errors
/// The failure that ended it.
pub fn run(cli: &Cli, args: &SubArgs, out: &mut Output) -> Result<(), Failure> {
    let stop = stop_flag();
    let bus = Bus::connect(&cli.addresses()?, options(cli)?).map_err(Failure::Asked)?;
    let from = SubscribeOptions { from: args.from, retained: !args.no_retained };
    let all = args.patterns.iter().map(|pattern| bus.subscribe_with(pattern, from));
    let mut all = all.collect::<Result<Vec<_>, _>>().map_err(Failure::Asked)?;
    let mut printer = Printer { cli, args, left: args.count, behind: all.len() };
    let wait = args.wait.map(Duration::from_millis);
    let mut until = wait.and_then(|wait| now().checked_add(wait));
    loop {
        if stop.load(Ordering::Relaxed) {
            if let Some(position) = all.iter().filter_map(Subscription::position).min() {
                out.note(&format!("isdclient: --from {position} goes on from here"));
            }
            return Ok(());
        }
        let left = until.map(|until| until.saturating_duration_since(now()));
        let look = left.map_or(LOOK, |left| left.min(LOOK));
        match Subscription::next_of(&mut all, look).map_err(Failure::Asked)? {
            Some((which, event)) => {
                if matches!(event, Event::Message(_)) {
                    until = wait.and_then(|wait| now().checked_add(wait));
                }
                if printer.print(&args.patterns[which], event, out)? == Next::End {
                    return Ok(());
                }
            }
            None if left == Some(Duration::ZERO) => {
                let millis = wait.unwrap_or_default().as_millis();
                let text = format!("no message came for {millis} ms");
                let error = Error::new(ErrorCode::Timeout, text);
                let advice = "wait longer, or see 'topics' for the values that are kept";
                return Err(Failure::Asked(error.with_ran(Ran::No).with_advice(advice)));
            }
            None => {}
        }
    }
}

impl Printer<'_> {
    fn print(&mut self, pattern: &str, event: Event, out: &mut Output) -> Result<Next, Failure> {
        match event {
            Event::Message(message) => {
                if self.args.kept && !message.kept {
                    return Ok(Next::GoOn);
                }
                note_dropped(pattern, message.dropped, out);
                self.message(&message, out)?;
                self.left = self.left.map(|left| left - 1);
                return Ok(if self.left == Some(0) { Next::End } else { Next::GoOn });
            }
            Event::CaughtUp { dropped, .. } => {
                note_dropped(pattern, dropped, out);
                self.behind = self.behind.saturating_sub(1);
                let is_done = self.args.kept && self.behind == 0;
                return Ok(if is_done { Next::End } else { Next::GoOn });
            }
            Event::Missing(Missing::Numbers(first, last)) => out.note(&format!(
                "isdclient: {pattern}: messages {first} to {last} can't be had any more, as far \
                 as they matched"
            )),
            Event::Missing(Missing::Epoch) => out.note(&format!(
                "isdclient: {pattern}: the broker was started again; what was published \
                 meanwhile can't be had"
            )),
            Event::Lost(error) => {
                out.note(&format!("isdclient: {pattern}: {error}; trying again"));
            }
            Event::Resumed(position) => {
                out.note(&format!(
                    "isdclient: {pattern}: connected again; the broker is at {position}"
                ));
            }
        }
        Ok(Next::GoOn)
    }

    fn message(&self, message: &Message, out: &mut Output) -> Result<(), Failure> {
        if self.cli.json {
            let line = as_json(message).to_string();
            return out.text(&String::from_utf8_lossy(&show::log_line(line.as_bytes(), true)));
        }
        let Message { topic, removed, .. } = message;
        if let Some(removed) = removed {
            let word = removed.word();
            if self.args.payload_only {
                out.note(&format!("isdclient: the value of {topic} is removed ({word})"));
                return Ok(());
            }
            return out.text(&format!("{topic} (removed: {word})"));
        }
        if self.args.payload_only {
            out.piece(&message.payload)?;
            return out.end_line();
        }
        out.text(&format!("{topic} {}", show::one_line(message.text().into_owned())))
    }
}

fn note_dropped(pattern: &str, dropped: u64, out: &mut Output) {
    if dropped > 0 {
        out.note(&format!(
            "isdclient: {pattern}: {dropped} messages were dropped here, because they were read \
             too slowly"
        ));
    }
}

/// A message as one JSON object. A payload that is no UTF-8 is `payload_hex`.
fn as_json(message: &Message) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), message.topic.as_str().into());
    match std::str::from_utf8(&message.payload) {
        Ok(text) => object.insert("payload".into(), text.into()),
        Err(_) => object.insert("payload_hex".into(), show::digits(&message.payload).into()),
    };
    object.insert("kept".into(), message.kept.into());
    object.insert("dropped".into(), message.dropped.into());
    object.insert("removed".into(), json!(message.removed.map(|removed| removed.word())));
    object.insert("position".into(), message.position.to_string().into());
    let lines = message.lines.iter().map(|(word, value)| (word.clone(), Value::from(&**value)));
    object.insert("lines".into(), Value::Object(lines.collect()));
    Value::Object(object)
}

#[expect(clippy::disallowed_methods, reason = "the clock of this verb")]
fn now() -> Instant {
    Instant::now()
}
