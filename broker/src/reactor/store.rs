//! Stores the configuration on a thread of its own, since a disk may take long. One write is under
//! way at a time; changes that come meanwhile are written together after it.

use super::helpers::{HelperResult, ResultSender};
use super::io::Io;
use super::state_dir::{Paths, StateDir, replace_synced};
use crate::engine::Engine;
use crate::engine::input::Input;
use crossbeam_channel::{Sender, bounded};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;

/// A configuration to be written, and the number of its `Action::Store`.
type Job = (u64, String);

/// The write under way, and the one that is to follow.
#[derive(Debug, Default)]
pub(super) struct Storing {
    /// Number of the last `Action::Store` that no write is under way for.
    wanted: Option<u64>,
    is_writing: bool,
    jobs: Option<Sender<Job>>,
}

impl Storing {
    /// `Action::Store`: has the configuration written when the write under way has ended.
    pub(super) fn want(&mut self, number: u64) {
        self.wanted = Some(number);
    }

    /// Whether a write can begin.
    pub(super) fn is_ready(&self) -> bool {
        self.wanted.is_some() && !self.is_writing
    }

    /// Whether a write is under way or wanted.
    pub(super) fn is_busy(&self) -> bool {
        self.wanted.is_some() || self.is_writing
    }
}

impl Io {
    /// Begins to write the configuration, if that is wanted and no other write is under way.
    pub(super) fn store(&mut self, engine: &Engine) {
        if self.storing.is_writing {
            return;
        }
        let Some(number) = self.storing.wanted.take() else { return };
        // A temporary directory keeps nothing.
        if self.state.is_private {
            self.tell(None, Input::Stored { number, result: Ok(()) });
            return;
        }
        if self.storing.jobs.is_none() {
            match start(&self.state, self.helpers.result_sender()) {
                Ok(jobs) => self.storing.jobs = Some(jobs),
                Err(error) => {
                    let why = format!("no thread can be started to write it: {error}");
                    self.tell(None, Input::Stored { number, result: Err(why) });
                    return;
                }
            }
        }
        let job = (number, engine.save_script());
        self.storing.is_writing = self.storing.jobs.as_ref().is_some_and(|to| to.send(job).is_ok());
        if !self.storing.is_writing {
            self.storing.jobs = None;
            let why = "the thread that writes it has ended".to_owned();
            self.tell(None, Input::Stored { number, result: Err(why) });
        }
    }

    /// A write has ended.
    pub(super) fn stored(&mut self, number: u64, result: Result<(), String>) {
        self.storing.is_writing = false;
        self.tell(None, Input::Stored { number, result });
    }
}

/// Starts the thread. It ends with the loop, or with the process. Until then it has the lock, too,
/// so that no other broker reads what it is about to replace.
fn start(state: &StateDir, results: ResultSender) -> io::Result<Sender<Job>> {
    let (jobs, work) = bounded::<Job>(1);
    let (paths, lock) = (state.paths.clone(), Arc::clone(&state.lock));
    thread::Builder::new().name("isectd-store".to_owned()).spawn(move || {
        let _lock = lock;
        for (number, script) in work {
            let result = write(&paths, &script);
            results.tell(HelperResult::Stored { number, result });
        }
    })?;
    Ok(jobs)
}

/// Writes the configuration, whole or not at all, and brings it to the disk.
fn write(paths: &Paths, script: &str) -> Result<(), String> {
    let path = paths.config();
    replace_synced(&path, script.as_bytes())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let dir = File::open(&paths.dir).and_then(|dir| dir.sync_all());
    match dir {
        Ok(()) => Ok(()),
        // Some file systems can't sync a directory; there the name follows later.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        Err(error) => Err(format!("{}: {error}", paths.dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_whole_or_the_error_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { dir: dir.path().to_owned() };
        assert_eq!(write(&paths, "config service echo\n"), Ok(()));
        assert_eq!(std::fs::read_to_string(paths.config()).unwrap(), "config service echo\n");
        let gone = Paths { dir: dir.path().join("gone") };
        let why = write(&gone, "config service echo\n").unwrap_err();
        assert!(why.contains("gone/config.isect: "), "{why}");
    }
}
