//! Buffers in the memory that the ranks of a node share: what lies there is summed without being copied before.
#![allow(unsafe_code, reason = "slices of this rank's own part of mapped memory")]

use crate::comm::Communicator;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::world::{Inner, World};
use rmpi_core::Memory;
use rmpi_shm::{Area, Block};
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A buffer of this rank, made by [`World::alloc`], that the other ranks of its node can read:
/// [`Communicator::allreduce_shared`] adds up straight from one rank's buffer into another's. Otherwise it is used as
/// a slice. Where ranks share no memory it is ordinary memory.
pub struct Shared<T: Datatype> {
    place: Place<T>,
    len: usize,
}

enum Place<T> {
    Node { area: Area, block: Block, inner: Arc<Inner> },
    Own(Vec<T>),
}

impl<T: Datatype> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if matches!(self.place, Place::Own(_)) { "own" } else { "node" };
        write!(f, "Shared({} elements, {place} memory)", self.len)
    }
}

impl World {
    /// A buffer of `len` zeros in the memory of this rank's node. Not collective: each rank makes its own.
    ///
    /// # Errors
    /// [`Error::Memory`] when it is used up or cannot be mapped.
    pub fn alloc<T: Datatype>(&self, len: usize) -> Result<Shared<T>, Error> {
        let inner = &self.comm().inner;
        let Some(segment) = &inner.segment else {
            return Ok(Shared { place: Place::Own(vec![T::zeroed(); len]), len });
        };
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        let full = || Error::Memory { bytes, what: "this rank's part is used up".into() };
        let block = segment.alloc(bytes).ok_or_else(full)?;
        let mapped = segment.heap(segment.me(), block);
        let area = mapped.map_err(|e| {
            segment.free(block);
            Error::Memory { bytes, what: e.to_string() }
        })?;
        let mut buffer = Shared { place: Place::Node { area, block, inner: inner.clone() }, len };
        // Memory that could not be given back to the system after an earlier use is not zero.
        buffer.fill(T::zeroed());
        Ok(buffer)
    }
}

impl<T: Datatype> Shared<T> {
    /// Where the other ranks of the node find it; `None` when it is this rank's alone.
    pub(crate) fn at(&self, comm: &Communicator) -> Result<Option<u64>, Error> {
        match &self.place {
            Place::Node { block, inner, .. } if Arc::ptr_eq(inner, &comm.inner) => Ok(Some(block.offset)),
            Place::Node { .. } => Err(Error::Internal("a buffer of another world")),
            Place::Own(_) => Ok(None),
        }
    }
}

impl<T: Datatype> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.place {
            Place::Own(v) => v,
            // SAFETY: `len` elements at the beginning of a mapping of at least as many bytes, aligned to a page, that
            // lives as long as `self`; every pattern of bits is a value. In this process nobody else has a reference
            // to it, and the ranks that map it only read.
            Place::Node { area, .. } => unsafe {
                std::slice::from_raw_parts(start(area).cast::<T>(), self.len)
            },
        }
    }
}

impl<T: Datatype> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.place {
            Place::Own(v) => v,
            // SAFETY: as above; `self` is borrowed exclusively.
            Place::Node { area, .. } => unsafe {
                std::slice::from_raw_parts_mut(start(area).cast::<T>(), self.len)
            },
        }
    }
}

fn start(area: &Area) -> *mut u8 {
    area.ptr(0, area.len()).map_or(std::ptr::dangling_mut::<u64>().cast(), std::ptr::NonNull::as_ptr)
}

impl<T: Datatype> AsRef<[T]> for Shared<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Datatype> Drop for Shared<T> {
    fn drop(&mut self) {
        // Nobody reads it any more: a sum is over when all have what they need, and owns its buffer until then.
        if let Place::Node { block, inner, .. } = &self.place
            && let Some(segment) = &inner.segment
        {
            segment.free(*block);
        }
    }
}

// SAFETY: the memory is a mapping or on the heap, so it stays where it is when the value moves; it is reached through
// this value alone in this process; plain old data takes any bytes.
unsafe impl<T: Datatype> Memory for Shared<T> {
    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
