//! The histories that clients and workers write while faults are injected: each request, its
//! outcome, and the worker process that began it. `checker` judges them.

use crate::proc::{began_at, is_alive};
use protocol::errors::Ran;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What came back for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// The worker's answer, and whether it is the one to this request.
    Answer {
        /// Number, size and sum are right.
        right: bool,
    },
    /// An error: its number, and what it says of whether the work ran.
    Error {
        /// Below zero isect's own, above zero the worker's.
        code: i16,
        /// As the client was told.
        ran: Ran,
    },
}

/// Something that came back, and when (microseconds of the run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When its client read it.
    pub at: u64,
    /// For so long before that its client had not looked: it may have been there all the while.
    pub blind: u64,
    /// The reply or error that came back.
    pub got: Got,
}

/// How a request ended for its client when nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection ended first.
    Lost,
    /// It never left whole, so no worker can have seen it.
    Partial,
    /// The client closed its connection, by plan.
    Closed,
    /// Nothing came long past the deadline, or nobody took its bytes for too long.
    GaveUp,
}

/// A request as its client knows it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of this request alone.
    pub id: u64,
    /// Index of the service in the checker's rules.
    pub service: usize,
    /// The request has the idempotent flag.
    pub idempotent: bool,
    /// An answer was wanted.
    pub reply: bool,
    /// How long it was worth waiting for, microseconds.
    pub deadline: u64,
    /// When it was sent, microseconds of the run.
    pub sent: u64,
    /// When the last request ended that stood before it in the stream of its connection and came
    /// in pieces or was large, so that the broker may have held back the stream; 0 = none.
    pub behind: u64,
    /// The connection's own port where it goes through a proxy, else 0.
    pub port: u16,
    /// Asked by the client library, which may log in and ask again by itself.
    pub library: bool,
    /// Its client was in with the token that is made anew during the faults.
    pub changing: bool,
    /// All that came back for it.
    pub outcomes: Vec<Outcome>,
    /// Why nothing came back, and when that was known.
    pub end: Option<(u64, End)>,
}

impl Asked {
    /// When its client knew how it ended.
    pub fn ended(&self) -> Option<u64> {
        let outcome = self.outcomes.first().map(|outcome| outcome.at);
        outcome.or_else(|| self.end.map(|(at, _)| at))
    }
}

/// A worker process began a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Id of the request, as in [`Asked`].
    pub id: u64,
    /// Id of the worker process.
    pub pid: u32,
    /// Number of the delivery, from 1, as in the frame's header.
    pub attempt: u32,
}

/// A worker process. Its id alone does not do: a fault run of half an hour uses each of them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witness {
    /// Process id, which the kernel may reuse.
    pub pid: u32,
    /// When it began, see [`began_at`].
    pub began: u64,
}

impl Witness {
    /// The process that asks.
    ///
    /// # Panics
    /// If there is no `/proc`.
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { pid, began: began_at(pid).expect("/proc") }
    }

    /// Whether this very process is there.
    pub fn is_alive(self) -> bool {
        began_at(self.pid) == Some(self.began) && is_alive(self.pid)
    }

    /// The file where it writes down what it does.
    pub fn file(self, folder: &Path) -> PathBuf {
        folder.join(format!("worker-{}-{}", self.pid, self.began))
    }

    /// The process whose history a file name belongs to; `None` = another file.
    fn of(name: &str) -> Option<Self> {
        let (pid, began) = name.strip_prefix("worker-")?.split_once('-')?;
        Some(Self { pid: pid.parse().ok()?, began: began.parse().ok()? })
    }
}

/// What a worker process did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not logged in yet.
    Started,
    /// It waits.
    Ready,
    /// It works.
    Busy,
}

/// The folder in which each worker process keeps its history, read piece by piece.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    read: BTreeMap<Witness, usize>,
    /// All that was begun.
    pub begun: Vec<Begun>,
    /// The processes there were.
    pub witnesses: BTreeMap<Witness, State>,
}

impl Folder {
    /// Makes it.
    ///
    /// # Panics
    /// If it can't.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a folder");
        Self { path, read: BTreeMap::new(), begun: Vec::new(), witnesses: BTreeMap::new() }
    }

    /// Path of the folder, which the worker processes are told.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is new.
    ///
    /// # Panics
    /// If a line is none of a worker's.
    pub fn read(&mut self) {
        for entry in fs::read_dir(&self.path).expect("the folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(who) = Witness::of(&name) else { continue };
            let bytes = fs::read(&path).expect("a history");
            let from = self.read.get(&who).copied().unwrap_or(0);
            let new = bytes.get(from..).unwrap_or_default();
            // A line is written at once; one without its end is not there yet.
            let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in String::from_utf8_lossy(&new[..whole]).lines() {
                self.take(who, line);
            }
            self.read.insert(who, from + whole);
        }
    }

    fn take(&mut self, who: Witness, line: &str) {
        let pid = who.pid;
        let mut words = line.split(' ');
        let state = match (words.next(), words.next(), words.next()) {
            (Some("started"), None, None) => State::Started,
            (Some("ready" | "end"), _, None) => State::Ready,
            (Some("begin"), Some(id), Some(attempt)) => {
                let number = |word: &str| word.parse().unwrap_or_else(|e| panic!("'{line}': {e}"));
                let attempt = u32::try_from(number(attempt)).expect("a count");
                self.begun.push(Begun { id: number(id), pid, attempt });
                State::Busy
            }
            _ => panic!("process {pid} wrote '{line}'"),
        };
        self.witnesses.insert(who, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_got_the_id_of_an_earlier_one_is_not_taken_for_it() {
        let own = Witness::own();
        assert!(own.is_alive());
        let earlier = Witness { began: own.began - 1, ..own };
        assert!(!earlier.is_alive());
        let folder = Path::new("/f");
        assert_ne!(own.file(folder), earlier.file(folder));
        let name = own.file(folder).file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(Witness::of(&name), Some(own));
    }
}
