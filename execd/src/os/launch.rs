//! From the fork to the exec, seen from both sides. The child looks at its program and becomes it,
//! or tells why not through a pipe, which the exec closes. execd reads that pipe when there is
//! something to read. Not what is checked (`check`), not what the child is made to be (`enter`).

use super::check::{self, Refusal, explain};
use super::enter::{Image, Step, enter};
use super::orphans;
use super::raw;
use super::spawn::Recipe;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{read, write};
use protocol::bodies::ExecStart;
use protocol::limits::{RUN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where the child has its end of the pipe.
const ANSWER_FD: i32 = 3;

/// Most bytes of a refusal: what an empty pipe takes at once, so that the child never waits.
const REFUSAL_BYTES_MAX: usize = 32 << 10;

/// First byte of a refusal that lasts, and of one that may be different the next time.
const LASTING: u8 = b'!';
const PASSING: u8 = b'~';

/// What the process looks like to `ps` until it is the program.
const NAME: &std::ffi::CStr = c"isdexecd-start";

/// The child's ends of its pipes.
#[derive(Debug)]
pub(super) struct Ends {
    /// What the program writes to stdout.
    pub(super) stdout: OwnedFd,
    /// What the program writes to stderr.
    pub(super) stderr: OwnedFd,
    /// The answer to execd.
    pub(super) answer: OwnedFd,
}

/// A process whose program does not run yet.
#[derive(Debug)]
pub(super) struct Launch {
    answer: OwnedFd,
    said: Vec<u8>,
    is_at_end: bool,
    /// It was killed before its program ran.
    is_given_up: bool,
    /// What it was asked to be.
    pub(super) start: ExecStart,
}

/// How far a process is on its way to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its program does not run yet.
    Pending,
    /// Its program runs, or has run.
    Runs,
    /// Its program never runs. The process ends, or has ended.
    Refused(Refusal),
}

impl Launch {
    pub(super) const fn new(answer: OwnedFd, start: ExecStart) -> Self {
        Self { answer, said: Vec::new(), is_at_end: false, is_given_up: false, start }
    }

    /// Readable when there is progress; `None` when there is no more to come.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_at_end).then(|| self.answer.as_fd())
    }

    /// Reads what is there.
    pub(super) fn progress(&mut self) -> Progress {
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
        match self.said.split_first() {
            Some((kind, text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                Progress::Refused((*kind == LASTING, text))
            }
            None if self.is_given_up => Progress::Refused((
                false,
                format!(
                    "{} was ended before it began to run; if that took long, its file system does \
                     not answer, or this machine is overloaded",
                    self.start.path
                ),
            )),
            None => Progress::Runs,
        }
    }

    /// The process is killed although its program does not run yet.
    pub(super) const fn give_up(&mut self) {
        self.is_given_up = true;
    }
}

/// What the forked child does: all from the look at the program to the exec. `extern "C"`, because
/// a panic must not unwind from here into the loop of execd, of which this is a copy; it aborts.
pub(super) extern "C" fn become_program(recipe: &Recipe, start: &ExecStart, ends: &Ends) -> ! {
    let (is_lasting, mut text) = match place(ends) {
        Ok(()) => attempt(recipe, start),
        Err(errno) => (false, format!("{} is not started: its streams: {errno}", start.path)),
    };
    let mut end = text.len().min(REFUSAL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    tell(is_lasting, &text);
    raw::exit_now(1)
}

/// Where the parent reads it; an error means that nobody does.
fn tell(is_lasting: bool, text: &str) {
    let kind = if is_lasting { LASTING } else { PASSING };
    let said = [&[kind], text.as_bytes()].concat();
    #[expect(unsafe_code, reason = "the descriptor was put there by number")]
    // SAFETY: `place` has put the pipe there, and this process keeps it until its end.
    let answer = unsafe { BorrowedFd::borrow_raw(ANSWER_FD) };
    let _ = write(answer, &said);
}

/// Puts the streams where a program expects them, and closes all else that execd had open: a
/// process that hangs here must not keep a connection open that execd has closed.
fn place(ends: &Ends) -> nix::Result<()> {
    let _ = prctl::set_name(NAME);
    // Of the numbers 0 to 2 none is one of `ends`: a Rust program has them open from its beginning.
    let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    raw::put_at(&ends.stdout, 1, false)?;
    raw::put_at(&ends.stderr, 2, false)?;
    raw::put_at(&null?, 0, false)?;
    raw::put_at(&ends.answer, ANSWER_FD, true)?;
    raw::close_from(ANSWER_FD + 1);
    Ok(())
}

/// Comes back only with the reason why the program does not run.
fn attempt(recipe: &Recipe, start: &ExecStart) -> Refusal {
    let image = match image(recipe, start) {
        Ok(image) => image,
        Err(refusal) => return refusal,
    };
    let error = enter(&recipe.shape, &image);
    match Step::of(&error) {
        (Some(Step::Directory), error) => {
            let directory = recipe.shape.directory.to_string_lossy();
            let what = "the working directory (--directory)";
            (false, format!("{} is not started: {what} {directory}: {error}", start.path))
        }
        (_, _) => explain(Path::new(&start.path), &error),
    }
}

/// The program, its words and its environment.
fn image(recipe: &Recipe, start: &ExecStart) -> Result<Image, Refusal> {
    let program = check::check(start, &recipe.policy)?;
    let nul = |_| (true, "a NUL byte is in the path, an argument or the secret".to_owned());
    let text = |text: &str| CString::new(text).map_err(nul);
    let words = [&start.path].into_iter().chain(&start.args);
    let args = words.map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;
    let mut environment = recipe.environment.clone();
    let run = orphans::value(start.run, &recipe.instance);
    environment.push(text(&format!("{RUN_VARIABLE}={run}"))?);
    if !start.secret.is_empty() {
        environment.push(text(&format!("{WORKER_SECRET_VARIABLE}={}", start.secret))?);
    }
    Ok(Image::new(program, args, environment))
}
