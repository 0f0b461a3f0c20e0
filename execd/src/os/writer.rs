//! The thread that writes the state directory. A disk may take seconds for a write of some bytes,
//! while another program writes much; execd's loop must answer its broker meanwhile.

use super::private;
use auth::lock::Lock;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::error;

/// What is to be written, in this order. There is no more of it than of children.
#[derive(Debug, Default)]
struct Todo {
    /// The file anew. What was to be written before it is in it.
    whole: Option<String>,
    /// Lines to be added to it.
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
    /// There is something to write, or nothing will come any more.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the thread. It ends when this is dropped and all is written.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
}

/// What the thread writes to.
#[derive(Debug)]
pub(super) struct Target {
    /// The name of the file.
    pub(super) file: PathBuf,
    /// The file, open for more lines.
    pub(super) appends: File,
    /// Held until all is written.
    pub(super) _lock: Lock,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for one.
    pub(super) fn start(target: Target) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        sys::threads::spawn("state", move || target.serve(&own))?;
        Ok(Self { shared })
    }

    /// Adds a line.
    pub(super) fn append(&self, line: &str) {
        self.shared.lock().lines.push_str(line);
        self.shared.filled.notify_one();
    }

    /// Writes the file anew.
    pub(super) fn rewrite(&self, text: String) {
        let mut todo = self.shared.lock();
        todo.lines.clear();
        todo.whole = Some(text);
        self.shared.filled.notify_one();
    }

    /// Waits until all is written, so long at most; whether it is.
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

    /// Adds lines, whole or not at all: a part of a line would spoil the next one.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        let before = self.appends.metadata()?.len();
        let written = self.appends.write_all(lines.as_bytes());
        if written.is_err() {
            // Where a byte can be taken away no room is needed.
            let _ = self.appends.set_len(before);
        }
        written
    }
}

/// Puts a new file in the place of the old one; gives it, open for more lines. It is not forced to
/// the disk, which would take long: what it tells of does not survive the machine's end either, and
/// what a power cut leaves of it is recognised.
pub(super) fn put(file: &Path, text: &str) -> io::Result<File> {
    let new = file.with_extension("new");
    let mut out = private::create(&new)?;
    out.write_all(text.as_bytes())?;
    fs::rename(&new, file)?;
    Ok(out)
}
