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
    Ok(static_programs(&["rmpid"])?.join("rmpid"))
}

/// Builds packages as static files and returns their folder.
///
/// # Errors
/// When the build fails.
pub(crate) fn static_programs(packages: &[&str]) -> Result<PathBuf, String> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo(&["build", "--release", "--locked", "--target", &triple]);
    for package in packages {
        build.args(["-p", package]);
    }
    build.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    stage::run(&format!("build static {}", packages.join(" and ")), &mut build)?;
    Ok(target().join(triple).join("release"))
}
