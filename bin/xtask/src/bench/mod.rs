//! `cargo xtask bench`: our benchmarks and those of peers in interleaved rounds, kept as JSON, drawn, reported.
//!
//! Ratios are formed inside one round only, and rounds during which the machine's cores came nearer or drifted
//! apart are made again: virtual machines move their cores between sharing a last-level cache and not, which
//! changes every figure by a factor.

mod launch;
mod line;
mod measure;
mod output;
mod peers;
mod plot;
mod report;
mod results;
mod suite;

use crate::stage::{self, say};
use std::path::PathBuf;

/// What `cargo xtask bench` is told.
#[derive(Debug)]
struct Plan {
    peers: Vec<peers::Peer>,
    suites: Vec<suite::Suite>,
    rounds: usize,
    out: PathBuf,
}

/// What `--help` says of the words.
pub(crate) const WORDS: &str = "\
  --peers FILE     command lines of MPI implementations to compare with, one a line: NAME TRANSPORT COMMAND, with
                   {np}, {mode} and {bytes} filled in; TRANSPORT is shm, tcp or any
  --suite NAME     only this one (may be repeated): latency-shm, allreduce-tcp, ...
  --rounds N       interleaved rounds (3)
  --out DIR        where results.json, the pictures and report.html go (target/bench)
  --draw           draw and report what DIR/results.json has, without measuring
  output ...       first word: how fast ranks' output comes through (output --peer NAME=COMMAND ...)
  launch ...       first word: starting and ending ranks that do nothing (launch --np N,... --peer NAME=COMMAND ...)
";

/// Measures, keeps, draws and reports: the programs in `RMPI_BIN_DIR`, or those it builds.
///
/// # Errors
/// A line saying what is wrong with the words, or which step failed.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    if let ["launch", words @ ..] = words {
        return launch::run(words);
    }
    if let ["output", words @ ..] = words {
        return output::run(words);
    }
    let mut plan =
        Plan { peers: Vec::new(), suites: suite::all(), rounds: 3, out: stage::target().join("bench") };
    let (mut only, mut draw, mut words) = (Vec::new(), false, words.iter());
    while let Some(&word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--peers" => plan.peers = peers::read(value()?.as_ref())?,
            "--suite" => only.push(value()?),
            "--rounds" => plan.rounds = value()?.parse().map_err(|_| "--rounds needs a number".to_owned())?,
            "--out" => plan.out = value()?.into(),
            "--draw" => draw = true,
            _ => return Err(format!("cargo xtask bench: {word:?} is not known\n{WORDS}")),
        }
    }
    if let Some(unknown) = only.iter().find(|n| plan.suites.iter().all(|s| s.name() != **n)) {
        let names: Vec<String> = plan.suites.iter().map(suite::Suite::name).collect();
        return Err(format!("no suite {unknown:?}: there are {}", names.join(", ")));
    }
    plan.suites.retain(|s| only.is_empty() || only.contains(&s.name().as_str()));
    std::fs::create_dir_all(&plan.out).map_err(|e| format!("{}: {e}", plan.out.display()))?;
    let kept = plan.out.join("results.json");
    let results = if draw {
        results::load(&kept)?
    } else {
        let bin = match std::env::var_os("RMPI_BIN_DIR") {
            Some(dir) => dir.into(),
            None => crate::build::release()?,
        };
        let results = measure::all(&plan, &bin);
        results::save(&results, &kept)?;
        results
    };
    for suite in &results.suites {
        plot::draw(suite, &plan.out)?;
    }
    let page = report::write(&results, &plan.out)?;
    say(&format!("xtask: report in {}", page.display()));
    Ok(())
}
