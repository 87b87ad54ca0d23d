//! `cargo xtask fuzz`: the seeds of `fuzz/corpus` through every target, then each target under libFuzzer.

use crate::stage::{self, cargo, have, say};
use std::fs;
use std::process::Command;

/// Longest time for one input, and memory for one target, before either is a finding.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=512"];

/// Replays the seeds and fuzzes every target for `seconds`.
///
/// # Errors
/// The targets that found something, or a stage that failed.
pub(crate) fn run(seconds: &str) -> Result<(), String> {
    let seconds: u32 = seconds.parse().map_err(|_| format!("{seconds:?} is not a number of seconds"))?;
    let dir = stage::root().join("fuzz");
    let mut replay = cargo(&["test", "--no-default-features", "--test", "replay"]);
    stage::run("replay of the seeds", replay.current_dir(&dir))?;
    if !cargo(&["fuzz", "--version"]).output().is_ok_and(|o| o.status.success()) {
        say("xtask: skipped: coverage-guided fuzzing (cargo install cargo-fuzz)");
        return Ok(());
    }
    if !have("c++") {
        say("xtask: skipped: coverage-guided fuzzing (no C++ compiler for libFuzzer)");
        return Ok(());
    }
    stage::run("build the fuzz targets", &mut fuzz(&["build"]))?;
    let entries = fs::read_dir(dir.join("corpus")).map_err(|e| format!("fuzz/corpus: {e}"))?;
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    let found: Vec<&String> = names.iter().filter(|name| one(name, seconds).is_err()).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("xtask: findings in {found:?}; see fuzz/artifacts")) }
}

/// Cargo-fuzz; our compiler is a stable one, so its unstable flags must be allowed. `-O`: what is asserted is the profile's
/// to say; without it cargo-fuzz switches the assertions of all packages on, those that `fuzz/Cargo.toml` leaves out too.
fn fuzz(args: &[&str]) -> Command {
    let mut command = cargo(&["fuzz"]);
    command.args(args).args(["-O", "--fuzz-dir", "fuzz"]).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// One target. What it learns goes to the target folder, so that the committed seeds stay few.
fn one(name: &str, seconds: u32) -> Result<(), String> {
    let learned = stage::target().join("fuzz-corpus").join(name);
    fs::create_dir_all(&learned).map_err(|e| format!("{}: {e}", learned.display()))?;
    let seeds = stage::root().join("fuzz/corpus").join(name);
    let mut command = fuzz(&["run", name]);
    command.arg(learned).arg(seeds).arg("--").arg(format!("-max_total_time={seconds}"));
    command.args(LIMITS).args(["-max_len=4096", "-verbosity=0", "-print_final_stats=1"]);
    stage::run(&format!("fuzz {name}"), &mut command)
}
