//! Returns memory to the system after a burst: shrinks tables that grew with connections and
//! requests, frees spare buffers, and trims the allocator. It checks once a second and does nothing
//! while the load lasts.

use super::Reactor;
use protocol::time::Tick;
use sys::memory;

/// Time between two checks.
const LOOK_MS: u64 = 1000;
/// Memory is returned only if at least this many connections have closed.
const LINKS_MIN: usize = 256;

/// The state of the checks.
#[derive(Debug, Default)]
pub(super) struct MemoryTrim {
    look_at: Tick,
    /// Most connections since memory was last given back.
    links_peak: usize,
    /// The last check found that a burst is over. Memory is returned when two checks in a row find
    /// it.
    is_over: bool,
}

impl Reactor {
    /// Checks once a second; returns memory if a burst was over at the last check and still is.
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
