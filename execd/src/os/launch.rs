//! The way from the fork to the exec, for both sides. The child checks its program and becomes it,
//! or writes to a pipe why it can't; the exec closes the pipe. execd reads the pipe when it is
//! readable. `check` has the checks, `child_setup` what the child is given.

use super::check::{self, StartFailure, explain};
use super::child_setup::{Image, Step, enter};
use super::orphans;
use super::process_settings::Settled;
use super::setting_files::{self, Directory};
use super::spawn::SpawnConfig;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{read, write};
use protocol::bodies::ExecStart;
use protocol::limits::{RUN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::{descriptors, processes};

/// The number of the child's end of the pipe.
const ANSWER_FD: i32 = 3;

/// Where it has the file by which the next execd of the state directory knows whose start it is,
/// until its program runs, whose environment says it.
pub(super) const INSTANCE_FD: i32 = 4;

/// The numbers below this one are the child's to use: execd has nothing of its own there.
pub(super) const NUMBERS: i32 = INSTANCE_FD + 1;

/// Most bytes of a start failure: what an empty pipe takes at once, so that the child never waits.
const REFUSAL_BYTES_MAX: usize = 32 << 10;

/// First byte of a start failure: `!` if the same start fails again, else `~`. A text follows.
const PERMANENT: u8 = b'!';
const PASSING: u8 = b'~';

/// First byte of a message that the program is a script. The length of its interpreter's name (two
/// bytes) and the name follow.
const SCRIPT: u8 = b'/';

/// First byte of a message that a step failed; its code follows (four bytes). Under the limits of
/// the program there may be no memory for a text.
const FAILED: u8 = b'#';

/// What the process looks like to `ps` until it is the program.
pub(super) const NAME: &std::ffi::CStr = c"isdexecd-start";

/// The child's ends of its pipes.
#[derive(Debug)]
pub(super) struct Ends {
    /// Becomes the stdout of the program.
    pub(super) stdout: OwnedFd,
    /// Becomes the stderr of the program.
    pub(super) stderr: OwnedFd,
    /// The pipe for the answer to execd.
    pub(super) answer: OwnedFd,
}

/// A process whose program does not run yet.
#[derive(Debug)]
pub(super) struct Launch {
    answer: OwnedFd,
    said: Vec<u8>,
    is_at_end: bool,
    /// Whether it was killed before its program ran.
    is_given_up: bool,
    /// The request that it was started for.
    pub(super) start: ExecStart,
    /// The working directory, for error texts.
    directory: String,
}

/// How far a process is on its way to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The program does not run yet.
    Pending,
    /// The program runs, or has run.
    Runs,
    /// The program never runs. The process ends, or has ended.
    Failed(StartFailure),
}

impl Launch {
    pub(super) const fn new(answer: OwnedFd, start: ExecStart, directory: String) -> Self {
        Self { answer, said: Vec::new(), is_at_end: false, is_given_up: false, start, directory }
    }

    /// A descriptor that is readable when there is progress; `None` = nothing more will come.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_at_end).then(|| self.answer.as_fd())
    }

    /// Reads what is there. Whether the program has begun to run is asked of the kernel: the end of
    /// the process closes the pipe, too.
    pub(super) fn progress(&mut self, has_begun: impl FnOnce() -> bool) -> Progress {
        let mut bytes = [0; 4096];
        while !self.is_at_end {
            match read(&self.answer, &mut bytes) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.said.extend_from_slice(&bytes[..count]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Progress::Pending,
                // A pipe has no errors of its own.
                Err(_) => self.is_at_end = true,
            }
        }
        match self.failure() {
            Some(failure) => Progress::Failed(failure),
            None if has_begun() => Progress::Runs,
            None => Progress::Failed((false, self.why_never())),
        }
    }

    /// Why its process ended before its program began to run.
    fn why_never(&self) -> String {
        let path = &self.start.path;
        if self.is_given_up {
            return format!(
                "{path} was ended before it began to run; if that took long, its file system does \
                 not answer, or this machine is overloaded"
            );
        }
        format!("{path} was killed before it began to run, by a signal that execd did not send")
    }

    /// What the child said last, if it was no program then.
    fn failure(&self) -> Option<StartFailure> {
        let (interpreter, rest) = match self.said.split_first() {
            Some((&SCRIPT, rest)) => {
                let (size, rest) = rest.split_first_chunk()?;
                let (name, rest) = rest.split_at_checked(u16::from_ne_bytes(*size).into())?;
                (Some(String::from_utf8_lossy(name)), rest)
            }
            _ => (None, &self.said[..]),
        };
        let (kind, text) = rest.split_first()?;
        if *kind != FAILED {
            return Some((*kind == PERMANENT, String::from_utf8_lossy(text).into_owned()));
        }
        let code = i32::from_ne_bytes(*text.first_chunk()?);
        let error = io::Error::from_raw_os_error(code);
        let path = &self.start.path;
        Some(match Step::of(&error) {
            (Some(Step::Directory), error) => {
                let cwd = self.start.process.as_ref().and_then(|process| process.cwd.as_deref());
                let (directory, what) = match cwd {
                    Some(cwd) => (cwd, "the working directory (cwd)"),
                    None => (&self.directory[..], "the working directory (--directory)"),
                };
                let text = format!("{path} is not started: {what} {directory}: {error}");
                (cwd.is_some(), text)
            }
            (Some(Step::Nice), _) => {
                let nice = self.start.process.as_ref().and_then(|process| process.nice);
                let nice = nice.unwrap_or_default();
                let text = format!(
                    "{path} is not started: nice {nice} is a higher priority than execd's own, and \
                     the worker's user may not raise it (LimitNICE= of execd's unit, ulimit -e)"
                );
                (true, text)
            }
            (_, _) => explain(Path::new(path), interpreter.as_deref(), &error),
        })
    }

    /// Notes that the process is killed although its program does not run yet.
    pub(super) const fn give_up(&mut self) {
        self.is_given_up = true;
    }
}

/// The code of the forked child, from the check of its program to the exec. It is `extern "C"`,
/// because a panic must not unwind into the loop of execd, of which this process is a copy; it
/// aborts.
pub(super) extern "C" fn become_program(
    spawn_config: &SpawnConfig,
    start: &ExecStart,
    settled: Option<&Settled>,
    ends: &Ends,
) -> ! {
    if let Err(errno) = connect(ends) {
        let text = format!("{} is not started: its streams: {errno}", start.path);
        tell(ends.answer.as_fd(), &[&[PASSING], text.as_bytes()].concat());
        processes::exit_now(1);
    }
    #[expect(unsafe_code, reason = "the descriptor was put there by number")]
    // SAFETY: `connect` has put the pipe there, and this process keeps it until its end.
    let answer = unsafe { BorrowedFd::borrow_raw(ANSWER_FD) };
    let made = match close_others(spawn_config) {
        Ok(()) => image(spawn_config, start, settled),
        Err(errno) => Err((false, format!("{} is not started: /dev/null: {errno}", start.path))),
    };
    match made {
        Ok((image, interpreter, directory)) => {
            if let Some(name) = interpreter {
                // The name is from the first 256 bytes of a file, so two bytes can hold its length.
                let size = u16::try_from(name.len()).unwrap_or(u16::MAX);
                tell(answer, &[&[SCRIPT], &size.to_ne_bytes()[..], name.as_bytes()].concat());
            }
            let attributes =
                settled.map_or(&spawn_config.attributes, |settled| &settled.attributes);
            let directory = directory.as_ref().map(|directory| directory.fd.as_fd());
            let error = enter(attributes, directory, &image);
            // From here on there may be no memory for allocations.
            let mut said = [FAILED, 0, 0, 0, 0];
            said[1..].copy_from_slice(&error.raw_os_error().unwrap_or(0).to_ne_bytes());
            tell(answer, &said);
        }
        Err((is_permanent, text)) => {
            let kind = if is_permanent { PERMANENT } else { PASSING };
            let text = &text.as_bytes()[..text.len().min(REFUSAL_BYTES_MAX)];
            tell(answer, &[&[kind], text].concat());
        }
    }
    processes::exit_now(1)
}

/// Writes where the parent reads; an error means that nobody does.
fn tell(answer: BorrowedFd<'_>, said: &[u8]) {
    let _ = write(answer, said);
}

/// Puts the pipes where they belong. None of `ends` is at one of these numbers before
/// (`descriptors::occupy_below`).
fn connect(ends: &Ends) -> nix::Result<()> {
    let _ = prctl::set_name(NAME);
    descriptors::put_at(&ends.stdout, 1, false)?;
    descriptors::put_at(&ends.stderr, 2, false)?;
    descriptors::put_at(&ends.answer, ANSWER_FD, true)
}

/// Closes all else that execd had open, but for the file of the directory id whose start it is: a
/// process that hangs here must not keep a connection open that execd has closed. There is no
/// input.
fn close_others(spawn_config: &SpawnConfig) -> nix::Result<()> {
    if let Some(directory_file) = &spawn_config.directory_file {
        descriptors::put_at(directory_file, INSTANCE_FD, true)?;
    }
    descriptors::close_from(if spawn_config.directory_file.is_some() {
        NUMBERS
    } else {
        INSTANCE_FD
    });
    let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    descriptors::put_at(&null, 0, false)
}

/// The image of the program, its interpreter if it is a script, and the directory that its settings
/// name.
fn image(
    spawn_config: &SpawnConfig,
    start: &ExecStart,
    settled: Option<&Settled>,
) -> Result<(Image, Option<String>, Option<Directory>), StartFailure> {
    let set = settled.zip(start.process.as_deref());
    let named = |(is_permanent, text): StartFailure| {
        (is_permanent, format!("{} is not started: {text}", start.path))
    };
    let directory = set
        .and_then(|(settled, process)| Some(Directory::open(process.cwd.as_deref()?, settled)))
        .transpose()
        .map_err(named)?;
    let policy = settled.map_or(&spawn_config.policy, |settled| &settled.policy);
    let program = match &directory {
        None => check::check(start, policy)?,
        Some(directory) => check::check(start, &directory.policy(policy))
            .map_err(|failure| directory.explain(failure))?,
    };
    let interpreter =
        program.is_script.then(|| check::interpreter(Path::new(&start.path))).flatten();
    let nul = |_| (true, "a NUL byte is in the path, an argument or the secret".to_owned());
    let text = |text: &str| CString::new(text).map_err(nul);
    let words = [&start.path].into_iter().chain(&start.args);
    let args = words.map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
    let mut environment = match set {
        None => spawn_config.environment.clone(),
        Some((settled, process)) => {
            setting_files::environment(process, settled, &spawn_config.permits.names)
                .map_err(named)?
        }
    };
    let run = orphans::value(start.run, &spawn_config.directory_id);
    environment.push(text(&format!("{RUN_VARIABLE}={run}"))?);
    if !start.secret.is_empty() {
        environment.push(text(&format!("{WORKER_SECRET_VARIABLE}={}", start.secret))?);
    }
    Ok((Image::new(program, args, environment), interpreter, directory))
}
