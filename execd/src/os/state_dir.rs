//! The state directory: one line for each child, so that an execd started after this one died finds
//! the processes and adopts them. One execd at a time uses it. It is not a history.

use super::options::Failure;
use super::writer::{Target, Writer, put};
use crate::engine::input::Watched;
use crate::engine::limits::CHILDREN_CAP;
use crate::exit::Exit;
use auth::lock::{Fault, Lock};
use auth::own;
use nix::sys::stat::fstat;
use protocol::ids::{RunId, WorkerId};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use sys::proc;
use tracing::warn;

/// First word of the first line. The second is the boot id of the machine, the third the id of the
/// directory: a copy of the directory describes processes of the original's execd.
const MAGIC: &str = "isect-execd-4";
/// First word of older files, whose lines don't say how the process is watched.
const MAGIC_3: &str = "isect-execd-3";
/// First word of older files, whose lines have no policy.
const MAGIC_2: &str = "isect-execd-2";
/// First word of the oldest files: no directory id, and lines without a digest.
const MAGIC_1: &str = "isect-execd-1";

/// Highest process id; a larger number would name a group in a call of kill.
const PID_MAX: u32 = i32::MAX as u32;
/// Longest wait for a lock that another execd holds.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The form of the lines of a file; the value is the number of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FileFormat {
    /// Lines with neither digest nor policy.
    Bare = 7,
    /// Lines with the digest of the worker's configuration.
    WithDigest = 8,
    /// Lines with the digest, and the policy under which the process was started.
    WithPolicy = 9,
    /// Lines with all that, and how the process is watched and ended.
    WithWatch = 13,
}

/// The line of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The broker that asked for the start.
    pub(super) broker: Arc<str>,
    /// The worker that the process is.
    pub(super) worker: WorkerId,
    /// The start that made the process.
    pub(super) run: RunId,
    /// The `digest` of the `exec-start`; 0 = not known.
    pub(super) digest: u32,
    /// The process id.
    pub(super) pid: u32,
    /// The time of its start in the kernel's ticks since the boot; id and time together are unique.
    pub(super) start_time: u64,
    /// The inodes of the pipes for stdout and stderr.
    pub(super) pipes: [u64; 2],
    /// Digest of the policy under which it was started; empty = not known.
    pub(super) policy: Arc<str>,
    /// What of its `exec-start` holds as long as it runs.
    pub(super) watched: Watched,
}

impl Entry {
    /// Whether this same process still runs.
    pub(super) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    fn line(&self) -> String {
        format!(
            "{} {} {} {} {} {} {} {} {} {} {} {} {}\n",
            self.worker,
            self.run,
            self.digest,
            self.pid,
            self.start_time,
            self.pipes[0],
            self.pipes[1],
            self.policy,
            self.watched.stop_signal,
            self.watched.memory_max,
            self.watched.output_bytes,
            self.watched.output_files,
            self.broker
        )
    }

    /// Parses a line of this form.
    fn parse(line: &str, form: FileFormat) -> Option<Self> {
        let mut words = line.splitn(form as usize, ' ');
        let mut word = || words.next();
        Some(Self {
            worker: WorkerId(word()?.parse().ok()?),
            run: RunId(word()?.parse().ok()?),
            digest: if form >= FileFormat::WithDigest { word()?.parse().ok()? } else { 0 },
            pid: word()?.parse().ok().filter(|pid| (2..=PID_MAX).contains(pid))?,
            start_time: word()?.parse().ok()?,
            pipes: [word()?.parse().ok()?, word()?.parse().ok()?],
            policy: Arc::from(if form >= FileFormat::WithPolicy { word()? } else { "" }),
            watched: match form {
                FileFormat::WithWatch => Watched {
                    stop_signal: word()?.parse().ok()?,
                    memory_max: word()?.parse().ok()?,
                    output_bytes: word()?.parse().ok()?,
                    output_files: word()?.parse().ok()?,
                },
                FileFormat::Bare | FileFormat::WithDigest | FileFormat::WithPolicy => {
                    Watched::default()
                }
            },
            broker: Arc::from(word()?),
        })
    }
}

/// When a process that runs was started, in the kernel's ticks since the boot.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    proc::running(pid).map(|stat| stat.starttime)
}

/// A process has not executed a program since it was forked (`PF_FORKNOEXEC`).
const NOT_EXECUTED: u32 = 0x40;

/// Whether a process has executed a program since it was forked. What is not known is taken for
/// yes; of one that has ended it is known until it is reaped.
pub(super) fn has_begun(pid: u32) -> bool {
    proc::stat(pid).is_none_or(|stat| stat.flags & NOT_EXECUTED == 0)
}

/// The inode number of a pipe.
pub(super) fn inode(pipe: &impl AsFd) -> u64 {
    fstat(pipe).map_or(0, |stat| stat.st_ino)
}

/// An open state directory, or none.
#[derive(Debug)]
pub(super) struct StateDir {
    writer: Writer,
    /// The first line of the file.
    head: String,
    /// Tells the starts of this directory's execds from those of all other execds of this machine,
    /// which may have the same numbers.
    pub(super) directory_id: String,
    /// The file of the directory id.
    pub(super) directory_file: OwnedFd,
}

impl StateDir {
    /// Opens the directory and creates it if needed. Returns the children that were recorded there,
    /// and whether each still runs.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<(Entry, bool)>), Failure> {
        let shown = directory.display();
        let bad = |error: io::Error| {
            let text = format!("state directory {shown}: {error}; name one that can be written");
            Failure::new(Exit::State, text)
        };
        own::directory(directory).map_err(bad)?;
        // The child that a killed execd was about to start holds the lock until it has become the
        // worker.
        let lock = Lock::take_within(&directory.join("execd.lock"), LOCK_WAIT);
        let lock = lock.map_err(|fault| match fault {
            Fault::Held(pid) => Failure::new(
                Exit::InUse,
                format!(
                    "another execd uses the state directory {shown} (process {pid}); stop it first"
                ),
            ),
            Fault::Unusable(why) => bad(io::Error::other(why)),
        })?;
        let boot = proc::kernel("kernel/random/boot_id").unwrap_or_default();
        let directory_id = directory_id(directory).map_err(bad)?;
        let directory_file =
            OwnedFd::from(own::open(&directory.join("execd.instance")).map_err(bad)?);
        let file = directory.join("execd.children");
        let away = |why: String| {
            let text = format!("{}: {why}; move the file away", file.display());
            Failure::new(Exit::State, text)
        };
        let found = match own::read(&file).map_err(|error| away(error.to_string()))? {
            Some(text) => read(&text, &boot, &directory_id).map_err(away)?,
            None => Vec::new(),
        };
        let head = format!("{MAGIC} {boot} {directory_id}");
        let alive: Vec<&Entry> =
            found.iter().filter(|(_, alive)| *alive).map(|(entry, _)| entry).collect();
        let appends = match put(&file, &whole(&head, alive.into_iter())) {
            Ok(appends) => appends,
            // If the disk is full, the file of the earlier execd can be continued: its dead are
            // reported once more, but the workers are watched now and not only when there is room.
            Err(error) => go_on(&file, &head).ok_or_else(|| bad(error))?,
        };
        let writer = Writer::start(Target { file, appends, _lock: lock });
        Ok((Self { writer, head, directory_id, directory_file }, found))
    }

    /// Queues the line of one more child.
    pub(super) fn append(&self, entry: &Entry) {
        self.writer.append(&entry.line());
    }

    /// Queues a new file with the lines of all children.
    pub(super) fn rewrite<'a>(&self, entries: impl Iterator<Item = &'a Entry>) {
        self.writer.rewrite(whole(&self.head, entries));
    }

    /// Waits at most this long until everything is written; returns whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        self.writer.finish(within)
    }
}

/// The text of the file.
fn whole<'a>(head: &str, entries: impl Iterator<Item = &'a Entry>) -> String {
    let mut text = format!("{head}\n");
    text.extend(entries.map(Entry::line));
    text
}

/// The id of this directory of an execd. A process that carries it and is not recorded gets killed,
/// so no other execd may have the same one. It has a random number, because another
/// directory may get the same inode, and the inode, because a copy of the directory has the same
/// number.
fn directory_id(directory: &Path) -> io::Result<String> {
    let file = directory.join("execd.instance");
    let random = match own::read(&file)? {
        Some(text) if !text.trim().is_empty() => text,
        Some(_) | None => {
            let text = proc::kernel("kernel/random/uuid")?;
            writeln!(own::create(&file)?, "{text}")?;
            text
        }
    };
    let meta = fs::metadata(directory)?;
    Ok(format!("{}-{}-{}", meta.dev(), meta.ino(), random.trim()))
}

/// Opens an existing file for more lines, if it has this first line; removes a last line that was
/// not finished.
fn go_on(file: &Path, head: &str) -> Option<File> {
    let text = own::read(file).ok()??;
    let is_ours = text.split_once('\n').is_some_and(|(first, _)| first == head);
    let whole = text.rfind('\n')? + 1;
    let appends = own::open(file).ok().filter(|_| is_ours)?;
    appends.set_len(whole as u64).ok()?;
    Some(appends)
}

/// How many children a file with this text has; for the fuzzer, which has no directory.
///
/// # Errors
/// The text is not a valid file.
pub fn count(text: &str, boot: &str) -> Result<usize, String> {
    let found = read(text, boot, "")?;
    for (entry, _) in &found {
        let again = Entry::parse(entry.line().trim_end_matches('\n'), FileFormat::WithWatch);
        assert_eq!(again.as_ref(), Some(entry), "what is written down is read back");
    }
    Ok(found.len())
}

/// Parses the file; returns the children, and whether each still runs. A last line without a line
/// end is left out: execd died while writing it.
fn read(text: &str, boot: &str, directory_id: &str) -> Result<Vec<(Entry, bool)>, String> {
    // After a power cut the file may have the right size and only zeros; no child survived that.
    let text = text.trim_start_matches('\0');
    let Some((first, rest)) = text.split_once('\n') else { return Ok(Vec::new()) };
    let (then, form) = match first.split_once(' ') {
        Some((magic @ (MAGIC | MAGIC_3 | MAGIC_2), rest)) => match rest.split_once(' ') {
            Some((then, whose)) if whose == directory_id => {
                let form = match magic {
                    MAGIC => FileFormat::WithWatch,
                    MAGIC_3 => FileFormat::WithPolicy,
                    _ => FileFormat::WithDigest,
                };
                (then, form)
            }
            Some(_) => {
                warn!("the state directory is a copy: what the original started is left alone");
                return Ok(Vec::new());
            }
            None => return Err(format!("the first line is not '{MAGIC} BOOT INSTANCE'")),
        },
        Some((MAGIC_1, then)) => (then, FileFormat::Bare),
        Some(_) | None => return Err(format!("the first line is not '{MAGIC} BOOT INSTANCE'")),
    };
    let is_same_boot = then == boot;
    let whole = &rest[..rest.rfind('\n').map_or(0, |at| at + 1)];
    let mut found = Vec::new();
    for (index, line) in whole.lines().enumerate().take(CHILDREN_CAP) {
        let entry = Entry::parse(line, form)
            .ok_or_else(|| format!("line {} is no child: '{}'", index + 2, line.escape_debug()))?;
        let alive = is_same_boot && entry.is_alive();
        found.push((entry, alive));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn entry() -> Entry {
        let pid = std::process::id();
        Entry {
            broker: Arc::from("a broker"),
            worker: WorkerId(3),
            run: RunId(7),
            digest: 21,
            pid,
            start_time: start_time(pid).unwrap(),
            pipes: [11, 12],
            policy: Arc::from("0123"),
            watched: Watched {
                stop_signal: 2,
                memory_max: u64::MAX,
                output_bytes: 1 << 20,
                output_files: 3,
            },
        }
    }

    #[test]
    fn what_is_written_down_is_found_again_and_only_the_same_process_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let mine = entry();
        let other = Entry { start_time: mine.start_time + 1, run: RunId(8), ..mine.clone() };
        let (state, found) = StateDir::open(directory.path()).unwrap();
        assert!(found.is_empty());
        state.append(&mine);
        state.append(&other);
        assert!(state.finish(LONG));
        let taken = StateDir::open(directory.path()).unwrap_err();
        assert_eq!(taken.exit, Exit::InUse);
        drop(state);
        let (state, found) = StateDir::open(directory.path()).unwrap();
        assert_eq!(found, [(mine.clone(), true), (other, false)]);
        drop(state);
        // The dead are reported once.
        let (_state, found) = StateDir::open(directory.path()).unwrap();
        assert_eq!(found, [(mine, true)]);
    }

    #[test]
    fn the_instance_stays_and_is_no_other_directorys_even_of_a_copy() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = directory_id(one.path()).unwrap();
        assert_eq!(directory_id(one.path()).unwrap(), first);
        assert_ne!(directory_id(other.path()).unwrap(), first);
        fs::copy(one.path().join("execd.instance"), other.path().join("execd.instance")).unwrap();
        assert_ne!(directory_id(other.path()).unwrap(), first);
        fs::write(one.path().join("execd.instance"), "").unwrap();
        assert_ne!(
            directory_id(one.path()).unwrap(),
            first,
            "what a full disk left of it is made anew"
        );
    }

    #[test]
    fn the_file_that_is_there_is_gone_on_with_if_it_is_of_this_boot() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("execd.children");
        let head = format!("{MAGIC} boot instance");
        assert!(go_on(&file, &head).is_none(), "there is none");
        let line = entry().line();
        drop(put(&file, &whole(&head, [entry()].iter())).unwrap());
        fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"3 7 1").unwrap();
        assert!(go_on(&file, &format!("{MAGIC} another instance")).is_none());
        let mut more = go_on(&file, &head).unwrap();
        more.write_all(line.as_bytes()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("{head}\n{line}{line}"));
        assert_eq!(read(&text, "boot", "instance").unwrap().len(), 2);
    }

    #[test]
    fn an_unfinished_line_is_left_out_and_nonsense_is_refused() {
        let read = |text: &str, boot: &str| read(text, boot, "instance");
        let line = entry().line();
        let text = format!("{MAGIC} boot instance\n{line}{}", &line[..9]);
        assert_eq!(read(&text, "boot").unwrap().len(), 1);
        assert!(!read(&text, "another").unwrap()[0].1);
        assert!(read("", "boot").unwrap().is_empty());
        assert!(read(&"\0".repeat(4096), "boot").unwrap().is_empty(), "a power cut");
        assert!(read("something else\n", "boot").unwrap_err().contains(MAGIC));
        assert!(
            read(&format!("{MAGIC} boot instance\nx y\n"), "boot").unwrap_err().contains("line 2")
        );
        let before = format!("{MAGIC_1} boot\n3 7 {} 5 11 12 a broker\n", std::process::id());
        let found = read(&before, "boot").unwrap();
        assert_eq!((found[0].0.digest, found[0].0.broker.as_ref()), (0, "a broker"));
        let before = format!("{MAGIC_3} boot instance\n3 7 21 {} 5 11 12 0123 a broker\n", 77);
        let found = read(&before, "boot").unwrap();
        assert_eq!((found[0].0.policy.as_ref(), found[0].0.broker.as_ref()), ("0123", "a broker"));
        assert_eq!(found[0].0.watched, Watched::default());
    }

    #[test]
    fn numbers_at_their_limits_are_read_and_no_process_id_names_a_group() {
        let line = |word: &str, pid: &str| {
            format!(
                "{MAGIC} boot m\n{word} {word} {word} {pid} {word} {word} {word} p 2 {word} {word} 3 b\n"
            )
        };
        for word in ["0", "1", "4294967294", "4294967295"] {
            let found = read(&line(word, "2147483647"), "boot", "m").unwrap();
            assert_eq!(found.len(), 1, "{word}");
            assert!(!found[0].1, "no process has that number");
        }
        for pid in ["0", "1", "-1", "2147483648", "4294967295", "4294967296"] {
            assert!(read(&line("1", pid), "boot", "m").is_err(), "{pid}");
        }
        assert!(read(&line("18446744073709551616", "7"), "boot", "m").is_err());
    }

    #[test]
    fn what_a_copy_tells_of_is_left_to_the_original() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (state, _) = StateDir::open(one.path()).unwrap();
        state.append(&entry());
        assert!(state.finish(LONG));
        for name in ["execd.children", "execd.instance"] {
            fs::copy(one.path().join(name), other.path().join(name)).unwrap();
        }
        let (_copy, found) = StateDir::open(other.path()).unwrap();
        assert!(found.is_empty(), "{found:?}");
        drop(state);
        let (_state, found) = StateDir::open(one.path()).unwrap();
        assert_eq!(found.len(), 1, "the original finds it as before");
    }
}
