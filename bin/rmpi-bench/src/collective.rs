//! The blocking collectives, timed as the slowest rank sees them, with the data of every size checked.

use crate::run::{Bench, BenchError};
use bytemuck::{cast_slice, cast_slice_mut};
use rmpi::Op;
use rmpi_coll::kernels::{self, DataType};
use std::time::Instant;

/// Calls of a barrier that are timed, and before.
const BARRIERS: (usize, usize) = (2000, 200);

/// Rank r's contribution to a sum: element i is `r + 1 + i % 13`.
#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
pub(crate) fn fill(data: &mut [f32], rank: u32) {
    data.iter_mut().enumerate().for_each(|(i, x)| *x = (rank + 1) as f32 + (i % 13) as f32);
}

/// Whether about 64 elements of a sum of such contributions are right; `first` is the number of the first.
#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
pub(crate) fn summed(data: &[f32], first: usize, size: u32) -> bool {
    let n = size as f32;
    let want = |i: usize| n * (n + 1.0) / 2.0 + n * ((first + i) % 13) as f32;
    let step = if data.len() > 64 { data.len() / 64 } else { 1 };
    #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
    data.iter().enumerate().step_by(step).all(|(i, &x)| x == want(i))
}

/// Bytes that cross each rank's boundary in an allreduce of `bytes`.
pub(crate) fn bus_bytes(size: u32, bytes: usize) -> f64 {
    2.0 * f64::from(size - 1) / f64::from(size) * bytes as f64
}

pub(crate) fn allreduce(b: &Bench, max: usize) -> Result<(), BenchError> {
    let (mut input, mut output) = (vec![0.0f32; max / 4], vec![0.0f32; max / 4]);
    let mut n = 4;
    while n <= max {
        let (data, sum) = (&mut input[..n / 4], &mut output[..n / 4]);
        fill(data, b.rank());
        let time = b.time(n, || Ok(b.comm().allreduce(data, sum, &Op::Sum)?))?;
        b.check("allreduce", n, summed(sum, 0, b.size()))?;
        b.report("allreduce", n, time, bus_bytes(b.size(), n))?;
        n *= 4;
    }
    Ok(())
}

/// In place, in the memory of the node. Sums of sums grow without end, so the checked one is made after the clock.
pub(crate) fn allreduce_shared(b: &Bench, max: usize) -> Result<(), BenchError> {
    let mut n = 4;
    while n <= max {
        let mut data = b.alloc(n / 4)?;
        fill(&mut data, b.rank());
        let time = b.time(n, || Ok(b.comm().allreduce_shared(&mut data, &Op::Sum)?))?;
        fill(&mut data, b.rank());
        b.comm().allreduce_shared(&mut data, &Op::Sum)?;
        b.check("allreduce", n, summed(&data, 0, b.size()))?;
        b.report("allreduce", n, time, bus_bytes(b.size(), n))?;
        n *= 4;
    }
    Ok(())
}

pub(crate) fn bcast(b: &Bench, max: usize) -> Result<(), BenchError> {
    let mut buffer = vec![0u8; max];
    let mut n = 4;
    while n <= max {
        let data = &mut buffer[..n];
        data.fill(if b.rank() == 0 { 5 } else { 0 });
        let time = b.time(n, || Ok(b.comm().bcast(data, 0)?))?;
        b.check("bcast", n, data[0] == 5 && data[n - 1] == 5)?;
        b.report("bcast", n, time, n as f64)?;
        n *= 4;
    }
    Ok(())
}

/// The byte that rank `r` sends.
fn byte(r: usize) -> u8 {
    u8::try_from((r + 1) % 256).unwrap_or(0)
}

pub(crate) fn allgather(b: &Bench, max: usize) -> Result<(), BenchError> {
    let size = b.size() as usize;
    let (mut input, mut output) = (vec![0u8; max], vec![0u8; max * size]);
    let mut n = 4;
    while n <= max {
        let (data, all) = (&mut input[..n], &mut output[..n * size]);
        data.fill(byte(b.rank() as usize));
        let time = b.time(n, || Ok(b.comm().allgather(data, all)?))?;
        let good = all.chunks(n).enumerate().all(|(r, c)| c[0] == byte(r) && c[n - 1] == byte(r));
        b.check("allgather", n, good)?;
        b.report("allgather", n, time, (n * (size - 1)) as f64)?;
        n *= 4;
    }
    Ok(())
}

pub(crate) fn reduce_scatter(b: &Bench, max: usize) -> Result<(), BenchError> {
    let size = b.size() as usize;
    let (mut input, mut output) = (vec![0.0f32; max / 4], vec![0.0f32; max / 4]);
    let mut n = 4 * size;
    while n <= max {
        let each = n / 4 / size;
        let (data, block) = (&mut input[..each * size], &mut output[..each]);
        let counts = vec![each; size];
        fill(data, b.rank());
        let time = b.time(n, || Ok(b.comm().reduce_scatter(data, block, &counts, &Op::Sum)?))?;
        b.check("reduce_scatter", n, summed(block, each * b.rank() as usize, b.size()))?;
        b.report("reduce_scatter", n, time, bus_bytes(b.size(), n) / 2.0)?;
        n *= 4;
    }
    Ok(())
}

pub(crate) fn alltoall(b: &Bench, max: usize) -> Result<(), BenchError> {
    let (size, rank) = (b.size() as usize, b.rank() as usize);
    let (mut input, mut output) = (vec![0u8; max * size], vec![0u8; max * size]);
    let mut n = 4;
    while n <= max {
        let (data, all) = (&mut input[..n * size], &mut output[..n * size]);
        data.chunks_mut(n).enumerate().for_each(|(to, c)| c.fill(byte(rank * 7 + to)));
        let time = b.time(n, || Ok(b.comm().alltoall(data, all)?))?;
        let right = |(from, c): (usize, &[u8])| [c[0], c[n - 1]] == [byte(from * 7 + rank); 2];
        b.check("alltoall", n, all.chunks(n).enumerate().all(right))?;
        b.report("alltoall", n, time, (n * (size - 1)) as f64)?;
        n *= 4;
    }
    Ok(())
}

pub(crate) fn barrier(b: &Bench) -> Result<(), BenchError> {
    for _ in 0..BARRIERS.1 {
        b.comm().barrier()?;
    }
    let start = Instant::now();
    for _ in 0..BARRIERS.0 {
        b.comm().barrier()?;
    }
    let time = b.slowest(start.elapsed())?.div_f64(BARRIERS.0 as f64);
    b.report("barrier", 0, time, 0.0)
}

/// What every rank's core makes of two arrays, all at once: no messages.
pub(crate) fn sum(b: &Bench, max: usize) -> Result<(), BenchError> {
    let (mut total, ones) = (vec![0.0f32; max / 4], vec![1.0f32; max / 4]);
    let mut n = 4;
    while n <= max {
        let (into, from) = (&mut total[..n / 4], &ones[..n / 4]);
        into.fill(0.0);
        let mut calls = 0u16;
        let time = b.time(n, || {
            calls += 1;
            kernels::reduce(DataType::F32, kernels::Op::Sum, cast_slice_mut(into), cast_slice(from))?;
            Ok(())
        })?;
        b.check("sum", n, into.iter().all(|x| *x == f32::from(calls)))?;
        b.report("sum", n, time, n as f64)?;
        n *= 4;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_recognised_and_wrong_ones_too() {
        for (len, first) in [(1, 0), (64, 0), (1000, 5), (4096, 13)] {
            let mut all = vec![0.0f32; first + len];
            fill(&mut all, 0);
            let mut other = vec![0.0f32; first + len];
            fill(&mut other, 1);
            all.iter_mut().zip(&other).for_each(|(a, o)| *a += o);
            let sum = &mut all[first..];
            assert!(summed(sum, first, 2));
            sum[0] += 1.0;
            assert!(!summed(sum, first, 2), "{len}");
        }
    }
}
