//! Memory of operations in flight: raw windows that the engine reads from and writes to.
//!
//! The contract all `unsafe` in this crate rests on: a [`RawBuf`] is made only here, in `scope.rs` and in
//! `arena.rs`; its memory stays valid and is touched by nobody but the engine from the moment the operation is
//! submitted until the operation has completed or [`crate::Core::release`] has returned; and the engine reads or
//! writes through it only while the operation that owns it is in its table, not completed and not released.
#![allow(
    unsafe_code,
    reason = "buffers outlive calls: the borrow checker cannot follow operations in flight"
)]

use std::any::Any;

/// A window of memory lent to the engine for one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawBuf {
    ptr: *mut u8,
    len: usize,
}

// SAFETY: a RawBuf is an address and a length; who may use it when is the contract above, which does not
// depend on the thread: the engine's lock orders all its accesses.
unsafe impl Send for RawBuf {}

impl RawBuf {
    /// A window of no bytes.
    pub(crate) const EMPTY: Self = Self { ptr: std::ptr::dangling_mut(), len: 0 };

    /// A window for reading: the engine never writes through windows of send operations.
    ///
    /// # Safety
    /// The module's contract holds for `bytes` from now on.
    pub(crate) unsafe fn read(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr().cast_mut(), len: bytes.len() }
    }

    /// A window for writing.
    ///
    /// # Safety
    /// The module's contract holds for `bytes` from now on.
    pub(crate) unsafe fn write(bytes: &mut [u8]) -> Self {
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where it is in this process, for another one to read it there.
    pub(crate) fn address(&self) -> u64 {
        self.ptr.expose_provenance() as u64
    }

    /// A part of the window; clamped to it.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.len);
        // SAFETY: offset <= len, so the result is inside the window or one past its end.
        Self { ptr: unsafe { self.ptr.add(offset) }, len: len.min(self.len - offset) }
    }

    /// The bytes, to read. The caller is the engine working on the operation that owns the window.
    pub(crate) fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: by the contract the memory is valid, initialised, and nobody writes it while the operation
        // lives; callers in this crate drop the slice before they return to code that could complete it.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// The bytes, to write. The caller is the engine working on the receive that owns the window.
    pub(crate) fn bytes_mut<'a>(self) -> &'a mut [u8] {
        // SAFETY: as for `bytes`; and windows of receives are exclusive: made from `&mut`, or checked against
        // all others by the arena.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

/// Owned memory that an operation keeps until it completes.
///
/// # Safety
/// `bytes` must always return the same initialised memory, which must stay where it is when the value moves,
/// may hold any bytes, and must not be reachable in any other way while the value exists.
pub unsafe trait Memory: Send + 'static {
    /// The whole memory.
    fn bytes(&mut self) -> &mut [u8];
    /// For getting the value back.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

// SAFETY: a vector's elements are on the heap, owned by it alone; plain old data takes any bytes.
unsafe impl<T: bytemuck::Pod + Send> Memory for Vec<T> {
    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Memories that live as long as anything uses them; nobody reaches inside meanwhile.
pub(crate) struct Keeper(pub(crate) Vec<Box<dyn Memory>>);

// SAFETY: no method gives access to the memories through a shared reference; the vector is taken out whole, by
// value, when the last user is gone.
unsafe impl Sync for Keeper {}

/// The window of a boxed memory that moves into the operation's slot with it.
pub(crate) fn window(memory: &mut Box<dyn Memory>) -> RawBuf {
    // SAFETY: the Memory contract gives a stable, unshared address; the box is kept in the operation's slot and
    // not touched until the operation is over.
    unsafe { RawBuf::write(memory.bytes()) }
}
