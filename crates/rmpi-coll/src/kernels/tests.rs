//! The dispatched kernels against a reference of one element at a time, written apart from them.

use super::*;
use half::{bf16, f16};
use proptest::prelude::*;

/// The reference: decode to a wide value, operate, encode.
fn reference(dtype: DataType, op: Op, a: &[u8], b: &[u8]) -> Vec<u8> {
    macro_rules! go {
        ($t:ty, $f:expr) => {{
            let a = <$t>::from_ne_bytes(a.try_into().unwrap());
            let b = <$t>::from_ne_bytes(b.try_into().unwrap());
            $f(a, b).to_ne_bytes().to_vec()
        }};
    }
    macro_rules! int {
        ($t:ty) => {
            go!($t, |a: $t, b: $t| match op {
                Op::Sum => a.wrapping_add(b),
                Op::Product => a.wrapping_mul(b),
                Op::Min => a.min(b),
                Op::Max => a.max(b),
                Op::LogicalAnd => <$t>::from(a != 0 && b != 0),
                Op::LogicalOr => <$t>::from(a != 0 || b != 0),
                Op::LogicalXor => <$t>::from((a != 0) != (b != 0)),
                Op::BitAnd => a & b,
                Op::BitOr => a | b,
                Op::BitXor => a ^ b,
            })
        };
    }
    fn float(op: Op, a: f64, b: f64) -> f64 {
        let extreme = |least: bool| {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else if (a.total_cmp(&b).is_le()) == least {
                a
            } else {
                b
            }
        };
        let truth = |t: bool| if t { 1.0 } else { 0.0 };
        match op {
            Op::Sum => a + b,
            Op::Product => a * b,
            Op::Min => extreme(true),
            Op::Max => extreme(false),
            Op::LogicalAnd => truth(a != 0.0 && b != 0.0),
            Op::LogicalOr => truth(a != 0.0 || b != 0.0),
            Op::LogicalXor => truth((a != 0.0) != (b != 0.0)),
            _ => unreachable!("bitwise on floats"),
        }
    }
    // Sums and products of f32 are exact in f64 or round once more harmlessly (53 >= 2 * 24 + 2), and so are
    // those of the 16-bit types by way of f32.
    match dtype {
        DataType::F64 => go!(f64, |a: f64, b: f64| float(op, a, b)),
        DataType::F32 => go!(f32, |a: f32, b: f32| float(op, a.into(), b.into()) as f32),
        DataType::F16 => go!(f16, |a: f16, b: f16| f16::from_f32(float(op, a.into(), b.into()) as f32)),
        DataType::BF16 => go!(bf16, |a: bf16, b: bf16| bf16::from_f32(float(op, a.into(), b.into()) as f32)),
        DataType::I8 => int!(i8),
        DataType::I16 => int!(i16),
        DataType::I32 => int!(i32),
        DataType::I64 => int!(i64),
        DataType::U8 => int!(u8),
        DataType::U16 => int!(u16),
        DataType::U32 => int!(u32),
        DataType::U64 => int!(u64),
    }
}

/// The loops as compiled for any processor.
fn portable(dtype: DataType, op: Op, d: &mut [u8], s: &[u8]) {
    assert_eq!(d.len(), s.len());
    let out = d.as_mut_ptr();
    let job = blocks::Job { out, sources: &[out.cast_const(), s.as_ptr()], len: d.len(), stream: false };
    // SAFETY: two slices of one length, borrowed for the call.
    #[allow(unsafe_code, reason = "the loops take pointers")]
    unsafe {
        blocks::combine::<blocks::Portable>(dtype, op, &job);
    }
}

fn is_nan(dtype: DataType, bytes: &[u8]) -> bool {
    match dtype {
        DataType::F64 => f64::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        DataType::F32 => f32::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        DataType::F16 => f16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        DataType::BF16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
        _ => false,
    }
}

fn check(dtype: DataType, op: Op, a: &[u8], b: &[u8], kernel: impl Fn(&mut [u8], &[u8])) {
    let mut got = a.to_vec();
    kernel(&mut got, b);
    let n = dtype.size();
    for (i, g) in got.chunks(n).enumerate() {
        let (a, b) = (&a[i * n..][..n], &b[i * n..][..n]);
        let want = reference(dtype, op, a, b);
        let same = g == want || (is_nan(dtype, g) && is_nan(dtype, &want));
        assert!(same, "{dtype:?} {op:?} element {i}: {a:x?} {b:x?} -> {g:x?}, want {want:x?}");
    }
}

/// Bits that matter: zeros, ones, infinities, NaNs, subnormals, extremes and noise.
fn material(dtype: DataType, count: usize, mut seed: u64) -> Vec<u8> {
    let n = dtype.size();
    let mut out = Vec::new();
    for _ in 0..count {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (seed ^ (seed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let float = |x: f32| match dtype {
            DataType::F64 => f64::from(x).to_bits(),
            DataType::F32 => u64::from(x.to_bits()),
            DataType::F16 => u64::from(f16::from_f32(x).to_bits()),
            DataType::BF16 => u64::from(bf16::from_f32(x).to_bits()),
            _ => x as i64 as u64,
        };
        let value = match (seed >> 40) % 16 {
            0 => 0,
            1 => float(-0.0),
            2 => float(f32::INFINITY),
            3 => float(f32::NEG_INFINITY),
            4 => float(f32::NAN),
            5 => 1,
            6..=11 => float(((noise >> 44) as f32 - 500_000.0) / 777.0),
            _ => noise,
        };
        out.extend_from_slice(&value.to_le_bytes()[..n]);
    }
    out
}

#[test]
fn every_type_and_operation_agrees_with_the_reference() {
    for dtype in DataType::ALL {
        for op in Op::ALL {
            for count in [0usize, 1, 2, 3, 7, 8, 9, 31, 64, 257] {
                let a = material(dtype, count, 1 + count as u64);
                let b = material(dtype, count, 1000 + count as u64);
                if !op.defined_for(dtype) {
                    let refused = reduce(dtype, op, &mut a.clone(), &b);
                    assert_eq!(refused, Err(KernelError::Undefined { dtype, op }));
                    continue;
                }
                check(dtype, op, &a, &b, |d, s| reduce(dtype, op, d, s).unwrap());
                check(dtype, op, &a, &b, |d, s| portable(dtype, op, d, s));
            }
        }
    }
}

#[test]
fn all_pairs_of_16_bit_specials_agree_with_the_reference() {
    let specials: Vec<u16> =
        (0..=u16::MAX).step_by(523).chain([0x7c00, 0xfc00, 0x7c01, 1, 0x8001, 0x7f80]).collect();
    for dtype in [DataType::F16, DataType::BF16] {
        for op in [Op::Sum, Op::Product, Op::Min, Op::Max] {
            for &a in &specials {
                let a: Vec<u8> = specials.iter().flat_map(|_| a.to_ne_bytes()).collect();
                let b: Vec<u8> = specials.iter().flat_map(|b| b.to_ne_bytes()).collect();
                check(dtype, op, &a, &b, |d, s| reduce(dtype, op, d, s).unwrap());
            }
        }
    }
}

#[test]
fn lengths_are_checked() {
    let sum = |d: &mut [u8], s: &[u8]| reduce(DataType::I32, Op::Sum, d, s);
    assert_eq!(sum(&mut [0; 8], &[0; 4]), Err(KernelError::Lengths { dst: 8, src: 4 }));
    assert_eq!(sum(&mut [0; 6], &[0; 6]), Err(KernelError::Partial { len: 6, dtype: DataType::I32 }));
}

proptest! {
    #[test]
    fn alignment_does_not_matter(d in 0usize..16, s in 0usize..16, count in 0usize..70, seed: u64, t in 0usize..12) {
        let dtype = DataType::ALL[t];
        let (a, b) = (material(dtype, count, seed), material(dtype, count, !seed));
        check(dtype, Op::Sum, &a, &b, |dst, src| {
            let (mut to, mut from) = (vec![0xaa; d], vec![0; s]);
            to.extend_from_slice(dst);
            to.push(0xaa);
            from.extend_from_slice(src);
            let end = d + dst.len();
            reduce(dtype, Op::Sum, &mut to[d..end], &from[s..]).unwrap();
            assert!(to[..d].iter().all(|&x| x == 0xaa) && to[end] == 0xaa);
            dst.copy_from_slice(&to[d..end]);
        });
    }
}

/// Several operands at once, written past the caches or not, give the same bits as one after the other.
#[test]
fn many_operands_combine_in_their_order() {
    for dtype in DataType::ALL {
        for op in Op::ALL.into_iter().filter(|op| op.defined_for(dtype)) {
            for (operands, count) in [(1, 5), (2, 3), (3, 700), (4, 64), (17, 130), (40, 33)] {
                let data: Vec<Vec<u8>> = (0..operands).map(|k| material(dtype, count, 7 * k + 1)).collect();
                let mut want = data[0].clone();
                data[1..].iter().for_each(|d| reduce(dtype, op, &mut want, d).unwrap());
                for (own, stream) in
                    [(None, false), (None, true), (Some(0), false), (Some(operands / 2), true)]
                {
                    let own = own.map(|k| usize::try_from(k).unwrap());
                    let mut out = own.map_or(vec![0xaa; want.len()], |k| data[k].clone());
                    let sources: Vec<Source<'_>> = (0..)
                        .zip(&data)
                        .map(|(k, d)| if own == Some(k) { Source::OUTPUT } else { Source::from(&d[..]) })
                        .collect();
                    combine(dtype, op, (&mut out[..]).into(), &sources, stream).unwrap();
                    assert!(
                        out == want,
                        "{dtype:?} {op:?} {operands} operands, own {own:?}, stream {stream}"
                    );
                }
            }
        }
    }
}
