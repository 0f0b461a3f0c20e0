//! What the tests with real processes share: an isdexecd of their own, a broker that speaks frames to
//! it, programs written for the test. Every wait has a deadline; nothing sleeps; all ends with the test.
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(clippy::disallowed_methods, reason = "tests start programs, threads and read the time")]

use bytes::BytesMut;
use protocol::bodies::{ErrorBody, ExecExited, ExecHello, ExecStart, ExecStop};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::{decode, encode};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A program that is written while another thread forks would be "busy" for that fork's lifetime.
static FORKS: Mutex<()> = Mutex::new(());

fn no_fork() -> MutexGuard<'static, ()> {
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running isdexecd with a directory of its own.
pub(crate) struct Execd {
    process: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    pub(crate) address: String,
    pub(crate) directory: TempDir,
}

/// Runs isdexecd to its end, for command lines that make no sense: status and stderr.
pub(crate) fn run_to_end(args: &[&str]) -> (i32, String) {
    let mut process = {
        let _quiet = no_fork();
        let mut command = Command::new(env!("CARGO_BIN_EXE_isdexecd"));
        command.args(args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let end = Instant::now() + PATIENCE;
    while process.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let _ = process.kill();
    let output = process.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

impl Execd {
    /// Listening on a TCP port that the kernel chose.
    pub(crate) fn tcp(args: &[&str]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), "127.0.0.1:0", args)
    }

    /// Listening on a Unix socket in its directory.
    pub(crate) fn unix(args: &[&str]) -> Self {
        Self::unix_in(tempfile::tempdir().unwrap(), args)
    }

    pub(crate) fn unix_in(directory: TempDir, args: &[&str]) -> Self {
        let listen = format!("unix:{}", directory.path().join("execd.sock").display());
        Self::start(directory, &listen, args)
    }

    fn start(directory: TempDir, listen: &str, args: &[&str]) -> Self {
        let ports = directory.path().join("ports.json");
        let _ = fs::remove_file(&ports);
        let mut command = Command::new(env!("CARGO_BIN_EXE_isdexecd"));
        command.args(["--listen", listen, "--log", "debug", "--ports-file"]).arg(&ports);
        command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
        command.env("TEST_LEAK", "leaked").env("TEST_PASS", "passed");
        let mut process = {
            let _quiet = no_fork();
            command.spawn().unwrap()
        };
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut execd = Self { process, log, seen: Vec::new(), address: String::new(), directory };
        execd.wait_log("listening");
        let json = fs::read_to_string(ports).unwrap();
        let address = json.trim_end().strip_prefix("{\"execd\":\"").unwrap();
        execd.address = address.strip_suffix("\"}").unwrap().to_owned();
        execd
    }

    /// Waits for a line of the log that contains `part`.
    pub(crate) fn wait_log(&mut self, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| {
                panic!("no '{part}' in the log:\n{}", self.seen.join("\n"));
            });
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// All of the log, once the process has ended.
    pub(crate) fn whole_log(&mut self) -> String {
        self.seen.extend(self.log.iter());
        self.seen.join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the end of isdexecd.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("isdexecd ends", || self.process.try_wait().unwrap())
    }

    /// A raw connection.
    pub(crate) fn dial(&self) -> Wire {
        Wire::dial(&self.address)
    }

    /// A connected broker that has said hello.
    pub(crate) fn broker(&self, name: &str) -> Wire {
        let mut wire = self.dial();
        wire.hello(name);
        let frame = wire.next();
        assert!(matches!(frame, Frame::ExecWelcome(_)), "{frame:?}");
        wire
    }

    /// Writes a shell script that can be started.
    pub(crate) fn script(&self, name: &str, body: &str) -> String {
        script(self.directory.path(), name, body)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

impl Drop for Execd {
    fn drop(&mut self) {
        // In order, so that no child of it is left; then for certain.
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = self.process.id();
            kill(pid, nix::sys::signal::Signal::SIGTERM);
            kill(pid, nix::sys::signal::Signal::SIGTERM);
            let end = Instant::now() + PATIENCE;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn script(directory: &Path, name: &str, body: &str) -> String {
    let path = directory.join(name);
    {
        let _quiet = no_fork();
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path.display().to_string()
}

pub(crate) fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Waits for something that can only be asked for, not waited for.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether a process is there and more than a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

pub(crate) fn wait_gone(pid: u32) {
    until("the process is gone", || (!is_running(pid)).then_some(()));
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The broker's end of a connection.
pub(crate) struct Wire {
    socket: Socket,
    inbox: BytesMut,
}

impl Wire {
    pub(crate) fn dial(address: &str) -> Self {
        let socket = if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(PathBuf::from(path)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Socket::Unix(stream)
        } else {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Socket::Tcp(stream)
        };
        Self { socket, inbox: BytesMut::new() }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        };
        // Whoever sends nonsense may be cut off in the middle of it.
        if let Err(error) = sent {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        }
    }

    pub(crate) fn send(&mut self, frame: Frame) {
        self.send_bytes(&encode::to_bytes(frame));
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        loop {
            let frame = decode::next(&mut self.inbox, 1 << 20).unwrap();
            if frame.is_some() {
                return frame;
            }
            let mut bytes = [0; 16 << 10];
            let count = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(&mut bytes),
                Socket::Unix(stream) => stream.read(&mut bytes),
            };
            match count {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing came in {PATIENCE:?}: {error}"),
            }
        }
    }

    /// The next frame that is no ping.
    pub(crate) fn next(&mut self) -> Frame {
        loop {
            match self.read() {
                Some(Frame::Ping { sequence }) => self.send(Frame::Pong { sequence }),
                Some(frame) => return frame,
                None => panic!("the connection was closed"),
            }
        }
    }

    /// An error of this code, then the end of the connection.
    pub(crate) fn expect_refusal(&mut self, code: ErrorCode) -> ErrorBody {
        let error = self.expect_error(code);
        assert_eq!(self.read(), None, "the connection stays open after: {error}");
        error
    }

    pub(crate) fn expect_error(&mut self, code: ErrorCode) -> ErrorBody {
        let frame = self.next();
        let Frame::Error { error, .. } = frame else { panic!("no error: {frame:?}") };
        assert_eq!(error.code, code, "{error}");
        error
    }

    pub(crate) fn hello(&mut self, name: &str) {
        let host = HostName::new("h1").unwrap();
        self.send(Frame::ExecHello(ExecHello { host, broker: name.into() }));
    }

    pub(crate) fn start(&mut self, worker: u32, path: &str, args: &[&str]) {
        self.send(start_frame(worker, path, args));
    }

    /// Starts a program and gives its process id.
    pub(crate) fn started(&mut self, worker: u32, path: &str, args: &[&str]) -> u32 {
        self.start(worker, path, args);
        match self.next() {
            Frame::ExecStarted(started) => {
                assert_eq!((started.worker, started.run), (WorkerId(worker), RunId(1)));
                started.pid
            }
            other => panic!("{other:?}"),
        }
    }

    /// Starts a program that can't be started; gives whether it lasts, and the text.
    pub(crate) fn failed(&mut self, worker: u32, path: &str, args: &[&str]) -> (bool, String) {
        self.start(worker, path, args);
        match self.next() {
            Frame::ExecFailed(failed) => {
                assert_eq!((failed.worker, failed.run), (WorkerId(worker), RunId(1)));
                (failed.lasting, failed.text)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn stop(&mut self, worker: u32, grace_ms: u64) {
        let stop = ExecStop { worker: WorkerId(worker), run: RunId(1), grace_ms };
        self.send(Frame::ExecStop(stop));
    }

    /// The next report of an end; lines of output in between are given too.
    pub(crate) fn exited(&mut self) -> (ExecExited, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            match self.next() {
                Frame::ExecExited(exited) => return (exited, lines),
                Frame::ExecOutput(output) => {
                    lines.push(format!("{} {} {}", output.stream, output.dropped, output.line));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next line of output.
    pub(crate) fn line(&mut self) -> String {
        match self.next() {
            Frame::ExecOutput(output) => output.line,
            other => panic!("{other:?}"),
        }
    }

    /// Which workers run, with their process ids.
    pub(crate) fn list(&mut self) -> Vec<(u32, u32)> {
        self.send(Frame::ExecList);
        match self.next() {
            Frame::ExecListed(listed) => {
                listed.children.iter().map(|child| (child.worker.0, child.pid)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn start_frame(worker: u32, path: &str, args: &[&str]) -> Frame {
    Frame::ExecStart(ExecStart {
        worker: WorkerId(worker),
        run: RunId(1),
        service: ServiceName::new("echo").unwrap(),
        path: path.into(),
        args: args.iter().map(|arg| (*arg).into()).collect(),
        secret: "very-secret".into(),
    })
}

impl Wire {
    /// Like [`started`](Self::started), while other children write.
    pub(crate) fn started_among_output(&mut self, worker: u32, path: &str, args: &[&str]) -> u32 {
        self.start(worker, path, args);
        loop {
            match self.next() {
                Frame::ExecStarted(started) => return started.pid,
                Frame::ExecOutput(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks for the list; gives it, one report of an end, and the number in the first line of output
    /// that is one.
    pub(crate) fn collect_after_restart(&mut self) -> (Vec<(u32, u32)>, ExecExited, u32) {
        self.send(Frame::ExecList);
        let (mut listed, mut exited, mut number) = (None, None, None);
        while listed.is_none() || exited.is_none() || number.is_none() {
            match self.next() {
                Frame::ExecListed(body) => {
                    let each = body.children.iter().map(|child| (child.worker.0, child.pid));
                    listed = Some(each.collect());
                }
                Frame::ExecExited(body) => exited = Some(body),
                Frame::ExecOutput(output) => number = number.or_else(|| output.line.parse().ok()),
                other => panic!("{other:?}"),
            }
        }
        (listed.unwrap(), exited.unwrap(), number.unwrap())
    }
}
