//! Threads beside a program's loop, for what may block.

use nix::sys::signal::SigSet;
use std::io;
use std::thread;

/// Starts a thread in which all signals are blocked: they go to the threads that expect them.
///
/// # Errors
/// The system has no room for a thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let before = SigSet::thread_get_mask()?;
    SigSet::all().thread_block()?;
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    started.map(drop)
}
