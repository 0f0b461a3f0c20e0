//! Plays the steps of one case: frames both ways, what the library is asked to do, and what it must
//! say.

use super::file::{Case, Node, Step};
use super::peer::Peer;
use super::program::{Answer, Program};
use super::value::Variables;
use super::wire::{self, Wire, Words, words_of};
use super::{Driver, Outcome, Side};
use crate::script::words::Token;
use auth::scram::{Cost, hmac, salted};
use auth::token::Token as Secret;
use protocol::bodies::Challenge;
use protocol::kinds::Role;
use protocol::limits::HEADER_BYTES;
use protocol::proof::statement;
use protocol::show::digits;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What a login is answered with, where a line does not say another value.
const LOGIN_OK: &str = "client=7 body_bytes_max=16777216 requests_max=64 deadline_ms=60000";
/// The same for a worker.
const WORKER_LOGIN_OK: &str = "worker=3 body_bytes_max=16777216 reconnect_ms=20000";
/// The service that all ask, and answer for, unless a line says another.
const SERVICE: &str = "echo";
/// The secret of the worker's start.
const SECRET: &str = "3.1.5f2d";

/// Why a step is not as it is to be.
enum Fault {
    /// The library has nothing for this case.
    Unsupported(String),
    Wrong(String),
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        Self::Wrong(text.to_owned())
    }
}

/// A token that the library proves, and that the broker knows.
struct Known {
    secret: Secret,
    role: Role,
    target: String,
}

struct Play<'a> {
    driver: &'a Driver,
    side: Side,
    peer: Peer,
    program: Option<Program>,
    all: Variables,
    /// The numbers of commands and requests that have names.
    names: BTreeMap<String, Value>,
    /// The numbers of commands whose outcome no line has asked for.
    commands: BTreeMap<String, u64>,
    known: Option<Known>,
    /// Frames that may come at any time, and their names.
    soon: Vec<(String, Vec<Token>)>,
    has_exited: bool,
}

/// Plays one case.
pub(super) fn case(file: &str, side: Side, case: &Case, driver: &Driver) -> Outcome {
    let mut play = Play {
        driver,
        side,
        peer: Peer::listen(driver.is_unix),
        program: None,
        all: Variables::default(),
        names: BTreeMap::new(),
        commands: BTreeMap::new(),
        known: None,
        soon: Vec::new(),
        has_exited: false,
    };
    let mut last = (case.line, "the end of the case");
    let played = play.begin().and_then(|()| play.nodes(&case.nodes, &mut last));
    let (line, text) = last;
    let result = played.and_then(|()| play.end());
    match result {
        Ok(()) => Outcome::Passed,
        Err(Fault::Unsupported(why)) => Outcome::LeftOut(why),
        Err(Fault::Wrong(why)) => {
            let title = &case.title;
            let mut shown = format!("{file}:{line}: {title}\n    {text}\n");
            shown += &indented(&why);
            if let Some(program) = &mut play.program {
                program.note_all();
                if let Some(why) = program.unsupported() {
                    return Outcome::LeftOut(why);
                }
                shown += &indented(&program.said());
                shown += &indented(&program.kill());
            }
            Outcome::Failed(shown)
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "    {line}");
        out
    })
}

/// The pairs of words, with the variables filled in.
fn pairs(words: &[Token], all: &Variables) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for word in words {
        if let Token::Pair(key, value) = word {
            let value = String::from_utf8(value.clone()).map_err(|e| e.to_string())?;
            out.push((key.clone(), all.fill(&value)?));
        }
    }
    Ok(out)
}

impl<'a> Play<'a> {
    fn begin(&mut self) -> Result<(), Fault> {
        if self.side == Side::Client {
            let address = match self.peer.path() {
                None => format!("127.0.0.1:{}", self.peer.port()),
                Some(path) => format!("unix:{}", path.display()),
            };
            let args = ["client".to_owned(), address];
            self.program = Some(Program::start(self.driver, self.side, &args, &[])?);
        }
        Ok(())
    }

    fn nodes<'n>(&mut self, nodes: &'n [Node], last: &mut (usize, &'n str)) -> Result<(), Fault> {
        for node in nodes {
            match node {
                Node::Step(step) => {
                    *last = (step.line, &step.text);
                    self.step(step)?;
                }
                Node::AnyOrder(nodes) => self.any_order(nodes, last)?,
                Node::Repeat { turns, nodes } => {
                    let before = self.all.clone();
                    for turn in turns {
                        self.all = before.clone();
                        for (name, value) in turn {
                            self.all.set(name, value.clone());
                        }
                        self.nodes(nodes, last).map_err(|fault| match fault {
                            Fault::Wrong(why) => Fault::Wrong(format!("{why}\nin turn {turn:?}")),
                            other @ Fault::Unsupported(_) => other,
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Frames that come in any order.
    fn any_order<'n>(
        &mut self,
        nodes: &'n [Node],
        last: &mut (usize, &'n str),
    ) -> Result<(), Fault> {
        let mut left = Vec::new();
        for node in nodes {
            let Node::Step(step) = node else { return Err(Fault::from("only frames, here")) };
            let [Token::Word(verb), words @ ..] = step.words.as_slice() else { continue };
            *last = (step.line, &step.text);
            if verb != "expect" {
                return Err(Fault::from("only 'expect' may stand in 'any-order'"));
            }
            left.push((step, words));
        }
        while let Some((step, _)) = left.first() {
            *last = (step.line, &step.text);
            let Some(came) = self.peer.next()? else {
                return Err(Fault::from("the library has closed the connection"));
            };
            let mut found = Err(String::new());
            for (at, (_, words)) in left.iter().enumerate() {
                let mut all = self.all.clone();
                match Words::read(words, &all)?.compare(&came, self.side(), &mut all) {
                    Ok(()) => {
                        found = Ok((at, all));
                        break;
                    }
                    Err(why) => found = found.map_err(|before| format!("{before}{why}\n")),
                }
            }
            let (at, all) = found.map_err(|why| format!("{why}got {}", came.shown()))?;
            self.all = all;
            left.remove(at);
        }
        Ok(())
    }

    /// The end of a case: a client's driver ends when it has nothing more to read.
    fn end(&mut self) -> Result<(), Fault> {
        if let Some(program) = &mut self.program {
            program.note_all();
            if let Some(why) = program.unsupported() {
                return Err(Fault::Unsupported(why));
            }
            program.end_input();
            // One that still does something reads no end.
            if self.side == Side::Client && self.commands.is_empty() {
                program.await_end()?;
            } else if !self.has_exited {
                program.kill();
            }
        }
        let peer = std::mem::replace(&mut self.peer, Peer::listen(false));
        for left in peer.end() {
            if !self.is_soon(&left)? {
                let shown = left.shown();
                return Err(Fault::Wrong(format!("no line expects this frame:\n{shown}")));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Fault> {
        let [Token::Word(verb), words @ ..] = step.words.as_slice() else {
            return Err(Fault::from("a step begins with a word"));
        };
        match (self.all.fill(verb)?.as_str(), words) {
            ("accept", []) => Ok(self.peer.accept(None)?),
            ("accept", [Token::Word(name)]) => Ok(self.peer.accept(Some(name))?),
            ("on", [Token::Word(name)]) => Ok(self.peer.switch(name)?),
            ("enter", words) => self.enter(words),
            ("expect", [Token::Word(word)]) if word == "close" => self.expect_close(),
            ("expect", words) => self.expect(words),
            ("soon", [Token::Word(name), words @ ..]) => {
                self.soon.push((name.clone(), words.to_vec()));
                Ok(())
            }
            ("by-now", [Token::Word(name)]) => {
                while self.soon.iter().any(|(known, _)| known == name) {
                    if let Some(came) = self.next()? {
                        return Err(Fault::Wrong(format!("it sent {}", came.shown())));
                    }
                }
                Ok(())
            }
            ("send", [Token::Word(word), words @ ..]) if word == "hex" => self.send_hex(words),
            ("send", words) => self.send(words),
            ("hold", []) => {
                self.peer.hold();
                Ok(())
            }
            ("release", []) => Ok(self.peer.release(None, true)?),
            ("release", [Token::Pair(how, size)]) => self.release(how, size),
            ("close", []) => Ok(self.peer.close()?),
            ("reset", []) => Ok(self.peer.reset()?),
            ("do", words) => self.tell(words),
            ("result", [Token::Word(name), words @ ..]) => self.result(name, words),
            ("needs", [Token::Word(what)]) => match self.driver.lacks.contains(what) {
                true => Err(Fault::Unsupported(format!("it needs {what}"))),
                false => Ok(()),
            },
            ("differ", [Token::Word(one), Token::Word(other)]) => {
                let (one, other) = (self.all.fill(one)?, self.all.fill(other)?);
                let are_alike = Fault::Wrong(format!("both are {one}"));
                if one == other { Err(are_alike) } else { Ok(()) }
            }
            ("token", [Token::Word(text), ..]) => self.know(text, words),
            ("start", words) => self.start(words),
            ("gets", [Token::Word(name), words @ ..]) => self.gets(name, words),
            ("says", [Token::Word(name), words @ ..]) => {
                let event = self.program()?.event(name)?;
                Ok(self.compare(&event, words)?)
            }
            ("exits", [Token::Word(status), words @ ..]) => self.exits(status, words),
            _ => Err(Fault::from("there is no such step")),
        }
    }

    fn program(&mut self) -> Result<&mut Program, Fault> {
        self.program.as_mut().ok_or_else(|| Fault::from("no driver runs; say 'start' before"))
    }

    /// The library's side of the present connection.
    fn side(&self) -> Side {
        self.peer.side().unwrap_or(self.side)
    }

    /// A connection and its login, as most cases begin.
    fn enter(&mut self, words: &[Token]) -> Result<(), Fault> {
        self.peer.accept(None)?;
        if words.first() == Some(&Token::Word("client".to_owned())) {
            self.peer.set_side(Side::Client)?;
        }
        let mut given = pairs(words, &self.all)?;
        let (login, answer, defaults) = match self.side() {
            Side::Client => ("login", "login-ok", LOGIN_OK),
            Side::Worker => ("worker-login", "worker-login-ok", WORKER_LOGIN_OK),
        };
        let mut service = SERVICE.to_owned();
        given.retain(|(key, value)| {
            let is_service = key == "service";
            if is_service {
                service.clone_from(value);
            }
            !is_service
        });
        let first = format!("{login} service={service} ...");
        self.expect(&crate::script::words::tokens(&first)?)?;
        let is_given = |word: &&str| {
            let key = word.split('=').next().unwrap_or_default();
            !given.iter().any(|(known, _)| known == key)
        };
        let defaults: Vec<&str> = defaults.split(' ').filter(is_given).collect();
        let defaults = crate::script::words::tokens(&defaults.join(" "))?;
        let given = given.into_iter().map(|(key, value)| Token::Pair(key, value.into_bytes()));
        let first = Token::Word(answer.to_owned());
        let words: Vec<Token> = std::iter::once(first).chain(defaults).chain(given).collect();
        self.send(&words)
    }

    fn expect(&mut self, words: &[Token]) -> Result<(), Fault> {
        let came = loop {
            if let Some(came) = self.next()? {
                break came;
            }
        };
        let wanted = Words::read(words, &self.all)?;
        let side = self.side();
        let compared = wanted.compare(&came, side, &mut self.all);
        Ok(compared.map_err(|why| format!("{why}\ngot {}", came.shown()))?)
    }

    /// The next frame; `None` = it was one that may come at any time.
    fn next(&mut self) -> Result<Option<Wire>, Fault> {
        let Some(came) = self.peer.next()? else {
            return Err(Fault::from("the library has closed the connection"));
        };
        Ok(if self.is_soon(&came)? { None } else { Some(came) })
    }

    /// Whether it is a frame that may come at any time.
    fn is_soon(&mut self, came: &Wire) -> Result<bool, Fault> {
        for at in 0..self.soon.len() {
            let mut all = self.all.clone();
            let wanted = Words::read(&self.soon[at].1, &all)?;
            if wanted.compare(came, self.side(), &mut all).is_ok() {
                self.all = all;
                self.soon.remove(at);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn expect_close(&mut self) -> Result<(), Fault> {
        match self.peer.next()? {
            None => Ok(()),
            Some(came) => Err(Fault::Wrong(format!("the library sent {}", came.shown()))),
        }
    }

    fn send(&mut self, words: &[Token]) -> Result<(), Fault> {
        let bytes = Words::read(words, &self.all)?.bytes(&self.all)?;
        if words.first() == Some(&Token::Word("challenge".to_owned())) {
            self.prove(&bytes[HEADER_BYTES..])?;
        }
        Ok(self.peer.send(&bytes)?)
    }

    fn send_hex(&mut self, words: &[Token]) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        for word in words {
            let Token::Word(word) = word else { return Err(Fault::from("hex has digits")) };
            let word = self.all.fill(word)?;
            let some = protocol::proof::from_digits(&word).ok_or("hex has two digits a byte")?;
            bytes.extend(some);
        }
        Ok(self.peer.send(&bytes)?)
    }

    fn release(&mut self, how: &str, size: &[u8]) -> Result<(), Fault> {
        let size = self.all.fill(&String::from_utf8_lossy(size))?;
        let size = size.parse().map_err(|_| format!("'{size}' is no number of bytes"))?;
        match how {
            "break" => self.peer.release(Some(size), true)?,
            "each" => self.peer.release(Some(size), false)?,
            "only" => self.peer.release_part(size)?,
            _ => return Err(Fault::from("released are break=N, each=N or only=N bytes")),
        }
        Ok(())
    }

    /// Has the driver do something.
    fn tell(&mut self, words: &[Token]) -> Result<(), Fault> {
        let [Token::Word(verb), rest @ ..] = words else {
            return Err(Fault::from("what is to be done?"));
        };
        let mut command = Map::new();
        command.insert("do".to_owned(), json!(verb));
        let mut name = None;
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word {
                Token::Word(word) if word == "as" => {
                    let Some(Token::Word(as_name)) = rest.next() else {
                        return Err(Fault::from("'as' without a name"));
                    };
                    name = Some(as_name.clone());
                }
                Token::Word(word) => return Err(format!("'{word}' is no pair").into()),
                Token::Quoted(body) => {
                    let body = wire::filled(body, &self.all)?;
                    command.insert("body".to_owned(), json!(digits(&body)));
                }
                Token::Pair(key, value) => {
                    let value = self.all.fill(&String::from_utf8_lossy(value))?;
                    let (key, value) = match key.as_str() {
                        "of" => {
                            let of = self.names.get(&value).cloned();
                            ("of", of.ok_or_else(|| format!("nothing is called '{value}'"))?)
                        }
                        "fill" => {
                            let size = value.parse().map_err(|_| "fill is no size")?;
                            ("body", json!(digits(&vec![b'x'; size])))
                        }
                        key => (key, json!(value)),
                    };
                    command.insert(key.to_owned(), value);
                }
            }
        }
        let id = self.program()?.tell(command)?;
        match name {
            // What nobody asks about must work.
            None => match self.program()?.answer(id)? {
                Answer::Ok(_) => {}
                Answer::Unsupported(why) => return Err(Fault::Unsupported(why)),
                Answer::Failed(error) => {
                    return Err(Fault::Wrong(format!("it fails: {}", Value::Object(error))));
                }
            },
            Some(name) => {
                self.commands.insert(name.clone(), id);
                self.names.insert(name, json!(id));
            }
        }
        Ok(())
    }

    /// What became of a command.
    fn result(&mut self, name: &str, words: &[Token]) -> Result<(), Fault> {
        let id = self.commands.remove(name);
        let id = id.ok_or_else(|| format!("nothing is under way that is called '{name}'"))?;
        let answer = self.program()?.answer(id)?;
        let is_failure = words.first() == Some(&Token::Word("fails".to_owned()));
        match answer {
            Answer::Unsupported(why) => Err(Fault::Unsupported(why)),
            Answer::Failed(error) if is_failure => {
                let mut words = words[1..].to_vec();
                if let Some(Token::Word(name)) = words.first().cloned() {
                    let name = self.all.fill(&name)?;
                    words[0] = Token::Pair("name".to_owned(), name.into_bytes());
                }
                Ok(self.compare(&error, &words)?)
            }
            Answer::Ok(ok) if !is_failure => Ok(self.compare(&ok, words)?),
            Answer::Failed(it) | Answer::Ok(it) => {
                Err(Fault::Wrong(format!("it says {}", Value::Object(it))))
            }
        }
    }

    /// Compares what the driver says with the words of a line.
    fn compare(&mut self, said: &Map<String, Value>, words: &[Token]) -> Result<(), String> {
        let of = |key: &str| match said.get(key) {
            None | Some(Value::Null) => "absent".to_owned(),
            Some(Value::Bool(is_it)) => if *is_it { "yes" } else { "no" }.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let all = || format!("; it says {}", Value::Object(said.clone()));
        for word in words {
            match word {
                Token::Word(word) if word == "ok" => {}
                Token::Word(word) => return Err(format!("'{word}' is nothing that is said")),
                Token::Quoted(body) => {
                    let body = wire::filled(body, &self.all)?;
                    let is = of("body");
                    if is != digits(&body) {
                        let is = protocol::proof::from_digits(&is).unwrap_or_default();
                        let (is, wanted) = (words_of(&is), words_of(&body));
                        return Err(format!("body is {is}, expected {wanted}{}", all()));
                    }
                }
                Token::Pair(key, value) => {
                    let value = String::from_utf8_lossy(value);
                    if key == "fill" {
                        let size = self.all.fill(&value)?.parse().map_err(|_| "fill is no size")?;
                        if of("body") != digits(&vec![b'x'; size]) {
                            return Err(format!("the body is not fill={size}"));
                        }
                    } else if let Some(key) = key.strip_suffix('~') {
                        let (part, is) = (self.all.fill(&value)?, of(key));
                        if !is.contains(&part) {
                            return Err(format!("{key} is '{is}', without '{part}'{}", all()));
                        }
                    } else {
                        let compared = self.all.compare(&value, &of(key));
                        compared.map_err(|why| format!("{key} is {why}{}", all()))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes a token, for the proof and the signature of the challenge that is sent next.
    fn know(&mut self, text: &str, words: &[Token]) -> Result<(), Fault> {
        let secret = Secret::parse(text)?;
        let role = if self.side == Side::Client { Role::Client } else { Role::Worker };
        let given = pairs(words, &self.all)?;
        let target = given.into_iter().find(|(key, _)| key == "target").map(|(_, value)| value);
        let target = target.unwrap_or_else(|| SERVICE.to_owned());
        self.known = Some(Known { secret, role, target });
        Ok(())
    }

    /// Computes what proves the token to either side: the variables `proof` and `signature`.
    fn prove(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (Some(known), Ok(challenge)) = (&self.known, Challenge::parse(body)) else {
            return Ok(());
        };
        let Challenge { memory_kib, passes, lanes, .. } = challenge;
        let name = known.secret.name();
        let text = statement(known.role, &known.target, name, &challenge, None);
        let keys = known.secret.keys(&challenge.salt, Cost { memory_kib, passes, lanes })?;
        let shown = known.secret.reveal();
        let (_, secret) = shown.rsplit_once('.').ok_or("a token is NAME.SECRET")?;
        let cost = Cost { memory_kib, passes, lanes };
        let salted = salted(secret.as_bytes(), &challenge.salt, cost)?;
        let server = hmac(salted.as_ref(), b"Server Key");
        self.all.set("proof", digits(&keys.prove(&text)));
        self.all.set("signature", digits(&hmac(&server, text.as_bytes())));
        Ok(())
    }

    /// Starts a worker as the broker's host does.
    fn start(&mut self, words: &[Token]) -> Result<(), Fault> {
        let host = match self.peer.path() {
            None => "127.0.0.1".to_owned(),
            Some(path) => format!("unix:{}", path.display()),
        };
        let port = self.peer.port().to_string();
        let mut worker = vec![host, port, "3".to_owned(), SERVICE.to_owned()];
        let mut variables = vec![("ISECT_WORKER_SECRET".to_owned(), SECRET.to_owned())];
        for (key, value) in pairs(words, &self.all)? {
            match key.as_str() {
                "worker" => worker[2] = value,
                "service" => worker[3] = value,
                "secret" => variables[0].1 = value,
                "token" => variables.push(("ISECT_TOKEN".to_owned(), value)),
                _ => worker.push(format!("{key}={value}")),
            }
        }
        variables.retain(|(_, value)| !value.is_empty());
        self.program = Some(Program::start(self.driver, self.side, &worker, &variables)?);
        Ok(())
    }

    /// The library hands a request to its program.
    fn gets(&mut self, name: &str, words: &[Token]) -> Result<(), Fault> {
        let event = self.program()?.event("request")?;
        self.compare(&event, words)?;
        let number = event.get("request").cloned().ok_or("the event has no 'request'")?;
        self.names.insert(name.to_owned(), number);
        Ok(())
    }

    fn exits(&mut self, status: &str, words: &[Token]) -> Result<(), Fault> {
        self.has_exited = true;
        let (is, errors) = self.program()?.await_end()?;
        if is.to_string() != *status {
            return Err(Fault::Wrong(format!("it exits with status {is}\n{errors}")));
        }
        for word in words {
            let Token::Quoted(part) = word else { return Err(Fault::from("what does it say?")) };
            let part = self.all.fill(&String::from_utf8_lossy(part))?;
            if !errors.contains(&part) {
                return Err(Fault::Wrong(format!("its last words are without '{part}': {errors}")));
            }
        }
        Ok(())
    }
}
