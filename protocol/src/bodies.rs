//! The bodies of control frames by value: which keys each kind has, and which of them are required.
//! `parse` and `render` are each other's inverse. The layout of a body is in `lines`, the frame
//! around it in `frame`.

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

/// How `op` answers a client: the key `format` of its login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text for people, as in the manual.
    #[default]
    Text,
    /// Text for people, fitted to a terminal of this many columns.
    Screen(u16),
    /// One JSON object.
    Json,
}

/// `login`: the first frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The service that the client asks; `op` for an operator.
    pub service: ServiceName,
    /// Priority of requests that name none, 1 to 255; lower is served first.
    pub priority: u8,
    /// The client's machine as it names it, for the operator's lists; not checked.
    pub loghost: String,
    /// The client's process id on that machine, for the operator's lists; not checked.
    pub hostpid: u32,
    /// A name that the client gives itself, for the operator's lists.
    pub name: Option<String>,
    /// The token that the client will prove; `None` = it logs in without one.
    pub token: Option<Claim>,
    /// How `op` answers; other services don't use it.
    pub format: Format,
    /// Whether the client promises to answer pings at once, so that silence means it is gone.
    pub heartbeat: bool,
}

impl Login {
    /// A login for this service with every other value at its default.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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

/// Text of a peer that operators will see: without hidden characters, at most 64 characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !show::is_hidden(*c)).take(64).collect()
}

/// `login-ok`: the broker's answer to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOk {
    /// The id that the broker gave to this client.
    pub client: ClientId,
    /// Most bytes in the body of a data frame: the setting `body_bytes_max`.
    pub body_bytes_max: u64,
    /// Most requests that the client may have under way on this connection.
    pub requests_max: u64,
    /// Deadline of requests that name none, in milliseconds: the service's default.
    pub deadline_ms: u64,
    /// Milliseconds of silence after which the broker sends a ping.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which either side takes the other for gone; 0 = the broker
    /// does not say.
    pub silence_ms: u64,
    /// The broker's version, as `isectd --version` prints it.
    pub version: String,
    /// Proves that the broker knows the token (hexadecimal digits); `None` if the client proved
    /// none.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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
    /// The worker's id from its arguments; 0 = it started itself and asks for an id.
    pub worker: WorkerId,
    /// The service that it answers for.
    pub service: ServiceName,
    /// The host as the broker configured it. A self-started worker names its machine here.
    pub host: HostName,
    /// The worker's process id on that host.
    pub hostpid: u32,
    /// The secret it was started with (environment `ISECT_WORKER_SECRET`); empty if it started
    /// itself.
    pub secret: String,
    /// The token that a self-started worker will prove.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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
    /// The worker's id: the one of its login, or a new one for a self-started worker.
    pub worker: WorkerId,
    /// Most bytes in the body of a data frame: the setting `body_bytes_max`.
    pub body_bytes_max: u64,
    /// Milliseconds of silence after which the broker pings an idle worker.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which either side takes the other for gone; 0 = the broker
    /// does not say.
    pub silence_ms: u64,
    /// Milliseconds for which the worker tries to connect again after the connection broke without
    /// an `end`.
    pub reconnect_ms: u64,
    /// Proves that the broker knows the token (hexadecimal digits); `None` if the worker proved
    /// none.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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

/// `error`: what failed. The table supplies `whose` and `advice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// The error of the table. [`parse`](Self::parse) takes its number from the header; the body
    /// repeats it as `code`.
    pub code: ErrorCode,
    /// Whether the request's work ran; never less exact than the table's `ran`.
    pub ran: Ran,
    /// What failed, on which object, the limit and the value. Answers of `op` may have many lines.
    pub text: String,
}

impl ErrorBody {
    /// An error with the `ran` of the table.
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
        // This error has no key lines: it is always rendered with the exact text of the manual.
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

    /// Renders the body with the table's `whose`.
    pub fn render(&self) -> Bytes {
        self.render_to(Whose::Client)
    }

    /// Renders the body for this receiver. An error that the table calls the client's reads as
    /// `worker` or `host` if that is the role of the receiver.
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
    /// The name of this host in the broker's configuration.
    pub host: HostName,
    /// The instance of the broker, from its state directory, so that two brokers don't share children.
    pub broker: String,
    /// The token that the broker will prove; `None` = it has none for this host.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        let lines = Lines::default().with("host", &self.host).with("broker", &self.broker);
        Claim::add(self.token.as_ref(), lines).render()
    }
}

/// `exec-start`: start a program as a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecStart {
    /// The worker that the process will be.
    pub worker: WorkerId,
    /// Numbers this start; every later start of the worker has a higher number.
    pub run: RunId,
    /// The worker's service, for execd's log only.
    pub service: ServiceName,
    /// Absolute path of the program on the host, at most `PATH_BYTES_MAX` bytes.
    pub path: String,
    /// `argv[1..]`: broker host, port, worker id, service, then the application's arguments.
    pub args: Vec<String>,
    /// The value of `ISECT_WORKER_SECRET` in the process's environment.
    pub secret: String,
    /// A digest of the worker's configuration, returned in `exec-listed`; 0 = none.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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

/// `exec-stop`: end a process by TERM to its group, then KILL to the group after the grace time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecStop {
    /// The worker whose process is to end.
    pub worker: WorkerId,
    /// The start that is meant.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("grace_ms", self.grace_ms)
            .render()
    }
}

/// `exec-signal`: send a signal to one process, not to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecSignal {
    /// The worker whose process gets the signal.
    pub worker: WorkerId,
    /// The start that is meant.
    pub run: RunId,
    /// The signal's number on that host, from 1 to 64 on Linux.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("signal", self.signal)
            .render()
    }
}

/// One process in an `exec-listed`: a line `child WORKER RUN PID [DIGEST]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The worker that the process is.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The process id on the host.
    pub pid: u32,
    /// The `digest` of its `exec-start`; 0 = not known.
    pub digest: u32,
}

/// `exec-listed`: the processes that execd has for this broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecListed {
    /// One entry for each process, also one that is being ended.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        let lines = self.children.iter().map(|c| match c.digest {
            0 => format!("{} {} {}", c.worker, c.run, c.pid),
            digest => format!("{} {} {} {digest}", c.worker, c.run, c.pid),
        });
        Lines::default().with_each("child", lines).render()
    }
}

/// `exec-started`: the program of an `exec-start` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecStarted {
    /// The worker that the process is.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The process id on the host.
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("pid", self.pid)
            .render()
    }
}

/// `exec-failed`: the program of an `exec-start` could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecFailed {
    /// The worker of the `exec-start`.
    pub worker: WorkerId,
    /// The run of the `exec-start`.
    pub run: RunId,
    /// Whether the same start fails again until somebody changes something (missing program, not
    /// allowed, …).
    pub permanent: bool,
    /// Milliseconds after which the broker should ask again, because the host is at a limit of its
    /// own; 0 = the host is at no limit.
    pub again_ms: u64,
    /// What failed, for which path, and the cure.
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
            permanent: lines.get("permanent") == Some("yes"),
            again_ms: lines.number_or("again_ms", 0)?,
            text: lines.text().to_owned(),
        })
    }

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        let mut lines = Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("permanent", if self.permanent { "yes" } else { "no" });
        if self.again_ms > 0 {
            lines = lines.with("again_ms", self.again_ms);
        }
        lines.with_text(self.text.as_str()).render()
    }
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCause {
    /// It called `exit` with this status, 0 to 255.
    Exit(i32),
    /// The signal of this number ended it.
    Signal(i32),
    /// Nobody saw the end, for example because it ended while no execd ran.
    Unknown,
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl ExitCause {
    fn parse(text: &str) -> Result<Self, BodyError> {
        let bad = || {
            BodyError(format!(
                "'exit_cause {}' is not 'exit N', 'signal N' or 'unknown'",
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

/// `exec-exited`: a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecExited {
    /// The worker that the process was.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The process id that it had.
    pub pid: u32,
    /// Exit status or signal.
    pub exit_cause: ExitCause,
    /// Processor time in milliseconds, user and system, with that of the children it waited for.
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
            exit_cause: ExitCause::parse(lines.need("exit_cause")?)?,
            cpu_ms: lines.number_or("cpu_ms", 0)?,
            rss_kib_max: lines.number_or("rss_kib_max", 0)?,
            tail: lines.all("tail").map(str::to_owned).collect(),
        })
    }

    /// Renders the body; [`parse`](Self::parse) reads it back.
    pub fn render(&self) -> Bytes {
        Lines::default()
            .with("worker", self.worker)
            .with("run", self.run)
            .with("pid", self.pid)
            .with("exit_cause", self.exit_cause)
            .with("cpu_ms", self.cpu_ms)
            .with("rss_kib_max", self.rss_kib_max)
            .with_each("tail", &self.tail)
            .render()
    }
}

/// The stream of a process that a line came from.
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
    /// The worker that wrote the line.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
    /// The stream that the line came from.
    pub stream: Stream,
    /// The line without its end. Bytes that are not UTF-8 become U+FFFD; execd truncates long
    /// lines.
    pub line: String,
    /// Lines of this stream that execd dropped since the last one it sent (rate limit).
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

    /// Renders the body; [`parse`](Self::parse) reads it back.
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

// These bodies belong to this version; a change of meaning needs a new version.
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
