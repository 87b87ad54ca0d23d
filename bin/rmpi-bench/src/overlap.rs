//! How much of a non-blocking allreduce passes while a rank computes.

use crate::collective::{bus_bytes, fill};
use crate::run::{Bench, BenchError};
use rmpi::{Op, Request};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rounds of arithmetic between two looks at the request, as a training step looks between two layers.
const SLICE: Duration = Duration::from_micros(20);

/// Computes for `time`, calling `look` after every slice.
fn compute(time: Duration, mut look: impl FnMut()) {
    let end = Instant::now() + time;
    let mut x = 1.0f64;
    loop {
        let slice = (Instant::now() + SLICE).min(end);
        while Instant::now() < slice {
            for _ in 0..64 {
                x = black_box(x * 1.000_000_1 + 1e-9);
            }
        }
        if slice == end {
            return;
        }
        look();
    }
}

/// For each size: the allreduce alone, then under computation that takes as long. The operation is the maximum:
/// its result may be the input of the next call. Without `looks` the computation never calls the library.
pub(crate) fn overlap(b: &Bench, max: usize, looks: bool) -> Result<(), BenchError> {
    let comm = b.comm();
    let mut n = 4;
    while n <= max {
        let mut data = vec![0.0f32; n / 4];
        fill(&mut data, b.rank());
        let mut once = |busy: Duration| {
            let mut request: Request<Vec<f32>> = comm.iallreduce(std::mem::take(&mut data), &Op::Max)?;
            compute(busy, || {
                if looks {
                    request.test();
                }
            });
            data = request.wait()?;
            Ok::<(), BenchError>(())
        };
        let alone = b.time(n, || once(Duration::ZERO))?;
        let both = b.time(n, || once(alone))?;
        let mut want = vec![0.0f32; n / 4];
        fill(&mut want, b.size() - 1);
        b.check("overlap", n, data == want)?;
        // 1 when the whole time is that of one of the two, 0 when it is their sum.
        let hidden = (2.0 - both.as_secs_f64() / alone.as_secs_f64().max(1e-9)).clamp(0.0, 1.0);
        let more = format!(" alone={:.5} hidden={hidden:.3}", alone.as_secs_f64() * 1e6);
        b.report_more("overlap", n, both, bus_bytes(b.size(), n), &more)?;
        n *= 4;
    }
    Ok(())
}
