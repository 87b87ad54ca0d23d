//! Operations of reductions: the built-in ones, vectorised, and the user's own.

use crate::datatype::Datatype;
use crate::error::Error;
use rmpi_coll::kernels::{self, DataType, KernelError, ReduceOp};
use std::sync::Arc;

/// A built-in operation. Integers wrap around; 16-bit floats are computed in f32; logical operations give 1 or
/// 0; bitwise ones are for integers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `a + b`.
    Sum,
    /// `a × b`.
    Product,
    /// The lesser.
    Min,
    /// The greater.
    Max,
    /// Both are not zero.
    LogicalAnd,
    /// One is not zero.
    LogicalOr,
    /// Exactly one is not zero.
    LogicalXor,
    /// Bits set in both.
    BitAnd,
    /// Bits set in one or both.
    BitOr,
    /// Bits set in one only.
    BitXor,
}

impl From<Op> for ReduceOp {
    fn from(op: Op) -> Self {
        match op {
            Op::Sum => Self::Sum,
            Op::Product => Self::Product,
            Op::Min => Self::Min,
            Op::Max => Self::Max,
            Op::LogicalAnd => Self::LogicalAnd,
            Op::LogicalOr => Self::LogicalOr,
            Op::LogicalXor => Self::LogicalXor,
            Op::BitAnd => Self::BitAnd,
            Op::BitOr => Self::BitOr,
            Op::BitXor => Self::BitXor,
        }
    }
}

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

/// What a reduction does with pairs of bytes.
#[derive(Clone)]
pub(crate) enum Kernel {
    /// The collective reduces nothing.
    None,
    Builtin(DataType, ReduceOp),
    User(Arc<Combine<u8>>, u16),
}

impl Kernel {
    pub(crate) fn apply(&self, dst: &mut [u8], src: &[u8]) -> Result<(), Error> {
        match self {
            Self::None => Err(Error::Internal("a schedule reduces without an operation")),
            Self::Builtin(t, op) => Ok(kernels::reduce(*t, *op, dst, src)?),
            Self::User(f, _) => {
                f(dst, src);
                Ok(())
            }
        }
    }

    /// A number that tells operations apart, the same on all ranks.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::None => 0,
            Self::Builtin(_, op) => {
                ReduceOp::ALL.iter().zip(1..).find(|(o, _)| *o == op).map_or(0, |(_, n)| n)
            }
            Self::User(_, code) => *code,
        }
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
    pub(crate) kernel: Kernel,
    pub(crate) commutative: bool,
}

impl<T: Datatype> Reduction<T> for Op {
    fn erase(&self) -> Result<Erased, Error> {
        let op = ReduceOp::from(*self);
        if !op.defined_for(T::TYPE) {
            return Err(KernelError::Undefined { dtype: T::TYPE, op }.into());
        }
        Ok(Erased { kernel: Kernel::Builtin(T::TYPE, op), commutative: true })
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
        Ok(Erased { kernel: Kernel::User(Arc::new(erased), code), commutative: self.commutative })
    }
}
