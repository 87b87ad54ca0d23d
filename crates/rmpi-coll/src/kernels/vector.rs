//! The loops compiled for the vectors this processor has: AVX-512, AVX2 with F16C's conversions of binary16, or
//! what every processor of the architecture has. Chosen when called.
#![allow(unsafe_code, reason = "calls of functions compiled for processor features")]

use super::blocks::{self, Job, Portable};
use super::{DataType, Op};

#[cfg(target_arch = "x86_64")]
use super::blocks::HalfKind;
#[cfg(target_arch = "x86_64")]
use super::elem::{FastHalf, Fold, LANE};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, __m256i, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_sfence, _mm_storeu_si128,
    _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_storeu_ps,
};

/// Combines with the widest vectors there are.
///
/// # Safety
/// As [`blocks::combine`].
pub(super) unsafe fn combine(dtype: DataType, op: Op, job: &Job<'_>) {
    // The macros cache: each is one load and test.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        let widest = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        // SAFETY: the features that each function is compiled for were found just above; the rest is the
        // caller's promise.
        return unsafe { if widest { widest_loops(dtype, op, job) } else { wide_loops(dtype, op, job) } };
    }
    // SAFETY: the caller's promise.
    unsafe { blocks::combine::<Portable>(dtype, op, &Job { stream: false, ..*job }) }
}

/// Binary16 converted eight at a time; only for functions compiled with F16C.
#[cfg(target_arch = "x86_64")]
struct F16c;
#[cfg(target_arch = "x86_64")]
impl HalfKind for F16c {
    type Half = FastHalf;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn wide_loops(dtype: DataType, op: Op, job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { blocks::combine::<F16c>(dtype, op, job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")]
unsafe fn widest_loops(dtype: DataType, op: Op, job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { blocks::combine::<F16c>(dtype, op, job) }
}

/// Elements converted at once; all that is handled is a multiple of them.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 8;
#[cfg(target_arch = "x86_64")]
const _: () = assert!((LANE / 2).is_multiple_of(LANES));

/// `a[i] = F(a[i], b[i])` on binary16 by way of f32. Reached only through [`F16c`], that is, inlined into
/// functions compiled with the feature.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn each_half<F: Fold<FastHalf>, const N: usize>(a: &mut [u16; N], b: &[u16; N]) {
    let mut at = 0;
    while at < N {
        let (mut x, mut y) = ([0.0f32; LANES], [0.0f32; LANES]);
        // SAFETY: the features avx2 and f16c were found before any function that uses `F16c` was entered; the
        // unaligned loads and stores are of 8 elements inside the arrays.
        unsafe {
            let (p, q) = (a.as_ptr().add(at).cast::<__m128i>(), b.as_ptr().add(at).cast::<__m128i>());
            _mm256_storeu_ps(x.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(p)));
            _mm256_storeu_ps(y.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(q)));
        }
        let mut i = 0;
        while i < LANES {
            x[i] = F::apply(FastHalf(x[i]), FastHalf(y[i])).0;
            i += 1;
        }
        // SAFETY: as above.
        unsafe {
            let packed = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(a.as_mut_ptr().add(at).cast::<__m128i>(), packed);
        }
        at += LANES;
    }
}

/// Writes a block past the caches.
///
/// # Safety
/// `out` is writable for the block's length, aligned to 64 bytes; avx2 was found.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn store_past_caches(block: &[u8], out: *mut u8) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm256_stream_si256};
    let mut at = 0;
    while at + 32 <= block.len() {
        // SAFETY: the caller's promise; 32 bytes of the block are left.
        unsafe {
            let value = _mm256_loadu_si256(block.as_ptr().add(at).cast::<__m256i>());
            _mm256_stream_si256(out.add(at).cast::<__m256i>(), value);
        }
        at += 32;
    }
}

/// Orders what was written past the caches before all that follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn order_past_caches() {
    // SAFETY: every processor of the architecture has SSE.
    unsafe { _mm_sfence() }
}

/// Other processors have no such stores here: [`combine`] never asks for them.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn store_past_caches(block: &[u8], out: *mut u8) {
    // SAFETY: the caller's promise: `out` is writable for the block's length.
    unsafe { std::ptr::copy_nonoverlapping(block.as_ptr(), out, block.len()) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn order_past_caches() {}
