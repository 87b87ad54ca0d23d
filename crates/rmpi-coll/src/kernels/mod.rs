//! Reductions over bytes of a known type: `out[i] = op(op(a[i], b[i]), c[i]) …` over any number of operands.
//!
//! The bytes may lie at any alignment. Meaning of the operations, the same in the vector and scalar paths:
//!
//! * **Integers**: sum and product wrap around (two's complement).
//! * **f16, bf16**: each operation is made in f32 and rounded to nearest, ties to even.
//! * **Min, max** of floats: a NaN in either operand gives a quiet NaN (the first NaN operand's); −0 is below
//!   +0. So the result does not depend on the order of operands but for the payload of NaNs.
//! * **Logical**: any value but zero is true (NaN too, −0 not); the result is 1 or 0.
//! * **Bitwise** operations are not defined for floats.

mod blocks;
mod elem;
mod reducer;
mod source;
mod vector;

pub use reducer::Reducer;
pub use source::{Source, Target};

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 8 bits.
    I8,
    /// Signed 16 bits.
    I16,
    /// Signed 32 bits.
    I32,
    /// Signed 64 bits.
    I64,
    /// Unsigned 8 bits.
    U8,
    /// Unsigned 16 bits.
    U16,
    /// Unsigned 32 bits.
    U32,
    /// Unsigned 64 bits.
    U64,
}

impl DataType {
    /// All types.
    pub const ALL: [Self; 12] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
    ];

    /// Bytes of an element.
    #[must_use]
    #[inline]
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    #[must_use]
    #[inline]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

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
    /// 1 if both are not zero, else 0.
    LogicalAnd,
    /// 1 if one is not zero, else 0.
    LogicalOr,
    /// 1 if exactly one is not zero, else 0.
    LogicalXor,
    /// Bits set in both.
    BitAnd,
    /// Bits set in one or both.
    BitOr,
    /// Bits set in one only.
    BitXor,
}

impl Op {
    /// All operations.
    pub const ALL: [Self; 10] = [
        Self::Sum,
        Self::Product,
        Self::Min,
        Self::Max,
        Self::LogicalAnd,
        Self::LogicalOr,
        Self::LogicalXor,
        Self::BitAnd,
        Self::BitOr,
        Self::BitXor,
    ];

    /// Whether the operation is defined for the type: bitwise ones are not for floats.
    #[must_use]
    #[inline]
    pub fn defined_for(self, dtype: DataType) -> bool {
        !(dtype.is_float() && matches!(self, Self::BitAnd | Self::BitOr | Self::BitXor))
    }
}

/// Why a reduction was refused; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The operation has no meaning for the type.
    #[error("operation {op:?} is not defined for type {dtype:?}")]
    Undefined {
        /// The type.
        dtype: DataType,
        /// The operation.
        op: Op,
    },
    /// The operands differ in length.
    #[error("cannot reduce {src} bytes into {dst} bytes")]
    Lengths {
        /// Bytes of the destination.
        dst: usize,
        /// Bytes of the source.
        src: usize,
    },
    /// The length is not a whole number of elements.
    #[error("{len} bytes are not a whole number of {dtype:?} elements")]
    Partial {
        /// Bytes given.
        len: usize,
        /// The type.
        dtype: DataType,
    },
}

/// `dst[i] = op(dst[i], src[i])` for all elements.
///
/// # Errors
/// When the operation is not defined for the type, or the lengths differ or are not whole elements.
pub fn reduce(dtype: DataType, op: Op, dst: &mut [u8], src: &[u8]) -> Result<(), KernelError> {
    combine(dtype, op, dst.into(), &[Source::OUTPUT, src.into()], false)
}

/// `out[i] = op(op(s0[i], s1[i]), s2[i]) …` for all elements and all sources in their order, in registers: the
/// same bits as one [`reduce`] after the other. No sources leave `out` as it is. `stream` writes `out` past the
/// caches where the processor can, which pays when it is larger than they are.
///
/// # Errors
/// As [`reduce`].
#[inline]
pub fn combine(
    dtype: DataType,
    op: Op,
    out: Target<'_>,
    sources: &[Source<'_>],
    stream: bool,
) -> Result<(), KernelError> {
    if !op.defined_for(dtype) {
        return Err(KernelError::Undefined { dtype, op });
    }
    let dst = out.len();
    if let Some(src) = sources.iter().find_map(|s| s.len().filter(|&l| l != dst)) {
        return Err(KernelError::Lengths { dst, src });
    }
    if !dst.is_multiple_of(dtype.size()) {
        return Err(KernelError::Partial { len: dst, dtype });
    }
    source::combine(dtype, op, out, sources, stream);
    Ok(())
}

#[cfg(test)]
mod tests;
