//! The scalar loops compiled for AVX2, and binary16 eight at a time by F16C's conversions. The only unsafe
//! code of this crate: calls of functions that need processor features, made after those were found.
#![allow(unsafe_code, reason = "calls of functions compiled for processor features")]

use super::{DataType, ReduceOp, scalar};
use std::arch::x86_64::{
    __m128i, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_loadu_ps, _mm256_storeu_ps,
};

/// Reduces as [`scalar::reduce`] does; `false`, with nothing written, when the processor lacks the features.
pub(super) fn reduce(dtype: DataType, op: ReduceOp, dst: &mut [u8], src: &[u8]) -> bool {
    // The macro caches: this is one load and test.
    if !is_x86_feature_detected!("avx2") {
        return false;
    }
    if dtype == DataType::F16 {
        if !is_x86_feature_detected!("f16c") {
            return false;
        }
        // SAFETY: the features that `half` is compiled for, avx2 and f16c, were found just above.
        unsafe { half(op, dst, src) };
    } else {
        // SAFETY: the feature that `wide` is compiled for, avx2, was found just above.
        unsafe { wide(dtype, op, dst, src) };
    }
    true
}

#[target_feature(enable = "avx2")]
fn wide(dtype: DataType, op: ReduceOp, dst: &mut [u8], src: &[u8]) {
    scalar::reduce(dtype, op, dst, src);
}

/// Elements converted at once.
const LANES: usize = 8;

#[target_feature(enable = "avx2,f16c")]
fn half(op: ReduceOp, dst: &mut [u8], src: &[u8]) {
    let mut blocks = dst.chunks_exact_mut(2 * LANES);
    let mut others = src.chunks_exact(2 * LANES);
    for (d, s) in (&mut blocks).zip(&mut others) {
        let mut a = widen(d);
        let b = widen(s);
        scalar::reduce(DataType::F32, op, bytemuck::bytes_of_mut(&mut a), bytemuck::bytes_of(&b));
        narrow(&a, d);
    }
    scalar::reduce(DataType::F16, op, blocks.into_remainder(), others.remainder());
}

/// # Panics
/// When `bytes` is not 16 bytes long.
#[target_feature(enable = "avx2,f16c")]
fn widen(bytes: &[u8]) -> [f32; LANES] {
    assert_eq!(bytes.len(), 2 * LANES);
    let mut out = [0.0; LANES];
    // SAFETY: the unaligned load reads the 16 bytes whose number was asserted; the unaligned store fills the
    // 32 bytes of `out`.
    unsafe {
        let packed = _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>());
        _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(packed));
    }
    out
}

/// # Panics
/// When `bytes` is not 16 bytes long.
#[target_feature(enable = "avx2,f16c")]
fn narrow(values: &[f32; LANES], bytes: &mut [u8]) {
    assert_eq!(bytes.len(), 2 * LANES);
    // SAFETY: the unaligned load reads the 32 bytes of `values`; the unaligned store fills the 16 bytes whose
    // number was asserted.
    unsafe {
        let packed = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(values.as_ptr()));
        _mm_storeu_si128(bytes.as_mut_ptr().cast::<__m128i>(), packed);
    }
}
