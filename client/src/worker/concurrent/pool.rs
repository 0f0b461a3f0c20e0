//! Threads that answer the requests of a worker. The calling thread only takes them, so the broker
//! is heard while all others work.

use super::link::lock;
use super::{ConcurrentWorker, OwnedRequest};
use crate::error::Error;
use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, Scope};

/// Requests that wait for a thread, and what the threads do.
#[derive(Default)]
struct Queue {
    requests: VecDeque<OwnedRequest>,
    /// Threads that wait for a request, or were told that one came and have not gone on yet.
    idle: usize,
    threads: usize,
    /// No further request comes.
    is_closed: bool,
}

#[derive(Default)]
struct Pool {
    queue: Mutex<Queue>,
    /// A request came, or none comes any more.
    changed: Condvar,
}

/// Answers requests with `answer`, each on a thread of its own, as many at a time as the login of
/// the worker says. Threads are started when they are needed first. Returns when the broker asks
/// the worker to end, or it has [taken as many requests as it should](ConcurrentWorker::end_after),
/// and all that it had are answered.
///
/// A request that `answer` drops without an answer is answered as a failure.
///
/// # Errors
/// As [`ConcurrentWorker::next`], or the system starts no thread. What runs is finished before.
///
/// # Panics
/// At the end, if `answer` panicked; its requests are answered as failures, and others go on.
pub fn serve_concurrently(
    mut worker: ConcurrentWorker,
    answer: impl Fn(OwnedRequest) + Sync,
) -> Result<(), Error> {
    let pool = Pool::default();
    thread::scope(|scope| {
        // Whatever happens here, the threads must end.
        let _close = CloseAtEnd(&pool);
        let most = worker.options.concurrency as usize;
        while let Some(request) = worker.next()? {
            pool.put(request, most, scope, &answer).map_err(no_thread)?;
        }
        Ok(())
    })
}

fn no_thread(error: io::Error) -> Error {
    let text = format!("the system starts no thread: {error}");
    Error::new(protocol::ErrorCode::Internal, text).with_source(error)
}

impl Pool {
    /// Gives a request to a thread that waits, or to a new one, or to the first that has time.
    fn put<'scope, 'env>(
        &'scope self,
        request: OwnedRequest,
        most: usize,
        scope: &'scope Scope<'scope, 'env>,
        answer: &'scope (impl Fn(OwnedRequest) + Sync),
    ) -> io::Result<()> {
        let mut queue = lock(&self.queue);
        queue.requests.push_back(request);
        if queue.requests.len() <= queue.idle {
            drop(queue);
            self.changed.notify_one();
        } else if queue.threads < most {
            queue.threads += 1;
            let is_first = queue.threads == 1;
            drop(queue);
            let named = thread::Builder::new().name("answer".to_owned());
            if let Err(error) = named.spawn_scoped(scope, move || self.work(answer)) {
                lock(&self.queue).threads -= 1;
                // Those that there are take the request in time.
                return if is_first { Err(error) } else { Ok(()) };
            }
        }
        Ok(())
    }

    fn work(&self, answer: &impl Fn(OwnedRequest)) {
        let _counted = Counted(self);
        let mut queue = lock(&self.queue);
        loop {
            if let Some(request) = queue.requests.pop_front() {
                drop(queue);
                answer(request);
                queue = lock(&self.queue);
            } else if queue.is_closed {
                return;
            } else {
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }
}

/// A thread that is counted, also while it panics.
struct Counted<'a>(&'a Pool);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).threads -= 1;
    }
}

/// Ends the threads when all requests are answered.
struct CloseAtEnd<'a>(&'a Pool);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).is_closed = true;
        self.0.changed.notify_all();
    }
}
