//! The conformance suite: plays the conversations of `tests/conformance` with a library. The runner
//! is the broker, a driver is a small program that uses the library as it is told.
//! docs/conformance.md has the form of the files and of what is said to a driver.
//!
//! | file | what it has |
//! | --- | --- |
//! | `file` | a file as cases and steps |
//! | `value` | variables, and what a value is compared with |
//! | `wire` | a frame of a line: made, compared, shown |
//! | `peer` | the broker's side of the connections |
//! | `program` | the driver's process, and what is said to it |
//! | `play` | plays the steps of one case |
//! | `driver` | the driver of the Rust library |

mod file;
mod peer;
mod play;
mod program;
mod value;
mod wire;

pub mod driver;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most cases that are played at a time; they mostly wait.
const AT_A_TIME: usize = 4;

/// The side of a conversation that the library is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It asks, publishes, subscribes.
    Client,
    /// It answers.
    Worker,
}

/// The program that uses a library.
#[derive(Clone, Debug)]
pub struct Driver {
    /// How it is called in reports.
    pub name: String,
    /// The program and its first arguments.
    pub command: Vec<String>,
    /// Arguments behind those of a worker.
    pub worker_args: Vec<String>,
    /// Variables for its environment.
    pub variables: Vec<(String, String)>,
    /// What it has not; cases that need it are left out.
    pub lacks: Vec<String>,
    /// Whether it is talked to over a Unix socket, in place of TCP.
    pub is_unix: bool,
}

impl Driver {
    /// A driver that is started by these words.
    pub fn new(name: &str, command: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            command: command.to_vec(),
            worker_args: Vec::new(),
            variables: Vec::new(),
            lacks: Vec::new(),
            is_unix: false,
        }
    }

    /// A driver that is started by a line, as `CONFORMANCE_DRIVER` has it: words between blanks.
    pub fn of_line(line: &str) -> Self {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Self::new(line, &words)
    }
}

/// What came of all cases.
#[derive(Debug, Default)]
pub struct Report {
    /// How many cases were as they are to be.
    pub passed: usize,
    /// A text for each case that was not.
    pub failures: Vec<String>,
    /// The cases that need what the library has not, with what that is.
    pub left_out: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        for case in &self.left_out {
            writeln!(f, "left out: {case}")?;
        }
        let (passed, failed, left) = (self.passed, self.failures.len(), self.left_out.len());
        write!(f, "{passed} conversations as they are to be, {failed} not, {left} left out")
    }
}

/// The result of one case.
enum Outcome {
    Passed,
    LeftOut(String),
    Failed(String),
}

/// The folder of the conversations.
pub fn folder() -> PathBuf {
    crate::docs::root().join("tests/conformance")
}

/// Plays all files below a folder that has the folders `client` and `worker`. With `only`, those
/// cases alone that have it in their file's path or title.
///
/// # Panics
/// A file can't be read.
pub fn play(folder: &Path, driver: &Driver, only: &str) -> Report {
    let mut cases = Vec::new();
    let mut report = Report::default();
    for (name, side) in [("client", Side::Client), ("worker", Side::Worker)] {
        for path in file::files(&folder.join(name)) {
            let shown = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            let text = std::fs::read_to_string(&path).expect("a conversation");
            match file::cases(&text) {
                Ok(found) => {
                    cases.extend(found.into_iter().map(|case| (shown.clone(), side, case)))
                }
                Err(fault) => report.failures.push(format!("{shown}:{fault}")),
            }
        }
    }
    cases.retain(|(file, _, case)| file.contains(only) || case.title.contains(only));
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((file, side, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let outcome = play::case(file, *side, case, driver);
                    let mut outcomes = outcomes.lock().expect("no thread panics");
                    outcomes.push((file, case.line, &case.title, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics");
    outcomes.sort_by_key(|(file, line, ..)| (*file, *line));
    for (file, line, title, outcome) in outcomes {
        match outcome {
            Outcome::Passed => report.passed += 1,
            Outcome::LeftOut(why) => report.left_out.push(format!("{file}:{line}: {title}: {why}")),
            Outcome::Failed(text) => report.failures.push(text),
        }
    }
    report
}
