//! The loops: any number of operands, block by block in registers, at any alignment. Everything here is inlined
//! into its callers, so that one compiled for wider vectors ([`super::vector`]) gets them.
#![allow(unsafe_code, reason = "operands are windows of memory that other processes may write")]

use super::elem::{self, BLOCK, Bits, Brain, Elem, Fold, Half, LANE};
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

/// The element at byte `at`.
///
/// # Safety
/// As [`fold`], with the element inside.
#[inline(always)]
unsafe fn one<T: Elem, F: Fold<T>>(job: &Job<'_>, at: usize) {
    // SAFETY: the caller's promise; unaligned access needs no more.
    unsafe {
        let mut a = job.sources[0].add(at).cast::<T::Raw>().read_unaligned();
        let mut k = 1;
        while k < job.sources.len() {
            let b = job.sources[k].add(at).cast::<T::Raw>().read_unaligned();
            a = F::apply(T::widen(a), T::widen(b)).narrow();
            k += 1;
        }
        job.out.add(at).cast::<T::Raw>().write_unaligned(a);
    }
}

/// `out[i] = F(F(s0[i], s1[i]), s2[i]) …`.
///
/// # Safety
/// `out` is writable and each source readable for `len` bytes, a multiple of the element size. A source is `out`
/// itself or does not overlap it.
#[inline(always)]
unsafe fn fold<T: Elem, F: Fold<T>>(job: &Job<'_>) {
    let Job { out, sources, len, stream } = *job;
    let size = size_of::<T::Raw>();
    let mut at = 0;
    let head = out.align_offset(64);
    let stream = stream && head.is_multiple_of(size) && len > head + BLOCK;
    if stream {
        while at < head {
            // SAFETY: inside, as the caller promises.
            unsafe { one::<T, F>(job, at) };
            at += size;
        }
    }
    while len - at >= BLOCK {
        // SAFETY: a whole block is left.
        unsafe {
            let mut a = sources[0].add(at).cast::<T::Block>().read_unaligned();
            let mut k = 1;
            while k < sources.len() {
                let b = sources[k].add(at).cast::<T::Block>().read_unaligned();
                T::each::<F>(&mut a, &b);
                k += 1;
            }
            if stream {
                super::vector::store_past_caches(bytemuck::bytes_of(&a), out.add(at));
            } else {
                out.add(at).cast::<T::Block>().write_unaligned(a);
            }
        }
        at += BLOCK;
    }
    while len - at >= LANE {
        // SAFETY: a whole lane is left.
        unsafe {
            let mut a = sources[0].add(at).cast::<T::Lane>().read_unaligned();
            let mut k = 1;
            while k < sources.len() {
                let b = sources[k].add(at).cast::<T::Lane>().read_unaligned();
                T::each_lane::<F>(&mut a, &b);
                k += 1;
            }
            out.add(at).cast::<T::Lane>().write_unaligned(a);
        }
        at += LANE;
    }
    while at < len {
        // SAFETY: a whole element is left.
        unsafe { one::<T, F>(job, at) };
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
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            Op::Sum => fold::<T, elem::Sum>(job),
            Op::Product => fold::<T, elem::Product>(job),
            Op::Min => fold::<T, elem::Min>(job),
            Op::Max => fold::<T, elem::Max>(job),
            Op::LogicalAnd => fold::<T, elem::LogicalAnd>(job),
            Op::LogicalOr => fold::<T, elem::LogicalOr>(job),
            Op::LogicalXor => fold::<T, elem::LogicalXor>(job),
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
            Op::BitAnd => fold::<T, elem::BitAnd>(job),
            Op::BitOr => fold::<T, elem::BitOr>(job),
            _ => fold::<T, elem::BitXor>(job),
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
