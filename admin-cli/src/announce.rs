//! `announce`: runs any program as an instance that the broker watches. This thread is with the
//! program: its signals, its lines, its end. Another one is with the broker, so that a broker that
//! is away delays nothing here.

use crate::cli::Cli;
use crate::instance::{Report, Reporter};
use crate::lines::Lines;
use crate::output::{At, Output};
use crate::status::Failure;
use crate::verbs::{AnnounceArgs, options};
use client::bus::{InstanceOptions, InstanceState};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io::{self, ErrorKind, PipeReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use sys::processes::send_signal;
use sys::signals::{ReceivedSignal, SignalReader, name, unblock_in};

/// The variable that names the descriptor for the program's lines.
pub const DESCRIPTOR_VARIABLE: &str = "ISECT_INSTANCE_FD";

/// Longest wait until the broker has heard of the program's end.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// The exit status if the program is not there.
const NOT_FOUND: u8 = 127;
/// The exit status if it is there and can't be started.
const NOT_STARTED: u8 = 126;

/// Runs the program to its end; returns its exit status.
pub fn run(cli: &Cli, args: &AnnounceArgs, out: &mut Output) -> ExitCode {
    let prepared = cli.addresses().and_then(|addresses| Ok((addresses, options(cli)?)));
    let (addresses, options) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            out.failure(At::Only(""), &failure);
            return failure.status().into();
        }
    };
    let begun = Program::start(args);
    let mut program = match begun {
        Ok(program) => program,
        Err(error) => {
            let path = args.program.first().map(|path| path.display().to_string());
            let text = format!("can't start '{}': {error}", path.unwrap_or_default());
            out.failure(At::Only(""), &Failure::Usage(text));
            let is_missing = error.kind() == ErrorKind::NotFound;
            return ExitCode::from(if is_missing { NOT_FOUND } else { NOT_STARTED });
        }
    };
    let instance = instance(args, program.child.id());
    let reporter = Reporter::new(addresses, options, instance, args.activity);
    let (tell, said) = channel();
    let (done, is_done) = channel();
    let report = move || {
        reporter.run(&said);
        // Nobody waits for it if this program has ended.
        let _ = done.send(());
    };
    if let Err(error) = sys::threads::spawn("broker", report) {
        out.note(&format!("isdclient: the program is not watched: no thread: {error}"));
    }
    let status = program.watch(&tell);
    let _ = tell.send(Report::Ended { failed: status.code() != Some(0), text: words(status) });
    let _ = is_done.recv_timeout(LAST_REPORT);
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(number & 0xff).unwrap_or(u8::MAX))
}

/// What is announced.
fn instance(args: &AnnounceArgs, pid: u32) -> InstanceOptions {
    let options = InstanceOptions::new(args.name.as_str())
        .id(args.id.unwrap_or_else(|| pid.into()))
        .kind(args.kind)
        .state(InstanceState::Running);
    let options = args.groups.iter().fold(options, |options, group| options.group(group));
    let options = args.addresses.iter().fold(options, |options, at| options.address(at));
    let options =
        args.meta.iter().fold(options, |options, (word, value)| options.meta(word, value));
    let millis = |millis: Option<u64>| Duration::from_millis(millis.unwrap_or(0));
    options.timeout(millis(args.activity_timeout)).stalled(millis(args.stalled))
}

/// How the program ended.
fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by {}", name(signal)),
        (None, None) => "ended nobody knows how".to_owned(),
    }
}

/// The program, and what this thread hears of it.
struct Program {
    child: Child,
    signals: SignalReader,
    pipe: Option<PipeReader>,
    lines: Lines,
}

impl Program {
    #[expect(clippy::disallowed_methods, reason = "to start the program is what this verb is for")]
    fn start(args: &AnnounceArgs) -> io::Result<Self> {
        let (pipe, for_program) = io::pipe()?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // The program inherits this end alone.
        fcntl(&for_program, FcntlArg::F_SETFD(FdFlag::empty()))?;
        // Signals that come from now on are read, also those of before the program runs.
        let signals = SignalReader::open_with_children()?;
        sys::processes::default_sigchld();
        let (first, rest) = args.program.split_first().ok_or(ErrorKind::NotFound)?;
        let mut command = Command::new(first);
        command.args(rest).env(DESCRIPTOR_VARIABLE, for_program.as_raw_fd().to_string());
        unblock_in(&mut command);
        let child = command.spawn()?;
        Ok(Self { child, signals, pipe: Some(pipe), lines: Lines::default() })
    }

    /// Passes signals and lines on until the program ends.
    fn watch(&mut self, tell: &Sender<Report>) -> ExitStatus {
        loop {
            while let Some(received) = self.signals.take() {
                self.pass_on(received);
            }
            let status = self.child.try_wait();
            self.read(tell);
            match status {
                Ok(Some(status)) => return status,
                Ok(None) => {}
                // Somebody else has reaped it; nothing is known of its end.
                Err(_) => return ExitStatus::from_raw(0xff00),
            }
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => self.pipe = None,
            }
        }
    }

    fn pass_on(&self, received: ReceivedSignal) {
        let is_of_terminal = received.pid == 0
            && [Signal::SIGINT, Signal::SIGQUIT].iter().any(|s| *s as i32 == received.number);
        // A terminal gives these to the program itself, too.
        if received.number != Signal::SIGCHLD as i32
            && !is_of_terminal
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // A program that has just ended takes none; it is reaped only by this thread.
            let _ = send_signal(pid, received.number);
        }
    }

    /// Reads the lines that are there.
    fn read(&mut self, tell: &Sender<Report>) {
        let mut chunk = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(size) => {
                    for line in self.lines.add(&chunk[..size]) {
                        let _ = tell.send(Report::Line(line));
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}
