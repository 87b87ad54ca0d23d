//! `cargo xtask demo`: the main job for real, on four loopback hosts with the embedded SSH server.

use crate::build;
use crate::stage::{self, say};
use rmpi_tests::loopback::Loopback;
use std::path::Path;

const HOSTS: usize = 4;

/// Builds, then as [`run_in`].
///
/// # Errors
/// A line saying which step failed.
pub(crate) fn run() -> Result<(), String> {
    run_in(&build::release()?, &stage::target().join("demo"))
}

/// Starts the hosts with the programs in `bin`, prints the command line of the job and runs it.
///
/// # Errors
/// A line saying which step failed.
pub(crate) fn run_in(bin: &Path, dir: &Path) -> Result<(), String> {
    let hosts = Loopback::start(bin, dir, HOSTS)?;
    let file = dir.join("hostfile");
    let mut job = hosts.rmpirun();
    job.args(["-np", "8"]).arg(bin.join("train"));
    let words = std::iter::once(job.get_program()).chain(job.get_args());
    let words: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
    let lines = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    say(&format!("\n{}:\n{lines}\n$ {}\n", file.display(), words.join(" ")));
    stage::run("the job", &mut job)
}
