//! Gives memory back after a burst: tables that grew with connections and requests, buffers that
//! stand by, and what the allocator keeps. Looked at once a second in passing; nothing is done
//! while the load lasts.

use super::Reactor;
use execd::os::memory;
use protocol::time::Tick;

/// Time between two looks.
const LOOK_MS: u64 = 1000;
/// So many connections more than now are worth the trouble.
const LINKS_MIN: usize = 256;

/// What the looks remember.
#[derive(Debug, Default)]
pub(super) struct MemoryTrim {
    look_at: Tick,
    /// Most connections since memory was last given back.
    links_peak: usize,
    /// The last look found a burst that is over: if the next one does, too, it is.
    is_over: bool,
}

impl Reactor {
    /// Gives memory back if a burst was over at the last look and still is.
    #[inline]
    pub(super) fn trim_memory(&mut self) {
        let links = self.io.links.len();
        self.memory_trim.links_peak = self.memory_trim.links_peak.max(links);
        if self.io.now >= self.memory_trim.look_at {
            self.look(links);
        }
    }

    fn look(&mut self, links: usize) {
        self.memory_trim.look_at = self.io.now.plus_millis(LOOK_MS);
        let have_left = self.memory_trim.links_peak >= 2 * links + LINKS_MIN;
        let is_over = self.buffer_pool.is_idle() | have_left | self.engine.has_spare_capacity();
        if !std::mem::replace(&mut self.memory_trim.is_over, is_over) || !is_over {
            return;
        }
        self.buffer_pool.clear();
        self.io.links.shrink();
        self.engine.shrink();
        memory::give_back();
        self.memory_trim.links_peak = links;
        self.memory_trim.is_over = false;
    }
}
