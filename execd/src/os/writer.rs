//! The thread that writes the state directory. While another program writes much, a disk may take
//! seconds for a few bytes; the loop of execd must answer its broker meanwhile.

use auth::lock::Lock;
use auth::own;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::error;

/// What is to be written, in this order; never more than the lines of all children.
#[derive(Debug, Default)]
struct PendingWrites {
    /// The file anew.
    whole: Option<String>,
    /// Lines that are in it, too: if there is no room for a whole file, there may be for a line.
    covered: String,
    /// Lines to be added to it.
    lines: String,
    is_writing: bool,
    is_closed: bool,
}

impl PendingWrites {
    const fn is_empty(&self) -> bool {
        self.whole.is_none() && self.lines.is_empty()
    }
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<PendingWrites>,
    /// Signalled when there is something to write, or nothing more will come.
    filled: Condvar,
    /// Signalled when everything is written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PendingWrites> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues writes for the thread. The thread ends when this is dropped and everything is written.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Where the system has no room for a thread, this writes itself.
    by_itself: Option<Arc<Mutex<Target>>>,
}

/// The file that the thread writes.
#[derive(Debug)]
pub(super) struct Target {
    /// The path of the file.
    pub(super) file: PathBuf,
    /// The file, open for appending.
    pub(super) appends: File,
    /// Held until everything is written.
    pub(super) _lock: Lock,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(target: Target) -> Self {
        let (shared, target) = (Arc::<Shared>::default(), Arc::new(Mutex::new(target)));
        let (own, theirs) = (Arc::clone(&shared), Arc::clone(&target));
        match sys::threads::spawn("state", move || serve(&theirs, &own)) {
            Ok(()) => Self { shared, by_itself: None },
            Err(_) => Self { shared, by_itself: Some(target) },
        }
    }

    /// Queues a line.
    pub(super) fn append(&self, line: &str) {
        self.shared.lock().lines.push_str(line);
        self.wake();
    }

    /// Queues a new file.
    pub(super) fn rewrite(&self, text: String) {
        let mut pending = self.shared.lock();
        let lines = std::mem::take(&mut pending.lines);
        pending.covered.push_str(&lines);
        pending.whole = Some(text);
        drop(pending);
        self.wake();
    }

    fn wake(&self) {
        match &self.by_itself {
            None => self.shared.filled.notify_one(),
            Some(target) => {
                let pending = std::mem::take(&mut *self.shared.lock());
                target.lock().unwrap_or_else(PoisonError::into_inner).write(pending);
            }
        }
    }

    /// Waits at most this long until everything is written; returns whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let is_at_work = |pending: &mut PendingWrites| pending.is_writing || !pending.is_empty();
        let waited = self.shared.emptied.wait_timeout_while(self.shared.lock(), within, is_at_work);
        waited.is_ok_and(|(_, waited)| !waited.timed_out())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

fn serve(target: &Mutex<Target>, shared: &Shared) {
    loop {
        let is_idle = |pending: &mut PendingWrites| pending.is_empty() && !pending.is_closed;
        let pending = shared.filled.wait_while(shared.lock(), is_idle);
        let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
        if pending.is_empty() {
            return;
        }
        let is_closed = pending.is_closed;
        let taken = std::mem::take(&mut *pending);
        (pending.is_writing, pending.is_closed) = (true, is_closed);
        drop(pending);
        target.lock().unwrap_or_else(PoisonError::into_inner).write(taken);
        shared.lock().is_writing = false;
        shared.emptied.notify_all();
    }
}

impl Target {
    fn write(&mut self, pending: PendingWrites) {
        let mut lines = pending.lines;
        if let Some(text) = pending.whole {
            match put(&self.file, &text) {
                Ok(appends) => self.appends = appends,
                Err(error) => {
                    error!(%error, "the state directory can't be written");
                    lines = pending.covered + &lines;
                }
            }
        }
        if let Err(error) = self.append(&lines) {
            error!(
                %error,
                "the state directory can't be written; a later execd will end what was started"
            );
        }
    }

    /// Appends lines as a whole or not at all: part of a line would spoil the next one.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        let before = self.appends.metadata()?.len();
        let written = self.appends.write_all(lines.as_bytes());
        if written.is_err() {
            // Shrinking a file needs no room on the disk.
            let _ = self.appends.set_len(before);
        }
        written
    }
}

/// Replaces the file by a new one and returns that, open for appending. It is not synced, which
/// would take long: the processes it names don't survive the end of the machine either, and a file
/// that a power cut damaged is recognised.
pub(super) fn put(file: &Path, text: &str) -> io::Result<File> {
    let new = file.with_extension("new");
    let mut out = own::create(&new)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&new, file)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn where_the_whole_file_has_no_room_its_new_lines_are_added() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        // In the way of a new file.
        fs::create_dir(directory.path().join("file.new")).unwrap();
        let target = || Target {
            file: file.clone(),
            appends: own::open(&file).unwrap(),
            _lock: Lock::take_within(&directory.path().join("lock"), LONG).unwrap(),
        };
        let writer = Writer::start(target());
        // Whatever of it the thread takes at a time.
        writer.append("one\n");
        writer.rewrite("one\n".to_owned());
        writer.append("two\n");
        writer.rewrite("one\ntwo\n".to_owned());
        assert!(writer.finish(LONG));
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        drop(writer);
        // The lock is free when all is written; without a thread all is written at once.
        let target = Arc::new(Mutex::new(target()));
        let alone = Writer { shared: Arc::default(), by_itself: Some(target) };
        alone.append("three\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
        fs::remove_dir(directory.path().join("file.new")).unwrap();
        alone.rewrite("anew\n".to_owned());
        assert!(alone.finish(LONG));
        assert_eq!(fs::read_to_string(&file).unwrap(), "anew\n");
    }
}
