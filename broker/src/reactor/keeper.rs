//! Keeps the configuration on the disk: appends changes to the journal, and writes a snapshot where
//! that can't be done or the journal is long. [`journal`] has the form of both files.

use super::state_dir::{Paths, journal, replace_synced, sync_dir};
use crate::engine::EngineOptions;
use crate::engine::stored_config::StoredConfig;
use crate::exit::Fatal;
use auth::own;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of a journal that are worth a snapshot, if the snapshot is not larger itself.
const JOURNAL_BYTES: u64 = 256 * 1024;

/// What is stored, or is to be when the disk takes it.
#[derive(Debug)]
pub(super) struct Keeper {
    paths: Paths,
    config: StoredConfig,
    /// Number of the last change.
    number: u64,
    /// `None` = the next change is stored by a snapshot: it is the first one of this broker, or the
    /// last one was not stored.
    journal: Option<Journal>,
    /// The checksum of the first line of the journal that is there.
    replaces: Option<String>,
}

/// A journal that can be appended to.
#[derive(Debug)]
struct Journal {
    /// Open as long as it is to be appended to, so that no other file gets its inode.
    file: File,
    bytes: u64,
    /// So many bytes are worth a snapshot.
    bytes_max: u64,
    /// The snapshot that it follows, and its size.
    snapshot: File,
    snapshot_bytes: u64,
}

impl Keeper {
    /// Reads what is kept. The second value is the script that a broker is to begin with, the third
    /// the commands in it that fail.
    pub(super) fn new(
        paths: Paths,
        kept: &journal::Kept,
        execd: Option<String>,
    ) -> (Self, String, Vec<String>) {
        let mut config = StoredConfig::new(EngineOptions::default(), execd);
        let failures = config.apply(&kept.text).err().unwrap_or_default();
        // What was changed and changed again is left out. Where something fails, the broker is to
        // say it.
        let is_shorter = kept.has_changes && failures.is_empty();
        let script = if is_shorter { config.script() } else { kept.text.clone() };
        let (number, replaces) = (kept.number, kept.journal.clone());
        let keeper = Self { paths, config, number, journal: None, replaces };
        (keeper, script, failures)
    }

    /// Stores changes, and what could not be stored before. The disk has them when it returns. A
    /// change of several lines is there as a whole after a crash, or not at all.
    ///
    /// # Errors
    /// The path and the error of the system.
    pub(super) fn store(&mut self, changes: &[String]) -> Result<(), String> {
        let mut lines = String::new();
        for change in changes {
            if let Err(failures) = self.config.apply(change) {
                // The engine at work took the same commands.
                let failures = failures.join("; ");
                tracing::error!("a change is not stored: {failures}; tell the developers");
            }
            lines += &journal::lines(self.number, change);
            // Numbers of changes that failed to be stored are not used again.
            self.number += change.lines().count() as u64;
        }
        match self.journal.take().filter(|journal| journal.is_in_place(&self.paths)) {
            Some(mut journal) => {
                let path = self.paths.journal();
                journal
                    .append(&path, &lines)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                self.journal = Some(journal);
                Ok(())
            }
            None => self.snapshot(),
        }
    }

    /// Writes a snapshot if the journal is long.
    pub(super) fn shorten(&mut self) {
        let Some(journal) = self.journal.as_mut().filter(|j| j.bytes > j.bytes_max) else { return };
        // If it fails, the journal goes on.
        journal.bytes_max = journal.bytes.saturating_mul(2);
        if let Err(error) = self.snapshot() {
            tracing::warn!("no snapshot of the configuration: {error}; it is tried again later");
        }
    }

    /// Writes a snapshot and begins a journal after it. The changes are stored once the snapshot
    /// is: without a new journal, the next change is stored by a snapshot again.
    fn snapshot(&mut self) -> Result<(), String> {
        let (path, next) = (self.paths.config(), self.paths.journal());
        let named = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| format!("{path}: {error}")
        };
        if self.replaces.is_none() {
            // A snapshot without a journal is one whose changes are lost. So the journal comes
            // first, where there is none yet; it follows nothing, or the file of an older broker.
            let old = own::read(&path).map_err(named(&path))?.unwrap_or_default();
            let (begun, sum) = journal::begin(0, &old);
            replace_synced(&next, begun.as_bytes()).map_err(named(&next))?;
            sync_dir(&self.paths.dir).map_err(named(&self.paths.dir))?;
            self.replaces = Some(sum);
        }
        let script = self.config.script();
        let text = journal::snapshot(self.number, &script, self.replaces.as_deref());
        replace_synced(&path, text.as_bytes()).map_err(named(&path))?;
        sync_dir(&self.paths.dir).map_err(named(&self.paths.dir))?;
        let (begun, sum) = journal::begin(self.number, &text);
        let mut begin = || -> io::Result<Journal> {
            replace_synced(&next, begun.as_bytes())?;
            self.replaces = Some(sum.clone());
            sync_dir(&self.paths.dir)?;
            let (file, snapshot) = (File::open(&next)?, File::open(&path)?);
            let (bytes, snapshot_bytes) = (begun.len() as u64, text.len() as u64);
            let bytes_max = JOURNAL_BYTES.max(snapshot_bytes);
            Ok(Journal { file, bytes, bytes_max, snapshot, snapshot_bytes })
        };
        let begun = begin().map_err(|error: io::Error| {
            let path = next.display();
            tracing::warn!("no journal of changes: {path}: {error}; a change is a snapshot now");
        });
        self.journal = begun.ok();
        Ok(())
    }
}

impl Journal {
    /// Whether both files are still the ones that were written, whole and in their places.
    fn is_in_place(&self, paths: &Paths) -> bool {
        let is_it = |file: &File, path: &Path, bytes: u64| {
            let (Ok(own), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
                return false;
            };
            (own.dev(), own.ino()) == (there.dev(), there.ino()) && own.len() == bytes
        };
        is_it(&self.file, &paths.journal(), self.bytes)
            && is_it(&self.snapshot, &paths.config(), self.snapshot_bytes)
    }

    fn append(&mut self, path: &Path, lines: &str) -> io::Result<()> {
        // Opened each time: a file that is open for writing keeps its file system from becoming
        // read-only.
        let mut file = own::open(path)?;
        file.write_all(lines.as_bytes())?;
        self.bytes += lines.len() as u64;
        file.sync_data()
    }
}

/// The configuration that a broker would begin with from this state directory, as a script.
///
/// # Errors
/// A file can't be read, or is not as it was written.
pub fn kept_script(dir: &Path) -> Result<String, Fatal> {
    let paths = Paths { dir: dir.to_owned() };
    let kept = paths.kept()?;
    // The address is not stored.
    let (keeper, ..) = Keeper::new(paths, &kept, Some("unix:/execd.sock".to_owned()));
    Ok(keeper.config.script())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXECD: &str = "unix:/x/execd";

    fn begin(dir: &Path) -> (Keeper, String) {
        let paths = Paths { dir: dir.to_owned() };
        let kept = paths.kept().unwrap();
        let (keeper, script, failures) = Keeper::new(paths, &kept, Some(EXECD.to_owned()));
        assert_eq!(failures, Vec::<String>::new());
        (keeper, script)
    }

    fn kept(dir: &Path) -> String {
        kept_script(dir).unwrap()
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_first_change_writes_a_snapshot_and_the_next_ones_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, script) = begin(dir.path());
        assert_eq!(script, "");
        keeper.store(&["config service #2 echo\n".to_owned()]).unwrap();
        let (config, journal) = (keeper.paths.config(), keeper.paths.journal());
        let first = text(&config);
        assert!(first.ends_with("config service #2 echo\n"), "{first}");
        assert_eq!(text(&journal).lines().count(), 1);
        keeper.store(&["config worker #1 echo localhost /b\nstart 1\n".to_owned()]).unwrap();
        keeper.store(&["stop 1\n".to_owned()]).unwrap();
        assert_eq!(text(&config), first);
        assert_eq!(text(&journal).lines().count(), 4);
        assert_eq!(kept(dir.path()), keeper.config.script());
        // The next broker begins with the state at the end, not with the way to it.
        let (next, script) = begin(dir.path());
        assert!(!script.contains("start 1"), "{script}");
        assert_eq!(next.number, 4);
    }

    #[test]
    fn a_directory_of_an_older_broker_is_read_and_its_first_change_is_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { dir: dir.path().to_owned() };
        fs::write(paths.config(), "config service #2 echo\nstop echo\n").unwrap();
        let (mut keeper, script) = begin(dir.path());
        assert_eq!(script, text(&paths.config()));
        keeper.store(&["config service #3 other\n".to_owned()]).unwrap();
        assert!(text(&paths.config()).starts_with("# snapshot 1 "));
        assert!(kept(dir.path()).contains("echo") && kept(dir.path()).contains("other"));
    }

    #[test]
    fn a_long_journal_becomes_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, _) = begin(dir.path());
        keeper.store(&["config service #2 echo\n".to_owned()]).unwrap();
        let one = "pause echo\nready echo\n".repeat(100);
        let mut most = 0;
        while keeper.number < 50_000 {
            keeper.store(std::slice::from_ref(&one)).unwrap();
            most = most.max(keeper.journal.as_ref().unwrap().bytes);
            keeper.shorten();
        }
        assert!((JOURNAL_BYTES..JOURNAL_BYTES + 64 * 1024).contains(&most), "{most}");
        assert!(fs::metadata(keeper.paths.journal()).unwrap().len() < JOURNAL_BYTES);
        assert_eq!(kept(dir.path()), keeper.config.script());
    }

    #[test]
    fn a_broker_killed_between_snapshot_and_journal_leaves_all_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, _) = begin(dir.path());
        keeper.store(&["config service #2 echo\n".to_owned()]).unwrap();
        keeper.store(&["config service #3 other\nstop other\n".to_owned()]).unwrap();
        let journal = text(&keeper.paths.journal());
        keeper.snapshot().unwrap();
        let config = keeper.config.script();
        fs::write(keeper.paths.journal(), &journal).unwrap();
        assert_eq!(kept(dir.path()), config);
        let (mut next, _) = begin(dir.path());
        next.store(&["pause echo\n".to_owned()]).unwrap();
        assert_ne!(text(&next.paths.journal()), journal);
        assert_eq!(kept(dir.path()), next.config.script());
    }

    #[test]
    fn what_a_disk_did_not_take_comes_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, _) = begin(dir.path());
        keeper.store(&["config service #2 echo\n".to_owned()]).unwrap();
        let beside = dir.path().join("config.isect.tmp");
        fs::create_dir(&beside).unwrap();
        // The journal is gone, and a snapshot can't be written.
        fs::remove_file(keeper.paths.journal()).unwrap();
        let why = keeper.store(&["config service #3 other\n".to_owned()]).unwrap_err();
        assert!(why.contains("config.isect: "), "{why}");
        fs::remove_dir(&beside).unwrap();
        keeper.store(&["".to_owned()]).unwrap();
        assert!(kept(dir.path()).contains("other"));
        // A snapshot without a journal: the change is stored all the same, and so is the next one.
        keeper.journal = None;
        fs::create_dir(dir.path().join("config.journal.tmp")).unwrap();
        keeper.store(&["pause echo\n".to_owned()]).unwrap();
        assert!(kept(dir.path()).contains("pause echo"));
        keeper.store(&["pause other\n".to_owned()]).unwrap();
        assert!(kept(dir.path()).contains("pause other"));
    }

    #[test]
    fn a_first_change_that_the_disk_takes_by_half_leaves_what_can_be_read() {
        for old in [None, Some("config service #2 old\n")] {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths { dir: dir.path().to_owned() };
            let before = old.unwrap_or_default();
            old.into_iter().for_each(|old| fs::write(paths.config(), old).unwrap());
            let (mut keeper, _) = begin(dir.path());
            // No snapshot: a journal alone follows what was there.
            let beside = dir.path().join("config.isect.tmp");
            fs::create_dir(&beside).unwrap();
            let change = ["config service #3 echo\n".to_owned()];
            keeper.store(&change).unwrap_err();
            assert_eq!(begin(dir.path()).1, before);
            fs::remove_dir(&beside).unwrap();
            // No further journal: the snapshot replaces the one that is there.
            let beside = dir.path().join("config.journal.tmp");
            fs::create_dir(&beside).unwrap();
            keeper.store(&[]).unwrap();
            assert!(kept(dir.path()).contains("echo"), "{}", kept(dir.path()));
            assert_eq!(begin(dir.path()).0.config.script(), keeper.config.script());
        }
        // No journal at all: the change is not stored, and that is said.
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, _) = begin(dir.path());
        fs::create_dir(dir.path().join("config.journal.tmp")).unwrap();
        let why = keeper.store(&["config service #3 echo\n".to_owned()]).unwrap_err();
        assert!(why.contains("config.journal: "), "{why}");
        assert_eq!(begin(dir.path()).1, "");
    }

    #[test]
    fn files_that_are_replaced_under_a_broker_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, _) = begin(dir.path());
        keeper.store(&["config service #2 echo\n".to_owned()]).unwrap();
        for path in [keeper.paths.config(), keeper.paths.journal()] {
            for spoil in ["remove", "replace", "truncate"] {
                match spoil {
                    "remove" => fs::remove_file(&path).unwrap(),
                    "replace" => {
                        fs::remove_file(&path).unwrap();
                        fs::write(&path, "nonsense\n").unwrap();
                    }
                    _ => File::options().write(true).open(&path).unwrap().set_len(0).unwrap(),
                }
                keeper.store(&["pause echo\n".to_owned()]).unwrap();
                assert_eq!(kept(dir.path()), keeper.config.script(), "{spoil} {}", path.display());
            }
        }
    }
}
