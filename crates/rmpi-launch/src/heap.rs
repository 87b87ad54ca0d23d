//! Giving memory back: connecting to many hosts at once takes several times what staying connected does, and what was
//! freed lies between what is kept. Nothing else here may be unsafe.
#![allow(unsafe_code, reason = "malloc_trim has no safe binding")]

/// Gives the free pages of the heap back to the system, those between others too, where the C library can. Takes some
/// milliseconds for tens of megabytes.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes the allocator's own locks and touches no memory that is in use.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
