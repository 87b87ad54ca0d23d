//! What all modes share: iterations by size, the slowest rank's time, lines, and the end.

use rmpi::{Communicator, Op, World};
use std::io::Write;
use std::time::{Duration, Instant};

/// Why a benchmark ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The library failed.
    #[error(transparent)]
    Rank(#[from] rmpi::Error),
    /// Data arrived changed.
    #[error("wrong data in {mode} at {bytes} bytes on rank {rank}")]
    Wrong {
        /// The mode.
        mode: &'static str,
        /// The size.
        bytes: usize,
        /// The rank that saw it.
        rank: u32,
    },
    /// The sum is not defined.
    #[error(transparent)]
    Kernel(#[from] rmpi_coll::kernels::KernelError),
    /// Nobody reads the results.
    #[error("writing results: {0}")]
    Write(#[from] std::io::Error),
}

/// Timed calls of one size; they shrink as sizes grow.
pub(crate) fn iterations(bytes: usize) -> usize {
    match bytes {
        0..=1024 => 2000,
        1025..=65_536 => 500,
        65_537..=1_048_576 => 100,
        1_048_577..=16_777_216 => 20,
        _ => 5,
    }
}

/// Calls before the clock starts.
pub(crate) fn warm_up(iterations: usize) -> usize {
    iterations / 10 + 1
}

/// The job, and where results go.
pub(crate) struct Bench {
    world: World,
}

impl Bench {
    pub(crate) fn new(world: World) -> Self {
        Self { world }
    }

    pub(crate) fn comm(&self) -> &Communicator {
        self.world.comm()
    }

    pub(crate) fn rank(&self) -> u32 {
        self.world.rank()
    }

    pub(crate) fn size(&self) -> u32 {
        self.world.size()
    }

    /// A buffer in the memory of this rank's node.
    pub(crate) fn alloc(&self, len: usize) -> Result<rmpi::Shared<f32>, BenchError> {
        Ok(self.world.alloc(len)?)
    }

    /// One line, from rank 0; `time` per call.
    pub(crate) fn report(
        &self,
        mode: &str,
        bytes: usize,
        time: Duration,
        moved: f64,
    ) -> Result<(), BenchError> {
        self.report_more(mode, bytes, time, moved, "")
    }

    /// The same with more at the end of the line.
    pub(crate) fn report_more(
        &self,
        mode: &str,
        bytes: usize,
        time: Duration,
        moved: f64,
        more: &str,
    ) -> Result<(), BenchError> {
        if self.rank() > 0 {
            return Ok(());
        }
        let us = time.as_secs_f64() * 1e6;
        let gbs = if us > 0.0 { moved / us / 1e3 } else { 0.0 };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{mode} np={} bytes={bytes} us={us:.5} gbs={gbs:.5}{more}", self.size())?;
        Ok(out.flush()?)
    }

    /// The longest of all ranks' times.
    pub(crate) fn slowest(&self, time: Duration) -> Result<Duration, BenchError> {
        let mut most = [0.0f64];
        self.comm().allreduce(&[time.as_secs_f64()], &mut most, &Op::Max)?;
        Ok(Duration::from_secs_f64(most[0].max(0.0)))
    }

    /// Times `call`, all ranks starting together after a warm-up: the slowest rank's time of one call.
    pub(crate) fn time(
        &self,
        bytes: usize,
        mut call: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Duration, BenchError> {
        let n = iterations(bytes);
        self.comm().barrier()?;
        for _ in 0..warm_up(n) {
            call()?;
        }
        self.comm().barrier()?;
        let start = Instant::now();
        for _ in 0..n {
            call()?;
        }
        Ok(self.slowest(start.elapsed())?.div_f64(n as f64))
    }

    /// A line of its own, from rank 0.
    pub(crate) fn say(&self, line: &str) -> Result<(), BenchError> {
        if self.rank() == 0 {
            writeln!(std::io::stdout(), "{line}")?;
        }
        Ok(())
    }

    /// An error when data is wrong; the whole job ends with code 3 then.
    pub(crate) fn check(&self, mode: &'static str, bytes: usize, good: bool) -> Result<(), BenchError> {
        if good { Ok(()) } else { Err(BenchError::Wrong { mode, bytes, rank: self.rank() }) }
    }

    /// Ends the whole job with `code`.
    pub(crate) fn abort(self, code: i32, message: &str) -> ! {
        self.world.abort(code, message)
    }

    pub(crate) fn finish(self) -> Result<(), BenchError> {
        Ok(self.world.finalize()?)
    }
}
