//! Operations of reductions: the built-in ones, vectorised, and the user's own.

use crate::datatype::Datatype;
use crate::error::Error;
use rmpi_coll::kernels::{KernelError, Op, Reducer};
use std::sync::Arc;

/// `left[i] = f(left[i], right[i])` for whole slices.
type Combine<T> = dyn Fn(&mut [T], &[T]) + Send + Sync;

/// An associative operation of the user's: `left[i] = f(left[i], right[i])` over slices of equal length. It
/// runs inside this library's progress: it must not call the library.
#[derive(Clone)]
pub struct UserOp<T> {
    combine: Arc<Combine<T>>,
    commutative: bool,
}

impl<T> std::fmt::Debug for UserOp<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserOp").field("commutative", &self.commutative).finish_non_exhaustive()
    }
}

impl<T: Datatype> UserOp<T> {
    /// An operation in which the order of operands does not matter.
    pub fn commutative(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self {
        Self { commutative: true, ..Self::ordered(f) }
    }

    /// An operation that is applied in rank order.
    pub fn ordered(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self {
        Self::slices(false, move |left: &mut [T], right: &[T]| {
            left.iter_mut().zip(right).for_each(|(l, r)| *l = f(*l, *r));
        })
    }

    /// An operation given for whole slices, where elements depend on their neighbours or speed matters. The
    /// slices may be any part of the buffers.
    pub fn slices(commutative: bool, f: impl Fn(&mut [T], &[T]) + Send + Sync + 'static) -> Self {
        Self { combine: Arc::new(f), commutative }
    }
}

mod sealed {
    pub trait Sealed {}
}
impl sealed::Sealed for Op {}
impl<T> sealed::Sealed for UserOp<T> {}

/// An operation on elements of type `T`: [`Op`] or [`UserOp`].
pub trait Reduction<T>: sealed::Sealed {
    #[doc(hidden)]
    fn erase(&self) -> Result<Erased, Error>;
}

/// An operation without its element type.
#[doc(hidden)]
pub struct Erased {
    pub(crate) reducer: Reducer,
    pub(crate) commutative: bool,
}

impl<T: Datatype> Reduction<T> for Op {
    #[inline]
    fn erase(&self) -> Result<Erased, Error> {
        let op = *self;
        if !op.defined_for(T::TYPE) {
            return Err(KernelError::Undefined { dtype: T::TYPE, op }.into());
        }
        Ok(Erased { reducer: Reducer::Builtin(T::TYPE, op), commutative: true })
    }
}

impl<T: Datatype> Reduction<T> for UserOp<T> {
    fn erase(&self) -> Result<Erased, Error> {
        let f = self.combine.clone();
        let erased = move |dst: &mut [u8], src: &[u8]| {
            match (bytemuck::try_cast_slice_mut(dst), bytemuck::try_cast_slice(src)) {
                (Ok(d), Ok(s)) => f(d, s),
                _ => {
                    // Parts of scratch memory may lie anywhere.
                    let read = |b: &[u8]| -> Vec<T> {
                        b.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
                    };
                    let mut left = read(dst);
                    f(&mut left, &read(src));
                    dst.copy_from_slice(bytemuck::cast_slice(&left));
                }
            }
        };
        let code = if self.commutative { 0x40 } else { 0x41 };
        Ok(Erased { reducer: Reducer::User(Arc::new(erased), code), commutative: self.commutative })
    }
}
