//! Gives free memory of the allocator back to the system.

/// Gives back the free pages of the heap. For a large heap this takes some milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "only the C library knows its heap")]
    // SAFETY: malloc_trim takes a number and may be called at any time from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
