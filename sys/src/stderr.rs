//! Standard error for programs that must not stop when nobody reads it: a full pipe, a terminal
//! stopped with Ctrl-S, a full disk. A thread writes the lines; when it can't keep up, lines are
//! dropped and counted. `O_NONBLOCK` is no alternative: it belongs to the open file description,
//! which the program shares with whoever started it.
//!
//! The thread is safe in a program that forks: it holds no lock that a forked child takes before
//! its exec, and all signals are blocked in it. So the SIGTTOU of a terminal with `tostop` stops no
//! thread, and signals reach the threads that expect them.

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
/// Longest time for the last message of a program that ends.
pub const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Whether a line was taken out and is not written yet.
    is_writing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when there is a line to write.
    filled: Condvar,
    /// Signalled when all lines are written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues lines for the thread that writes them. Each `write` is one line and is queued as a whole
/// or dropped.
#[derive(Clone, Debug)]
pub struct Stderr {
    shared: Arc<Shared>,
}

impl Stderr {
    /// Starts the thread. After lines were dropped and writing works again, it calls `on_lost` with
    /// their number; `on_lost` may write to this same `Stderr`. If the system has no thread left,
    /// every line is dropped and the program goes on.
    pub fn start(on_lost: impl Fn(u64) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        // On an error there is no thread: see above.
        let _ = threads::spawn("stderr", move || write_lines(&own, &on_lost));
        Self { shared }
    }

    /// Queues a line. If [`LINES_MAX`] or [`BYTES_MAX`] is reached, it drops and counts the line.
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

    /// Waits at most this long until all queued lines are written; returns whether they are.
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

/// Standard error of a program that also prints answers. Each write waits until its lines are
/// written, so that they appear at the right place between the answers. If a write takes longer
/// than [`LAST_WORDS_TIME`], later ones don't wait until the reader is back.
#[derive(Debug)]
pub struct Notes {
    /// The name of the program, which begins the message about dropped lines.
    program: &'static str,
    /// Started by the first write, because most runs write nothing.
    stderr: Option<Stderr>,
    is_stuck: bool,
}

impl Notes {
    /// Notes of this program; nothing is written and no thread started yet.
    pub fn new(program: &'static str) -> Self {
        Self { program, stderr: None, is_stuck: false }
    }
}

impl Write for Notes {
    /// Writes one line, or several lines that belong together.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let program = self.program;
        let stderr = self.stderr.get_or_insert_with(|| {
            Stderr::start(move |lost| {
                let text = format!("{program}: {lost} lines dropped: stderr was not read\n");
                // Writing worked a moment ago. If it fails now, nobody can be told.
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
            // While nothing can be written, nobody can be told.
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

/// Writes all bytes and waits as long as that takes, also on a descriptor that another process made
/// non-blocking.
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

/// Writes the last message of a program that ends, for at most [`LAST_WORDS_TIME`]. A program whose
/// stderr nobody reads ends all the same, and its exit status says why.
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
        // There is no thread that takes lines out.
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
        // Nobody writes, so the wait must end by its limit.
        stderr.flush_within(Duration::from_millis(1));
    }
}
