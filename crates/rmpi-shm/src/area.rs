//! Access to parts of the segment: atomics, and copies that other processes' writes cannot upset.
//!
//! Other ranks may write any byte at any time. So there are references to atomics only, and bulk data is copied
//! by code that the compiler cannot see into: a racing writer can make the copied bytes wrong, never the
//! program.
#![allow(unsafe_code, reason = "shared memory is reached through pointers, bounds are checked here")]

use crate::copy;
use crate::map::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// A part of the segment that stays mapped as long as the value lives. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct Area {
    base: NonNull<u8>,
    len: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: the memory is valid for as long as the mapping is held, and every access through an Area is atomic or
// an opaque copy; pointers that `ptr` gives are the caller's responsibility.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// A part of a mapping; `None` when it is not inside or does not begin on a cache line.
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: usize, len: usize) -> Option<Self> {
        let base = mapping.at(offset, len)?;
        base.cast::<u64>().is_aligned().then(|| Self { base, len, _mapping: Arc::clone(mapping) })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of this part; `None` when it is not inside or not aligned to 8 bytes.
    #[must_use]
    pub fn part(&self, at: usize, len: usize) -> Option<Self> {
        let base = self.ptr(at, len)?;
        base.cast::<u64>().is_aligned().then(|| Self { base, len, _mapping: Arc::clone(&self._mapping) })
    }

    /// The address of `len` bytes from `at`; `None` when they are not inside. For kernels that work in place:
    /// they must not form references to this memory, which others write.
    #[must_use]
    pub fn ptr(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: inside the area, as checked.
        inside.then(|| unsafe { self.base.add(at) })
    }

    fn typed<T>(&self, at: usize) -> Option<NonNull<T>> {
        self.ptr(at, size_of::<T>()).map(NonNull::cast).filter(|p| p.is_aligned())
    }

    /// A byte.
    #[must_use]
    pub fn byte(&self, at: usize) -> Option<&AtomicU8> {
        // SAFETY: inside the area, which lives as long as the borrow; atomics may be written by others.
        self.typed(at).map(|p| unsafe { p.as_ref() })
    }

    /// A word of 4 bytes; `None` when it is not inside or not aligned.
    #[must_use]
    pub fn word32(&self, at: usize) -> Option<&AtomicU32> {
        // SAFETY: inside and aligned, as `typed` checks; the area lives as long as the borrow.
        self.typed(at).map(|p| unsafe { p.as_ref() })
    }

    /// A word of 8 bytes; `None` when it is not inside or not aligned.
    #[must_use]
    pub fn word64(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: inside and aligned, as `typed` checks; the area lives as long as the borrow.
        self.typed(at).map(|p| unsafe { p.as_ref() })
    }

    /// Takes all its pages at once, to write (`own`) or only to read. Advice: nothing depends on it.
    pub fn populate(&self, own: bool) {
        const POPULATE_READ: nix::libc::c_int = 22;
        const POPULATE_WRITE: nix::libc::c_int = 23;
        let page = self.base.as_ptr().addr() & 4095;
        let advice = if own { POPULATE_WRITE } else { POPULATE_READ };
        // SAFETY: whole pages of a mapping that lives as long as the area; contents do not change.
        unsafe {
            let from = self.base.as_ptr().sub(page);
            nix::libc::madvise(from.cast(), self.len + page, advice);
        }
    }

    /// Asks for some cache lines from `at` to be made this core's, to be written soon. Advice.
    #[inline]
    pub(crate) fn claim_lines(&self, at: usize, lines: usize) {
        for i in 0..lines {
            if let Some(line) = self.ptr(at + 64 * i, 64) {
                copy::claim(line.as_ptr());
            }
        }
    }

    /// Copies out from `at`; whether that was inside.
    pub fn read(&self, at: usize, into: &mut [u8]) -> bool {
        let Some(from) = self.ptr(at, into.len()) else { return false };
        // SAFETY: `from` has that many bytes inside the mapping, `into` is ours; they cannot overlap, since no
        // Rust slice is ever made of mapped memory.
        unsafe { copy::copy(into.as_mut_ptr(), from.as_ptr(), into.len()) };
        true
    }

    /// Copies in to `at`; whether that was inside.
    pub fn write(&self, at: usize, bytes: &[u8]) -> bool {
        let Some(to) = self.ptr(at, bytes.len()) else { return false };
        // SAFETY: as for `read`.
        unsafe { copy::copy(to.as_ptr(), bytes.as_ptr(), bytes.len()) };
        true
    }
}

#[cfg(not(loom))]
/// An area as words that are reached without a check: the index is counted modulo their number. Under loom it is
/// never used: models bring their own memory.
#[derive(Clone, Debug)]
pub(crate) struct SlotWords {
    area: Area,
    mask: usize,
}

#[cfg(not(loom))]
impl SlotWords {
    /// # Panics
    /// When the area does not hold a power of two of words.
    pub(crate) fn new(area: Area) -> Self {
        let words = area.len() / 8;
        assert!(words.is_power_of_two(), "rings have a power of two of words");
        Self { area, mask: words - 1 }
    }
}

#[cfg(not(loom))]
impl crate::ring::Words for SlotWords {
    #[inline]
    fn word(&self, i: usize) -> &AtomicU64 {
        // SAFETY: the masked index is inside the area, which is aligned to 8 bytes (`Area::new`) and lives as
        // long as the borrow; atomics may be written by others.
        unsafe { self.area.base.cast::<AtomicU64>().add(i & self.mask).as_ref() }
    }
}
