//! The meaning of every operation on every type. There is no second definition of any operation: the loops of
//! [`super::blocks`] are these functions over blocks of elements, compiled for the widths a processor has.

use half::f16;

/// Bytes that the loops handle at once: a few vectors of any width.
pub(super) const BLOCK: usize = 256;
/// Bytes of what is left that they handle at once.
pub(super) const LANE: usize = 32;

/// Arithmetic of one element type, held in memory as `Raw`.
pub(super) trait Elem: Copy {
    /// What lies in memory: any bits are a value.
    type Raw: bytemuck::Pod;
    /// [`BLOCK`] bytes of them.
    type Block: bytemuck::Pod;
    /// [`LANE`] bytes of them.
    type Lane: bytemuck::Pod;
    fn widen(raw: Self::Raw) -> Self;
    fn narrow(self) -> Self::Raw;
    fn sum(self, b: Self) -> Self;
    fn product(self, b: Self) -> Self;
    fn min(self, b: Self) -> Self;
    fn max(self, b: Self) -> Self;
    fn truth(self) -> bool;
    fn from_truth(truth: bool) -> Self;
    /// `a[i] = F(a[i], b[i])`.
    fn each<F: Fold<Self>>(a: &mut Self::Block, b: &Self::Block);
    /// The same.
    fn each_lane<F: Fold<Self>>(a: &mut Self::Lane, b: &Self::Lane);
}

/// A binary operation as a type: closures and iterator adapters are calls of functions that may not be inlined
/// into functions compiled for wider vectors, and everything here must be.
pub(super) trait Fold<T> {
    fn apply(a: T, b: T) -> T;
}

macro_rules! folds {
    ($bound:ident: $($name:ident($a:ident, $b:ident) $body:expr;)*) => {$(
        pub(super) struct $name;
        impl<T: $bound> Fold<T> for $name {
            #[inline(always)]
            fn apply($a: T, $b: T) -> T { $body }
        }
    )*};
}
folds! { Elem:
    Sum(a, b) a.sum(b);
    Product(a, b) a.product(b);
    Min(a, b) a.min(b);
    Max(a, b) a.max(b);
    LogicalAnd(a, b) T::from_truth(a.truth() & b.truth());
    LogicalOr(a, b) T::from_truth(a.truth() | b.truth());
    LogicalXor(a, b) T::from_truth(a.truth() ^ b.truth());
}
folds! { Bits:
    BitAnd(a, b) a.and(b);
    BitOr(a, b) a.or(b);
    BitXor(a, b) a.xor(b);
}

pub(super) trait Bits: Elem {
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
}

#[inline(always)]
fn each<T: Elem, F: Fold<T>, const N: usize>(a: &mut [T::Raw; N], b: &[T::Raw; N]) {
    let mut i = 0;
    while i < N {
        a[i] = F::apply(T::widen(a[i]), T::widen(b[i])).narrow();
        i += 1;
    }
}

/// The block and its loop, the same for all types.
macro_rules! block {
    ($raw:ty) => {
        block!($raw, each::<Self, F, _>);
    };
    ($raw:ty, $each:expr) => {
        type Raw = $raw;
        type Block = [$raw; BLOCK / size_of::<$raw>()];
        type Lane = [$raw; LANE / size_of::<$raw>()];
        #[inline(always)]
        fn each<F: Fold<Self>>(a: &mut Self::Block, b: &Self::Block) {
            $each(a, b);
        }
        #[inline(always)]
        fn each_lane<F: Fold<Self>>(a: &mut Self::Lane, b: &Self::Lane) {
            $each(a, b);
        }
    };
}

macro_rules! int {
    ($($t:ty),*) => {$(
        impl Elem for $t {
            block!($t);
            #[inline(always)]
            fn widen(raw: Self) -> Self { raw }
            #[inline(always)]
            fn narrow(self) -> Self { self }
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
            block!($t);
            #[inline(always)]
            fn widen(raw: Self) -> Self {
                raw
            }
            #[inline(always)]
            fn narrow(self) -> Self {
                self
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
    ($name:ident, $widen:expr, $round:expr, $($loop:tt)*) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name(pub(super) f32);
        impl Elem for $name {
            $($loop)*
            #[inline(always)]
            fn widen(raw: u16) -> Self { Self($widen(raw)) }
            #[inline(always)]
            fn narrow(self) -> u16 { $round(self.0) }
            #[inline(always)]
            fn sum(self, b: Self) -> Self { Self(self.0 + b.0) }
            #[inline(always)]
            fn product(self, b: Self) -> Self { Self(self.0 * b.0) }
            #[inline(always)]
            fn min(self, b: Self) -> Self { Self(Elem::min(self.0, b.0)) }
            #[inline(always)]
            fn max(self, b: Self) -> Self { Self(Elem::max(self.0, b.0)) }
            #[inline(always)]
            fn truth(self) -> bool { self.0 != 0.0 }
            #[inline(always)]
            fn from_truth(truth: bool) -> Self { Self(Elem::from_truth(truth)) }
        }
    };
}
narrow! { Half, half_widen, half_round, block!(u16); }
narrow! { Brain, brain_widen, brain_round, block!(u16); }
#[cfg(target_arch = "x86_64")]
narrow! {
    FastHalf, half_widen, half_round, block!(u16, super::vector::each_half::<F, _>);
}

#[inline(always)]
fn half_widen(h: u16) -> f32 {
    f16::from_bits(h).to_f32_const()
}

#[inline(always)]
fn half_round(x: f32) -> u16 {
    f16::from_f32_const(x).to_bits()
}

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
    (kept & 0xffff) as u16
}
