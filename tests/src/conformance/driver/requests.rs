//! Requests: one caller for each service, which logs in when it is needed.

use super::bus::Programs;
use super::{Command, Refusal, TIMEOUT, Values, hex, said};
use client::address::Address;
use client::caller::{Caller, Options, Reply, Send};
use client::error::Error;
use client::token::Token;
use protocol::Format;
use protocol::errors::ErrorCode;
use protocol::names::ServiceName;
use protocol::proof::from_digits;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// A request under way, by the number of the command that began it.
struct Begun {
    service: String,
    sequence: u32,
    /// The worker of the last reply with `more`.
    worker: u32,
}

/// What this driver has.
pub(super) struct Client {
    addresses: Vec<Address>,
    options: Vec<(String, String)>,
    callers: BTreeMap<String, Caller>,
    begun: BTreeMap<u64, Begun>,
    programs: Programs,
}

/// Does what the runner says, until it says no more.
pub(super) fn serve(address: &str) -> ExitCode {
    let Ok(address) = Address::parse(address) else { return ExitCode::from(2) };
    let mut client = Client {
        addresses: vec![address],
        options: Vec::new(),
        callers: BTreeMap::new(),
        begun: BTreeMap::new(),
        programs: Programs::default(),
    };
    for command in Command::all() {
        let done = client.does(&command);
        command.answer(done);
    }
    ExitCode::SUCCESS
}

impl Client {
    fn does(&mut self, command: &Command) -> Result<Values, Refusal> {
        match command.verb.as_str() {
            "options" => {
                for (key, value) in &command.all {
                    let value = value.as_str().unwrap_or_default().to_owned();
                    self.options.push((key.clone(), value));
                }
                Ok(Values::new())
            }
            // Further requests are those of a new client.
            "renew" => {
                self.callers.clear();
                self.begun.clear();
                self.programs = Programs::default();
                Ok(Values::new())
            }
            "call" => {
                let caller = self.caller(command)?;
                let answer = caller.call_with(command.body(), &of(command))?;
                Ok(said([("body", hex(&answer))]))
            }
            "command" => {
                let mut options = self.login("op")?;
                options.format = if command.is("json") { Format::Json } else { Format::Text };
                let mut caller = Caller::login(&self.addresses, options)?;
                let answer = caller.call(command.body(), Some(TIMEOUT))?;
                Ok(said([("body", hex(&answer))]))
            }
            "submit" | "open" | "send" => self.begin(command),
            "piece" => self.piece(command),
            "wait" => self.wait(command),
            "receive" => self.receive(command),
            "cancel" => {
                let (caller, sequence) = self.begun(command)?;
                caller.cancel(sequence)?;
                Ok(Values::new())
            }
            "give-up" => {
                let (caller, sequence) = self.begun(command)?;
                caller.give_up(sequence);
                Ok(Values::new())
            }
            "flush" => {
                let timeout = Some(command.millis("timeout").unwrap_or(TIMEOUT));
                let refused = self.caller(command)?.flush(timeout)?;
                Ok(said([("refused", json!(refused))]))
            }
            "finish" => {
                self.caller(command)?.finish_sending()?;
                Ok(Values::new())
            }
            "limits" => {
                let limits = self.caller(command)?.limits();
                Ok(said([
                    ("client", json!(limits.client.0)),
                    ("body_bytes_max", json!(limits.body_bytes_max)),
                    ("requests_max", json!(limits.requests_max)),
                    ("deadline_ms", json!(limits.deadline_ms)),
                    ("version", json!(limits.version)),
                ]))
            }
            "logout" => {
                let caller = self.callers.remove(service(command));
                let refused = caller.map_or(Ok(0), Caller::logout)?;
                Ok(said([("refused", json!(refused))]))
            }
            _ => {
                let options = self.options.clone();
                self.programs.does(command, &self.addresses, |key| option(&options, key))
            }
        }
    }

    /// The caller of a service.
    fn caller(&mut self, command: &Command) -> Result<&mut Caller, Refusal> {
        let service = service(command);
        if !self.callers.contains_key(service) {
            let caller = Caller::login(&self.addresses, self.login(service)?)?;
            self.callers.insert(service.to_owned(), caller);
        }
        Ok(self.callers.get_mut(service).expect("it is there"))
    }

    fn login(&self, service: &str) -> Result<Options, Error> {
        let wrong = |text: String| Error::new(ErrorCode::Usage, text);
        let service = ServiceName::new(service).map_err(|e| wrong(e.to_string()))?;
        let mut options = Options::new(service);
        let option = |key: &str| option(&self.options, key);
        let is = |key: &str| option(key).as_deref() == Some("yes");
        let number = |key: &str| option(key).and_then(|value| value.parse::<u64>().ok());
        options.reconnect = is("reconnect");
        options.half_close = is("half_close");
        options.heartbeat = is("heartbeat");
        options.name = option("name");
        options.token = option("token").map(|text| Token::parse(&text)).transpose()?;
        if let Some(priority) = number("priority") {
            options.priority = u8::try_from(priority).unwrap_or(0);
        }
        if let Some(bytes) = number("reply_bytes_max") {
            options.reply_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        Ok(options)
    }

    fn begin(&mut self, command: &Command) -> Result<Values, Refusal> {
        let caller = self.caller(command)?;
        let send = Send { reply: command.verb != "send", ..of(command) };
        let sequence = caller.send(command.body(), &send)?;
        let begun = Begun { service: service(command).to_owned(), sequence, worker: 0 };
        self.begun.insert(command.id, begun);
        Ok(Values::new())
    }

    fn begun(&mut self, command: &Command) -> Result<(&mut Caller, u32), Refusal> {
        let unknown = || Refusal::Unsupported("nothing was begun by that command".to_owned());
        let begun = self.begun.get(&command.of()).ok_or_else(unknown)?;
        let caller = self.callers.get_mut(&begun.service).ok_or_else(unknown)?;
        Ok((caller, begun.sequence))
    }

    fn piece(&mut self, command: &Command) -> Result<Values, Refusal> {
        let worker = self.begun.get(&command.of()).map_or(0, |begun| begun.worker);
        let (caller, sequence) = self.begun(command)?;
        let send = Send { conversation: Some((sequence, worker)), ..of(command) };
        caller.send(command.body(), &send)?;
        Ok(Values::new())
    }

    /// The whole answer.
    fn wait(&mut self, command: &Command) -> Result<Values, Refusal> {
        let timeout = Some(command.millis("timeout").unwrap_or(TIMEOUT));
        let (caller, sequence) = self.begun(command)?;
        let mut all = Vec::new();
        loop {
            let Reply { body, more, error, .. } = caller.recv_from(sequence, timeout)?;
            if let Some(error) = error {
                return Err(error.into());
            }
            all.extend_from_slice(&body);
            if !more {
                return Ok(said([("body", hex(&all))]));
            }
        }
    }

    /// One frame of the answer.
    fn receive(&mut self, command: &Command) -> Result<Values, Refusal> {
        let timeout = Some(command.millis("timeout").unwrap_or(TIMEOUT));
        let (caller, sequence) = self.begun(command)?;
        let reply = caller.recv_from(sequence, timeout)?;
        if let Some(begun) = self.begun.get_mut(&command.of()) {
            begun.worker = reply.worker;
        }
        match reply.error {
            Some(error) => Err(error.into()),
            None => Ok(said([("body", hex(&reply.body)), ("more", json!(reply.more))])),
        }
    }
}

fn service(command: &Command) -> &str {
    command.text("service").unwrap_or("echo")
}

/// The last value that an option was given.
fn option(options: &[(String, String)], key: &str) -> Option<String> {
    options.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone())
}

/// What a command says of a request.
fn of(command: &Command) -> Send {
    let trace = command.text("trace_id").and_then(from_digits);
    Send {
        more: command.is("more"),
        idempotent: command.is("idempotent"),
        extendable: command.is("extendable"),
        priority: command.number("priority").and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
        deadline: command.millis("timeout"),
        trace_id: trace.and_then(|id| id.try_into().ok()).unwrap_or_default(),
        span_id: command.number("span_id").unwrap_or(0),
        ..Send::default()
    }
}
