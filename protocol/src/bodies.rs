//! The bodies of control frames by value: what each key means, which must be there. Reading and
//! rendering are each other's inverse. Not the frame around them: `frame` puts header and body
//! together.

pub use crate::execd::{ExecEnd, ExecWelcome};

use crate::errors::{ErrorCode, Ran, Whose};
use crate::ids::{ClientId, RunId, WorkerId};
use crate::limits::{INTERVENTION, PRIORITY_DEFAULT, VERSION};
use crate::lines::{BodyError, Lines};
use crate::names::{HostName, ServiceName};
use crate::proof::{Claim, signature};
use crate::show;
use bytes::Bytes;
use std::fmt;

/// Most bytes of a wrong value that an error shows.
const SHOWN_MAX: usize = 60;

fn service(lines: &Lines) -> Result<ServiceName, BodyError> {
    ServiceName::new(lines.need("service")?).map_err(|e| BodyError(e.to_string()))
}

fn host(lines: &Lines) -> Result<HostName, BodyError> {
    HostName::new(lines.need("host")?).map_err(|e| BodyError(e.to_string()))
}

/// How `op` answers a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for people, as in the manual.
    #[default]
    Text,
    /// The same, fit for a terminal of so many columns.
    Screen(u16),
    /// One JSON object.
    Json,
}

/// `login`: the first frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The service it wants.
    pub service: ServiceName,
    /// Its priority, lower is served first.
    pub priority: u8,
    /// The machine it runs on, as it says.
    pub loghost: String,
    /// Its process id there.
    pub hostpid: u32,
    /// What it calls itself.
    pub name: Option<String>,
    /// The token it will prove.
    pub token: Option<Claim>,
    /// For `op`: how to answer.
    pub format: Format,
    /// Whether it promises to answer pings at once, so that silence means it is gone.
    pub heartbeat: bool,
}

impl Login {
    /// A login with nothing but a service.
    pub fn to(service: ServiceName) -> Self {
        Self {
            service,
            priority: PRIORITY_DEFAULT,
            loghost: String::new(),
            hostpid: 0,
            name: None,
            token: None,
            format: Format::Text,
            heartbeat: false,
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let priority = lines.number_or("priority", PRIORITY_DEFAULT)?;
        if priority == 0 {
            return Err(BodyError("'priority 0' is out of range; 1 to 255, lower is first".into()));
        }
        let format = match lines.get("format") {
            None | Some("text") => match lines.number_or("columns", 0)? {
                0 => Format::Text,
                columns => Format::Screen(columns),
            },
            Some("json") => Format::Json,
            Some(other) => {
                return Err(BodyError(format!(
                    "'format {}' is neither 'text' nor 'json'",
                    show::brief(other, SHOWN_MAX)
                )));
            }
        };
        let heartbeat = match lines.get("heartbeat") {
            None | Some("no") => false,
            Some("yes") => true,
            Some(other) => {
                return Err(BodyError(format!(
                    "'heartbeat {}' is neither 'yes' nor 'no'",
                    show::brief(other, SHOWN_MAX)
                )));
            }
        };
        Ok(Self {
            service: service(&lines)?,
            priority,
            loghost: clean(lines.get("loghost").unwrap_or_default()),
            hostpid: lines.number_or("hostpid", 0)?,
            name: lines.get("name").map(clean),
            token: Claim::of(&lines)?,
            format,
            heartbeat,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let mut lines = Lines::default()
            .with("service", &self.service)
            .with("priority", self.priority)
            .with("loghost", &self.loghost)
            .with("hostpid", self.hostpid)
            .with_each("name", &self.name);
        match self.format {
            Format::Text => {}
            Format::Screen(columns) => lines = lines.with("columns", columns),
            Format::Json => lines = lines.with("format", "json"),
        }
        if self.heartbeat {
            lines = lines.with("heartbeat", "yes");
        }
        Claim::add(self.token.as_ref(), lines).render()
    }
}

/// Text from outside that will be shown to operators: nothing hidden in it, bounded.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !show::is_hidden(*c)).take(64).collect()
}

/// `login-ok`: the broker's answer to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOk {
    /// The client's id.
    pub client: ClientId,
    /// Most bytes in a body.
    pub body_bytes_max: u64,
    /// Most requests under way on this connection.
    pub requests_max: u64,
    /// The service's default deadline.
    pub deadline_ms: u64,
    /// How often a silent link is pinged.
    pub heartbeat_ms: u64,
    /// Silence of this length is the end, on both sides; 0 = the broker does not say.
    pub silence_ms: u64,
    /// The broker's version.
    pub version: String,
    /// The broker's proof that it knows the token, if one was proved.
    pub signature: Option<String>,
}

impl LoginOk {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            client: ClientId(lines.need_number("client")?),
            body_bytes_max: lines.need_number("body_bytes_max")?,
            requests_max: lines.number_or("requests_max", 1)?,
            deadline_ms: lines.number_or("deadline_ms", 0)?,
            heartbeat_ms: lines.number_or("heartbeat_ms", 0)?,
            silence_ms: lines.number_or("silence_ms", 0)?,
            version: lines.get("version").unwrap_or_default().to_owned(),
            signature: signature(&lines)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("client", self.client)
            .with("body_bytes_max", self.body_bytes_max)
            .with("requests_max", self.requests_max)
            .with("deadline_ms", self.deadline_ms)
            .with("heartbeat_ms", self.heartbeat_ms)
            .with("silence_ms", self.silence_ms)
            .with("version", &self.version)
            .with_each("signature", &self.signature)
            .render()
    }
}

/// `worker-login`: the first frame of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLogin {
    /// Its id; 0 = it started itself and wants one.
    pub worker: WorkerId,
    /// Its service.
    pub service: ServiceName,
    /// The host it runs on, as configured; for one that started itself what it says.
    pub host: HostName,
    /// Its process id there.
    pub hostpid: u32,
    /// The secret it was started with (environment `ISECT_WORKER_SECRET`); empty if it started
    /// itself.
    pub secret: String,
    /// The token it will prove, if it started itself.
    pub token: Option<Claim>,
}

impl WorkerLogin {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.number_or("worker", 0)?),
            service: service(&lines)?,
            host: host(&lines)?,
            hostpid: lines.number_or("hostpid", 0)?,
            secret: lines.get("secret").unwrap_or_default().to_owned(),
            token: Claim::of(&lines)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let lines = Lines::default()
            .with("worker", self.worker)
            .with("service", &self.service)
            .with("host", &self.host)
            .with("hostpid", self.hostpid)
            .with("secret", &self.secret);
        Claim::add(self.token.as_ref(), lines).render()
    }
}

/// `worker-login-ok`: the broker's answer to a worker login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLoginOk {
    /// The worker's id.
    pub worker: WorkerId,
    /// Most bytes in a body.
    pub body_bytes_max: u64,
    /// How often an idle worker is pinged.
    pub heartbeat_ms: u64,
    /// As in [`LoginOk`].
    pub silence_ms: u64,
    /// How long to try again after the connection broke without an `end`.
    pub reconnect_ms: u64,
    /// The broker's proof that it knows the token, if one was proved.
    pub signature: Option<String>,
}

impl WorkerLoginOk {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            body_bytes_max: lines.need_number("body_bytes_max")?,
            heartbeat_ms: lines.number_or("heartbeat_ms", 0)?,
            silence_ms: lines.number_or("silence_ms", 0)?,
            reconnect_ms: lines.number_or("reconnect_ms", 0)?,
            signature: signature(&lines)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("body_bytes_max", self.body_bytes_max)
            .with("heartbeat_ms", self.heartbeat_ms)
            .with("silence_ms", self.silence_ms)
            .with("reconnect_ms", self.reconnect_ms)
            .with_each("signature", &self.signature)
            .render()
    }
}

/// `error`: what failed. `whose` and `advice` come from the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// Which error.
    pub code: ErrorCode,
    /// Whether the work ran; at least as exact as the table's.
    pub ran: Ran,
    /// What, which one, the limit and the value; for `op` it may have many lines.
    pub text: String,
}

impl ErrorBody {
    /// An error with the table's `ran`.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, ran: code.row().ran, text: text.into() }
    }

    /// Reads the body of an error frame whose header says `error`.
    ///
    /// # Errors
    /// The number is not in the table, or the body can't be read.
    pub fn parse(error: i16, body: &[u8]) -> Result<Self, BodyError> {
        let code = ErrorCode::of(error)
            .ok_or_else(|| BodyError(format!("error {error} is not in the table")))?;
        // This one has no lines; whatever stands there instead, it is written as the chapter has
        // it.
        if body == INTERVENTION || code == ErrorCode::Intervention {
            return Ok(Self::new(code, code.row().text));
        }
        let lines = Lines::parse(body)?;
        let ran = match lines.get("ran") {
            None => code.row().ran,
            Some(word) => Ran::of(word).ok_or_else(|| {
                BodyError(format!("'ran {}' is not no, maybe or yes", show::brief(word, SHOWN_MAX)))
            })?,
        };
        Ok(Self { code, ran, text: lines.text().to_owned() })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        self.render_to(Whose::Client)
    }

    /// The body for a receiver of this side: an error that the table calls the client's is
    /// the fault of whoever is told of it, a worker's where a worker logged in.
    pub fn render_to(&self, receiver: Whose) -> Bytes {
        if self.code == ErrorCode::Intervention {
            return Bytes::from_static(INTERVENTION);
        }
        let row = self.code.row();
        let whose = if row.whose == Whose::Client { receiver } else { row.whose };
        let lines = Lines::default()
            .with("code", row.number)
            .with("name", row.name)
            .with("whose", whose)
            .with("ran", self.ran);
        let lines = if row.advice.is_empty() { lines } else { lines.with("advice", row.advice) };
        lines.with_text(self.text.as_str()).render()
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.code.row();
        write!(
            f,
            "{} (error {}, whose: {}, ran: {}): {}",
            row.name, row.number, row.whose, self.ran, self.text
        )
    }
}

/// `exec-hello`: the first frame of the broker to an execd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecHello {
    /// What the broker calls this host.
    pub host: HostName,
    /// Names the broker (its state directory's instance), so that two brokers don't share children.
    pub broker: String,
    /// The token it will prove.
    pub token: Option<Claim>,
}

impl ExecHello {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let (host, broker) = (host(&lines)?, clean(lines.need("broker")?));
        Ok(Self { host, broker, token: Claim::of(&lines)? })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let lines = Lines::default().with("host", &self.host).with("broker", &self.broker);
        Claim::add(self.token.as_ref(), lines).render()
    }
}

/// `exec-start`: start a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecStart {
    /// For which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Its service, for listings.
    pub service: ServiceName,
    /// The program, an absolute path.
    pub path: String,
    /// `argv[1..]` complete: broker host, port, worker id, service, then the application's.
    pub args: Vec<String>,
    /// The secret for the environment variable `ISECT_WORKER_SECRET`.
    pub secret: String,
    /// Tells one configuration of the worker from another; comes back in `exec-listed`. 0 = none.
    pub digest: u32,
}

impl ExecStart {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            service: service(&lines)?,
            path: lines.need("path")?.to_owned(),
            args: lines.all("arg").map(str::to_owned).collect(),
            secret: lines.get("secret").unwrap_or_default().to_owned(),
            digest: lines.number_or("digest", 0)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let mut lines = Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("service", &self.service)
            .with("path", &self.path)
            .with_each("arg", &self.args)
            .with("secret", &self.secret);
        if self.digest > 0 {
            lines = lines.with("digest", self.digest);
        }
        lines.render()
    }
}

/// `exec-stop`: end a process: TERM to its group, KILL to its group after the grace time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecStop {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Milliseconds between TERM and KILL; 0 = KILL at once.
    pub grace_ms: u64,
}

impl ExecStop {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            grace_ms: lines.number_or("grace_ms", 0)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("grace_ms", self.grace_ms)
            .render()
    }
}

/// `exec-signal`: send a signal to a process (not to its group).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecSignal {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// The signal's number on that host.
    pub signal: i32,
}

impl ExecSignal {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            signal: lines.need_number("signal")?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("signal", self.signal)
            .render()
    }
}

/// One process in an `exec-listed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Its process id.
    pub pid: u32,
    /// The `digest` of its `exec-start`; 0 = not known.
    pub digest: u32,
}

/// `exec-listed`: which processes execd has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecListed {
    /// One a process.
    pub children: Vec<Child>,
}

impl ExecListed {
    /// Reads the body.
    ///
    /// # Errors
    /// A line `child WORKER RUN PID [DIGEST]` has other than three or four numbers.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let mut children = Vec::new();
        for line in lines.all("child") {
            let bad = || {
                let shown = show::brief(line, SHOWN_MAX);
                BodyError(format!("'child {shown}' is not three or four numbers"))
            };
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or_else(bad);
            let worker = WorkerId(word()?.parse().map_err(|_| bad())?);
            let run = RunId(word()?.parse().map_err(|_| bad())?);
            let pid = word()?.parse().map_err(|_| bad())?;
            let digest = word().map_or(Ok(0), |word| word.parse().map_err(|_| bad()))?;
            if words.next().is_some() {
                return Err(bad());
            }
            children.push(Child { worker, run, pid, digest });
        }
        Ok(Self { children })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let lines = self.children.iter().map(|c| match c.digest {
            0 => format!("{} {} {}", c.worker, c.run, c.pid),
            digest => format!("{} {} {} {digest}", c.worker, c.run, c.pid),
        });
        Lines::default().with_each("child", lines).render()
    }
}

/// `exec-started`: the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecStarted {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Its process id.
    pub pid: u32,
}

impl ExecStarted {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            pid: lines.need_number("pid")?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("pid", self.pid)
            .render()
    }
}

/// `exec-failed`: the program could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecFailed {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Whether trying again without a change is pointless (missing program, not allowed, …).
    pub lasting: bool,
    /// Nothing is wrong with the program: the host is at a limit of its own, and this many
    /// milliseconds from now is a good time to ask again. 0 = not so.
    pub again_ms: u64,
    /// What, which path, and the cure.
    pub text: String,
}

impl ExecFailed {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            lasting: lines.get("lasting") == Some("yes"),
            again_ms: lines.number_or("again_ms", 0)?,
            text: lines.text().to_owned(),
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        let mut lines = Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("lasting", if self.lasting { "yes" } else { "no" });
        if self.again_ms > 0 {
            lines = lines.with("again_ms", self.again_ms);
        }
        lines.with_text(self.text.as_str()).render()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It called exit with this status.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// Nobody saw how: it was found gone.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Ending {
    fn parse(text: &str) -> Result<Self, BodyError> {
        let bad = || {
            BodyError(format!(
                "'ending {}' is not 'exit N', 'signal N' or 'unknown'",
                show::brief(text, SHOWN_MAX)
            ))
        };
        match text.split_once(' ') {
            None if text == "unknown" => Ok(Self::Unknown),
            Some(("exit", n)) => n.parse().map(Self::Exit).map_err(|_| bad()),
            Some(("signal", n)) => n.parse().map(Self::Signal).map_err(|_| bad()),
            None | Some(_) => Err(bad()),
        }
    }
}

/// `exec-exited`: the process ended, with what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecExited {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub ending: Ending,
    /// Milliseconds of processor time it used (user and system), and its children.
    pub cpu_ms: u64,
    /// Largest resident size in KiB.
    pub rss_kib_max: u64,
    /// The last lines of its stderr, oldest first.
    pub tail: Vec<String>,
}

impl ExecExited {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            pid: lines.need_number("pid")?,
            ending: Ending::parse(lines.need("ending")?)?,
            cpu_ms: lines.number_or("cpu_ms", 0)?,
            rss_kib_max: lines.number_or("rss_kib_max", 0)?,
            tail: lines.all("tail").map(str::to_owned).collect(),
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("pid", self.pid)
            .with("ending", self.ending)
            .with("cpu_ms", self.cpu_ms)
            .with("rss_kib_max", self.rss_kib_max)
            .with_each("tail", &self.tail)
            .render()
    }
}

/// Which stream of a process a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// `exec-output`: one line that a process wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Of which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
    /// On which stream.
    pub stream: Stream,
    /// The line without its end; bytes that are not UTF-8 are shown as U+FFFD; long lines are cut.
    pub line: String,
    /// How many lines of this stream were dropped since the last one sent (rate limit).
    pub dropped: u64,
}

impl ExecOutput {
    /// Reads the body.
    ///
    /// # Errors
    /// A key is missing or its value is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let lines = Lines::parse(body)?;
        let stream = match lines.need("stream")? {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            other => {
                return Err(BodyError(format!(
                    "'stream {}' is neither stdout nor stderr",
                    show::brief(other, SHOWN_MAX)
                )));
            }
        };
        Ok(Self {
            worker: WorkerId(lines.need_number("worker")?),
            run: RunId(lines.need_number("run")?),
            stream,
            line: lines.need("line")?.to_owned(),
            dropped: lines.number_or("dropped", 0)?,
        })
    }

    /// The body as bytes.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("stream", self.stream)
            .with("line", &self.line)
            .with("dropped", self.dropped)
            .render()
    }
}

// The bodies above belong to this version; a change of meaning needs a new one.
const _: () = assert!(VERSION == 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_none_of_its_keys_is_refused_and_the_first_line_of_a_key_counts() {
        let login = |more: &str| Login::parse(format!("service op\n{more}\n").as_bytes());
        for wrong in ["heartbeat maybe", "heartbeat", "format xml", "columns x", "priority 0"] {
            assert!(login(wrong).is_err(), "{wrong}");
        }
        for (lines, heartbeat) in [("heartbeat yes", true), ("heartbeat no", false), ("x y", false)]
        {
            assert_eq!(login(lines).map(|login| login.heartbeat), Ok(heartbeat), "{lines}");
        }
        assert_eq!(login("priority 7\npriority 9").map(|login| login.priority), Ok(7));
    }
}
