//! The processes of the children: process id, start, pipes, signals. The engine has their states.

use super::launch::{Launch, Progress};
use super::oom::OomCounts;
use super::orphans::Origin;
use super::reap::Dead;
use super::spawn::Spawned;
use super::state_dir::{self, Entry};
use crate::engine::action::Signal;
use crate::engine::child::ChildId;
use crate::engine::input::{Input, ProcessEnd};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use protocol::bodies::{ExecStart, ExitCause, Stream};
use protocol::time::Micros;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::proc;
use sys::processes::{self, Reaped};
use tracing::info;

/// Most bytes of one read from a pipe.
const READ_BYTES: usize = 64 << 10;

/// Most reads from a pipe of a process that has ended: enough for a pipe of the largest size.
const LAST_READS_MAX: usize = 16;

/// Most threads that are looked at for the memory of a child.
const THREADS_MAX: usize = 1024;

/// The process of one child.
#[derive(Debug)]
struct Process {
    entry: Entry,
    /// The launch, while the program does not run yet; until then nothing is read from its streams.
    launch: Option<Launch>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// For a process of an earlier execd: a descriptor that is readable when it has ended.
    watch: Option<OwnedFd>,
    is_over: bool,
}

impl Process {
    /// Logs the command line and the process id, as the manual asks of isdexecd.
    fn runs(&self, child: ChildId, start: &ExecStart) -> Input {
        let pid = self.entry.pid;
        info!(
            broker = %self.entry.broker, worker = %start.worker, run = %start.run,
            service = %start.service, pid, path = start.path, args = ?start.args,
            "started"
        );
        Input::Spawned { child, pid }
    }

    const fn pipe(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The meaning of a child's descriptor when it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The program runs, or never will.
    Launch,
    /// The child wrote something, or nobody has the stream open for writing any more.
    Pipe(Stream),
    /// A process of an earlier execd has ended.
    End,
}

/// The processes of all children.
#[derive(Debug, Default)]
pub(super) struct Children {
    table: BTreeMap<ChildId, Process>,
    pids: BTreeMap<u32, ChildId>,
    oom: OomCounts,
}

impl Children {
    /// Adds a process that was just started; returns its entry for the state directory.
    pub(super) fn add(&mut self, child: ChildId, spawned: Spawned, mut entry: Entry) -> Entry {
        entry.pid = spawned.pid;
        entry.start_time = state_dir::start_time(spawned.pid).unwrap_or(0);
        entry.pipes = [state_dir::inode(&spawned.stdout), state_dir::inode(&spawned.stderr)];
        self.pids.insert(spawned.pid, child);
        self.oom.started(spawned.pid);
        let process = Process {
            entry: entry.clone(),
            launch: Some(spawned.launch),
            stdout: Some(spawned.stdout),
            stderr: Some(spawned.stderr),
            watch: None,
            is_over: false,
        };
        self.table.insert(child, process);
        entry
    }

    /// Adds a process of an earlier execd; returns the inputs that follow at once.
    pub(super) fn adopt(&mut self, child: ChildId, entry: Entry) -> Vec<Input> {
        let mut inputs = Vec::new();
        let watch = processes::watch(entry.pid).ok();
        let is_over = watch.is_none() || !entry.is_alive();
        let mut pipe = |index: usize, stream| {
            let pipe = reopen(&entry, index);
            if pipe.is_none() {
                inputs.push(Input::OutputEnd { child, stream });
            }
            pipe
        };
        let (stdout, stderr) = (pipe(0, Stream::Stdout), pipe(1, Stream::Stderr));
        self.table
            .insert(child, Process { entry, launch: None, stdout, stderr, watch, is_over: false });
        if is_over {
            inputs.extend(self.over(child));
        }
        inputs
    }

    /// Whether this process was started for a broker.
    pub(super) fn has(&self, pid: u32) -> bool {
        self.pids.contains_key(&pid)
    }

    /// Whether the worker that an orphan came from still runs.
    pub(super) fn wants(&self, origin: Origin) -> bool {
        let is_running = |child| self.table.get(child).is_some_and(|process| !process.is_over);
        self.pids.get(&origin.session).is_some_and(is_running)
            || self
                .table
                .values()
                .any(|process| Some(process.entry.run) == origin.run && !process.is_over)
            // As process 1 of a container execd becomes the parent of other processes, too.
            || (origin.run.is_none() && std::process::id() == 1)
    }

    /// What the state directory says of a child.
    pub(super) fn entry(&self, child: ChildId) -> Option<&Entry> {
        self.table.get(&child).map(|process| &process.entry)
    }

    /// The resident size in bytes of a child's process and of all that descend from it.
    pub(super) fn memory(&self, child: ChildId) -> Option<u64> {
        let process = self.table.get(&child).filter(|process| !process.is_over)?;
        proc::resident_tree(process.entry.pid, THREADS_MAX)
    }

    pub(super) fn remove(&mut self, child: ChildId) {
        if let Some(process) = self.table.remove(&child)
            && self.pids.get(&process.entry.pid) == Some(&child)
        {
            self.pids.remove(&process.entry.pid);
        }
    }

    /// The entries of all children for the state directory.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.table.values().map(|process| &process.entry)
    }

    /// The descriptors to watch.
    pub(super) fn sources(&self) -> impl Iterator<Item = (ChildId, Source, BorrowedFd<'_>)> {
        self.table.iter().flat_map(|(child, process)| {
            let launch = process.launch.as_ref();
            let pipes = [(&process.stdout, Stream::Stdout), (&process.stderr, Stream::Stderr)]
                .into_iter()
                .filter(move |_| launch.is_none())
                .map(|(pipe, stream)| (pipe, Source::Pipe(stream)));
            let watch = process.watch.as_ref().filter(|_| !process.is_over);
            pipes
                .filter_map(|(pipe, source)| Some((*child, source, pipe.as_ref()?.as_fd())))
                .chain(watch.map(|watch| (*child, Source::End, watch.as_fd())))
                .chain(launch.and_then(Launch::source).map(|fd| (*child, Source::Launch, fd)))
        })
    }

    /// How far a process is on its way to the program. Its start is logged once the program runs. A
    /// failure is reported when the process has ended, so that no unknown process is left.
    pub(super) fn launched(&mut self, child: ChildId) -> Option<Input> {
        let process = self.table.get_mut(&child)?;
        let pid = process.entry.pid;
        if process.launch.as_mut()?.progress(|| state_dir::has_begun(pid)) != Progress::Runs {
            return None;
        }
        let start = process.launch.take()?.start;
        Some(process.runs(child, &start))
    }

    /// Waits until the program runs, the process has ended, or the time that `until` gives is over;
    /// returns whether the process has ended.
    pub(super) fn await_launch(&mut self, child: ChildId, until: impl Fn() -> Micros) -> bool {
        let Some(process) = self.table.get_mut(&child) else { return false };
        let Some(launch) = &mut process.launch else { return false };
        let pid = process.entry.pid;
        let has_begun = || state_dir::has_begun(pid);
        while launch.progress(has_begun) == Progress::Pending {
            let is_told = launch.source().is_some_and(|source| is_ready(source, until()));
            if !is_told {
                return false;
            }
        }
        let has_failed = matches!(launch.progress(has_begun), Progress::Failed(_));
        let watch = if has_failed { processes::watch(pid).ok() } else { None };
        watch.is_some_and(|watch| is_ready(watch.as_fd(), until()))
    }

    /// Ends a process whose program does not run yet. If it has started after all, it is ended like
    /// any other.
    pub(super) fn give_up(&mut self, child: ChildId) -> Option<Input> {
        if let Some(input) = self.launched(child) {
            return Some(input);
        }
        let process = self.table.get_mut(&child)?;
        process.launch.as_mut()?.give_up();
        // The process may not lead its group yet.
        let _ = processes::send_signal(group(process.entry.pid), libc::SIGKILL);
        None
    }

    /// Reads a pipe once; `None` = there is nothing to read now.
    pub(super) fn read(&mut self, child: ChildId, stream: Stream) -> Option<Input> {
        let pipe = self.table.get_mut(&child)?.pipe(stream);
        let mut bytes = vec![0; READ_BYTES];
        match nix::unistd::read(pipe.as_ref()?, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Ok(0) | Err(_) => {
                *pipe = None;
                Some(Input::OutputEnd { child, stream })
            }
            Ok(count) => {
                bytes.truncate(count);
                Some(Input::Output { child, stream, bytes })
            }
        }
    }

    /// A process was reaped: what is left in its pipes, then its end.
    pub(super) fn reaped(&mut self, dead: Dead) -> Vec<Input> {
        let Dead { pid, reaped, has_begun, oom_file } = dead;
        let Some(child) = self.pids.get(&pid).copied() else { return Vec::new() };
        let Some(process) = self.table.get_mut(&child) else { return Vec::new() };
        process.is_over = true;
        let mut inputs = Vec::new();
        if let Some(mut launch) = process.launch.take() {
            if let Progress::Failed((permanent, text)) = launch.progress(|| has_begun) {
                return vec![Input::SpawnFailed { child, permanent, text }];
            }
            inputs.push(process.runs(child, &launch.start));
        }
        inputs.extend(self.rest(child));
        let Reaped { exit_cause, cpu_ms, rss_kib_max, has_core: core } = reaped;
        let is_killed = exit_cause == ExitCause::Signal(libc::SIGKILL);
        let oom = is_killed && self.oom.has_killed(oom_file);
        let end = ProcessEnd { exit_cause, cpu_ms, rss_kib_max, core, oom };
        inputs.push(Input::Exited { child, end });
        inputs
    }

    /// The inputs for a process of an earlier execd that ended: kills the rest of its group, then
    /// its end.
    pub(super) fn over(&mut self, child: ChildId) -> Vec<Input> {
        let Some(process) = self.table.get_mut(&child) else { return Vec::new() };
        if process.is_over {
            return Vec::new();
        }
        process.is_over = true;
        let pid = process.entry.pid;
        // Init has reaped it. While its group exists, its number is not given to a new process. So
        // if a process has that number now, the group is empty and the process is another.
        if state_dir::start_time(pid).is_none_or(|time| time == process.entry.start_time) {
            let _ = processes::send_signal(-group(pid), libc::SIGKILL);
        }
        let mut inputs = self.rest(child);
        inputs.push(Input::Exited { child, end: ProcessEnd::of(ExitCause::Unknown) });
        inputs
    }

    fn rest(&mut self, child: ChildId) -> Vec<Input> {
        let mut inputs = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..LAST_READS_MAX {
                let Some(input) = self.read(child, stream) else { break };
                let is_end = matches!(input, Input::OutputEnd { .. });
                inputs.push(input);
                if is_end {
                    break;
                }
            }
        }
        inputs
    }

    /// Sends a signal, if the process is still the one that was started.
    pub(super) fn signal(&self, child: ChildId, signal: Signal) -> nix::Result<()> {
        let Some(process) = self.table.get(&child) else { return Ok(()) };
        // Our own children exist until we reap them. An adopted one may be gone and its number
        // reused.
        if process.is_over || (process.watch.is_some() && !process.entry.is_alive()) {
            return Ok(());
        }
        let pid = group(process.entry.pid);
        // What an earlier execd was about to start does not lead its group yet, and has its signals
        // blocked.
        let is_beginning = process.watch.is_some() && !state_dir::has_begun(process.entry.pid);
        let sent = match signal {
            Signal::TermGroup | Signal::AskGroup(_) | Signal::KillGroup if is_beginning => {
                processes::send_signal(pid, libc::SIGKILL)
            }
            Signal::Process(_) if is_beginning => Err(Errno::EBUSY),
            Signal::TermGroup => processes::send_signal(-pid, libc::SIGTERM),
            Signal::AskGroup(number) => processes::send_signal(-pid, number),
            Signal::KillGroup => processes::send_signal(-pid, libc::SIGKILL),
            Signal::Process(number) => processes::send_signal(pid, number),
        };
        match sent {
            // The process has just ended; its report follows.
            Err(Errno::ESRCH) => Ok(()),
            sent => sent,
        }
    }
}

/// Whether a descriptor can be read now or within this time.
fn is_ready(fd: BorrowedFd<'_>, within: Micros) -> bool {
    let wait = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(wait)).is_ok_and(|count| count > 0)
}

fn group(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(i32::MAX)
}

/// Opens a pipe of an adopted process, if it is still the pipe that the earlier execd made.
fn reopen(entry: &Entry, index: usize) -> Option<OwnedFd> {
    let path = format!("/proc/{}/fd/{}", entry.pid, index + 1);
    let target = fs::read_link(&path).ok()?;
    if target.to_str()? != format!("pipe:[{}]", entry.pipes[index]) {
        return None;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty()).ok()
}
