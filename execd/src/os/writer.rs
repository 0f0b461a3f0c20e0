//! The thread that writes the state directory. While another program writes much, a disk may take
//! seconds for a few bytes; the loop of execd must answer its broker meanwhile.

use super::private;
use auth::lock::Lock;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::error;

/// What is to be written, in this order; never more than the lines of all children.
#[derive(Debug, Default)]
struct Todo {
    /// The new file, which replaces everything that was to be written before.
    whole: Option<String>,
    /// Lines to append to it.
    lines: String,
    is_writing: bool,
    is_closed: bool,
}

impl Todo {
    const fn is_empty(&self) -> bool {
        self.whole.is_none() && self.lines.is_empty()
    }
}

#[derive(Debug, Default)]
struct Shared {
    todo: Mutex<Todo>,
    /// Signalled when there is something to write, or nothing more will come.
    filled: Condvar,
    /// Signalled when everything is written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues writes for the thread. The thread ends when this is dropped and everything is written.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
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
    ///
    /// # Errors
    /// The system can't start another thread.
    pub(super) fn start(target: Target) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        sys::threads::spawn("state", move || target.serve(&own))?;
        Ok(Self { shared })
    }

    /// Queues a line.
    pub(super) fn append(&self, line: &str) {
        self.shared.lock().lines.push_str(line);
        self.shared.filled.notify_one();
    }

    /// Queues a new file.
    pub(super) fn rewrite(&self, text: String) {
        let mut todo = self.shared.lock();
        todo.lines.clear();
        todo.whole = Some(text);
        self.shared.filled.notify_one();
    }

    /// Waits at most this long until everything is written; returns whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let is_at_work = |todo: &mut Todo| todo.is_writing || !todo.is_empty();
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

impl Target {
    fn serve(mut self, shared: &Shared) {
        loop {
            let is_idle = |todo: &mut Todo| todo.is_empty() && !todo.is_closed;
            let todo = shared.filled.wait_while(shared.lock(), is_idle);
            let mut todo = todo.unwrap_or_else(PoisonError::into_inner);
            if todo.is_empty() {
                return;
            }
            let (whole, lines) = (todo.whole.take(), std::mem::take(&mut todo.lines));
            todo.is_writing = true;
            drop(todo);
            if let Some(text) = whole {
                match put(&self.file, &text) {
                    Ok(appends) => self.appends = appends,
                    Err(error) => error!(%error, "the state directory can't be written"),
                }
            }
            if let Err(error) = self.append(&lines) {
                error!(
                    %error,
                    "the state directory can't be written; a later execd will end what was started"
                );
            }
            shared.lock().is_writing = false;
            shared.emptied.notify_all();
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
    let mut out = private::create(&new)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&new, file)?;
    Ok(out)
}
