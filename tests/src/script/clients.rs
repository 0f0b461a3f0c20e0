//! What clients do in a script: log in, send, close. Commands of the operator `op` are in
//! `stimulus`.

use super::stimulus::text;
use super::tokens;
use super::topics::TOPICS;
use super::words::Cursor;
use super::world::World;
use broker::engine::input::{Close, Input, Start};
use protocol::bodies::{ErrorBody, Format, Login};
use protocol::decode::WireError;
use protocol::errors::ErrorCode;
use protocol::header::{FLAG_EXTENDABLE, FLAG_IDEMPOTENT, Header};
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::limits::PRIORITY_DEFAULT;
use protocol::names::ServiceName;
use protocol::process::StartClaim;

/// Verbs for every connection.
pub(super) const ENDS: &str = "closes, tears, breaks, times out, logs out [received=N], is silent, answers, \
pings [seq=N], sends garbage [seq=N skip more publish], complains \"TEXT\", is congested, is uncongested, \
overflows, stalls, trickles";

impl World {
    pub(super) fn act_client(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        const KNOWN: &str = "connects [other-user] [at=ADDRESS], logs in [to SERVICE] [pri=N] [json] [heartbeat] [half-close] [script] [name=X] \
[as other-user] [at=ADDRESS] [token=X] [with secret of WORKER] [run=N] [digest=N] [forged], sends BODY [to SERVICE] [seq=N] [more] [pri=N] [deadline=MS] [idempotent] \
[extendable] [noreply] [with WORKER] [trace=N] [times=N], cancels [seq=N], flushes [seq=N], half-closes, says \"COMMAND\"";
        let verb = line.word(KNOWN)?;
        match verb.as_str() {
            "connects" => {
                let is_owner = !line.flag("other-user");
                self.open_client(name, is_owner, line.pair("at"))?;
            }
            "logs" if line.is("in") => self.login(name, line)?,
            "sends" if !line.flag("garbage") => self.sends(name, line)?,
            "cancels" => {
                let last = self.clients.get(name).map_or(0, |end| end.sequence);
                let sequence = line.number("seq")?.unwrap_or(last);
                self.step(Input::Cancel { link: self.link(name)?, sequence })?;
            }
            "flushes" => {
                let sequence = line.number("seq")?.unwrap_or(1);
                self.step(Input::Flush { link: self.link(name)?, sequence })?;
            }
            "half-closes" => self.step(Input::HalfClosed { link: self.link(name)? })?,
            "says" => {
                let command = line.quoted().ok_or("says \"COMMAND\"")?;
                if !self.is_connected(name) {
                    self.operator(name, Format::Text)?;
                }
                self.command(name, command)?;
            }
            other => {
                return self.act_end(name, other, line)?.unwrap_or_else(|| {
                    Err(self.no_verb(other, name, &format!("{KNOWN}, {ENDS}, {TOPICS}")))
                });
            }
        }
        line.end(KNOWN)
    }

    /// A client of this machine, or of the one at this address.
    fn open_client(
        &mut self,
        name: &str,
        is_owner: bool,
        at: Option<String>,
    ) -> Result<(), String> {
        let link = self.open(name)?;
        self.clients.entry(name.to_owned()).or_default();
        let peer = match at {
            Some(address) => Self::peer_at(link, &address)?,
            None => Self::peer(link, is_owner),
        };
        self.step(Input::ClientOpened { link, peer })
    }

    fn login(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let service = line.after("to").unwrap_or_else(|| "echo".to_owned());
        let service = ServiceName::new(&service).map_err(|e| e.to_string())?;
        let is_other_user = line.flag("as") && line.flag("other-user");
        if !self.is_connected(name) {
            self.open_client(name, !is_other_user, line.pair("at"))?;
        }
        let login = Login {
            service,
            priority: line.number("pri")?.unwrap_or(PRIORITY_DEFAULT),
            loghost: line.pair("loghost").unwrap_or_else(|| "desk".into()),
            hostpid: line.number("pid")?.unwrap_or(200),
            name: line.pair("name"),
            token: tokens::claim(line)?,
            format: if line.flag("json") { Format::Json } else { Format::Text },
            heartbeat: line.flag("heartbeat"),
            script: line.flag("script"),
            half_close: line.flag("half-close"),
            start: None,
        };
        let link = self.link(name)?;
        let is_secret = line.flag("with") && line.flag("secret");
        let Some(worker) = line.after("of").filter(|_| is_secret) else {
            return self.step(Input::Login { link, login: Box::new(login) });
        };
        self.start_login(link, (login, &worker), line)
    }

    /// A client shows the secret of a worker's start: the present one, unless the line says
    /// another.
    fn start_login(
        &mut self,
        link: LinkId,
        (login, worker): (Login, &str),
        line: &mut Cursor,
    ) -> Result<(), String> {
        let id = super::show::worker_id(worker)
            .ok_or_else(|| format!("'{worker}' names no worker such as echo#1"))?;
        let (run, digest) = self.workers.get(&id).map_or((0, 0), |end| (end.run, end.digest));
        let run = RunId(line.number("run")?.unwrap_or(run));
        let digest = line.number("digest")?.unwrap_or(digest);
        let proof = (!line.flag("forged")).then_some(Start { run, digest });
        let claim = StartClaim { worker: WorkerId(id), secret: "secret".into() };
        let login = Box::new(Login { start: Some(Box::new(claim)), ..login });
        self.step(Input::StartLogin { link, login, proof })
    }

    fn sends(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let body = line.body();
        let service = line.after("to");
        if !self.is_connected(name) {
            let service = service.unwrap_or_else(|| "echo".to_owned());
            self.login(name, &mut Cursor::new(&format!("to {service}"))?)?;
            self.look_past_welcome();
        }
        let end = self.clients.entry(name.to_owned()).or_default();
        let with = line.after("with");
        let workerid = match &with {
            Some(worker) => super::show::worker_id(worker)
                .ok_or_else(|| format!("'with {worker}' names no worker such as echo#1"))?,
            None => 0,
        };
        let next = if with.is_some() { end.sequence } else { end.sequence + 1 };
        let trace: u8 = line.number("trace")?.unwrap_or(0);
        let mut trace_id = [0; 16];
        trace_id[15] = trace;
        let mut head = Header {
            sequence: line.number("seq")?.unwrap_or(next),
            reply: u16::from(!line.flag("noreply")),
            workerid,
            more: u16::from(line.flag("more")),
            priority: line.number("pri")?.unwrap_or(0),
            flags: (u8::from(line.flag("idempotent")) * FLAG_IDEMPOTENT)
                | (u8::from(line.flag("extendable")) * FLAG_EXTENDABLE),
            deadline_ms: line.number("deadline")?.unwrap_or(0),
            trace_id,
            span_id: trace.into(),
            ..Header::default()
        };
        for _ in 0..line.number("times")?.unwrap_or(1) {
            self.send(name, head, body.clone())?;
            head.sequence += 1;
        }
        Ok(())
    }

    /// Carries out a verb of any link; `None` = no such verb.
    pub(super) fn act_end(
        &mut self,
        name: &str,
        verb: &str,
        line: &mut Cursor,
    ) -> Result<Option<Result<(), String>>, String> {
        match verb {
            "closes" => self.close(name, Close::Eof)?,
            "tears" => self.close(name, Close::Torn)?,
            "breaks" => self.close(name, Close::Reset)?,
            "times" if line.is("out") => self.close(name, Close::TimedOut)?,
            "logs" if line.is("out") => {
                let link = self.link(name)?;
                let received = line.number("received")?;
                self.step(Input::Logout { link, received })?;
            }
            "pings" => {
                let sequence = line.number("seq")?.unwrap_or(1);
                self.step(Input::Ping { link: self.link(name)?, sequence })?;
            }
            "answers" => {
                self.silent.remove(name);
                self.step(Input::Pong { link: self.link(name)? })?;
            }
            "complains" => {
                let error = ErrorBody::new(ErrorCode::BadFrame, text(line));
                self.step(Input::PeerError {
                    link: self.link(name)?,
                    worker: WorkerId(0),
                    run: RunId(0),
                    error,
                })?;
            }
            "sends" => {
                line.flag("garbage");
                let sequence = line.number("seq")?.unwrap_or(0);
                let skip = line.flag("skip").then_some(10);
                let code =
                    if skip.is_some() { ErrorCode::BodyTooLarge } else { ErrorCode::BadFrame };
                let text = format!("{code} for the test");
                let more = line.flag("more");
                let is_publish = line.flag("publish");
                let error = WireError { code, text, sequence, skip, more, reply: true, is_publish };
                self.step(Input::Garbage { link: self.link(name)?, error })?;
            }
            "trickles" => self.step(Input::Heard { link: self.link(name)? })?,
            "overflows" => {
                self.step(Input::OutboxFull { link: self.link(name)?, bytes: 33_554_433 })?;
            }
            "stalls" => self.step(Input::Stalled { link: self.link(name)?, bytes: 4096 })?,
            "is" if line.is("silent") => {
                self.silent.insert(name.to_owned());
            }
            "is" if line.is("uncongested") => {
                self.step(Input::Uncongested { link: self.link(name)? })?;
            }
            "is" if line.is("congested") => {
                self.step(Input::Congested { link: self.link(name)? })?;
            }
            _ => {
                let is_known = self.act_proof(name, verb, line)?.is_some()
                    || self.act_topics(name, verb, line)?.is_some();
                if !is_known {
                    return Ok(None);
                }
            }
        }
        Ok(Some(line.end(ENDS)))
    }
}
