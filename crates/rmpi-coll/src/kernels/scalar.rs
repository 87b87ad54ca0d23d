//! The meaning of every operation on every type, as loops over whole elements that the compiler can turn
//! into vector code. [`reduce`] is inlined into each caller, so that a caller compiled for wider vectors
//! ([`super::vector`]) gets them; there is no second definition of any operation.

use super::{DataType, ReduceOp};
use half::f16;

/// Arithmetic of one element type. `load` and `store` take exactly `SIZE` bytes.
trait Elem: Copy {
    const SIZE: usize;
    fn load(bytes: &[u8]) -> Self;
    fn store(self, bytes: &mut [u8]);
    fn sum(self, b: Self) -> Self;
    fn product(self, b: Self) -> Self;
    fn min(self, b: Self) -> Self;
    fn max(self, b: Self) -> Self;
    fn truth(self) -> bool;
    fn from_truth(truth: bool) -> Self;
}

trait Bits: Elem {
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
}

macro_rules! int {
    ($($t:ty),*) => {$(
        impl Elem for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$t>()];
                raw.copy_from_slice(bytes);
                Self::from_ne_bytes(raw)
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) { bytes.copy_from_slice(&self.to_ne_bytes()); }
            #[inline(always)]
            fn sum(self, b: Self) -> Self { self.wrapping_add(b) }
            #[inline(always)]
            fn product(self, b: Self) -> Self { self.wrapping_mul(b) }
            #[inline(always)]
            fn min(self, b: Self) -> Self { Ord::min(self, b) }
            #[inline(always)]
            fn max(self, b: Self) -> Self { Ord::max(self, b) }
            #[inline(always)]
            fn truth(self) -> bool { self != 0 }
            #[inline(always)]
            fn from_truth(truth: bool) -> Self { Self::from(truth) }
        }
        impl Bits for $t {
            #[inline(always)]
            fn and(self, b: Self) -> Self { self & b }
            #[inline(always)]
            fn or(self, b: Self) -> Self { self | b }
            #[inline(always)]
            fn xor(self, b: Self) -> Self { self ^ b }
        }
    )*};
}
int!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! float {
    ($t:ty, $bits:ty) => {
        impl Elem for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                <$t>::from_bits(<$bits as Elem>::load(bytes))
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                Elem::store(self.to_bits(), bytes);
            }
            #[inline(always)]
            fn sum(self, b: Self) -> Self {
                self + b
            }
            #[inline(always)]
            fn product(self, b: Self) -> Self {
                self * b
            }
            #[inline(always)]
            fn min(self, b: Self) -> Self {
                // Equal floats differ in bits only when they are the two zeros.
                let either = <$t>::from_bits(self.to_bits() | b.to_bits());
                let least = if self < b {
                    self
                } else if b < self {
                    b
                } else {
                    either
                };
                nan_or(self, b, least)
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                let both = <$t>::from_bits(self.to_bits() & b.to_bits());
                let most = if self > b {
                    self
                } else if b > self {
                    b
                } else {
                    both
                };
                nan_or(self, b, most)
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self != 0.0
            }
            #[inline(always)]
            fn from_truth(truth: bool) -> Self {
                if truth { 1.0 } else { 0.0 }
            }
        }
        impl Quiet for $t {
            #[inline(always)]
            fn quiet(self) -> Self {
                const QUIET: $bits = 1 << (<$t>::MANTISSA_DIGITS - 2);
                <$t>::from_bits(self.to_bits() | QUIET)
            }
            #[inline(always)]
            fn nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
float!(f32, u32);
float!(f64, u64);

trait Quiet: Copy {
    fn quiet(self) -> Self;
    fn nan(self) -> bool;
}

#[inline(always)]
fn nan_or<T: Quiet>(a: T, b: T, else_: T) -> T {
    if a.nan() {
        a.quiet()
    } else if b.nan() {
        b.quiet()
    } else {
        else_
    }
}

/// A 16-bit float widened: every operation is that of f32, rounded when stored.
macro_rules! narrow {
    ($name:ident, $widen:expr, $round:expr) => {
        #[derive(Clone, Copy)]
        struct $name(f32);
        impl Elem for $name {
            const SIZE: usize = 2;
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                Self($widen(<u16 as Elem>::load(bytes)))
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                Elem::store($round(self.0), bytes);
            }
            #[inline(always)]
            fn sum(self, b: Self) -> Self {
                Self(self.0 + b.0)
            }
            #[inline(always)]
            fn product(self, b: Self) -> Self {
                Self(self.0 * b.0)
            }
            #[inline(always)]
            fn min(self, b: Self) -> Self {
                Self(Elem::min(self.0, b.0))
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                Self(Elem::max(self.0, b.0))
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self.0 != 0.0
            }
            #[inline(always)]
            fn from_truth(truth: bool) -> Self {
                Self(Elem::from_truth(truth))
            }
        }
    };
}
narrow!(Half, |h| f16::from_bits(h).to_f32_const(), |x| f16::from_f32_const(x).to_bits());
narrow!(Brain, brain_widen, brain_round);

#[inline(always)]
fn brain_widen(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}

/// To nearest, ties to even; NaN stays NaN, made quiet.
#[inline(always)]
fn brain_round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let kept = if x.is_nan() { (bits >> 16) | 0x40 } else { rounded };
    u16::try_from(kept & 0xffff).unwrap_or(0)
}

#[inline(always)]
fn each<T: Elem>(dst: &mut [u8], src: &[u8], op: impl Fn(T, T) -> T) {
    for (d, s) in dst.chunks_exact_mut(T::SIZE).zip(src.chunks_exact(T::SIZE)) {
        op(T::load(d), T::load(s)).store(d);
    }
}

#[inline(always)]
fn arithmetic<T: Elem>(op: ReduceOp, dst: &mut [u8], src: &[u8]) -> bool {
    let truth = T::from_truth;
    match op {
        ReduceOp::Sum => each::<T>(dst, src, T::sum),
        ReduceOp::Product => each::<T>(dst, src, T::product),
        ReduceOp::Min => each::<T>(dst, src, T::min),
        ReduceOp::Max => each::<T>(dst, src, T::max),
        ReduceOp::LogicalAnd => each::<T>(dst, src, |a, b| truth(a.truth() & b.truth())),
        ReduceOp::LogicalOr => each::<T>(dst, src, |a, b| truth(a.truth() | b.truth())),
        ReduceOp::LogicalXor => each::<T>(dst, src, |a, b| truth(a.truth() ^ b.truth())),
        ReduceOp::BitAnd | ReduceOp::BitOr | ReduceOp::BitXor => return false,
    }
    true
}

#[inline(always)]
fn integer<T: Bits>(op: ReduceOp, dst: &mut [u8], src: &[u8]) {
    if arithmetic::<T>(op, dst, src) {
        return;
    }
    match op {
        ReduceOp::BitAnd => each::<T>(dst, src, T::and),
        ReduceOp::BitOr => each::<T>(dst, src, T::or),
        _ => each::<T>(dst, src, T::xor),
    }
}

/// Reduces whole elements; the combination is defined and the lengths agree (checked by the caller).
#[inline(always)]
pub(super) fn reduce(dtype: DataType, op: ReduceOp, dst: &mut [u8], src: &[u8]) {
    match dtype {
        DataType::F64 => _ = arithmetic::<f64>(op, dst, src),
        DataType::F32 => _ = arithmetic::<f32>(op, dst, src),
        DataType::F16 => _ = arithmetic::<Half>(op, dst, src),
        DataType::BF16 => _ = arithmetic::<Brain>(op, dst, src),
        DataType::I8 => integer::<i8>(op, dst, src),
        DataType::I16 => integer::<i16>(op, dst, src),
        DataType::I32 => integer::<i32>(op, dst, src),
        DataType::I64 => integer::<i64>(op, dst, src),
        DataType::U8 => integer::<u8>(op, dst, src),
        DataType::U16 => integer::<u16>(op, dst, src),
        DataType::U32 => integer::<u32>(op, dst, src),
        DataType::U64 => integer::<u64>(op, dst, src),
    }
}
