//! Memory that the allocator keeps for later goes back to the system. For the broker too, which has
//! no room of its own for such a call. Not who should do so when.

/// Gives back what is free in the heap, whole pages of it; some milliseconds for a large heap.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "only the C library knows its heap")]
    // SAFETY: malloc_trim takes a number and may be called at any time from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
