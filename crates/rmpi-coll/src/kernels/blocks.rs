//! The loops: any number of operands, block by block in registers, at any alignment. Everything here is inlined
//! into its callers, so that one compiled for wider vectors ([`super::vector`]) gets them.
#![allow(unsafe_code, reason = "operands are windows of memory that other processes may write")]

use super::elem::{BLOCK, Bits, Brain, Elem, Half};
use super::{DataType, Op};

/// What one call works on.
pub(super) struct Job<'a> {
    pub(super) out: *mut u8,
    /// At least one.
    pub(super) sources: &'a [*const u8],
    pub(super) len: usize,
    /// Write past the caches; see [`super::combine`].
    pub(super) stream: bool,
}

/// How binary16 is converted.
pub(super) trait HalfKind {
    type Half: Elem;
}

/// In portable code.
pub(super) struct Portable;
impl HalfKind for Portable {
    type Half = Half;
}

/// `out[i] = f(f(s0[i], s1[i]), s2[i]) …`.
///
/// # Safety
/// `out` is writable and each source readable for `len` bytes, a multiple of the element size. A source is `out`
/// itself or does not overlap it.
#[inline(always)]
unsafe fn fold<T: Elem>(job: &Job<'_>, f: impl Fn(T, T) -> T) {
    let Job { out, sources, len, stream } = *job;
    let size = size_of::<T::Raw>();
    let mut at = 0;
    let one = |at: usize| {
        // SAFETY: `at + size <= len` where this is called; unaligned access needs no more.
        unsafe {
            let read = |s: *const u8| T::widen(s.add(at).cast::<T::Raw>().read_unaligned());
            let mut a = read(sources[0]);
            for &s in &sources[1..] {
                a = T::widen(f(a, read(s)).narrow());
            }
            out.add(at).cast::<T::Raw>().write_unaligned(a.narrow());
        }
    };
    let head = out.align_offset(64);
    let stream = stream && head.is_multiple_of(size) && len > head + BLOCK;
    if stream {
        while at < head {
            one(at);
            at += size;
        }
    }
    while len - at >= BLOCK {
        // SAFETY: a whole block is left.
        unsafe {
            let mut a = sources[0].add(at).cast::<T::Block>().read_unaligned();
            for &s in &sources[1..] {
                let b = s.add(at).cast::<T::Block>().read_unaligned();
                T::each(&mut a, &b, &f);
            }
            if stream {
                super::vector::store_past_caches(bytemuck::bytes_of(&a), out.add(at));
            } else {
                out.add(at).cast::<T::Block>().write_unaligned(a);
            }
        }
        at += BLOCK;
    }
    while at < len {
        one(at);
        at += size;
    }
    if stream {
        super::vector::order_past_caches();
    }
}

/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn arithmetic<T: Elem>(op: Op, job: &Job<'_>) -> bool {
    let truth = T::from_truth;
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            Op::Sum => fold::<T>(job, T::sum),
            Op::Product => fold::<T>(job, T::product),
            Op::Min => fold::<T>(job, T::min),
            Op::Max => fold::<T>(job, T::max),
            Op::LogicalAnd => fold::<T>(job, |a, b| truth(a.truth() & b.truth())),
            Op::LogicalOr => fold::<T>(job, |a, b| truth(a.truth() | b.truth())),
            Op::LogicalXor => fold::<T>(job, |a, b| truth(a.truth() ^ b.truth())),
            Op::BitAnd | Op::BitOr | Op::BitXor => return false,
        }
    }
    true
}

/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn integer<T: Bits>(op: Op, job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        if arithmetic::<T>(op, job) {
            return;
        }
        match op {
            Op::BitAnd => fold::<T>(job, T::and),
            Op::BitOr => fold::<T>(job, T::or),
            _ => fold::<T>(job, T::xor),
        }
    }
}

/// Combines whole elements; the combination is defined (checked by the caller).
///
/// # Safety
/// `out` is writable and each of the sources, at least one, readable for `len` bytes, a multiple of the element
/// size. A source is `out` itself or does not overlap it.
#[inline(always)]
pub(super) unsafe fn combine<H: HalfKind>(dtype: DataType, op: Op, job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DataType::F64 => _ = arithmetic::<f64>(op, job),
            DataType::F32 => _ = arithmetic::<f32>(op, job),
            DataType::F16 => _ = arithmetic::<H::Half>(op, job),
            DataType::BF16 => _ = arithmetic::<Brain>(op, job),
            DataType::I8 => integer::<i8>(op, job),
            DataType::I16 => integer::<i16>(op, job),
            DataType::I32 => integer::<i32>(op, job),
            DataType::I64 => integer::<i64>(op, job),
            DataType::U8 => integer::<u8>(op, job),
            DataType::U16 => integer::<u16>(op, job),
            DataType::U32 => integer::<u32>(op, job),
            DataType::U64 => integer::<u64>(op, job),
        }
    }
}
