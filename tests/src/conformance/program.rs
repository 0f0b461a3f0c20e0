//! The driver: a process that is told in lines of JSON what to do with its library, and says in
//! lines of JSON what came of it.

use super::peer::BOUND;
use super::{Driver, Side};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

/// How often the end of a process is looked for.
const LOOK: u8 = 5;
/// How often at most.
const LOOKS: u32 = 2000;
/// Longest time that its stderr stays open behind its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What became of a command.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Ok(Map<String, Value>),
    Failed(Map<String, Value>),
    Unsupported(String),
}

/// A driver that runs.
pub(super) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    errors: Receiver<String>,
    answers: BTreeMap<u64, Answer>,
    events: VecDeque<Map<String, Value>>,
    commands: u64,
}

impl Program {
    /// Starts the driver of a side, with these arguments.
    #[expect(clippy::disallowed_methods, reason = "it is told which program to start")]
    pub(super) fn start(
        driver: &Driver,
        side: Side,
        args: &[String],
        variables: &[(String, String)],
    ) -> Result<Self, String> {
        let (program, first) = driver.command.split_first().ok_or("the driver has no name")?;
        let mut command = Command::new(program);
        command.args(first).args(args);
        if side == Side::Worker {
            command.args(&driver.worker_args);
        }
        for name in ["ISECT_TOKEN", "ISECT_TOKEN_FILE", "ISECT_HOST", "ISECT_WORKER_SECRET"] {
            command.env_remove(name);
        }
        let all = driver.variables.iter().chain(variables);
        command.envs(all.map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{program} does not start: {e}"))?;
        let (lines, output) = channel();
        let stdout = child.stdout.take().ok_or("no output")?;
        let reader = Builder::new().name("driver".to_owned()).spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.is_ok_and(|line| lines.send(line).is_ok()) {
                    continue;
                }
                break;
            }
        });
        reader.map_err(|e| e.to_string())?;
        let mut stderr = child.stderr.take().ok_or("no errors")?;
        let (words, errors) = channel();
        let reader = Builder::new().name("driver-errors".to_owned()).spawn(move || {
            let mut all = Vec::new();
            let _ = stderr.read_to_end(&mut all);
            let _ = words.send(String::from_utf8_lossy(&all).into_owned());
        });
        reader.map_err(|e| e.to_string())?;
        let input = child.stdin.take();
        let (answers, events) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { child, input, output, errors, answers, events, commands: 0 })
    }

    /// Tells it to do something, and returns the number of the command.
    pub(super) fn tell(&mut self, mut command: Map<String, Value>) -> Result<u64, String> {
        self.commands += 1;
        command.insert("id".to_owned(), json!(self.commands));
        let input = self.input.as_mut().ok_or("the driver was told to end")?;
        let line = format!("{}\n", Value::Object(command));
        let written = input.write_all(line.as_bytes()).and_then(|()| input.flush());
        written.map_err(|e| format!("the driver reads no commands: {e}"))?;
        Ok(self.commands)
    }

    /// What became of a command.
    pub(super) fn answer(&mut self, id: u64) -> Result<Answer, String> {
        while !self.answers.contains_key(&id) {
            self.take_in()?;
        }
        self.answers.remove(&id).ok_or_else(|| "no answer".to_owned())
    }

    /// The next event of this name.
    pub(super) fn event(&mut self, name: &str) -> Result<Map<String, Value>, String> {
        let is_it = |event: &Map<String, Value>| event.get("event").is_some_and(|is| is == name);
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                return self.events.remove(at).ok_or_else(|| "no event".to_owned());
            }
            if let Some(why) = self.unsupported() {
                return Err(why);
            }
            self.take_in()?;
        }
    }

    /// Why a command that was told can't be done, if one can't.
    pub(super) fn unsupported(&self) -> Option<String> {
        self.answers.values().find_map(|answer| match answer {
            Answer::Unsupported(why) => Some(why.clone()),
            Answer::Ok(_) | Answer::Failed(_) => None,
        })
    }

    fn take_in(&mut self) -> Result<(), String> {
        let line = self.output.recv_timeout(BOUND).map_err(|e| match e {
            RecvTimeoutError::Timeout => format!("the driver said nothing for {BOUND:?}"),
            RecvTimeoutError::Disconnected => "the driver has ended".to_owned(),
        })?;
        self.note(&line)
    }

    /// Reads what has been said, for a report.
    pub(super) fn note_all(&mut self) {
        while let Ok(line) = self.output.recv_timeout(Duration::ZERO) {
            if self.note(&line).is_err() {
                return;
            }
        }
    }

    fn note(&mut self, line: &str) -> Result<(), String> {
        let wrong = || format!("the driver wrote a line that is none of its: {line}");
        let Ok(Value::Object(mut said)) = serde_json::from_str(line) else { return Err(wrong()) };
        if said.contains_key("event") {
            self.events.push_back(said);
            return Ok(());
        }
        let id = said.get("id").and_then(Value::as_u64).ok_or_else(wrong)?;
        let answer = match (said.remove("ok"), said.remove("error"), said.remove("unsupported")) {
            (Some(Value::Object(ok)), None, None) => Answer::Ok(ok),
            (None, Some(Value::Object(error)), None) => Answer::Failed(error),
            (None, None, Some(Value::String(why))) => Answer::Unsupported(why),
            _ => return Err(wrong()),
        };
        self.answers.insert(id, answer);
        Ok(())
    }

    /// What was said that no line has asked for.
    pub(super) fn said(&self) -> String {
        let answers = self.answers.iter().map(|(id, answer)| format!("command {id}: {answer:?}"));
        let events = self.events.iter().map(|event| Value::Object(event.clone()).to_string());
        answers.chain(events).collect::<Vec<_>>().join("\n")
    }

    /// Waits until it ends by itself. Returns its exit status, and what it wrote on stderr.
    pub(super) fn await_end(&mut self) -> Result<(i32, String), String> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                let status = status.code().or_else(|| Some(128 + signal?)).unwrap_or(-1);
                return Ok((status, self.last_words()));
            }
            let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(LOOK));
        }
        Err(format!("the driver did not end within {BOUND:?}"))
    }

    /// Ends its input, upon which a driver of a client ends.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// Ends it. Returns what it wrote on stderr.
    pub(super) fn kill(&mut self) -> String {
        self.end_input();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.last_words()
    }

    fn last_words(&mut self) -> String {
        // A process that it has started may hold its stderr open.
        self.errors.recv_timeout(LAST_WORDS).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
