//! `rmpi-bench`: micro-benchmarks of the rank library, the same work and the same lines as the usual MPI ones.
//!
//! Rank 0 prints one line a size, `<mode> np=<ranks> bytes=<b> us=<microseconds> gbs=<10^9 bytes a second>`. Every
//! mode checks the data it moves; wrong data ends the job with code 3, unusable options with code 2.

mod args;
mod collective;
mod overlap;
mod pairs;
mod run;
mod soak;

use args::{Mode, Parsed};
use rmpi::{Options, World};
use run::{Bench, BenchError};
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(args)) => args,
        Ok(Parsed::Help) => {
            let shown = std::io::stdout().write_all(args::HELP.as_bytes());
            return if shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(e) => return fail(&e.to_string(), 2),
    };
    let options = Options::new().transport(args.transport).progress_thread(args.progress_thread);
    let start = Instant::now();
    let world = match World::init_with(&options) {
        Ok(world) => world,
        Err(e) => return fail(&e.to_string(), 1),
    };
    let init = start.elapsed();
    if args.mode.of_two() && world.size() < 2 {
        return fail(&format!("{} needs at least two ranks", args.mode), 2);
    }
    let bench = Bench::new(world);
    let max = args.bytes;
    let done = match args.mode {
        Mode::Latency => pairs::latency(&bench, max.unwrap_or(4 << 20)),
        Mode::Bw => pairs::stream(&bench, "bw", 1024, max.unwrap_or(4 << 20)),
        Mode::Rate => pairs::stream(&bench, "rate", max.unwrap_or(8), max.unwrap_or(8)),
        Mode::Allreduce if args.shared => collective::allreduce_shared(&bench, max.unwrap_or(64 << 20)),
        Mode::Allreduce => collective::allreduce(&bench, max.unwrap_or(64 << 20)),
        Mode::Bcast => collective::bcast(&bench, max.unwrap_or(16 << 20)),
        Mode::Allgather => collective::allgather(&bench, max.unwrap_or(4 << 20)),
        Mode::ReduceScatter => collective::reduce_scatter(&bench, max.unwrap_or(16 << 20)),
        Mode::Alltoall => collective::alltoall(&bench, max.unwrap_or(4 << 20)),
        Mode::Barrier => collective::barrier(&bench),
        Mode::Sum => collective::sum(&bench, max.unwrap_or(16 << 20)),
        Mode::Overlap => overlap::overlap(&bench, max.unwrap_or(16 << 20), args.looks),
        Mode::Soak => soak::soak(&bench, args.seconds, args.until.as_deref(), args.seed),
        Mode::Init => bench.slowest(init).and_then(|t| bench.report("init", 0, t, 0.0)),
    };
    match done {
        Ok(()) => match bench.finish() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&e.to_string(), 1),
        },
        Err(e) => {
            let code = if matches!(e, BenchError::Wrong { .. }) { 3 } else { 1 };
            fail(&e.to_string(), code);
            bench.abort(i32::from(code), &e.to_string())
        }
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "rmpi-bench: {message}");
    ExitCode::from(code)
}
