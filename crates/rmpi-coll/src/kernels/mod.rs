//! Reductions over bytes of a known type: `dst[i] = op(dst[i], src[i])`.
//!
//! The bytes may lie at any alignment. Meaning of the operations, the same in the vector and scalar paths:
//!
//! * **Integers**: sum and product wrap around (two's complement).
//! * **f16, bf16**: each operation is made in f32 and rounded to nearest, ties to even.
//! * **Min, max** of floats: a NaN in either operand gives a quiet NaN (the first NaN operand's); −0 is below
//!   +0. So the result does not depend on the order of operands but for the payload of NaNs.
//! * **Logical**: any value but zero is true (NaN too, −0 not); the result is 1 or 0.
//! * **Bitwise** operations are not defined for floats.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod vector;

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
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
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

impl ReduceOp {
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
        op: ReduceOp,
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
pub fn reduce(dtype: DataType, op: ReduceOp, dst: &mut [u8], src: &[u8]) -> Result<(), KernelError> {
    if !op.defined_for(dtype) {
        return Err(KernelError::Undefined { dtype, op });
    }
    if dst.len() != src.len() {
        return Err(KernelError::Lengths { dst: dst.len(), src: src.len() });
    }
    if !dst.len().is_multiple_of(dtype.size()) {
        return Err(KernelError::Partial { len: dst.len(), dtype });
    }
    #[cfg(target_arch = "x86_64")]
    if vector::reduce(dtype, op, dst, src) {
        return Ok(());
    }
    scalar::reduce(dtype, op, dst, src);
    Ok(())
}

#[cfg(test)]
mod tests;
