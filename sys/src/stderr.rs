//! Standard error for programs that must go on when nobody reads it: a full pipe, a terminal that
//! was stopped with Ctrl-S, a disk that is full. A thread of its own writes; what it can't keep up
//! with is dropped and counted. `O_NONBLOCK` would not do: it belongs to the open file description,
//! which is shared with whoever started the program.
//!
//! The thread does no harm to a program that forks: it holds no lock that a forked child takes
//! before its exec, and all signals are blocked in it. So a SIGTTOU of a terminal with `tostop`
//! stops nobody, and signals go to the threads that expect them.

use crate::threads;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most lines that wait to be written.
pub const LINES_MAX: usize = 8192;
/// Most bytes that wait to be written.
pub const BYTES_MAX: usize = 4 << 20;
/// How long the last words of a program that ends may take.
pub const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Lines that wait, and how many there was no room for.
#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// A line was taken out and is not written yet.
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is a line to write.
    filled: Condvar,
    /// All lines are written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the thread that writes. Each `write` is one line, whole or not at all.
#[derive(Clone, Debug)]
pub struct Stderr {
    shared: Arc<Shared>,
}

impl Stderr {
    /// Starts the thread. When lines were lost and one could be written again, it calls `on_lost`
    /// with their number, which may write to this very `Stderr`. Without the thread (the system has
    /// none left) everything is dropped, and the program goes on.
    pub fn start(on_lost: impl Fn(u64) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        // An error means that there is no thread: see above.
        let _ = threads::spawn("stderr", move || write_lines(&own, &on_lost));
        Self { shared }
    }

    /// Queues a line; drops and counts it if too much waits.
    pub fn put(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.lines.len() >= LINES_MAX || queue.bytes + line.len() > BYTES_MAX {
            queue.dropped += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        self.shared.filled.notify_one();
    }

    /// Waits until what was queued is written, but no longer than this. Whether it is written.
    pub fn flush_within(&self, limit: Duration) -> bool {
        let queue = self.shared.lock();
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.shared.emptied.wait_timeout_while(queue, limit, is_busy);
        let (_queue, end) = waited.unwrap_or_else(PoisonError::into_inner);
        !end.timed_out()
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error of a program that also prints answers: what is written here stands in its place
/// between them, because it is waited for. Not for ever: once a line was not taken within
/// [`LAST_WORDS_TIME`], the program goes on without, and waits again when the reader is back.
#[derive(Debug)]
pub struct Notes {
    /// What is told of dropped lines begins with this.
    program: &'static str,
    /// Started with the first line: most runs have none.
    stderr: Option<Stderr>,
    is_stuck: bool,
}

impl Notes {
    /// Nothing is written yet.
    pub fn new(program: &'static str) -> Self {
        Self { program, stderr: None, is_stuck: false }
    }
}

impl Write for Notes {
    /// One line, or several that belong together.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let program = self.program;
        let stderr = self.stderr.get_or_insert_with(|| {
            Stderr::start(move |lost| {
                let text = format!("{program}: {lost} lines dropped: stderr was not read\n");
                // It could be written to a moment ago. If not now, nobody is there to be told.
                let _ = write_all(text.as_bytes());
            })
        });
        stderr.put(lines);
        let limit = if self.is_stuck { Duration::ZERO } else { LAST_WORDS_TIME };
        self.is_stuck = !stderr.flush_within(limit);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(shared: &Shared, on_lost: &dyn Fn(u64)) {
    loop {
        let line = {
            let mut queue = shared.lock();
            loop {
                if let Some(line) = queue.lines.pop_front() {
                    queue.bytes -= line.len();
                    queue.is_writing = true;
                    break line;
                }
                queue = shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let is_written = write_all(&line).is_ok();
        let lost = {
            let mut queue = shared.lock();
            queue.is_writing = false;
            queue.dropped += u64::from(!is_written);
            // As long as nothing can be written there is nobody to tell.
            if is_written { std::mem::take(&mut queue.dropped) } else { 0 }
        };
        if lost > 0 {
            on_lost(lost);
        }
        if shared.lock().lines.is_empty() {
            shared.emptied.notify_all();
        }
    }
}

/// Writes all, however long it takes. A descriptor that somebody else has made non-blocking is
/// waited for.
fn write_all(mut bytes: &[u8]) -> nix::Result<()> {
    let out = io::stderr();
    while !bytes.is_empty() {
        match nix::unistd::write(&out, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes the last words of a program that is about to end, for at most [`LAST_WORDS_TIME`]: a
/// program whose stderr nobody reads ends all the same, and its status says why.
pub fn last_words(text: &str) {
    let line = format!("{text}\n");
    let (done, wait) = channel();
    let own = line.clone();
    let write = move || {
        // A failure is known to nobody who could be told.
        let _ = write_all(own.as_bytes());
        let _ = done.send(());
    };
    if threads::spawn("last words", write).is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS_TIME);
        return;
    }
    // No room for a thread: as much as is taken at once.
    let stderr = io::stderr();
    let wait = u16::try_from(LAST_WORDS_TIME.as_millis()).unwrap_or(u16::MAX);
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::from(wait)).is_ok_and(|count| count > 0) {
        let _ = write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_counted_by_line_and_by_byte() {
        // No thread takes anything out.
        let stderr = Stderr { shared: Arc::default() };
        for _ in 0..LINES_MAX {
            stderr.put(b"x");
        }
        assert_eq!(stderr.shared.lock().dropped, 0);
        stderr.put(b"x");
        assert_eq!(stderr.shared.lock().dropped, 1);
        let stderr = Stderr { shared: Arc::default() };
        stderr.put(&vec![0; BYTES_MAX]);
        assert_eq!(stderr.shared.lock().dropped, 0);
        assert_eq!(stderr.shared.lock().bytes, BYTES_MAX);
        stderr.put(b"x");
        assert_eq!(stderr.shared.lock().dropped, 1);
        // Nobody writes: the wait for it is bounded.
        stderr.flush_within(Duration::from_millis(1));
    }
}
