//! What hosts do in a script: their execd connects or refuses, reports its processes, leaves.

use super::clients::ENDS;
use super::show::worker_id;
use super::stimulus::{text, unknown};
use super::tokens::claim;
use super::words::Cursor;
use super::world::{OPERATOR, World};
use crate::shell::Ask;
use broker::engine::input::{Expected, Input, Report, Signature};
use protocol::bodies::{
    Child, ErrorBody, ExecExited, ExecFailed, ExecListed, ExecOutput, ExecStarted, ExecWelcome,
    ExitCause, Stream,
};
use protocol::errors::ErrorCode;
use protocol::ids::{RunId, WorkerId};
use protocol::names::HostName;
use protocol::proof::{Challenge, Claim};

impl World {
    pub(super) fn act_host(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        const KNOWN: &str = "up [with WORKER…], connects [must=POLICY] [token=NAME] [and waits], is greeted [token=NAME], \
refuses \"WHY\", welcomes [signed] [signed wrongly] [policy=POLICY] [older=WORKER] \
[able to hand over] [without output], challenges, says goodbye [about=WORKER], declines \"WHY\", remains unproven \"WHY\", \
lists nothing | lists WORKER… [run=N] [pid=N] [digest=N], \
reports exited|failed|started|output WORKER [run=N] [times=N] [length=N], misses WORKER [run=N]";
        let verb = line.word(KNOWN)?;
        match verb.as_str() {
            "up" => {
                line.is("with");
                let children = self.children(line)?;
                self.host_up(name, children)?;
            }
            "connects" => {
                let policy: Option<String> = line.pair("must");
                let must = policy.map(|policy| Expected { policy, ..Expected::default() });
                let claim = claim(line)?;
                let waits = line.is("and") && line.is("waits");
                self.host_connects(name, must.map(Box::new))?;
                if !waits {
                    self.host_claimed(name, claim)?;
                }
            }
            "is" if line.is("greeted") => {
                let claim = claim(line)?;
                self.host_claimed(name, claim)?;
            }
            "refuses" => {
                self.take_dial(name);
                let host = HostName::new(name).map_err(|e| e.to_string())?;
                self.step(Input::HostRefused { host, why: text(line) })?;
            }
            "welcomes" => {
                let signature = match (line.is("signed"), line.is("wrongly")) {
                    (false, _) => Signature::Missing,
                    (true, true) => Signature::Wrong,
                    (true, false) => Signature::Right,
                };
                let policy = line.pair("policy").unwrap_or_default();
                let older = line.number("older")?.map(WorkerId);
                let hands_over =
                    line.is("able") && line.is("to") && line.is("hand") && line.is("over");
                let keeps_output = !(line.is("without") && line.is("output"));
                let older = older.into_iter().collect();
                let welcome = ExecWelcome { policy, older, hands_over, keeps_output, ..welcome() };
                self.host_welcomes(name, welcome, signature)?;
            }
            "challenges" => {
                let (salt, nonce) = (vec![1; 16], vec![2; 32]);
                let (memory_kib, passes, lanes) = (19_456, 2, 1);
                let challenge =
                    Box::new(Challenge { salt, memory_kib, passes, lanes, nonce, channels: None });
                self.step(Input::Challenged { link: self.link(name)?, challenge })?;
            }
            "remains" if line.is("unproven") => {
                let why = text(line);
                self.step(Input::Unproven { link: self.link(name)?, why })?;
            }
            "reports" => self.host_reports(name, line)?,
            "declines" => {
                let error = ErrorBody::new(ErrorCode::Denied, text(line));
                let (link, worker, run) = (self.link(name)?, WorkerId(0), RunId(0));
                self.step(Input::PeerError { link, worker, run, error })?;
            }
            "says" if line.is("goodbye") => {
                let error = ErrorBody::new(ErrorCode::ShuttingDown, "execd is shutting down");
                let worker = WorkerId(line.number("about")?.unwrap_or(0));
                let (link, run) = (self.link(name)?, RunId(0));
                self.step(Input::PeerError { link, worker, run, error })?;
            }
            "misses" => {
                let name_of = line.word("a worker")?;
                let id = worker_id(&name_of).ok_or_else(|| format!("'{name_of}' is no worker"))?;
                let run = RunId(line.number("run")?.unwrap_or(0));
                let error = ErrorBody::new(ErrorCode::NotFound, "no process here");
                let link = self.link(name)?;
                self.step(Input::PeerError { link, worker: WorkerId(id), run, error })?;
            }
            "lists" => {
                line.flag("nothing");
                let children = self.children(line)?;
                self.host_lists(name, children)?;
            }
            other => {
                return self
                    .act_end(name, other, line)?
                    .unwrap_or_else(|| Err(unknown(other, name, &format!("{KNOWN}, {ENDS}"))));
            }
        }
        line.end(KNOWN)
    }

    /// A host reports something of any worker, whosever it is.
    fn host_reports(&mut self, name: &str, line: &mut Cursor) -> Result<(), String> {
        let what = line.word("exited, failed, started, output")?;
        let of = line.word("a worker")?;
        let id = worker_id(&of).ok_or_else(|| format!("'{of}' is not such as echo#1"))?;
        let known = self.workers.get(&id).map_or(0, |end| end.run);
        let (worker, run) = (WorkerId(id), RunId(line.number("run")?.unwrap_or(known)));
        let (pid, tail) = (77, Vec::new());
        let times: u32 = line.number("times")?.unwrap_or(1);
        let length: Option<usize> = line.number("length")?;
        let long = length.map(|length| "n".repeat(length));
        let report = match what.as_str() {
            "exited" => {
                let (exit_cause, cpu_ms, rss_kib_max) = (ExitCause::Exit(0), u64::MAX, u64::MAX);
                Report::Exited(ExecExited {
                    worker,
                    run,
                    pid,
                    exit_cause,
                    cpu_ms,
                    rss_kib_max,
                    core: false,
                    oom: false,
                    tail,
                })
            }
            "failed" => {
                let (permanent, again_ms) = (line.flag("permanent"), line.number("again")?);
                let (again_ms, text) =
                    (again_ms.unwrap_or(0), long.unwrap_or_else(|| "no".to_owned()));
                Report::Failed(ExecFailed { worker, run, permanent, again_ms, text })
            }
            "started" => Report::Started(ExecStarted { worker, run, pid }),
            "output" => {
                let (stream, line, dropped) =
                    (Stream::Stdout, long.unwrap_or_else(|| "a lie".to_owned()), u64::MAX);
                Report::Output(ExecOutput { worker, run, stream, line, dropped, number: 0 })
            }
            other => return Err(format!("'{other}' is no report")),
        };
        for _ in 0..times {
            self.step(Input::Report { link: self.link(name)?, report: Box::new(report.clone()) })?;
        }
        Ok(())
    }

    fn children(&mut self, line: &mut Cursor) -> Result<Vec<Child>, String> {
        let run: Option<u64> = line.number("run")?;
        let pid: Option<u32> = line.number("pid")?;
        let digest: Option<u32> = line.number("digest")?;
        let mut children = Vec::new();
        for name in line.rest() {
            let id = worker_id(&name).ok_or_else(|| format!("'{name}' is not such as echo#1"))?;
            let end = self.workers.entry(id).or_default();
            end.run = run.unwrap_or(end.run);
            let pid = pid.unwrap_or(if end.pid == 0 { 1000 + id } else { end.pid });
            let (worker, run, digest) =
                (WorkerId(id), RunId(end.run), digest.unwrap_or(end.digest));
            children.push(Child { worker, run, pid, digest });
        }
        Ok(children)
    }

    /// A host is made if it is not known, and its execd reached.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn host_up(&mut self, name: &str, children: Vec<Child>) -> Result<(), String> {
        if !self.shell.asked.iter().any(|ask| ask.is_dial(name)) && name != "localhost" {
            let command = format!("config host {name} 192.0.2.7:5502");
            self.command(OPERATOR, command.into_bytes())?;
        }
        self.host_connects(name, None)?;
        self.host_claimed(name, None)?;
        self.host_welcomes(name, welcome(), Signature::Missing)?;
        self.host_lists(name, children)
    }

    fn host_connects(&mut self, name: &str, must: Option<Box<Expected>>) -> Result<(), String> {
        let Some(Ask::Dial(host, _)) = self.take_dial(name) else {
            return Err(format!("{name} was not dialled; let time pass, or 'op config host …'"));
        };
        let link = self.open(name)?;
        self.step(Input::HostOpened { link, host, fd: 7 + link.index as i32, must })
    }

    /// The token for the hello was looked up. The built-in execd needs none.
    fn host_claimed(&mut self, name: &str, claim: Option<Claim>) -> Result<(), String> {
        let is_its = |ask: &Ask| matches!(ask, Ask::Claim(_, of) if of.as_str() == name);
        match self.shell.take_asked(is_its) {
            Some(Ask::Claim(link, _)) => self.step(Input::Claimed { link, claim }),
            _ => Ok(()),
        }
    }

    fn host_welcomes(
        &mut self,
        name: &str,
        welcome: ExecWelcome,
        signature: Signature,
    ) -> Result<(), String> {
        let report = Box::new(Report::Welcome(welcome, signature));
        self.step(Input::Report { link: self.link(name)?, report })
    }

    fn host_lists(&mut self, name: &str, children: Vec<Child>) -> Result<(), String> {
        let report = Box::new(Report::Listed(ExecListed { children }));
        self.step(Input::Report { link: self.link(name)?, report })
    }
}

fn welcome() -> ExecWelcome {
    ExecWelcome {
        hostpid: 90,
        version: "0.1.0".into(),
        children_max: 1000,
        keeps_output: true,
        ..ExecWelcome::default()
    }
}
