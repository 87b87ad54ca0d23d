//! Building the programs.

use crate::stage::{self, cargo, target};
use std::path::PathBuf;

/// The packages users run.
const PROGRAMS: [&str; 5] = ["rmpirun", "rmpid", "rmpi-tool", "rmpi-bench", "train"];

/// Builds the release programs and returns their folder.
///
/// # Errors
/// When the build fails.
pub(crate) fn release() -> Result<PathBuf, String> {
    let mut build = cargo(&["build", "--release", "--locked"]);
    PROGRAMS.iter().for_each(|p| {
        build.args(["-p", p]);
    });
    stage::run("build the programs", &mut build)?;
    Ok(target().join("release"))
}

/// Builds the daemon as one static file and returns it.
///
/// # Errors
/// When the build fails.
pub(crate) fn static_daemon() -> Result<PathBuf, String> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo(&["build", "--release", "--locked", "-p", "rmpid", "--target", &triple]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    stage::run("build the static daemon", &mut build)?;
    Ok(target().join(triple).join("release/rmpid"))
}
