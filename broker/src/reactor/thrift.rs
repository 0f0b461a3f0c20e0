//! Giving memory back after a burst: tables that grew with connections and requests, buffers that
//! stand by, and what the allocator keeps. Looked at once a second in passing; nothing is done
//! while the load lasts. Not who owns what.

use super::Reactor;
use execd::os::memory;
use protocol::time::Tick;

/// Time between two looks.
const LOOK_MS: u64 = 1000;
/// So many connections more than now are worth the trouble.
const LINKS_MIN: usize = 256;

/// What the looks remember.
#[derive(Debug, Default)]
pub(super) struct Thrift {
    look_at: Tick,
    /// Most connections since memory was last given back.
    links_peak: usize,
    /// The last look found a burst that is over: if the next one does, too, it is.
    is_over: bool,
}

impl Reactor {
    /// Gives memory back if a burst was over at the last look and still is.
    #[inline]
    pub(super) fn save_memory(&mut self) {
        let links = self.shell.links.len();
        self.thrift.links_peak = self.thrift.links_peak.max(links);
        if self.shell.now >= self.thrift.look_at {
            self.look(links);
        }
    }

    fn look(&mut self, links: usize) {
        self.thrift.look_at = self.shell.now.plus_millis(LOOK_MS);
        let have_left = self.thrift.links_peak >= 2 * links + LINKS_MIN;
        let is_over = self.bulk.is_idle() | have_left | self.engine.has_spare_capacity();
        if !std::mem::replace(&mut self.thrift.is_over, is_over) || !is_over {
            return;
        }
        self.bulk.clear();
        self.shell.links.shrink();
        self.engine.shrink();
        memory::give_back();
        self.thrift.links_peak = links;
        self.thrift.is_over = false;
    }
}
