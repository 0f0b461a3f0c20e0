//! What workers and their processes do in a script: start, log in, reply, end. Reports of execd
//! about a process arrive over the link of its host.

use super::clients::ENDS;
use super::show::worker_id;
use super::stimulus::text;
use super::tokens;
use super::topics::TOPICS;
use super::words::Cursor;
use super::world::World;
use broker::engine::input::{Close, Input, Report, Start};
use bytes::Bytes;
use protocol::bodies::{
    ExecExited, ExecFailed, ExecMemory, ExecOutput, ExecStarted, ExitCause, Stream, WorkerLogin,
};
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::proof::Claim;

impl World {
    pub(super) fn act_worker(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        const KNOWN: &str = "starts [pid=N], logs in [run=N] [digest=N] [pid=N] [of SERVICE] [without proof] [concurrency=N] [cancel], \
comes itself [on HOST] [as other-user] [token=X] [concurrency=N] [cancel], comes back [pid=N], connects, gets ready [concurrency=N] [cancel], cannot start \"WHY\" [permanent], \
replies BODY [more] [error=N] [trans=N] [deadline=MS], exits N | signal N [stderr=\"LINE\"] [run=N], \
dies, uses BYTES [run=N], writes \"LINE\" [stdout] [dropped=N] [number=N], keeps \"LINES\" [from=N], reports \"STATUS\" [seq=N]";
        let id = worker_id(name).ok_or_else(|| format!("'{name}' is not such as echo#1"))?;
        let verb = line.word(KNOWN)?;
        let (concurrency, hears_cancel) = (line.number("concurrency")?, line.flag("cancel"));
        if let Some(concurrency) = concurrency {
            self.workers.entry(id).or_default().concurrency = concurrency;
        }
        if hears_cancel {
            self.workers.entry(id).or_default().hears_cancel = true;
        }
        match verb.as_str() {
            "starts" => {
                let pid = line.number("pid")?;
                self.started(name, pid)?;
            }
            "connects" => {
                let link = self.open(name)?;
                self.step(Input::WorkerOpened { link, peer: Self::peer(link, true) })?;
            }
            "logs" if line.is("in") => {
                let run = line.number("run")?;
                let end = self.workers.entry(id).or_default();
                end.digest = line.number("digest")?.unwrap_or(end.digest);
                end.pid = line.number("pid")?.unwrap_or(end.pid);
                let service = line.after("of");
                let is_proved = !(line.flag("without") && line.flag("proof"));
                let name =
                    service.map_or_else(|| name.to_owned(), |service| format!("{service}#{id}"));
                self.worker_login(&name, run, is_proved)?;
            }
            "comes" if line.is("back") => {
                let end = self.workers.entry(id).or_default();
                end.pid = line.number("pid")?.unwrap_or(end.pid);
                self.rename(name, &format!("old-{name}"));
                self.worker_login(name, None, true)?;
            }
            "comes" if line.is("itself") => {
                let host = line.after("on").unwrap_or_else(|| "elsewhere".to_owned());
                let token = tokens::claim(line)?;
                let is_other_user = line.flag("as") && line.flag("other-user");
                self.open_worker(name, !is_other_user)?;
                self.send_worker_login(name, (WorkerId(0), &host), None, token)?;
            }
            "gets" if line.is("ready") => {
                let pid = line.number("pid")?;
                self.started(name, pid)?;
                self.worker_login(name, None, true)?;
            }
            "replies" => self.replies(name, id, line)?,
            "cannot" if line.is("start") => {
                let permanent = line.flag("permanent");
                let run = self.run_of(id, line)?;
                let again_ms = line.number("again")?.unwrap_or(0);
                let text = text(line);
                let worker = WorkerId(id);
                let failed = ExecFailed { worker, run, permanent, again_ms, text };
                self.report(id, Report::Failed(failed))?;
            }
            "exits" => self.exits(id, line)?,
            "dies" => {
                self.close(name, Close::Reset)?;
                self.exits(id, &mut Cursor::new("signal 9")?)?;
            }
            "writes" => {
                let run = self.run_of(id, line)?;
                let stream = if line.flag("stdout") { Stream::Stdout } else { Stream::Stderr };
                let dropped = line.number("dropped")?.unwrap_or(0);
                let number = line.number("number")?.unwrap_or(0);
                let line = text(line);
                let output =
                    ExecOutput { worker: WorkerId(id), run, stream, line, dropped, number };
                self.report(id, Report::Output(output))?;
            }
            "keeps" => self.keeps(id, line)?,
            "uses" => {
                let run = self.run_of(id, line)?;
                let rss_bytes = line.word(KNOWN)?.parse().map_err(|e| format!("bytes: {e}"))?;
                let memory = ExecMemory { worker: WorkerId(id), run, rss_bytes };
                self.report(id, Report::Memory(memory))?;
            }
            "reports" => {
                let asked = self.workers.get(&id).map_or(0, |end| end.status);
                let sequence = line.number("seq")?.unwrap_or(asked);
                let (link, text) = (self.link(name)?, text(line));
                self.step(Input::StatusReply { link, sequence, text })?;
            }
            other => {
                return self.act_end(name, other, line)?.unwrap_or_else(|| {
                    Err(self.no_verb(other, name, &format!("{KNOWN}, {ENDS}, {TOPICS}")))
                });
            }
        }
        line.end(KNOWN)
    }

    /// A worker connects, unless it has.
    fn open_worker(&mut self, name: &str, is_owner: bool) -> Result<LinkId, String> {
        if !self.is_connected(name) {
            let link = self.open(name)?;
            self.step(Input::WorkerOpened { link, peer: Self::peer(link, is_owner) })?;
        }
        self.link(name)
    }

    fn run_of(&self, id: u32, line: &mut Cursor) -> Result<RunId, String> {
        let known = self.workers.get(&id).map_or(0, |end| end.run);
        Ok(RunId(line.number("run")?.unwrap_or(known)))
    }

    fn host_of(&self, id: u32) -> String {
        let view = self.shell.engine.workers_view();
        let worker = view.iter().find(|worker| worker.id.0 == id);
        // What is deleted ran somewhere all the same.
        worker.map_or_else(|| "localhost".to_owned(), |worker| worker.host.to_string())
    }

    /// execd reports something about a worker.
    pub(super) fn report(&mut self, id: u32, report: Report) -> Result<(), String> {
        let link = self.link(&self.host_of(id))?;
        self.step(Input::Report { link, report: Box::new(report) })
    }

    /// execd reports that a process runs.
    pub(super) fn started(&mut self, name: &str, pid: Option<u32>) -> Result<(), String> {
        let id = worker_id(name).unwrap_or_default();
        let pid = pid.unwrap_or(1000 + id);
        let end = self.workers.entry(id).or_default();
        end.pid = pid;
        let run = RunId(end.run);
        self.report(id, Report::Started(ExecStarted { worker: WorkerId(id), run, pid }))
    }

    /// A worker connects, unless it has, and logs in.
    pub(super) fn worker_login(
        &mut self,
        name: &str,
        run: Option<u64>,
        is_proved: bool,
    ) -> Result<(), String> {
        let id = worker_id(name).unwrap_or_default();
        let host = self.host_of(id);
        let known = self.workers.get(&id).map_or(0, |end| end.run);
        let run = RunId(run.unwrap_or(known));
        self.send_worker_login(name, (WorkerId(id), &host), is_proved.then_some(run), None)
    }

    fn send_worker_login(
        &mut self,
        name: &str,
        (worker, host): (WorkerId, &str),
        run: Option<RunId>,
        token: Option<Claim>,
    ) -> Result<(), String> {
        let (service, _) = name.split_once('#').unwrap_or((name, ""));
        let id = worker_id(name).unwrap_or_default();
        let link = self.open_worker(name, true)?;
        let end = self.workers.entry(id).or_default();
        let login = WorkerLogin {
            worker,
            service: ServiceName::new(service).map_err(|e| e.to_string())?,
            host: HostName::new(host).map_err(|e| e.to_string())?,
            hostpid: if end.pid == 0 { 1000 + id } else { end.pid },
            secret: if worker.0 == 0 { String::new() } else { "secret".to_owned() },
            concurrency: end.concurrency.max(1),
            cancel: end.hears_cancel,
            token,
        };
        let proof = run.map(|run| Start { run, digest: end.digest });
        self.step(Input::WorkerLogin { link, login: Box::new(login), proof })
    }

    fn replies(&mut self, name: &str, id: u32, line: &mut Cursor) -> Result<(), String> {
        let link = self.link(name)?;
        let body = line.body();
        let more = line.flag("more");
        let end = self.workers.entry(id).or_default();
        let transaction = match line.number("trans")? {
            Some(transaction) => transaction,
            None => end.has.front().copied().ok_or_else(|| {
                format!("{name} has nothing to reply to; 'trans=N' names a transaction")
            })?,
        };
        if !more {
            end.has.retain(|has| *has != transaction);
        }
        let head = Header {
            len: body.len() as u32,
            transaction,
            more: u16::from(more),
            error: line.number("error")?.unwrap_or(0),
            deadline_ms: line.number("deadline")?.unwrap_or(0),
            ..Header::default()
        };
        self.step(Input::Reply { link, head, body: Bytes::from(body) })
    }

    fn exits(&mut self, id: u32, line: &mut Cursor) -> Result<(), String> {
        let run = self.run_of(id, line)?;
        let number = |word: String| {
            word.parse::<i32>().map_err(|_| format!("'{word}' is no number; exits N | signal N"))
        };
        let exit_cause = if line.is("signal") {
            ExitCause::Signal(number(line.word("a signal's number")?)?)
        } else {
            ExitCause::Exit(number(line.word("an exit status, or 'signal N'")?)?)
        };
        let tail = line.pair("stderr").into_iter().collect();
        let (core, oom) = (line.flag("core"), line.flag("oom"));
        let (worker, pid) = (WorkerId(id), 1000 + id);
        let exited = ExecExited {
            worker,
            run,
            pid,
            exit_cause,
            cpu_ms: 1,
            rss_kib_max: 1024,
            core,
            oom,
            tail,
        };
        self.report(id, Report::Exited(exited))
    }
}
