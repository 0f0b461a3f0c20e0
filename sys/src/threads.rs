//! Starts threads for work that may block, beside the loop of a program.

use nix::sys::signal::SigSet;
use std::io;
use std::thread;

/// Starts a thread with all signals blocked, so that they reach the threads that expect them.
///
/// # Errors
/// The system can't start another thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let before = SigSet::thread_get_mask()?;
    SigSet::all().thread_block()?;
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    started.map(drop)
}
