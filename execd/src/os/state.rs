//! The state directory: one line a child, so that an execd that is started after this one died
//! finds the processes and adopts them. One execd at a time. Not a record of the past.

use super::options::Failure;
use super::private;
use crate::engine::limits::CHILDREN_CAP;
use crate::exit::Exit;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::fstat;
use protocol::ids::{RunId, WorkerId};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First word of the first line; the second is the boot of the machine.
const MAGIC: &str = "isect-execd-1";

/// One child as written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// For which broker.
    pub(super) broker: Arc<str>,
    /// For which worker.
    pub(super) worker: WorkerId,
    /// Which start of it.
    pub(super) run: RunId,
    /// Its process id.
    pub(super) pid: u32,
    /// When it was started, in the kernel's ticks since the boot: with it, the id is unique.
    pub(super) start_time: u64,
    /// The inodes of the pipes for stdout and stderr.
    pub(super) pipes: [u64; 2],
}

impl Entry {
    /// Whether this very process still runs.
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    fn line(&self) -> String {
        format!(
            "{} {} {} {} {} {} {}\n",
            self.worker,
            self.run,
            self.pid,
            self.start_time,
            self.pipes[0],
            self.pipes[1],
            self.broker
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let mut word = || words.next();
        Some(Self {
            worker: WorkerId(word()?.parse().ok()?),
            run: RunId(word()?.parse().ok()?),
            pid: word()?.parse().ok().filter(|pid| *pid > 1)?,
            start_time: word()?.parse().ok()?,
            pipes: [word()?.parse().ok()?, word()?.parse().ok()?],
            broker: Arc::from(word()?),
        })
    }
}

/// What the kernel tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its parent.
    pub(super) parent: u32,
    /// The process that leads its session.
    pub(super) session: u32,
    /// When it was started, in the kernel's ticks since the boot.
    pub(super) start_time: u64,
}

/// Looks at a process; `None` if there is none of this id, or only its remains.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name of the program, in parentheses, may contain anything.
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if matches!(*words.first()?, "Z" | "X") {
        return None;
    }
    let number = |index: usize| words.get(index)?.parse().ok();
    let start_time = words.get(19)?.parse().ok()?;
    Some(Stat { parent: number(1)?, session: number(3)?, start_time })
}

/// When a process was started.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// The number by which the kernel calls a pipe.
pub(super) fn inode(pipe: &impl AsFd) -> u64 {
    fstat(pipe).map_or(0, |stat| stat.st_ino)
}

/// An open state directory, or none.
#[derive(Debug)]
pub(super) struct State {
    file: PathBuf,
    appends: File,
    boot: String,
    _lock: Flock<File>,
}

impl State {
    /// Opens the directory, makes it if needed; gives the children that were written down there,
    /// and whether each still runs.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<(Entry, bool)>), Failure> {
        let shown = directory.display();
        let bad = |error: io::Error| {
            let text = format!("state directory {shown}: {error}; name one that can be written");
            Failure::new(Exit::State, text)
        };
        private::directory(directory).map_err(bad)?;
        let lock = private::open(&directory.join("execd.lock")).map_err(bad)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            let text = format!("another execd uses the state directory {shown}; stop it first");
            Failure::new(Exit::Taken, text)
        })?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let file = directory.join("execd.children");
        let away = |why: String| {
            let text = format!("{}: {why}; move the file away", file.display());
            Failure::new(Exit::State, text)
        };
        let found = match private::read(&file).map_err(|error| away(error.to_string()))? {
            Some(text) => read(&text, &boot).map_err(away)?,
            None => Vec::new(),
        };
        let alive: Vec<&Entry> =
            found.iter().filter(|(_, alive)| *alive).map(|(entry, _)| entry).collect();
        let appends = write(&file, &boot, alive.into_iter()).map_err(bad)?;
        Ok((Self { file, appends, boot, _lock: lock }, found))
    }

    /// Writes down one more child.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.appends.write_all(entry.line().as_bytes())
    }

    /// Writes down all children anew.
    pub(super) fn rewrite<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> io::Result<()> {
        self.appends = write(&self.file, &self.boot, entries)?;
        Ok(())
    }
}

/// Puts a new file in the place of the old one; gives it, open for more lines. It is not forced to
/// the disk, which would hold up every end of a worker: what it tells of does not survive the
/// machine's end either, and what a power cut leaves of it is recognised.
fn write<'a>(
    file: &Path,
    boot: &str,
    entries: impl Iterator<Item = &'a Entry>,
) -> io::Result<File> {
    let mut text = format!("{MAGIC} {boot}\n");
    text.extend(entries.map(Entry::line));
    let new = file.with_extension("new");
    let mut out = private::create(&new)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&new, file)?;
    Ok(out)
}

/// How many children a file of this text tells of: for the fuzzer, which has no directory.
///
/// # Errors
/// It is no such file.
pub fn count(text: &str, boot: &str) -> Result<usize, String> {
    let found = read(text, boot)?;
    for (entry, _) in &found {
        let again = Entry::parse(entry.line().trim_end_matches('\n'));
        assert_eq!(again.as_ref(), Some(entry), "what is written down is read back");
    }
    Ok(found.len())
}

/// Reads the file: the children, and whether each still runs. A last line that was not finished is
/// the mark of a death in the middle of a write and is left out.
fn read(text: &str, boot: &str) -> Result<Vec<(Entry, bool)>, String> {
    // A power cut may leave a file of the right size and no content; no child survived that.
    let text = text.trim_start_matches('\0');
    let Some((first, rest)) = text.split_once('\n') else { return Ok(Vec::new()) };
    let Some((MAGIC, then)) = first.split_once(' ') else {
        return Err(format!("the first line is not '{MAGIC} BOOT'"));
    };
    let is_same_boot = then == boot;
    let whole = &rest[..rest.rfind('\n').map_or(0, |at| at + 1)];
    let mut found = Vec::new();
    for (index, line) in whole.lines().enumerate().take(CHILDREN_CAP) {
        let entry = Entry::parse(line)
            .ok_or_else(|| format!("line {} is no child: '{}'", index + 2, line.escape_debug()))?;
        let alive = is_same_boot && entry.is_alive();
        found.push((entry, alive));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let pid = std::process::id();
        Entry {
            broker: Arc::from("a broker"),
            worker: WorkerId(3),
            run: RunId(7),
            pid,
            start_time: start_time(pid).unwrap(),
            pipes: [11, 12],
        }
    }

    #[test]
    fn what_is_written_down_is_found_again_and_only_the_same_process_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let mine = entry();
        let other = Entry { start_time: mine.start_time + 1, run: RunId(8), ..mine.clone() };
        let (mut state, found) = State::open(directory.path()).unwrap();
        assert!(found.is_empty());
        state.append(&mine).unwrap();
        state.append(&other).unwrap();
        let taken = State::open(directory.path()).unwrap_err();
        assert_eq!(taken.exit, Exit::Taken);
        drop(state);
        let (state, found) = State::open(directory.path()).unwrap();
        assert_eq!(found, [(mine.clone(), true), (other, false)]);
        drop(state);
        // The dead are told of once.
        let (_state, found) = State::open(directory.path()).unwrap();
        assert_eq!(found, [(mine, true)]);
    }

    #[test]
    fn an_unfinished_line_is_left_out_and_nonsense_is_refused() {
        let line = entry().line();
        let text = format!("{MAGIC} boot\n{line}{}", &line[..9]);
        assert_eq!(read(&text, "boot").unwrap().len(), 1);
        assert!(!read(&text, "another").unwrap()[0].1);
        assert!(read("", "boot").unwrap().is_empty());
        assert!(read(&"\0".repeat(4096), "boot").unwrap().is_empty(), "a power cut");
        assert!(read("something else\n", "boot").unwrap_err().contains(MAGIC));
        assert!(read(&format!("{MAGIC} boot\nx y\n"), "boot").unwrap_err().contains("line 2"));
    }
}
