//! Mapping parts of the memory file, and keeping them mapped while anything refers to them.
#![allow(unsafe_code, reason = "mmap and munmap")]

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// Mapped memory of the segment, shared with other processes that may write any of it at any time: no reference
/// to it but to atomics is ever made.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: an address range that is valid until the drop, whichever thread uses it; what may be done with it is
// the business of `area`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of the file from `offset`, both multiples of the page size.
    pub(crate) fn new(file: impl AsFd, offset: u64, len: u64) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new).ok_or_else(too_large)?;
        let at = i64::try_from(offset).map_err(|_| too_large())?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, file, at)? };
        // A core file would hold the whole node's segment. Failing to leave it out is no harm.
        // SAFETY: the range was just mapped; this advice does not change its contents.
        let _ = unsafe { madvise(base, size.get(), MmapAdvise::MADV_DONTDUMP) };
        Ok(Self { base, len: size.get() })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of a part; `None` when it is not inside.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: inside the mapping, as checked.
        inside.then(|| unsafe { self.base.cast::<u8>().add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; whoever uses an address of it holds a reference to this value.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}
