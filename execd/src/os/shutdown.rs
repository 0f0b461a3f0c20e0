//! The end of execd: it ends what workers left behind, sends the last frames, and waits for the
//! state directory. Each step has a time limit.

use super::run::ExecLoop;
use super::{orphans, reap};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::time::Tick;
use std::os::fd::AsFd;
use std::time::Duration;
use tracing::error;

/// Milliseconds for sending the last frames.
const LAST_FLUSH_MS: u64 = 1000;

/// Longest wait for the state directory.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Longest wait for the state directory if the next execd adopts the processes: it ends those that
/// it does not find there.
const LAST_WRITES_KEPT: Duration = Duration::from_secs(10);

/// Milliseconds to end what workers left behind.
const LAST_ORPHANS_MS: u64 = 1000;

impl ExecLoop {
    /// Ends what workers left behind, and what those leave behind, until nothing is left.
    fn end_orphans(&mut self, until: Tick) {
        loop {
            reap::all(|_| false);
            let left = until.since(self.clock.read()).as_millis();
            if left == 0 || !orphans::end(&self.spawn_config.directory_id, |_| false, |_| false) {
                return;
            }
            let wait = u16::try_from(left).unwrap_or(u16::MAX);
            let _ = poll(
                &mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)],
                PollTimeout::from(wait),
            );
            while self.signals.take().is_some() {}
        }
    }

    /// Ends execd.
    pub(super) fn shut_down(&mut self) {
        self.say_goodbye();
        let wait = if self.keeps_children { LAST_WRITES_KEPT } else { LAST_WRITES };
        if self.state.as_ref().is_some_and(|state| !state.finish(wait)) {
            error!("the state directory could not be written in time");
        }
        if self.output.as_ref().is_some_and(|output| !output.finish(LAST_WRITES)) {
            error!("the last output of workers could not be written in time");
        }
    }

    /// Closes the listener and sends the last frames. Each link stays open, for a limited time,
    /// until the other side has closed it: closing with unread bytes makes the kernel drop what was
    /// just sent.
    fn say_goodbye(&mut self) {
        self.listener = None;
        let now = self.clock.read();
        if !self.keeps_children {
            self.end_orphans(now.plus_millis(LAST_ORPHANS_MS));
        }
        let until = now.plus_millis(LAST_FLUSH_MS);
        for link in self.links.values_mut() {
            link.linger(now);
        }
        loop {
            self.links.retain(|_, link| link.flush().is_ok() && link.read().is_ok());
            let left = until.since(self.clock.read()).as_millis();
            if self.links.is_empty() || left == 0 {
                return;
            }
            let fds = self.links.values().map(|link| {
                let out = if link.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
                PollFd::new(link.as_fd(), PollFlags::POLLIN | out)
            });
            let wait = u16::try_from(left).unwrap_or(u16::MAX);
            match poll(&mut fds.collect::<Vec<_>>(), PollTimeout::from(wait)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
