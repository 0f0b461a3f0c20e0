//! The service `health`: whether its broker can do its work. It asks the broker what any operator
//! may ask, as a client with the role `operator:read` alone, and concludes the answers.

use super::Home;
use super::verdict::{Answers, Reason, State, Verdict, conclude};
use client::caller::Caller;
use client::error::Error;
use client::worker::Worker;
use protocol::{ErrorCode, ServiceName};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Time for all questions that one answer needs. Whoever asks has more, so that the answer comes
/// while the broker is busy.
const ANSWER: Duration = Duration::from_secs(2);
/// The word before names of services that asks for text instead of JSON.
const AS_TEXT: &str = "--text";

/// Answers until the broker asks it to end.
///
/// # Errors
/// The broker is lost for good, or refuses this worker.
pub(super) fn serve(worker: &mut Worker, home: &Home) -> Result<(), Error> {
    // Kept from one answer to the next: each login is a fact in the broker's log.
    let mut operator = None;
    while let Some(request) = worker.next()? {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match asked(&body) {
            Ok((names, is_text)) => {
                let verdict = look(home, &mut operator, &names);
                let answer = if is_text { verdict.text() } else { verdict.json() };
                let answer = format!("{}\n{answer}", verdict.state.word());
                worker.reply(answer.trim_end().to_owned())?;
            }
            Err(text) => worker.fail(1, &text)?,
        }
    }
    Ok(())
}

/// The services that a request names, and whether it wants text.
fn asked(body: &str) -> Result<(Vec<String>, bool), String> {
    let mut words: Vec<&str> = body.split_whitespace().collect();
    let is_text = words.first() == Some(&AS_TEXT);
    words.drain(..usize::from(is_text));
    for word in &words {
        ServiceName::new(word).map_err(|error| error.to_string())?;
    }
    Ok((words.into_iter().map(str::to_owned).collect(), is_text))
}

/// Asks the broker, and concludes from what it says. A connection on which an answer is missing is
/// given up.
fn look(home: &Home, operator: &mut Option<Caller>, names: &[String]) -> Verdict {
    let caller = match operator.take() {
        Some(caller) => Ok(caller),
        None => home.operator(),
    };
    let asked = caller.and_then(|mut caller| Ok((ask_all(&mut caller, names)?, caller)));
    match asked {
        Ok((answers, caller)) => {
            *operator = Some(caller);
            conclude(&answers, names)
        }
        Err(error) => unanswered(&error),
    }
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, which waits for answers")]
fn ask_all(caller: &mut Caller, names: &[String]) -> Result<Answers, Error> {
    let until = Instant::now() + ANSWER;
    let mut ask = |command: &str| -> Result<Value, Error> {
        let left = until.saturating_duration_since(Instant::now());
        let answer = caller.call(command.to_owned(), Some(left.max(Duration::from_millis(1))))?;
        serde_json::from_slice(&answer).map_err(|error| {
            Error::new(ErrorCode::BadReply, format!("the answer to '{command}': {error}"))
        })
    };
    let mut answers = Answers {
        status: ask("status")?,
        services: ask("services")?,
        lazy: ask("workers lazy")?,
        hosts: ask("hosts")?,
        load: ask("load")?,
        groups: ask("groups")?,
        pages: Vec::new(),
    };
    // The page of a service has its settings; few are needed.
    for name in answers.pages_needed(names) {
        match ask(&format!("service {name}")) {
            Ok(page) => answers.pages.push((name, page)),
            // It was deleted meanwhile.
            Err(error) if error.is(ErrorCode::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

/// The broker did not answer: it is busy, or ends, or this service may not ask.
fn unanswered(error: &Error) -> Verdict {
    let is_late = error.is(ErrorCode::Timeout) || error.is(ErrorCode::Deadline);
    let (state, kind) = if is_late { (State::Degraded, "busy") } else { (State::Down, "broker") };
    let text = if is_late {
        format!("the broker did not answer within {} ms", ANSWER.as_millis())
    } else {
        error.to_string()
    };
    let reason = Reason { kind, what: "broker".to_owned(), since: None, text };
    Verdict { state, reasons: vec![reason], left_out: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_services_or_none() {
        assert_eq!(asked(""), Ok((vec![], false)));
        assert_eq!(asked(" echo\n sum "), Ok((vec!["echo".into(), "sum".into()], false)));
        assert_eq!(asked("--text echo"), Ok((vec!["echo".into()], true)));
        assert_eq!(asked("--text"), Ok((vec![], true)));
        assert!(asked("--json").is_err() && asked("echo --text").is_err());
    }

    #[test]
    fn a_broker_that_is_late_is_degraded_and_one_that_refuses_is_down() {
        assert_eq!(unanswered(&Error::new(ErrorCode::Deadline, "")).state, State::Degraded);
        assert_eq!(unanswered(&Error::new(ErrorCode::Timeout, "")).state, State::Degraded);
        assert_eq!(unanswered(&Error::new(ErrorCode::ShuttingDown, "")).state, State::Down);
        assert_eq!(unanswered(&Error::new(ErrorCode::Denied, "")).state, State::Down);
    }
}
