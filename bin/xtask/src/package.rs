//! `cargo xtask package`: one `rmpirun` file that carries its static daemon.

use crate::stage::{self, cargo, say, target};
use crate::{build, demo};
use std::fs;

const PACKAGED: [&str; 3] = ["rmpirun", "rmpi", "train"];

/// Builds `target/package` and runs the demo from it.
///
/// # Errors
/// When a build fails, the daemon is above its size limit, or the packaged files do not work.
pub(crate) fn run() -> Result<(), String> {
    const DAEMON_LIMIT: u64 = 4 << 20;
    let daemon = build::static_daemon()?;
    let size = fs::metadata(&daemon).map_err(|e| format!("{}: {e}", daemon.display()))?.len();
    say(&format!("xtask: static daemon: {size} bytes"));
    if size > DAEMON_LIMIT {
        return Err(format!("the daemon is {size} bytes, its limit is {DAEMON_LIMIT}"));
    }
    let mut build =
        cargo(&["build", "--release", "--locked", "-p", "rmpirun", "-p", "rmpi-tool", "-p", "train"]);
    stage::run("build with the daemon inside", build.env("RMPI_EMBED_DAEMON", &daemon))?;
    let out = target().join("package");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for name in PACKAGED {
        let to = out.join(name);
        // A running copy cannot be written to; a new file can take its name.
        let _ = fs::remove_file(&to);
        fs::copy(target().join("release").join(name), &to).map_err(|e| format!("{name}: {e}"))?;
    }
    for name in ["LICENSE-MIT", "LICENSE-APACHE", "README.md"] {
        fs::copy(stage::root().join(name), out.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    demo::run_in(&out, &target().join("package-demo"))?;
    say(&format!("xtask: packaged in {}", out.display()));
    Ok(())
}

/// Builds `target/package-worker`: the static programs of a worker's image (`deploy/images/worker.Dockerfile`).
///
/// # Errors
/// When a build fails or a file cannot be copied.
pub(crate) fn worker() -> Result<(), String> {
    let from = build::static_programs(&["rmpid", "rmpi-tool"])?;
    let out = target().join("package-worker");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for name in ["rmpid", "rmpi"] {
        let to = out.join(name);
        let _ = fs::remove_file(&to);
        fs::copy(from.join(name), &to).map_err(|e| format!("{name}: {e}"))?;
    }
    say(&format!("xtask: packaged in {}", out.display()));
    Ok(())
}
