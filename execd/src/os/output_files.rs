//! The files in which the output of workers is kept: a directory for each broker, `worker-3.log`
//! for what its worker 3 wrote last, `worker-3.log.1` for what it wrote before, and so on. All
//! files together have a limit, too; past it the one that was written to longest ago is removed.
//! Only the thread of `output` writes here. `output_line` has the form of the lines.

use super::output_line::{self, FILE_LINE_BYTES_MAX, FileLine};
use super::output_read::{self, LastLines};
use crate::engine::action::KeptText;
use crate::engine::input::Watched;
use crate::engine::kept::KeptNumbers;
use auth::own;
use protocol::WorkerId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files that are open at once, whatever the number of workers.
pub(super) const OPEN_MAX: usize = 16;
/// Bytes that each file counts for at least: it takes a block of the disk, and a name.
const FILE_BYTES_MIN: u64 = 4096;

/// A worker and its broker.
pub(super) type Owner = (Arc<str>, WorkerId);

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
struct Known {
    bytes: u64,
    /// Grows with each write to any file.
    used: u64,
}

impl Known {
    fn counted(self) -> u64 {
        self.bytes.max(FILE_BYTES_MIN)
    }
}

/// The directory of all files.
#[derive(Debug)]
pub(super) struct OutputFiles {
    root: PathBuf,
    /// Most bytes of all files.
    total_max: u64,
    total: u64,
    /// All files, by owner and age: 0 is the one that is written to.
    known: BTreeMap<(Owner, u32), Known>,
    /// Files that are open for writing.
    open: BTreeMap<Owner, File>,
    writes: u64,
    /// Lines of workers that could not be written, and the number of the last of them.
    lost: BTreeMap<Owner, (u64, u64)>,
}

impl OutputFiles {
    /// Opens the directory, and creates it if needed. Returns the number of the last line of each
    /// worker, too.
    pub(super) fn open(root: &Path, total_max: u64) -> io::Result<(Self, KeptNumbers)> {
        own::directory(root)?;
        let mut found = Vec::new();
        for broker in entries(root) {
            let Some(name) = broker.file_name().and_then(|name| decoded(name.to_str()?)) else {
                continue;
            };
            let name: Arc<str> = Arc::from(name);
            for file in entries(&broker) {
                let parsed = file.file_name().and_then(|name| parse_name(name.to_str()?));
                let Some((worker, age)) = parsed else { continue };
                let Some(meta) = fs::symlink_metadata(&file).ok().filter(fs::Metadata::is_file)
                else {
                    continue;
                };
                let key = ((Arc::clone(&name), worker), age);
                found.push((
                    meta.mtime(),
                    meta.mtime_nsec(),
                    std::cmp::Reverse(age),
                    key,
                    meta.len(),
                ));
            }
        }
        found.sort();
        let mut files = Self {
            root: root.to_owned(),
            total_max,
            total: 0,
            known: BTreeMap::new(),
            open: BTreeMap::new(),
            writes: 0,
            lost: BTreeMap::new(),
        };
        let mut numbers = KeptNumbers::new();
        for (_, _, _, key, bytes) in found {
            files.writes += 1;
            let known = Known { bytes, used: files.writes };
            files.total += known.counted();
            let (broker, worker) = &key.0;
            let last = output_read::last_number(&files.path(&key.0, key.1)).unwrap_or(0);
            let number = numbers.entry(Arc::clone(broker)).or_default().entry(*worker).or_default();
            *number = last.max(*number);
            files.known.insert(key, known);
        }
        files.shrink(None);
        Ok((files, numbers))
    }

    fn path(&self, (broker, worker): &Owner, age: u32) -> PathBuf {
        let name = match age {
            0 => format!("worker-{worker}.log"),
            age => format!("worker-{worker}.log.{age}"),
        };
        self.root.join(encoded(broker)).join(name)
    }

    /// Writes lines that were read at this time. Lines before them were lost if `lost` says so.
    /// What can't be written is counted, and told in the file as soon as it can be.
    pub(super) fn write(
        &mut self,
        owner: &Owner,
        watched: Watched,
        at_ms: u64,
        (kept, lost): (&KeptText, u64),
    ) -> io::Result<()> {
        if lost > 0 {
            self.lose(owner, lost, kept.first.saturating_sub(1));
        }
        let (time, mut result) = (output_line::time(at_ms), Ok(()));
        let (mut text, mut number) = (String::new(), kept.first);
        let room_max = watched.output_bytes.max(1);
        let mut room = self.room(owner, room_max);
        for line in kept.text.split_terminator('\n') {
            use std::fmt::Write as _;
            let before = text.len();
            let _ = writeln!(text, "{time} {number} {} {line}", kept.stream);
            if text.len() as u64 > room && (before > 0 || room < room_max) {
                let further = text.split_off(before);
                // On a full disk further files would push those out that are there.
                let appended = self.append(owner, watched, (&time, &text));
                let rotated = appended.and_then(|()| self.rotate(owner, watched.output_files));
                result = result.and(rotated);
                (text, room) = (further, self.room(owner, room_max));
            }
            number += 1;
        }
        let appended = self.append(owner, watched, (&time, &text));
        self.shrink(Some(owner));
        result.and(appended)
    }

    /// Notes that lines up to this number are lost.
    pub(super) fn lose(&mut self, owner: &Owner, count: u64, number: u64) {
        let lost = self.lost.entry(owner.clone()).or_default();
        *lost = (lost.0 + count, number);
    }

    /// Writes how many lines are missing, if any are.
    pub(super) fn tell_lost(
        &mut self,
        owner: &Owner,
        watched: Watched,
        time: &str,
    ) -> io::Result<()> {
        let Some(&(count, number)) = self.lost.get(owner) else { return Ok(()) };
        let line = output_line::lost(time, number, count);
        if line.len() as u64 > self.room(owner, watched.output_bytes) {
            self.rotate(owner, watched.output_files)?;
        }
        // It is no line of the worker, and is not counted if it can't be written.
        self.put(owner, &line).map_err(|(_, error)| error)?;
        self.lost.remove(owner);
        Ok(())
    }

    /// How many lines of a worker could not be written and are not told in its file yet.
    pub(super) fn untold(&self, owner: &Owner) -> u64 {
        self.lost.get(owner).map_or(0, |(count, _)| *count)
    }

    /// How many bytes its file still takes.
    fn room(&self, owner: &Owner, bytes_max: u64) -> u64 {
        let bytes = self.known.get(&(owner.clone(), 0)).map_or(0, |known| known.bytes);
        bytes_max.saturating_sub(bytes)
    }

    /// Appends whole lines, after those that are missing were told; what could not be written is
    /// counted as missing.
    fn append(
        &mut self,
        owner: &Owner,
        watched: Watched,
        (time, text): (&str, &str),
    ) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let told = self.tell_lost(owner, watched, time).map_err(|error| (0, error));
        told.and_then(|()| self.put(owner, text)).map_err(|(written, error)| {
            let missing = &text[written..];
            let count = missing.bytes().filter(|byte| *byte == b'\n').count() as u64;
            let last =
                missing.lines().next_back().and_then(|line| FileLine::parse(line.as_bytes()));
            self.lose(owner, count, last.map_or(0, |line| line.number()));
            error
        })
    }

    /// Appends whole lines. The error says how many bytes, in whole lines, were written before it.
    fn put(&mut self, owner: &Owner, text: &str) -> Result<(), (usize, io::Error)> {
        let key = (owner.clone(), 0);
        let before = match self.opened(owner) {
            Ok(before) => before,
            Err(error) => return Err((0, error)),
        };
        let Some(mut file) = self.open.get(owner) else { return Ok(()) };
        let (mut written, mut failed) = (0, None);
        while written < text.len() && failed.is_none() {
            match file.write(&text.as_bytes()[written..]) {
                Ok(0) => failed = Some(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_some() {
            written =
                text.as_bytes()[..written].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            // Shrinking a file needs no room. If it fails, the file is opened anew, which looks
            // for its last line end.
            if file.set_len(before + written as u64).is_err() {
                self.open.remove(owner);
            }
        }
        self.writes += 1;
        let known = Known { bytes: before + written as u64, used: self.writes };
        self.total += known.counted();
        if let Some(old) = self.known.insert(key, known) {
            self.total -= old.counted();
        }
        failed.map_or(Ok(()), |error| Err((written, error)))
    }

    /// Has the file of a worker open; returns its size.
    fn opened(&mut self, owner: &Owner) -> io::Result<u64> {
        // Somebody may have emptied or removed it.
        match self.open.get(owner).map(File::metadata).transpose()? {
            Some(meta) if meta.nlink() > 0 => return Ok(meta.len()),
            Some(_) | None => self.open.remove(owner),
        };
        while self.open.len() >= OPEN_MAX {
            let used =
                |owner: &Owner| self.known.get(&(owner.clone(), 0)).map_or(0, |known| known.used);
            let oldest = self.open.keys().min_by_key(|owner| used(owner)).cloned();
            oldest.map(|oldest| self.open.remove(&oldest));
        }
        let path = self.path(owner, 0);
        if let Some(directory) = path.parent() {
            own::directory(directory)?;
        }
        // What others have put there, or have a second name of, is not written to.
        let file = match own::open(&path).and_then(|file| Ok((file.metadata()?.nlink(), file))) {
            Ok((1, file)) => file,
            Ok(_) | Err(_) => own::create(&path).map_err(|error| in_the_way(&path, error))?,
        };
        let bytes = file.metadata()?.len();
        let whole = whole_lines(&file, bytes)?;
        if whole < bytes {
            file.set_len(whole)?;
        }
        self.open.insert(owner.clone(), file);
        let known = Known { bytes: whole, used: self.writes };
        self.total += known.counted();
        if let Some(old) = self.known.insert((owner.clone(), 0), known) {
            self.total -= old.counted();
        }
        Ok(whole)
    }

    /// Makes room for a new file, so that there are at most `files`.
    fn rotate(&mut self, owner: &Owner, files: u32) -> io::Result<()> {
        self.open.remove(owner);
        let ages = self.known.range((owner.clone(), 0)..=(owner.clone(), u32::MAX));
        let ages: Vec<u32> = ages.map(|((_, age), _)| *age).rev().collect();
        for age in ages {
            let path = self.path(owner, age);
            let Some(known) = self.known.remove(&(owner.clone(), age)) else { continue };
            if age + 1 >= files.max(1) {
                self.total -= known.counted();
                remove(&path)?;
                continue;
            }
            match fs::rename(&path, self.path(owner, age + 1)) {
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.total -= known.counted();
                    continue;
                }
                Err(error) => {
                    self.known.insert((owner.clone(), age), known);
                    return Err(error);
                }
                Ok(()) => {}
            }
            self.known.insert((owner.clone(), age + 1), known);
        }
        Ok(())
    }

    /// Removes the files that were written to longest ago, until the others are within the limit of
    /// all; never the one that is written to now.
    fn shrink(&mut self, current: Option<&Owner>) {
        while self.total > self.total_max {
            let is_current = |(owner, age): &(Owner, u32)| *age == 0 && Some(owner) == current;
            let others = self.known.iter().filter(|(key, _)| !is_current(key));
            let Some((key, known)) = others.min_by_key(|(_, known)| known.used) else { return };
            let (key, counted) = (key.clone(), known.counted());
            let _ = remove(&self.path(&key.0, key.1));
            if key.1 == 0 {
                self.open.remove(&key.0);
            }
            self.known.remove(&key);
            self.total -= counted;
        }
    }

    /// The last lines of a worker, at most `count`.
    pub(super) fn last_lines(&self, owner: &Owner, count: usize) -> io::Result<LastLines> {
        let ages = self.known.range((owner.clone(), 0)..=(owner.clone(), u32::MAX));
        let paths = ages.map(|((_, age), _)| self.path(owner, *age));
        output_read::last_lines(paths, self.untold(owner), count)
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// The error of a file that can't be created, with its name.
fn in_the_way(path: &Path, error: io::Error) -> io::Error {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let error = if is_directory { output_read::no_file() } else { error };
    output_read::of_file(path, &error)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The size of a file up to the end of its last whole line: an execd that was killed may have
/// written half a line.
fn whole_lines(file: &File, bytes: u64) -> io::Result<u64> {
    let from = bytes.saturating_sub(FILE_LINE_BYTES_MAX as u64);
    let mut end = vec![0; (bytes - from) as usize];
    file.read_exact_at(&mut end, from)?;
    Ok(end.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| from + at as u64 + 1))
}

/// The name of a broker's directory: its own, but for what a file can't be called.
fn encoded(broker: &str) -> String {
    let mut name = String::new();
    for c in broker.chars() {
        match c {
            '/' | '%' | '\0' => name.push_str(&format!("%{:02X}", u32::from(c))),
            '.' if name.is_empty() => name.push_str("%2E"),
            c => name.push(c),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

/// The broker of a directory.
fn decoded(name: &str) -> Option<String> {
    if name == "%" {
        return Some(String::new());
    }
    let mut parts = name.split('%');
    let mut broker = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        broker.push(char::from(code));
        broker.push_str(part.get(2..)?);
    }
    Some(broker)
}

/// The worker and the age that the name of a file says.
fn parse_name(name: &str) -> Option<(WorkerId, u32)> {
    let (worker, age) = name.strip_prefix("worker-")?.split_once(".log")?;
    let age = match age.strip_prefix('.') {
        Some(age) => age.parse().ok().filter(|age| *age > 0)?,
        None if age.is_empty() => 0,
        None => return None,
    };
    Some((WorkerId(worker.parse().ok()?), age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::bodies::Stream;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn owner(worker: u32) -> Owner {
        (Arc::from("b"), WorkerId(worker))
    }

    const fn watched(output_bytes: u64, output_files: u32) -> Watched {
        Watched { stop_signal: 0, memory_max: 0, output_bytes, output_files }
    }

    fn text(first: u64, lines: &[&str]) -> KeptText {
        let text = lines.iter().map(|line| format!("{line}\n")).collect();
        KeptText { stream: Stream::Stdout, first, text }
    }

    fn open(home: &tempfile::TempDir) -> (OutputFiles, KeptNumbers) {
        OutputFiles::open(&home.path().join("output"), 1 << 20).unwrap()
    }

    /// The texts of the last lines.
    fn last(files: &OutputFiles, worker: u32, count: usize) -> Vec<String> {
        let last = files.last_lines(&owner(worker), count).unwrap();
        last.lines.into_iter().map(|line| line.text).collect()
    }

    fn ages(files: &OutputFiles, worker: u32) -> Vec<u32> {
        let of = files.known.keys().filter(|(key, _)| *key == owner(worker));
        of.map(|(_, age)| *age).collect()
    }

    #[test]
    fn lines_are_found_again_and_their_numbers_go_on() {
        let home = tempfile::tempdir().unwrap();
        let (mut files, numbers) = open(&home);
        assert!(numbers.is_empty());
        files.write(&owner(3), watched(9999, 2), 5, (&text(1, &["a", " b ", ""]), 0)).unwrap();
        files.write(&owner(4), watched(9999, 2), 5, (&text(40, &["x"]), 0)).unwrap();
        assert_eq!(last(&files, 3, 2), [" b ", ""]);
        assert_eq!(last(&files, 3, 9), ["a", " b ", ""]);
        assert_eq!(last(&files, 5, 9), [""; 0]);
        let file = files.path(&owner(3), 0);
        let first = fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
        assert_eq!(first, "1970-01-01T00:00:00.005Z 1 stdout a");
        for path in [&file, &files.root, &file.parent().unwrap().to_owned()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o077, 0, "{path:?}");
        }
        let (_, numbers) = open(&home);
        assert_eq!(numbers["b"], BTreeMap::from([(WorkerId(3), 3), (WorkerId(4), 40)]));
    }

    #[test]
    fn files_are_rotated_at_line_ends_and_only_so_many_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let (mut files, _) = open(&home);
        let lines: Vec<String> = (1..=100).map(|line| format!("line {line:04}")).collect();
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        for (at, part) in all.chunks(7).enumerate() {
            let part = text(at as u64 * 7 + 1, part);
            files.write(&owner(1), watched(500, 3), 5, (&part, 0)).unwrap();
        }
        assert_eq!(ages(&files, 1), [0, 1, 2]);
        let kept = last(&files, 1, 999);
        assert!(
            kept.len() > 20 && all.ends_with(&kept.iter().map(String::as_str).collect::<Vec<_>>())
        );
        for age in 0..3 {
            let whole = fs::read_to_string(files.path(&owner(1), age)).unwrap();
            assert!(whole.len() <= 500 && whole.ends_with('\n'), "{}", whole.len());
        }
        // Fewer files, and a line that is longer than a file may be.
        let long = "x".repeat(600);
        files.write(&owner(1), watched(500, 1), 5, (&text(101, &[&long, "after"]), 0)).unwrap();
        assert_eq!(last(&files, 1, 9), ["after"]);
        assert_eq!(ages(&files, 1), [0]);
        let counted: u64 = files.known.values().map(|known| known.counted()).sum();
        assert_eq!(files.total, counted);
    }

    #[test]
    fn past_the_limit_of_all_the_oldest_files_go_and_never_the_one_that_is_written() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("output");
        let (mut files, _) = OutputFiles::open(&root, 3 * FILE_BYTES_MIN).unwrap();
        for worker in 1..=5 {
            files.write(&owner(worker), watched(99, 2), 5, (&text(1, &["a"]), 0)).unwrap();
        }
        assert_eq!(files.known.keys().map(|(key, _)| key.1.0).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(entries(&root.join("b")).count(), 3);
        let (files, _) = OutputFiles::open(&root, 1).unwrap();
        assert_eq!(files.known.len(), 0, "the next execd may keep less");
        let (mut files, _) = OutputFiles::open(&root, 0).unwrap();
        files.write(&owner(1), watched(99, 2), 5, (&text(1, &["a"]), 0)).unwrap();
        assert_eq!(last(&files, 1, 9), ["a"]);
    }

    #[test]
    fn many_workers_need_few_descriptors() {
        let home = tempfile::tempdir().unwrap();
        let (mut files, _) = OutputFiles::open(&home.path().join("output"), 1 << 30).unwrap();
        for round in 1..=2 {
            for worker in 0..100 {
                let line = text(round, &["a"]);
                files.write(&owner(worker), watched(999, 2), 5, (&line, 0)).unwrap();
                assert!(files.open.len() <= OPEN_MAX);
            }
        }
        assert!((0..100).all(|worker| last(&files, worker, 9).len() == 2));
    }

    #[test]
    fn what_somebody_planted_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (mut files, _) = open(&home);
        let directory = home.path().join("output/b");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        let secret = home.path().join("secret");
        fs::write(&secret, "untouched").unwrap();
        symlink(&secret, directory.join("worker-1.log")).unwrap();
        fs::hard_link(&secret, directory.join("worker-2.log")).unwrap();
        nix::unistd::mkfifo(&directory.join("worker-3.log"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        for worker in 1..=3 {
            files.write(&owner(worker), watched(99, 2), 5, (&text(1, &["a"]), 0)).unwrap();
            assert_eq!(last(&files, worker, 9), ["a"]);
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        // A directory in the way: nothing is kept, and that is counted.
        fs::create_dir(directory.join("worker-4.log")).unwrap();
        let two = text(1, &["a", "b"]);
        let error = files.write(&owner(4), watched(99, 2), 5, (&two, 0)).unwrap_err().to_string();
        let cure = "it is no plain file; remove it or move it away";
        assert!(error.ends_with(&format!("output/b/worker-4.log: {cure}")), "{error}");
        assert_eq!(files.untold(&owner(4)), 2);
        fs::remove_dir(directory.join("worker-4.log")).unwrap();
        files.write(&owner(4), watched(999, 2), 5, (&text(3, &["c"]), 5)).unwrap();
        let found = files.last_lines(&owner(4), 9).unwrap();
        assert_eq!((found.lines.len(), found.lost), (1, 7));
        // The same in place of a file that is known.
        let rest = home.path().join("rest");
        fs::rename(directory.join("worker-4.log"), &rest).unwrap();
        fs::create_dir(directory.join("worker-4.log")).unwrap();
        let error = files.last_lines(&owner(4), 9).unwrap_err().to_string();
        assert!(error.ends_with(&format!("output/b/worker-4.log: {cure}")), "{error}");
        fs::remove_dir(directory.join("worker-4.log")).unwrap();
        fs::rename(rest, directory.join("worker-4.log")).unwrap();
        let text = fs::read_to_string(directory.join("worker-4.log")).unwrap();
        assert!(text.contains(" 2 lost 7 lines: the disk"), "{text}");
    }

    #[test]
    fn half_a_line_of_a_killed_execd_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let (mut files, _) = open(&home);
        files.write(&owner(1), watched(9999, 2), 5, (&text(1, &["a", "b"]), 0)).unwrap();
        let path = files.path(&owner(1), 0);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"1970-01-01T00:00:00.005Z 3 stdout hal").unwrap();
        let (mut files, numbers) = open(&home);
        assert_eq!(numbers["b"][&WorkerId(1)], 2);
        assert_eq!(last(&files, 1, 9), ["a", "b"]);
        files.write(&owner(1), watched(9999, 2), 5, (&text(3, &["c"]), 0)).unwrap();
        assert_eq!(last(&files, 1, 9), ["a", "b", "c"]);
        // Somebody empties or removes the file.
        file.set_len(0).unwrap();
        files.write(&owner(1), watched(9999, 2), 5, (&text(4, &["d"]), 0)).unwrap();
        fs::remove_file(&path).unwrap();
        files.write(&owner(1), watched(9999, 2), 5, (&text(5, &["e"]), 0)).unwrap();
        assert_eq!(last(&files, 1, 9), ["e"]);
    }

    #[test]
    fn names_of_brokers_and_files_are_read_back() {
        for broker in ["5f2d9c", "", ".", "..", "a/b", "%2E", "ü.x", "%"] {
            let name = encoded(broker);
            assert!(!name.contains('/') && !name.starts_with('.') && !name.is_empty(), "{name}");
            assert_eq!(decoded(&name).as_deref(), Some(broker));
        }
        assert_eq!(parse_name("worker-3.log"), Some((WorkerId(3), 0)));
        assert_eq!(parse_name("worker-3.log.12"), Some((WorkerId(3), 12)));
        for wrong in ["worker-x.log", "worker-3.log.0", "worker-3.log.x", "worker-3.logs", "lock"] {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
    }
}
