//! Stores changes of the configuration on a thread of its own, since a disk may take long. Changes
//! that come while it writes are written together after it.

use super::helpers::{HelperResult, ResultSender};
use super::io::Io;
use super::keeper::Keeper;
use crate::engine::input::Input;
use crate::exit::Fatal;
use auth::lock::Lock;
use crossbeam_channel::{Sender, unbounded};
use std::sync::Arc;
use std::thread;

/// The number and the lines of an `Action::Store`.
type Job = (u64, String);

/// The thread, and the write under way.
#[derive(Debug, Default)]
pub(super) struct Storing {
    /// What the scripts of the start changed. It is written if none of them failed.
    first: Vec<Job>,
    /// Number of the last job that was given to the thread, and of the last one that it answered.
    given: u64,
    answered: u64,
    /// `None` = nothing is kept, as the state directory is a temporary one.
    jobs: Option<Sender<Job>>,
}

impl Storing {
    /// Starts the thread. It ends with the loop, or with the process. Until then it has the lock,
    /// too, so that no other broker reads what it is about to replace.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(super) fn start(
        &mut self,
        mut keeper: Keeper,
        lock: Arc<Lock>,
        results: ResultSender,
    ) -> Result<(), Fatal> {
        // The engine bounds it: it refuses changes when too many wait.
        let (jobs, work) = unbounded::<Job>();
        let work = move || {
            let _lock = lock;
            while let Ok((mut number, lines)) = work.recv() {
                let mut changes = vec![lines];
                for (next, lines) in work.try_iter() {
                    number = next;
                    changes.push(lines);
                }
                let result = keeper.store(&changes);
                results.tell(HelperResult::Stored { number, result });
                keeper.shorten();
            }
        };
        let thread = thread::Builder::new().name("isectd-store".to_owned()).spawn(work);
        thread.map_err(|error| Fatal::System(format!("no thread can be started: {error}")))?;
        self.jobs = Some(jobs);
        Ok(())
    }

    /// Whether a write is under way or wanted.
    pub(super) fn is_busy(&self) -> bool {
        !self.first.is_empty() || self.answered < self.given
    }
}

impl Io {
    /// `Action::Store`: has changes written; those of the scripts of the start once all are done.
    pub(super) fn store(&mut self, number: u64, lines: String) {
        if self.is_starting {
            self.storing.first.push((number, lines));
        } else {
            self.store_now((number, lines));
        }
    }

    /// The scripts of the start are done, and none has failed.
    pub(super) fn store_first(&mut self) {
        for job in std::mem::take(&mut self.storing.first) {
            self.store_now(job);
        }
    }

    fn store_now(&mut self, job: Job) {
        let number = job.0;
        let Some(jobs) = &self.storing.jobs else {
            return self.tell(None, Input::Stored { number, result: Ok(()) });
        };
        if jobs.send(job).is_ok() {
            self.storing.given = number;
        } else {
            let why = "the thread that writes it has ended; start isectd again".to_owned();
            self.tell(None, Input::Stored { number, result: Err(why) });
        }
    }

    /// A write has ended.
    pub(super) fn stored(&mut self, number: u64, result: Result<(), String>) {
        self.storing.answered = number;
        self.tell(None, Input::Stored { number, result });
    }
}
