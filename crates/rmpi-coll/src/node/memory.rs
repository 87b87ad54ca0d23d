//! The memory that the ranks of a node share, as the collectives see it: words with acquire and release, and
//! bytes that are copied. All `unsafe` of the node's collectives is here.
#![allow(unsafe_code, reason = "memory that other processes read and write")]

use crate::kernels::{Source, Target};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One rank's block of shared memory. Offsets are in bytes; words lie at multiples of 8.
pub trait Memory: Send + Sync {
    /// Reads a word; everything its writer did before is visible afterwards.
    fn load(&self, at: usize) -> u64;
    /// Writes a word; everything done before is visible to who reads it.
    fn store(&self, at: usize, value: u64);
    /// Replaces `old` by `new`; what was there otherwise.
    ///
    /// # Errors
    /// The value found when it is not `old`.
    fn replace(&self, at: usize, old: u64, new: u64) -> Result<(), u64>;
    /// Adds to a word.
    fn add(&self, at: usize, by: u64);
    /// Copies bytes in.
    fn write(&self, at: usize, bytes: &[u8]);
    /// Copies bytes out.
    fn read(&self, at: usize, bytes: &mut [u8]);
    /// Bytes as an operand.
    fn source(&self, at: usize, len: usize) -> Source<'_>;
    /// Bytes as a result that nobody else uses meanwhile.
    fn target(&self, at: usize, len: usize) -> Target<'_>;
}

/// A piece of mapped memory, and what keeps it mapped.
#[derive(Clone)]
pub struct Window {
    ptr: *mut u8,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
    /// Shared memory, which has a copy routine of its own.
    area: Option<rmpi_shm::Area>,
}

/// Copies from this length on are worth the call of that routine.
const LONG: usize = 256;

// SAFETY: an address, a length and a shared owner; all access is by atomic words and raw copies, which the
// protocols of this module order between threads as they do between processes.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({} bytes)", self.len)
    }
}

impl Window {
    /// `len` bytes at `ptr`.
    ///
    /// # Safety
    /// They are mapped, writable, aligned to 64 bytes, and stay so while `keep` lives; no reference to them exists.
    ///
    /// # Panics
    /// When `ptr` is not aligned.
    #[must_use]
    pub unsafe fn new(ptr: *mut u8, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Self {
        assert!(ptr.cast::<[u64; 8]>().is_aligned() && ptr.addr().is_multiple_of(64));
        Self { ptr, len, keep, area: None }
    }

    /// Zeroed memory of this process, for ranks that are threads.
    #[must_use]
    pub fn private(len: usize) -> Self {
        let words = vec![0u64; len.div_ceil(8) + 8].into_boxed_slice();
        let (count, base) = (words.len(), Box::into_raw(words).cast::<u8>());
        let owner = Private(base.cast::<u64>(), count);
        // SAFETY: 64 bytes more than asked for were allocated, so the aligned address has `len` after it; the
        // owner frees them when the last window is gone.
        unsafe { Self::new(base.add(base.align_offset(64)), len, Arc::new(owner)) }
    }

    /// The bytes, for a test's member whose buffer this is.
    #[cfg(test)]
    #[expect(clippy::mut_from_ref, reason = "one member writes, as between processes")]
    pub(super) fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: the test hands it to the one member that owns this buffer, and the others only read parts of it that
        // this one does not write then, through raw pointers.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }

    /// Bytes of the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What keeps it mapped.
    #[must_use]
    pub fn keeper(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.keep
    }

    /// # Panics
    /// When the bytes are not inside: a mistake here, never a peer's doing.
    #[inline]
    fn at(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at, "{at}+{len} is outside of {} bytes", self.len);
        // SAFETY: inside, as asserted.
        unsafe { self.ptr.add(at) }
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8), "a word at byte {at}");
        let ptr = self.at(at, 8).cast::<u64>();
        // SAFETY: inside, aligned (the window is), mapped while `self` lives; words are only used atomically.
        unsafe { AtomicU64::from_ptr(ptr) }
    }
}

impl From<rmpi_shm::Area> for Window {
    fn from(area: rmpi_shm::Area) -> Self {
        let (base, len) = (area.ptr(0, area.len()), area.len());
        let base = base.map_or(std::ptr::dangling_mut(), std::ptr::NonNull::as_ptr);
        // SAFETY: the area's own memory, mapped while it lives, and the window keeps it; page-aligned where the segment gives whole blocks
        // (checked by `new`); no reference to it exists, by the crate's rule.
        let window = unsafe { Self::new(base, len, Arc::new(())) };
        Self { area: Some(area), ..window }
    }
}

/// Frees what [`Window::private`] allocated.
struct Private(*mut u64, usize);
// SAFETY: owns an allocation that nobody reaches through it.
unsafe impl Send for Private {}
// SAFETY: as above.
unsafe impl Sync for Private {}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: made from a boxed slice of this length in `Window::private`; no window is left.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.0, self.1)) });
    }
}

impl Memory for Window {
    #[inline]
    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
    }

    fn replace(&self, at: usize, old: u64, new: u64) -> Result<(), u64> {
        self.word(at).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn add(&self, at: usize, by: u64) {
        self.word(at).fetch_add(by, Ordering::AcqRel);
    }

    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        if bytes.len() >= LONG && self.area.as_ref().is_some_and(|a| a.write(at, bytes)) {
            return;
        }
        let to = self.at(at, bytes.len());
        // SAFETY: inside the window; private memory does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    #[inline]
    fn read(&self, at: usize, bytes: &mut [u8]) {
        if bytes.len() >= LONG && self.area.as_ref().is_some_and(|a| a.read(at, bytes)) {
            return;
        }
        let from = self.at(at, bytes.len());
        // SAFETY: as above. Whoever breaks the protocol can change what is copied, not where to.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    #[inline]
    fn source(&self, at: usize, len: usize) -> Source<'_> {
        // SAFETY: inside the window, which stays mapped while borrowed; in this process nobody writes there while
        // the protocol lets it be read.
        unsafe { Source::shared(self.at(at, len), len) }
    }

    #[inline]
    fn target(&self, at: usize, len: usize) -> Target<'_> {
        // SAFETY: inside the window, which stays mapped while borrowed; the protocol gives it to one rank.
        unsafe { Target::shared(self.at(at, len), len) }
    }
}
