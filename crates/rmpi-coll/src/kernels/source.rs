//! Operands: private memory, memory that other processes may write meanwhile, or the output itself.
#![allow(unsafe_code, reason = "operands are windows of memory that other processes may write")]

use super::blocks::Job;
use super::{DataType, Op, vector};
use std::marker::PhantomData;

/// Bytes that are only read, valid for `'a`. Others may write them meanwhile: then the result is made of some of
/// the values that were there.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Null: the output.
    ptr: *const u8,
    len: usize,
    lives: PhantomData<&'a [u8]>,
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len(), lives: PhantomData }
    }
}

impl<'a> Source<'a> {
    /// What the output holds before.
    pub const OUTPUT: Self = Self { ptr: std::ptr::null(), len: 0, lives: PhantomData };

    /// Bytes of shared memory.
    ///
    /// # Safety
    /// `ptr` is not null and readable for `len` bytes during `'a`. Other processes may write there; in this one
    /// nobody does while the source is used.
    #[must_use]
    pub unsafe fn shared(ptr: *const u8, len: usize) -> Self {
        Self { ptr, len, lives: PhantomData }
    }

    /// Whether it is what the output holds.
    pub(super) fn is_output(&self) -> bool {
        self.ptr.is_null()
    }

    /// Its bytes in private memory.
    pub(super) fn copy_to(&self, into: &mut [u8]) {
        assert_eq!(self.len, into.len());
        // SAFETY: readable by the contract of construction; `into` is private and as long.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr, into.as_mut_ptr(), self.len) };
    }

    /// Its length; `None` for [`Source::OUTPUT`], which has those of the output.
    pub(super) fn len(&self) -> Option<usize> {
        (!self.ptr.is_null()).then_some(self.len)
    }

    /// The part of `len` bytes from `offset`.
    ///
    /// # Panics
    /// When that is not inside.
    #[must_use]
    pub fn part(self, offset: usize, len: usize) -> Self {
        if self.ptr.is_null() {
            return self;
        }
        assert!(offset <= self.len && len <= self.len - offset, "part {offset}+{len} of {}", self.len);
        // SAFETY: inside the window, as asserted.
        Self { ptr: unsafe { self.ptr.add(offset) }, len, lives: PhantomData }
    }
}

/// Bytes that are written, valid for `'a`: private memory, or memory that others may see.
#[derive(Debug)]
pub struct Target<'a> {
    ptr: *mut u8,
    len: usize,
    lives: PhantomData<&'a mut [u8]>,
}

impl<'a> From<&'a mut [u8]> for Target<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len(), lives: PhantomData }
    }
}

impl Target<'_> {
    /// Bytes of shared memory.
    ///
    /// # Safety
    /// `ptr` is not null and writable for `len` bytes during the target's life; no reference to them exists, and
    /// in this process nobody else reads or writes there meanwhile.
    #[must_use]
    pub unsafe fn shared(ptr: *mut u8, len: usize) -> Self {
        Self { ptr, len, lives: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Calls `f` with the target's bytes in private memory and copies them back.
    pub(super) fn through_copy(&mut self, f: impl FnOnce(&mut [u8])) {
        let mut copy = vec![0u8; self.len];
        // SAFETY: readable and writable by the contract of construction; `copy` is private and as long.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr, copy.as_mut_ptr(), self.len) };
        f(&mut copy);
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr(), self.ptr, self.len) };
    }
}

/// Sources whose pointers fit on the stack.
const FEW: usize = 16;

/// Combines; the operation is defined for the type, and the lengths are equal and whole elements (checked by the
/// caller).
#[inline]
pub(super) fn combine(dtype: DataType, op: Op, out: Target<'_>, sources: &[Source<'_>], stream: bool) {
    let (dst, len) = (out.ptr, out.len);
    let pointer = |s: &Source<'_>| if s.ptr.is_null() { dst.cast_const() } else { s.ptr };
    if sources.is_empty() || len == 0 {
        return;
    }
    let run = |pointers: &[*const u8]| {
        // SAFETY: `out` is ours alone, so nothing but `Source::OUTPUT` overlaps it; the sources live, have
        // its length by the caller's check, and there is at least one.
        unsafe { vector::combine(dtype, op, &Job { out: dst, sources: pointers, len, stream }) }
    };
    match sources {
        [a, b] => run(&[pointer(a), pointer(b)]),
        _ if sources.len() <= FEW => {
            let mut few = [std::ptr::null(); FEW];
            few.iter_mut().zip(sources).for_each(|(f, s)| *f = pointer(s));
            run(&few[..sources.len()]);
        }
        _ => run(&sources.iter().map(pointer).collect::<Vec<_>>()),
    }
}
