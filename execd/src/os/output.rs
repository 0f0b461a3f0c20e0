//! The thread that keeps the output of workers in files. The loop of execd never waits for it: what
//! it has no room to queue is counted and told in the file. `output_files` has the files.

use super::output_files::{OutputFiles, Owner};
use super::output_line;
use super::output_read::LastLines;
use crate::engine::action::KeptText;
use crate::engine::input::Watched;
use crate::engine::kept::{self, KeptNumbers};
use auth::lock::{Fault, Lock};
use protocol::bodies::{ExecLines, ExecRead};
use protocol::limits::{CONTROL_BODY_BYTES_MAX, LINES_MAX};
use protocol::{Frame, LinkId};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{error, info};

/// Most bytes that wait for the thread; those of one worker may be with it besides.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Most bytes of one worker among them, so that one that writes much leaves room for the others.
const OWNER_BYTES_MAX: usize = 2 << 20;
/// Bytes that are written before the thread looks for reads again; at least one piece.
const PART_BYTES: usize = 64 << 10;
/// Bytes that each piece counts for beside its text.
const PIECE_BYTES: usize = 256;
/// Most reads that wait.
const READS_MAX: usize = 1024;
/// Longest wait for the lock of the directory.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Lines that one worker wrote.
#[derive(Debug)]
struct Piece {
    owner: Owner,
    watched: Watched,
    at_ms: u64,
    lines: KeptText,
    /// How many lines before it had no room in the queue.
    lost: u64,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.lines.text.len() + PIECE_BYTES
    }
}

/// Lines of a worker that had no room in the queue, since its last piece that had.
#[derive(Debug, Default)]
struct Lost {
    count: u64,
    number: u64,
    at_ms: u64,
    watched: Watched,
}

/// What is written together: pieces, then how many lines after them had no room.
type Part = (Vec<Piece>, Vec<(Owner, Lost)>);

/// What the thread has to do, and what it has done.
#[derive(Debug, Default)]
struct Pending {
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces, by worker.
    bytes: BTreeMap<Owner, usize>,
    lost: BTreeMap<Owner, Lost>,
    reads: VecDeque<(LinkId, Owner, ExecRead)>,
    /// Frames that the loop has not taken. No further read is done meanwhile.
    answers: VecDeque<(LinkId, Frame)>,
    is_writing: bool,
    is_closed: bool,
}

impl Pending {
    fn has_writes(&self) -> bool {
        !self.pieces.is_empty() || !self.lost.is_empty()
    }

    fn has_work(&self) -> bool {
        self.has_writes() || (!self.reads.is_empty() && self.answers.is_empty())
    }

    /// The next read, if one may be done now.
    fn next_read(&mut self) -> Option<(LinkId, Owner, ExecRead)> {
        if self.answers.is_empty() { self.reads.pop_front() } else { None }
    }

    /// Takes all that waits of one worker.
    fn take_of(&mut self, owner: &Owner) -> Part {
        self.bytes.remove(owner);
        let pieces = std::mem::take(&mut self.pieces).into_iter();
        let (own, others) = pieces.partition::<VecDeque<_>, _>(|piece| piece.owner == *owner);
        self.pieces = others;
        (own.into(), self.lost.remove_entry(owner).into_iter().collect())
    }

    /// Takes what has waited longest.
    fn take_oldest(&mut self) -> Part {
        let (mut pieces, mut taken) = (Vec::new(), 0);
        while taken < PART_BYTES
            && let Some(piece) = self.pieces.pop_front()
        {
            taken += piece.bytes();
            if let Some(left) = self.bytes.get_mut(&piece.owner) {
                *left -= piece.bytes();
                if *left == 0 {
                    self.bytes.remove(&piece.owner);
                }
            }
            pieces.push(piece);
        }
        // A worker's lost lines come after all of its pieces.
        let all = std::mem::take(&mut self.lost).into_iter();
        let (lost, others) = all.partition::<Vec<_>, _>(|(o, _)| !self.bytes.contains_key(o));
        self.lost = others.into_iter().collect();
        (pieces, lost)
    }
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    /// Signalled when there is something to do, or nothing more will come.
    filled: Condvar,
    /// Signalled when everything is written.
    emptied: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues lines and reads for the thread. The thread ends when this is dropped and everything is
/// written.
#[derive(Debug)]
pub(super) struct OutputKeeper {
    shared: Arc<Shared>,
    /// Readable when there are answers.
    wake: UnixStream,
}

impl OutputKeeper {
    /// Opens the directory and starts the thread. Returns the number of the last line of each
    /// worker, too.
    pub(super) fn start(root: &Path, total_max: u64) -> io::Result<(Self, KeptNumbers)> {
        let (files, numbers) = OutputFiles::open(root, total_max)?;
        let lock = Lock::take_within(&root.join("lock"), LOCK_WAIT).map_err(|fault| {
            io::Error::other(match fault {
                Fault::Held(pid) => format!("another execd (process {pid}) writes there"),
                Fault::Unusable(why) => why,
            })
        })?;
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let shared = Arc::<Shared>::default();
        let thread = Thread { files, shared: Arc::clone(&shared), waker, is_failing: false, lock };
        sys::threads::spawn("output", move || thread.serve())?;
        Ok((Self { shared, wake }, numbers))
    }

    /// Queues lines of a worker, read at this time.
    pub(super) fn keep(&self, owner: Owner, watched: Watched, at_ms: u64, lines: KeptText) {
        let mut pending = self.shared.lock();
        let bytes = lines.text.len() + PIECE_BYTES;
        let all: usize = pending.bytes.values().sum();
        let own = pending.bytes.get(&owner).copied().unwrap_or(0);
        if all + bytes > QUEUE_BYTES_MAX || own + bytes > OWNER_BYTES_MAX {
            let count = lines.text.bytes().filter(|byte| *byte == b'\n').count() as u64;
            let lost = pending.lost.entry(owner).or_default();
            let number = lines.first + count - 1;
            *lost = Lost { count: lost.count + count, number, at_ms, watched };
            return;
        }
        let lost = pending.lost.remove(&owner).map_or(0, |lost| lost.count);
        *pending.bytes.entry(owner.clone()).or_default() += bytes;
        pending.pieces.push_back(Piece { owner, watched, at_ms, lines, lost });
        drop(pending);
        self.shared.filled.notify_one();
    }

    /// Queues a read. What was queued of its worker before is written first; what was queued of
    /// others may be written later.
    pub(super) fn read(&self, link: LinkId, owner: Owner, read: ExecRead) {
        let mut pending = self.shared.lock();
        if pending.reads.len() >= READS_MAX {
            let text = format!("{READS_MAX} reads wait for the disk already; try again later");
            let frame = Frame::ExecLines(kept::none(read, text));
            pending.answers.push_back((link, frame));
        } else {
            pending.reads.push_back((link, owner, read));
        }
        drop(pending);
        self.shared.filled.notify_one();
    }

    /// What is readable when there are answers.
    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Hands each frame that is there to `send`, as long as that returns true.
    pub(super) fn answers(&self, mut send: impl FnMut(LinkId, &Frame) -> bool) {
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        let mut pending = self.shared.lock();
        if pending.answers.is_empty() {
            return;
        }
        while pending.answers.front().is_some_and(|(link, frame)| send(*link, frame)) {
            pending.answers.pop_front();
        }
        drop(pending);
        self.shared.filled.notify_one();
    }

    /// Waits at most this long until everything is written; returns whether it is.
    pub(super) fn finish(&self, within: Duration) -> bool {
        let is_at_work = |pending: &mut Pending| pending.is_writing || pending.has_writes();
        let waited = self.shared.emptied.wait_timeout_while(self.shared.lock(), within, is_at_work);
        waited.is_ok_and(|(_, waited)| !waited.timed_out())
    }
}

impl Drop for OutputKeeper {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

/// What the thread has.
struct Thread {
    files: OutputFiles,
    shared: Arc<Shared>,
    waker: UnixStream,
    /// Whether the last write failed, which is logged once.
    is_failing: bool,
    /// Held as long as the thread may write.
    #[expect(dead_code, reason = "it is held, not read")]
    lock: Lock,
}

impl Thread {
    fn serve(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let is_idle = |pending: &mut Pending| !pending.has_work() && !pending.is_closed;
            let pending = shared.filled.wait_while(shared.lock(), is_idle);
            let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
            // One read and one part in turn: neither a worker that always writes nor one who always
            // reads keeps the other waiting.
            if let Some((link, owner, read)) = pending.next_read() {
                let part = pending.take_of(&owner);
                self.write(&shared, pending, part);
                let frames = self.read(&owner, read);
                let answers = frames.into_iter().map(|lines| (link, Frame::ExecLines(lines)));
                shared.lock().answers.extend(answers);
                let _ = self.waker.write(&[0]);
                pending = shared.lock();
            }
            if pending.has_writes() {
                let part = pending.take_oldest();
                self.write(&shared, pending, part);
            } else if pending.is_closed {
                return;
            }
        }
    }

    /// Writes a part that was just taken.
    fn write(&mut self, shared: &Shared, mut pending: MutexGuard<'_, Pending>, part: Part) {
        pending.is_writing = true;
        drop(pending);
        self.write_part(part);
        shared.lock().is_writing = false;
        shared.emptied.notify_all();
    }

    fn write_part(&mut self, (pieces, lost): Part) {
        if pieces.is_empty() && lost.is_empty() {
            return;
        }
        let mut result = Ok(());
        for Piece { owner, watched, at_ms, lines, lost } in pieces {
            let written = self.files.write(&owner, watched, at_ms, (&lines, lost));
            result = result.and(written);
        }
        for (owner, Lost { count, number, at_ms, watched }) in lost {
            self.files.lose(&owner, count, number);
            let time = output_line::time(at_ms);
            let told = self.files.tell_lost(&owner, watched, &time);
            result = result.and(told);
        }
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        match result {
            Err(error) if !was_failing => {
                error!(%error, "the output of workers can't be kept; what is lost is counted");
            }
            Ok(()) if was_failing => info!("the output of workers is kept again"),
            Ok(()) | Err(_) => {}
        }
    }

    fn read(&self, owner: &Owner, read: ExecRead) -> Vec<ExecLines> {
        match self.files.last_lines(owner, read.lines as usize) {
            Ok(last) => in_frames(read, last),
            Err(error) => vec![kept::none(read, format!("the kept output can't be read: {error}"))],
        }
    }
}

/// Makes frames of lines, each within the limits of a body.
fn in_frames(read: ExecRead, last: LastLines) -> Vec<ExecLines> {
    // The most bytes of a line: its number, time and stream, and its text with each byte escaped.
    let size = |text: &str| text.len() * 2 + 64;
    let (mut frames, mut frame, mut bytes) = (Vec::new(), kept::none(read, String::new()), 0);
    frame.lost = last.lost;
    for line in last.lines {
        bytes += size(&line.text);
        if bytes > CONTROL_BODY_BYTES_MAX / 2 || frame.lines.len() >= LINES_MAX / 2 {
            bytes = size(&line.text);
            frame.more = true;
            frames.push(std::mem::replace(&mut frame, kept::none(read, String::new())));
        }
        frame.lines.push(line);
    }
    if frames.is_empty() && frame.lines.is_empty() {
        frame.text = "no output of it is kept".to_owned();
    }
    frames.push(frame);
    frames
}
